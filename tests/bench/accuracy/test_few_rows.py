"""The rows that are drawn, and a measurement at a small size that goes on where it was interrupted."""

import csv

import few_rows
import numpy as np
import pytest


def test_so_many_rows_of_each_class():
    labels = np.repeat([0, 1, 2], [40, 30, 5])
    places = few_rows.draw_rows(labels, 8, 0)
    assert len(set(places.tolist())) == len(places)
    assert np.bincount(labels[places]).tolist() == [8, 8, 5]
    assert sorted(places) != places.tolist()  # not class by class
    assert set(places.tolist()) != set(few_rows.draw_rows(labels, 8, 1).tolist())
    assert sorted(few_rows.draw_rows(labels, few_rows.ALL, 0)) == list(range(75))


@pytest.fixture
def own_dir(tmp_path):
    for split, size in (("train", 40), ("dev", 4), ("test", 20)):
        lines = ["tweet,label", *(f"so {('glad', 'sad')[i % 2]} {i},{('irony', 'non_irony')[i % 2]}"
                                  for i in range(size))]
        (tmp_path / f"irony_{split}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_small_measurement(own_dir, tmp_path, monkeypatch):
    """TF-IDF finds the word that tells the classes apart; what is in the file is not measured again."""
    flags = ["--own_dir", str(own_dir), "--data_dir", str(own_dir), "--tables", "irony", "--output",
             str(tmp_path / "results"), "--draws", "2", "--methods", few_rows.TFIDF]
    assert few_rows.main([*flags, "--rows", "8", "128"]) == 0  # no class has 128

    def read():
        with open(tmp_path / "results" / "few_rows.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    first = read()
    assert [(row["rows_of_a_class"], row["draw"], row["train"]) for row in first] == [
        ("8", "0", "16"), ("8", "1", "16")]
    assert all(float(row["accuracy"]) == 1 for row in first)
    monkeypatch.setattr(few_rows, "tfidf_baseline", lambda *args: {"accuracy": 0.25})
    assert few_rows.main([*flags, "--rows", "8", str(few_rows.ALL)]) == 0
    second = read()
    assert second[:2] == first
    assert [(row["rows_of_a_class"], row["train"], row["accuracy"]) for row in second[2:]] == [("0", "40", "0.25")]
    text = (tmp_path / "results" / "few_rows.md").read_text(encoding="utf-8")
    assert "| irony | 8 | 100.0 ± 0.0 |" in text
    assert "| irony | all | 25.0 |" in text
    assert (tmp_path / "results" / "few_rows.png").read_bytes().startswith(b"\x89PNG")


def test_fasttext_and_frozen_embeddings():
    """Each tells two words apart; a text is embedded once."""
    rows = [(f"{('glad', 'sad')[i % 2]} word{i % 5}",) for i in range(20)], np.arange(20) % 2
    assert few_rows.train_fasttext(rows, rows, 0) == 1
    asked = []

    class Teacher:
        def encode(self, texts):
            asked.extend(texts)
            return np.array([[1.0, 0.0] if "glad" in text else [0.0, 1.0] for text in texts])

    embed = few_rows.keep_embeddings(Teacher())
    assert few_rows.train_on_embeddings(rows, rows, 0, embed) == 1
    assert len(asked) == len(set(asked)) == 10
