"""`demo`."""

import torch
from small_classifier import MAX_LENGTH
from transformers import pipeline

from dendritic_bert import embedded_model
from dendritic_bert.cli import demo


def test_demo(run, monkeypatch, model_path):
    monkeypatch.setattr(embedded_model, "EMBEDDED_MODEL", model_path)
    monkeypatch.setattr(demo, "ROWS", 8)
    monkeypatch.setattr(demo, "REPEATS", 1)
    threads = torch.get_num_threads()
    status, out, err = run("demo")
    assert (status, err, torch.get_num_threads()) == (0, "", threads)
    results = pipeline("text-classification", model=model_path, device="cpu")(
        list(demo.SENTENCES), truncation=True, max_length=MAX_LENGTH)
    lines = out.splitlines()
    for line, sentence, result in zip(lines, demo.SENTENCES, results):
        assert line.split(None, 2) == [result["label"], f"{result['score']:.3f}", sentence]
    assert 0 <= float(lines[-1].rpartition(" ")[2]) < 1e-4
