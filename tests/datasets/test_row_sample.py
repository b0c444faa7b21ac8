"""The rows by which columns are chosen come from every file, and from all that is read of it."""

import io

import datasets
import numpy as np
import pytest
from listed_records import ListedRecords

from dendritic_bert.datasets import row_sample
from dendritic_bert.datasets.hub import HubRecords
from dendritic_bert.datasets.other_records import KeptRecords, NamedRecords
from dendritic_bert.datasets.row_sample import draw_sample
from dendritic_bert.inference.readers import open_records


def write(path, rows):
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    return str(path)


@pytest.fixture(params=["files", "streams", "named"])
def open_all(request, tmp_path):
    def opened(paths):
        if request.param == "files":
            return open_records(paths)
        if request.param == "named":
            return NamedRecords(open_records(paths), [{} for _ in paths])
        with open(paths[0], "rb") as first:
            return KeptRecords(open_records([io.BytesIO(first.read()), *paths[1:]], "csv"), tmp_path)

    return opened


def test_a_small_table_is_the_sample(tmp_path, open_all):
    path = write(tmp_path / "a.csv", [["n", "x"], *([str(number), "a"] for number in range(900))])
    sample = draw_sample(open_all([path]), ["n", "x"])
    assert sample.columns == {"n": list(map(str, range(900))), "x": ["a"] * 900}
    assert sample.is_whole


def test_rows_of_every_file_and_of_every_part(tmp_path, open_all):
    """Also where the rows alternate, which every second row would not show."""
    paths = [write(tmp_path / f"{file}.csv", [["n", "x"], *([str(number), "ab"[number % 2]] for number in range(
        file * 3000, file * 3000 + 3000))]) for file in range(4)]
    sample = draw_sample(open_all(paths), ["n", "x"])
    numbers = np.array(sample.columns["n"], int)
    assert len(numbers) == row_sample.SAMPLE_ROWS
    assert sample.is_whole
    assert (np.diff(numbers) > 0).all()
    assert (np.bincount(numbers // 1000) > 50).all()  # about 83 of each of the twelve parts
    assert 0.4 < sample.columns["x"].count("a") / len(numbers) < 0.6


def test_a_value_of_one_row_in_thousands_is_seen(tmp_path, open_all):
    labels = [""] * 2000 + ["a"] * 3000 + ["b"] + ["a"] * 2000
    path = write(tmp_path / "a.csv", [["n", "x"], *([str(number), label] for number, label in enumerate(labels))])
    assert {"", "a", "b"} == set(draw_sample(open_all([path]), ["n", "x"]).columns["x"])


def test_no_file_is_read_to_its_end(tmp_path, open_all, monkeypatch):
    monkeypatch.setattr(row_sample, "BATCH_ROWS", 1024)
    monkeypatch.setattr(row_sample, "HEAD_BATCHES", 4)
    paths = [write(tmp_path / f"{file}.csv", [["n"], *([str(number)] for number in range(
        file * 9000, file * 9000 + 9000))]) for file in range(2)]
    sample = draw_sample(open_all(paths), ["n"])
    numbers = np.array(sample.columns["n"], int)
    assert not sample.is_whole
    assert set(numbers // 9000) == {0, 1}
    assert (numbers % 9000).max() < 2048


def test_columns_that_a_file_lacks_or_has_twice(tmp_path):
    paths = [write(tmp_path / "a.csv", [["n", "x"], ["1", "a"]]), write(tmp_path / "b.csv", [["x"], ["b"]]),
             write(tmp_path / "c.csv", [["n", "x", "x"], ["3", "c", "d"]]),
             write(tmp_path / "d.csv", [["y"], ["e"]])]
    assert draw_sample(open_records(paths), ["n", "x"]).columns == {"n": ["1", None, "3"], "x": ["a", "b", None]}


def test_records_that_were_left_out_are_counted(tmp_path):
    paths = [write(tmp_path / f"{name}.csv", [["n", "x"], ["1"], ["2"]]) for name in "ab"]
    sample = draw_sample(open_records(paths, on_error="skip"), ["n", "x"])
    assert sample.columns == {"n": [], "x": []}
    assert sample.position.num_malformed == 4
    assert f"{paths[0]}, line 2" in sample.position.first_malformed


def test_a_stream_without_rows(tmp_path):
    assert draw_sample(KeptRecords(open_records(io.BytesIO(b"n,x\n"), "csv"), tmp_path), ["n"]).columns == {"n": []}


def test_rows_of_the_hub_and_of_lists(monkeypatch):
    """Of a data set that is sorted by class, as IMDB is, the sample has rows of both however little is read."""
    monkeypatch.setattr(row_sample, "BATCH_ROWS", 10)
    monkeypatch.setattr(row_sample, "HEAD_BATCHES", 8)
    table = datasets.Dataset.from_dict({"n": list(range(400)), "x": ["a"] * 200 + ["b"] * 200})
    sample = draw_sample(HubRecords(table, "d"), ["n", "x"])
    assert len(set(sample.columns["n"])) == 80
    assert set(sample.columns["x"]) == {"a", "b"}
    assert not sample.is_whole
    assert draw_sample(ListedRecords({"n": [1, 2]}), ["n"]).columns == {"n": [1, 2]}
