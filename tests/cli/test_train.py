"""`train` and `evaluate`, from flags to results."""

import argparse
import dataclasses
import json

import pytest
from command_line import from_json
from transformers import AutoConfig

from dendritic_bert import embedded_model
from dendritic_bert.cli.train import option_flags
from dendritic_bert.pretraining.options import PretrainingOptions
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.options import TrainingOptions
from dendritic_bert.training.sweep_options import SweepOptions


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A folder with an SST-2 that a few epochs can learn."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / "SST-2").mkdir()
    for split, rows in (("train", 400), ("dev", 20)):
        lines = [f"{('bleak', 'charming')[i % 2]} journey {i}\t{i % 2}" for i in range(rows)]
        (folder / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def test_train_evaluate_classify(run, glue, tmp_path):
    """Flags in both spellings; results alone on standard output; what was trained is what is scored and classifies."""
    output = tmp_path / "model"
    status, out, err = run("train", "--dsn", "--data_dir", glue, "--output_dir", output, "--task", "sst2",
                           "--epochs", 2, "--batch-size", 8, "--lr", 0.02, "--hidden_size", 8)
    assert status == 0, err
    results = json.loads(out)
    assert "epoch 2 of 2" in err
    assert (results["num_train"], results["num_dev"], len(results["runs"])) == (400, 20, 1)
    assert AutoConfig.from_pretrained(output).hidden_size == 8
    status, out, _ = run("evaluate", "--model", output, "--data_dir", glue)
    assert status == 0
    assert json.loads(out)["accuracy"] == results["runs"][0]["accuracy"] == 1
    status, out, _ = run("classify", "--model", output, "a charming journey", "bleak")
    assert [label for _, label, _ in from_json(out)] == ["positive", "negative"]


def test_rows_of_ones_own(run, tmp_path):
    """A file is all that train needs; evaluate takes another; what is wrong with the flags is said in one line."""
    for name, size in (("reviews", 60), ("dev", 12)):
        lines = ["text,label", *(f"a {('bleak', 'charming')[i % 2]} journey {i},{('bad', 'good')[i % 2]}"
                                 for i in range(size))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    status, out, err = run("train", "--train_file", tmp_path / "reviews.csv", "--output_dir", tmp_path / "model",
                           "--no_baseline", "--epochs", 8)
    assert status == 0, err
    results = json.loads(out)
    assert (results["num_train"], results["num_dev"], results["task"]) == (54, 6, "reviews")
    status, out, err = run("evaluate", "--model", tmp_path / "model", "--dev_file", tmp_path / "dev.csv",
                           "--output-dir", tmp_path / "report")
    assert status == 0, err
    assert json.loads(out)["num_examples"] == 12
    assert (tmp_path / "report" / "wrong.csv").exists()
    scores = json.loads(out)
    rows = (tmp_path / "dev.csv").read_text().replace(",", ";") + "a row of one field\n"
    (tmp_path / "semicolons.csv").write_text(rows)
    status, _, err = run("evaluate", "--dev_file", tmp_path / "dev.csv")
    assert status == 1
    assert err.startswith("dendritic-bert: no --model is given: the rows are scored with the model of the package")
    status, out, err = run("evaluate", "--model", tmp_path / "model", "--dev_file", tmp_path / "semicolons.csv",
                           "--delimiter", ";", "--on-error", "skip")
    assert status == 0, err
    assert json.loads(out) == scores | {"source": json.loads(out)["source"], "num_skipped": 1}
    status, _, err = run("evaluate", "--text_column", "text")
    assert status == 2
    assert err.startswith("dendritic-bert evaluate: error: text_column is given, but dev_file is not: name the file")
    status, _, err = run("train", "--train_file", tmp_path / "none.csv", "--output_dir", tmp_path / "other")
    assert (status, err.count("\n")) == (1, 1)
    assert "none.csv" in err


def test_results_are_valid_json(run, monkeypatch):
    """Where a score has no value, as the correlation with a constant has none: null, for JSON has no NaN."""
    monkeypatch.setattr("dendritic_bert.training.trainer.evaluate", lambda *_: {
        "pearson": float("nan"), "scores": [float("inf"), {"accuracy": 0.5}], "num_examples": 3})
    status, out, _ = run("evaluate")
    assert status == 0
    assert json.loads(out, parse_constant=pytest.fail) == {
        "pearson": None, "scores": [None, {"accuracy": 0.5}], "num_examples": 3}


@pytest.mark.parametrize(("command", "options"), [
    ("train", TrainingOptions), ("distill", DistillationOptions), ("pretrain", PretrainingOptions),
    ("sweep", SweepOptions)])
def test_help_has_every_option(run, command, options):
    """A flag with its help for each field that the command does not refuse."""
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    assert "None (default: " not in out
    for field in dataclasses.fields(options):
        assert (f" --{field.name} " in out) == (field.name not in options.unused)
        assert field.name in options.unused or field.metadata["help"].split()[0] in out


def test_help_of_pretrain_has_its_own_defaults():
    """What an option is when it is left out, and no flag that pretraining refuses."""
    helps = {action.dest: action.help for action in option_flags("pretrain")._actions}
    options = PretrainingOptions(teacher="teacher", text_file=["texts.txt"])
    for name in PretrainingOptions.own_defaults.keys() - set(PretrainingOptions.unused):
        value = getattr(options, name)
        assert str(helps[name]).endswith(f" (default: {0 if value is None else value})")
        assert str(helps[name]).count("(default: ") == 1
    refused = {
        "train_file": ["x"], "dev_file": ["x"], "dataset_name": "x", "dataset_config": "x", "data_dir": "x",
        "hold_out": 0.2, "fraction": 0.5, "text_pair_column": "x", "input_format": "csv", "delimiter": ";",
        "on_error": "skip", "label_column": "x", "label_separator": ";", "problem_type": "regression",
        "class_weights": "balanced", "label_smoothing": 0.1, "calibrate": True, "baseline": False,
        "encoder_windows": "off", "add_words": 3, "word_share": 0.4, "dendrites": 1, "num_dendrites": 1,
        "head_hidden": 8, "dendrite_activation": "tanh", "dendrite_schedule": "plain", "dendrite_tries": 1,
        "validation_share": 0.2, "encoder_pooling": "mean"}
    assert {*refused, "init"} == set(PretrainingOptions.unused)
    assert options.init == "random"
    for name, value in refused.items():
        assert helps[name] == argparse.SUPPRESS
        with pytest.raises(ValueError, match=f"^{name} is "):
            PretrainingOptions(teacher="teacher", text_file=["texts.txt"], **{name: value})


@pytest.mark.parametrize(("command", "message"), [
    (["train"], "dsn is False and model_name is not given"),
    (["train", "--dsn", "--epochs", "0"], "epochs is 0, expected more than 0"),
    (["train", "--dsn", "--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
    (["train", "--dsn", "--task", "sst3"], "task is 'sst3', expected one of sst2"),
])
def test_train_with_wrong_flags(run, command, message):
    status, out, err = run(*command)
    assert (status, out) == (2, "")
    assert err.startswith(f"dendritic-bert train: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [["train", "--dsn"], ["evaluate"]])
def test_data_that_is_not_there(run, tmp_path, monkeypatch, model_path, command):
    monkeypatch.setattr(embedded_model, "EMBEDDED_MODEL", model_path)
    status, out, err = run(*command, "--data_dir", tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith(f"dendritic-bert: error: data_dir {tmp_path} holds no SST-2/")
    assert err.count("\n") == 1
