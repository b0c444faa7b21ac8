"""The tables that the defaults are measured on, and a measurement at a small size."""

import csv
import json

import own_rows
import pytest
from glue_files import write_task
from small_encoder import BAG, save_encoder, small_encoder


@pytest.fixture
def folders(tmp_path):
    """An "irony" of one's own with test rows and no dev rows, and SST-2."""
    (tmp_path / "own").mkdir()
    for split, size in (("train", 80), ("test", 20)):
        lines = ["tweet,label", *(f"so {('glad', 'sad')[i % 2]} {i},{('irony', 'non_irony')[i % 2]}"
                                  for i in range(size))]
        (tmp_path / "own" / f"irony_{split}.csv").write_text("\n".join(lines) + "\n")
    write_task(tmp_path, "sst2", {"train": 30, "dev": 10})
    return tmp_path / "own", tmp_path


def test_tables_and_samples(folders):
    table = own_rows.read_table("irony", *folders)
    assert table.names == ["tweet", "label"]
    assert {split: len(rows) for split, rows in table.rows.items()} == {"train": 72, "dev": 8, "test": 20}
    texts = [row[0] for rows in table.rows.values() for row in rows]
    assert len(set(texts)) == 80  # the texts of the test rows stand among those of the training rows
    many = own_rows.Table(["text", "label"], {split: [[f"{i}", f"c{i % 50}"] for i in range(2000)]
                                              for split in own_rows.SPLITS})
    sample = own_rows.take_sample(many)
    assert len(sample.rows["train"]) == own_rows.SAMPLE
    assert {row[1] for row in sample.rows["test"]} >= {row[1] for row in sample.rows["train"]}
    assert len({row[1] for row in sample.rows["test"]}) == own_rows.SAMPLE_CLASSES
    sst2 = own_rows.read_table("sst2", *folders)
    assert {split: len(rows) for split, rows in sst2.rows.items()} == {"train": 27, "dev": 3, "test": 10}
    assert {row[1] for row in sst2.rows["train"]} == {"negative", "positive"}


def test_a_small_measurement(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(own_rows, "sweep", lambda options: {
        "best": {"epochs": 2, "word_dropout": 0.1}, "trials": options.trials})
    monkeypatch.setattr("dendritic_bert.training.options.EMBEDDED_ENCODER",
                        save_encoder(tmp_path / "encoder", small_encoder(**BAG)))
    own_dir, data_dir = folders
    flags = ["--tables", "irony", "--seeds", "1", "--trials", "3", "--output", str(tmp_path / "results"),
             "--work_dir", str(tmp_path / "work")]
    assert own_rows.main(["--own_dir", str(own_dir), "--data_dir", str(data_dir), *flags]) == 0
    with open(tmp_path / "results" / "own_rows.csv", newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    assert (row["table"], row["train"], row["test"]) == ("irony", "72", "20")
    assert row["trials"] == "3"
    assert row["best"] == "--epochs 2 --word_dropout 0.1"
    assert 0 <= float(row["default"]) <= 1
    assert "| irony |" in (tmp_path / "results" / "own_rows.md").read_text(encoding="utf-8")
    monkeypatch.setattr(own_rows, "train", None)  # what was measured is kept, and not measured again
    assert own_rows.main(["--own_dir", str(own_dir), "--data_dir", str(data_dir), *flags]) == 0
    with open(tmp_path / "results" / "own_rows.csv", newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file)) == row


def test_a_large_table_is_swept_with_half_the_trials(folders, tmp_path, monkeypatch):
    seen = {}

    def measure_tables(_, calls, jobs):
        seen.update({name: trials for name, _, trials, *_ in calls})
        return []

    monkeypatch.setattr(own_rows, "measure_tables", measure_tables)
    monkeypatch.setattr(own_rows, "write_results", lambda *_: [])
    monkeypatch.setattr(own_rows, "MANY_ROWS", 30)  # SST-2 has 27 training rows here, the tweets 72
    own_dir, data_dir = folders
    assert own_rows.main(["--own_dir", str(own_dir), "--data_dir", str(data_dir), "--tables", "irony", "sst2"]) == 0
    assert seen == {"irony": 10, "sst2": 20}


@pytest.mark.parametrize("jobs", [1, 2])
def test_tables_measured_side_by_side_keep_their_order(tmp_path, jobs):
    """What is measured is what an earlier run has kept."""
    calls, kept = [], []
    for name, size in (("small", 1), ("large", 5), ("middle", 2)):
        calls.append((name, own_rows.Table([], {"train": [["text", "label"]] * size}), 3, 1, tmp_path / name))
        kept.append({"table": name, "train": size})
        (tmp_path / name).mkdir()
        (tmp_path / name / "3_trials_1_seeds.json").write_text(json.dumps(kept[-1]))
    assert own_rows.measure_tables(own_rows.measure, calls, jobs) == kept
