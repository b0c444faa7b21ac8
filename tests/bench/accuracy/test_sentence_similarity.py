"""Spearman's correlation of small encoders, beside ranks made by hand."""

import csv

import numpy as np
import sentence_similarity
from small_classifier import WORDS
from small_encoder import BAG, WINDOWS, save_encoder, small_encoder

from dendritic_bert import TextEncoder
from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.model.packed_encoder import WORDS as WORD_TABLE
from dendritic_bert.model.packed_encoder import pack_encoder


def correlation_of_ranks(x, y) -> float:
    """Pearson's correlation of mean ranks, which is Spearman's of the values."""
    ranks = [[(np.sum(values < value) + np.sum(values <= value)) / 2 for value in values] for values in (x, y)]
    return float(np.corrcoef(ranks)[0, 1])


def test_a_small_measurement(tmp_path):
    rng, lines = np.random.default_rng(0), ["index\tsentence1\tsentence2\tscore"]
    for index in range(40):
        sentences = [" ".join(rng.choice(WORDS, 7)) for _ in range(2)]
        lines.append("\t".join([str(index), *sentences, f"{rng.uniform(0, 5):.3f}"]))
    (tmp_path / "STS-B").mkdir()
    (tmp_path / "STS-B" / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    bag, windowed = small_encoder(**BAG), small_encoder(**WINDOWS)
    bag.load_state_dict({WORD_TABLE: windowed.state_dict()[WORD_TABLE]}, strict=False)
    folders = [save_encoder(tmp_path / name, model) for name, model in (("windows", windowed), ("bag", bag))]
    pack_encoder(folders[0], tmp_path / "both", without_windows=folders[1])
    assert sentence_similarity.main(["--data_dir", str(tmp_path), "--encoder", str(tmp_path / "both"),
                                     "--output", str(tmp_path / "results")]) == 0
    with open(tmp_path / "results" / "sentence_similarity.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["encoder"] for row in rows] == [
        "dendritic-bert, gated bag of words", "dendritic-bert, with windows"]
    pairs = read_rows("stsb", "dev", str(tmp_path))
    for row, name in zip(rows, ("bag", "windows")):
        pack_encoder(tmp_path / name, tmp_path / "alone")
        encoder = TextEncoder.from_pretrained(tmp_path / "alone")
        first, second = (encoder.encode(texts) for texts in pairs.columns)
        cosines = np.array([np.dot(a, b) for a, b in zip(first, second)])
        assert abs(float(row["spearman"]) - correlation_of_ranks(cosines, pairs.labels)) < 1e-9
        assert int(row["parameters"]) == sum(values.numel() for values in encoder.model.bert.parameters())
    text = (tmp_path / "results" / "sentence_similarity.md").read_text(encoding="utf-8")
    assert "on the 40 pairs" in text
    assert "| potion-base-8M | 7.56 M | 0.732 |" in text
