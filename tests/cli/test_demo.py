"""`demo`."""

import pytest
import torch
from small_classifier import MAX_LENGTH, hugging_face_tokenizer
from transformers import pipeline
from windowed_models import KINDS, windowed_model

from dendritic_bert import TextClassifier
from dendritic_bert.cli import demo


@pytest.fixture
def windowed_path(tmp_path):
    windowed_model(**KINDS["recipe"]).save_pretrained(tmp_path)
    hugging_face_tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture(params=["model_path", "windowed_path"])
def path(request):
    return request.getfixturevalue(request.param)


def test_demo(path, run, monkeypatch):
    monkeypatch.setattr(TextClassifier, "embedded", path)
    monkeypatch.setattr(demo, "ROWS", 8)
    monkeypatch.setattr(demo, "REPEATS", 1)
    threads = torch.get_num_threads()
    status, out, err = run("demo")
    assert (status, err, torch.get_num_threads()) == (0, "", threads)
    pipe = pipeline("text-classification", model=path, device="cpu")
    cut = {"truncation": True, "max_length": MAX_LENGTH} if pipe.model.config.max_position_embeddings else {}
    results = pipe(list(demo.SENTENCES), **cut)
    lines = out.splitlines()
    for line, sentence, result in zip(lines, demo.SENTENCES, results):
        assert line.split(None, 2) == [result["label"], f"{result['score']:.3f}", sentence]
    assert 0 <= float(lines[-1].rpartition(" ")[2]) < 1e-4
