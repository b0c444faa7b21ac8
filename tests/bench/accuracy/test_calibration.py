"""A measurement of calibration at a small size: the figures are those of the evaluation's report."""

import csv
import json
from functools import partial

import calibration
import numpy as np
import pytest

from dendritic_bert.training import TrainingOptions


@pytest.fixture
def own_dir(tmp_path):
    """An "irony" of one's own, of which a fifth of the labels mislead."""
    rng = np.random.default_rng(0)
    for split, size in (("train", 80), ("dev", 60), ("test", 30)):
        labels = [("irony", "non_irony")[(i % 2) ^ int(rng.random() < 0.2)] for i in range(size)]
        lines = ["tweet,label", *(f"so {('glad', 'sad')[i % 2]} {split} {i},{labels[i]}" for i in range(size))]
        (tmp_path / f"irony_{split}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_small_measurement(own_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "TrainingOptions", partial(TrainingOptions, epochs=6))
    assert calibration.main(["--own_dir", str(own_dir), "--data_dir", "none", "--tables", "irony",
                             "--output", str(tmp_path / "results"), "--work_dir", str(tmp_path / "work")]) == 0
    with open(tmp_path / "results" / "calibration.csv", newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    figures = json.loads((tmp_path / "work" / "irony" / "report" / "evaluation.json").read_text())
    assert (row["train"], row["dev"], row["test"]) == ("80", "60", "30")
    assert float(row["temperature"]) == figures["temperature"] != 1
    assert float(row["ece"]) == figures["scores"]["ece"]
    assert float(row["ece_before"]) == figures["without_temperature"]["ece"]
    assert "| irony | 80 | 60 | 30 |" in (tmp_path / "results" / "calibration.md").read_text(encoding="utf-8")
