"""Fixtures of the tests of the command line."""

import io
import sys

import pytest
from command_line import TEXTS
from small_classifier import hugging_face_tokenizer, small_model
from transformers import pipeline

from dendritic_bert import cli


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    small_model(id2label={0: "negative", 1: "positive"}).save_pretrained(path)
    hugging_face_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def expected(model_path):
    """Label and score of every text, as transformers sees them."""
    results = pipeline("text-classification", model=model_path, device="cpu")(TEXTS)
    return [(result["label"], pytest.approx(result["score"], abs=2e-6)) for result in results]


@pytest.fixture
def run(capsysbinary, monkeypatch):
    """Run a command line here: (status, standard output, standard error)."""

    def run_here(*argv: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = cli.main([str(arg) for arg in argv])
        out, err = capsysbinary.readouterr()
        return status, out.decode(), err.decode()

    return run_here
