"""Streams that are read but once, and files whose classes have their names, as the library ``datasets`` writes them."""

import io

import datasets
import pyarrow as pa
import pytest
from named_classes import TABLE

from dendritic_bert.datasets.other_records import KeptRecords
from dendritic_bert.datasets.own_rows import OwnRows
from dendritic_bert.inference.readers import open_records
from dendritic_bert.inference.table_reader import class_names


def test_a_stream_is_kept(tmp_path):
    """It is read once and can be gone through again and again, with the places of its lines."""
    lines = "".join(f"text {number},{number}\n" for number in range(3000))
    records = KeptRecords(open_records(io.BytesIO(f"text,label\n{lines}".encode()), "csv"), tmp_path)
    for _ in range(2):
        batches = list(records.batches(64, ["label"]))
        assert [label for batch in batches for label in batch.columns["label"]] == list(map(str, range(3000)))
    assert batches[1].place(0) == f"input, line {len(batches[0].columns['label']) + 2}"
    assert batches[0].columns.keys() == {"label"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_stream", [False, True])
def test_classes_of_a_file_have_their_names(tmp_path, is_stream):
    """Those that the library datasets writes into Parquet."""
    TABLE.to_parquet(tmp_path / "a.parquet")
    with open(tmp_path / "a.parquet", "rb") as file:
        given = {"train_file": file, "input_format": "parquet"} if is_stream else {"train_file": tmp_path / "a.parquet"}
        assert OwnRows.open(**given, text_column="sentence", label_column="label").labels == ["a yes", "no"]
    rows = OwnRows.open(tmp_path / "a.parquet", text_column="sentence", label_column="tags")
    assert (rows.labels, rows.settings["problem_type"]) == (["x", "y"], "multi_label_classification")


@pytest.mark.parametrize("is_stream", [False, True])
def test_each_file_has_its_own_names(tmp_path, is_stream):
    """Those of a second file stand in another order; of its numbers the text tells which class is meant."""
    for file, names in {"a": ["no", "yes"], "b": ["yes", "no"]}.items():
        label = datasets.ClassLabel(names=names)
        datasets.Dataset.from_dict(
            {"text": [f"{name}, row {number} of {file}" for number in range(9) for name in names],
             "label": [0, 1] * 9},
            features=datasets.Features({"text": datasets.Value("string"), "label": label})
        ).to_parquet(tmp_path / f"{file}.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    given = [io.BytesIO(file.read_bytes()) for file in files] if is_stream else files
    rows = OwnRows.open(given, input_format="parquet")
    assert rows.labels == ["no", "yes"]
    for split in ("train", "dev"):
        assert [text.split(",")[0] for (text,) in rows.rows(split)] == [rows.labels[n] for n in rows.targets(split)]
    rows = OwnRows.open(*files)
    assert [text.split(",")[0] for (text,) in rows.rows()] == [rows.labels[number] for number in rows.targets()]


@pytest.mark.parametrize("order", ["a.parquet b.csv", "b.csv a.parquet"])
def test_names_in_some_files_only(tmp_path, order):
    """Its numbers may be any of the names; in a column that is not read it does not matter."""
    TABLE.remove_columns("tags").to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("sentence,label,other\n" + "a text,0,x\nanother text,1,y\n" * 9)
    files = [tmp_path / name for name in order.split()]
    with pytest.raises(ValueError, match=r"^\S*a\.parquet holds the names of the classes in column 'label' beside "
                                         r"their numbers, \S*b\.csv does not: write the names into the column of "
                                         r"both, as strings\.$"):
        OwnRows.open(files, text_column="sentence", label_column="label")
    table = TABLE.remove_columns("tags").add_column("other", ["x", "y"] * 20)
    table.to_parquet(tmp_path / "a.parquet")
    assert OwnRows.open(files, text_column="sentence", label_column="other").labels == ["x", "y"]


@pytest.mark.parametrize("written", [b"no JSON", b"{}", b'{"info": {"features": {"label": []}}}', b"[1]",
                                     b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}'])
def test_what_no_library_has_written_beside_a_file(written):
    assert class_names(pa.schema([("label", pa.int64())], {b"huggingface": written})) == {}
