"""The card of a model of own rows: it names the data, the classes and the scores, and how to load the model."""

import re
import shlex

import numpy as np
import pytest
import yaml
from transformers import HfArgumentParser

from dendritic_bert import DendriticBertConfig
from dendritic_bert.datasets.own_rows import OwnRows
from dendritic_bert.training import TrainingOptions, own_data_card
from dendritic_bert.training.evaluation import Evaluation, reliability, scores
from dendritic_bert.training.own_data_card import write_own_data_card

BASELINE = {"accuracy": 0.5, "macro_f1": 0.25, "log_loss": 1.5, "ece": 0.125, "pearson": 0.5, "spearman": 0.25,
            "rmse": 1.5, "r2": 0.125, "name": "TF-IDF and a model", "num_train": 1234, "seconds": 1.0}
RESULTS = {"live_parameters": {"all": 1030, "embeddings": 1000, "windows": 0, "encoder": 0, "head": 30}, "seconds": 2.0,
           "num_truncated": 0, "sd": None, "metric": "accuracy", "runs": [{"seed": 0, "accuracy": 0.5, "seconds": 1.0}]}


@pytest.fixture
def card(tmp_path):
    """Writes a table of 40 rows and the card of a model of it; gives the card, the evaluation and the options."""
    def write(header: str, line, temperature: float = 1.0, given: dict[str, str] | None = None, **results):
        file = tmp_path / "my rows.csv"
        file.write_text(header + "\n" + "".join(line(i) + "\n" for i in range(40)))
        folder = tmp_path / "out"
        folder.mkdir()
        options = TrainingOptions(train_file=[str(file)], epochs=2, output_dir=str(folder), **given or {})
        rows = OwnRows.open([str(file)], **given or {})
        labels = rows.targets("dev")
        outputs = max(1, len(rows.labels))
        logits = np.random.default_rng(0).normal(size=(len(labels), outputs)).astype(np.float32)
        evaluation = Evaluation(logits, labels, rows.labels or ["value 0"], rows.settings["problem_type"], temperature)
        found = RESULTS | {"source": rows.source, "num_train": rows.num_train, "num_dev": rows.num_dev} | results
        config = DendriticBertConfig(vocab_size=99, hidden_size=8, num_attention_heads=1)
        write_own_data_card(folder, options, found, config, evaluation, rows)
        return (folder / "README.md").read_text(encoding="utf-8"), evaluation, options

    return write


def test_classes(card, tmp_path):
    text, evaluation, options = card("message,kind", lambda i: f"some text {i},{['late', 'lost', 'other'][i % 3]}",
                                     temperature=2.0, baseline=BASELINE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "confusion_matrix.png", "reliability.png"]
    found = scores(evaluation.logits, evaluation.labels, evaluation.problem_type, 2.0)
    metadata = yaml.safe_load(text.split("---\n")[1])
    values = {metric["type"]: metric["value"] for metric in metadata["model-index"][0]["results"][0]["metrics"]}
    assert values == {name: value for name, value in found.items() if name != "standard_error"}
    assert "datasets" not in metadata, "they are not on the hub"
    assert "glue" not in text
    command = shlex.split(re.search(r"```\n(dendritic-bert train .*)\n```", text)[1])
    assert HfArgumentParser(TrainingOptions).parse_args_into_dataclasses(command[2:]) == (options,)
    assert "text 'message', label 'kind'" in text
    assert "--file 'my rows.csv' --column message" in text
    assert "trust_remote_code=True" in text
    assert re.findall(r"^\| (\w+) \| (\d+) \|$", text, re.MULTILINE) == [
        ("late", "12"), ("lost", "12"), ("other", "12")]
    assert f"| this model | {found['accuracy']:.4f} | {found['macro_f1']:.4f} |" in text
    assert "| TF-IDF and a model, trained on 1,234 rows in 1 s | 0.5000 |" in text
    before = reliability(evaluation.logits, evaluation.labels, evaluation.problem_type).ece
    assert f"is {before:.4f} without a temperature, and {found['ece']:.4f} with the temperature 2" in text
    assert "They decided on the temperature, too" in text
    assert "divided by 2 they give the scores of this package" in text


@pytest.mark.parametrize(("character", "flag"), [(";", "';'"), ("\t", "tab")])
def test_the_command_reads_the_file_as_the_training_did(card, character, flag):
    text, *_ = card(f"message{character}kind", lambda i: f"some text {i}{character}{['late', 'lost'][i % 2]}",
                    given={"delimiter": character, "input_format": "csv"})
    assert f"--file 'my rows.csv' --input-format csv --delimiter {flag} --column message\n" in text


def test_pairs_and_values(card, tmp_path):
    runs = [{"seed": seed, "pearson": 0.5, "seconds": 1.0} for seed in (0, 1)]
    text, *_ = card("question,answer,score", lambda i: f"what is it {i},it is this one {i},{i / 7:.3f}",
                    metric="pearson", runs=runs, mean=0.5, sd=0.25)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "predicted_values.png"]
    assert "One output: a regression." in text
    assert "temperature" not in text
    assert '{"text": "a text", "text_pair": "its pair"}' in text
    assert "--column question --text-pair-column answer" in text
    assert "numbers from 0 to " in text
    assert "| 1 | 0.5000 | 1 |" in text
    assert "Mean pearson over 2 seeds: **0.5000**, standard deviation 0.2500." in text


def test_more_labels_than_are_listed(card, monkeypatch):
    monkeypatch.setattr(own_data_card, "MOST_LISTED", 2)
    text, *_ = card("text,label", lambda i: f"some text {i},{'abc'[min(2, i % 4)]}")
    assert "- 3 labels, with 9 to 18 training rows each" in text
    assert "| label | training rows |" not in text


def test_labels_that_are_html(card):
    """In the lines on what was read as in the tables."""
    text, *_ = card("text,label", lambda i: f"some text {i},{['<b>', 'c'][i % 2]}")
    assert "<" not in text
    assert text.count("&lt;b>") > 2
