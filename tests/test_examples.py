"""The examples run as they are, offline and in an empty folder, and come to what they promise."""

import json
import runpy
import sys

import pytest
import torch
from helpers import REPOSITORY

from dendritic_bert import TextClassifier


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example as a program, in this process; returns its global names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run_example(name: str, *arguments: str) -> dict:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return runpy.run_path(str(REPOSITORY / "examples" / name), run_name="__main__")

    return run_example


def test_every_example_is_short_and_tested():
    examples = sorted((REPOSITORY / "examples").glob("*.py"))
    assert {f"test_{path.stem}" for path in examples} <= set(globals())
    assert max(len(path.read_text().splitlines()) for path in examples) <= 40


def test_drop_in_pipeline(run):
    names = run("drop_in_pipeline.py")
    assert [prediction["label"] for prediction in names["predictions"]] == ["positive", "negative", "positive"]
    scores = [prediction["score"] for prediction in names["classifier"](names["texts"])]
    assert scores == pytest.approx([prediction["score"] for prediction in names["predictions"]], abs=1e-5)


def test_train_own_rows(run, tmp_path):
    names = run("train_own_rows.py", "trained")
    assert names["losses"][-1] < names["losses"][0] / 2
    texts, labels = zip(*names["ROWS"])
    classifier = TextClassifier.from_pretrained(tmp_path / "trained")
    assert [prediction["label"] for prediction in classifier(texts)] == list(labels)


def test_grow_dendrites(run):
    names = run("grow_dendrites.py")
    scores = [entry["eval_accuracy"] for entry in names["trainer"].state.log_history if "eval_accuracy" in entry]
    assert max(scores[:8]) < 0.9  # without a dendrite: patience alone lasts that long
    assert names["accuracy"] == 1.0
    assert names["model"].config.num_dendrites == names["model"].classifier.num_dendrites >= 1


def test_embed_pool_in_a_model(run):
    names = run("embed_pool_in_a_model.py")
    torch.testing.assert_close(names["compiled"], names["eager"], rtol=1e-5, atol=1e-6)
    model = names["model"]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(names["input_ids"], names["attention_mask"]).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
    assert gradients["words"].abs().sum() > 0


def test_classify_file(run, tmp_path, capsys):
    (tmp_path / "reviews.csv").write_text('id,review\n1,a charming journey\n2,"no plot, no wit"\n3\n')
    run("classify_file.py", "reviews.csv", "labels.jsonl", "review")
    records = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [record["label"] for record in records] == ["positive", "negative", None]
    assert capsys.readouterr().out == "2 texts, 0 of them by an earlier run, 0 cut to 512 tokens, 1 malformed\n"
    assert {path.name for path in tmp_path.iterdir()} == {"reviews.csv", "labels.jsonl"}


@pytest.mark.filterwarnings("ignore")
def test_export(run, tmp_path):
    """The embedded model's words are small beside what all tokens share, so that float32 keeps three digits of the
    logits: eager PyTorch is 8e-4 off its own float64 run here."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    names = run("export.py", "exported.onnx")
    assert (tmp_path / "exported.onnx").exists()
    assert names["logits"].argmax(axis=1).tolist() == [0, 1, 0]
    assert names["difference"] < 2e-3
