"""`env`: what is in use, and what is missing."""

import re
import sys
from importlib import metadata

import pytest
import torch
from command_line import NO_BACKEND, environment_of, run_apart
from helpers import REPOSITORY, change_backend

from dendritic_bert import embedded_model
from dendritic_bert.cli.environment import EXTRAS, REQUIRED
from dendritic_bert.inference import files_extension
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.kernels import backends


def test_env(run, monkeypatch, model_path):
    monkeypatch.setattr(embedded_model, "EMBEDDED_MODEL", model_path)
    status, out, err = run("env")
    found = environment_of(out)
    assert (status, err) == (0, "")
    assert torch.__version__.startswith(found["torch"])
    assert found["python"].startswith(sys.version.split()[0])
    assert found["threads"].startswith(str(torch.get_num_threads()))
    assert found["backend reference"] == "available"
    assert found["backend in use"].startswith(backends.choose(None, "dsn_logits", "cpu", torch.float32))
    assert found["files"] == "read and written in C++"
    assert found["tokenizer"].startswith(TextClassifier.from_pretrained().tokenizer.engine)
    assert found["embedded model"].endswith(model_path)


def test_env_lists_the_packages_of_pyproject():
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements):
        return tuple(re.match(r"[\w-]+", requirement)[0] for requirement in requirements)

    assert names(project["dependencies"]) == REQUIRED
    developers = {"test", "bench", "cross", "docs"}
    assert {extra: names(packages) for extra, packages in project["optional-dependencies"].items()
            if extra not in developers} == EXTRAS


def test_env_says_what_is_missing_and_how_to_get_it(run, monkeypatch, tmp_path):
    def version(package):
        if package == "accelerate":
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    change_backend(monkeypatch, "cpu", missing="no compiler, install one")
    monkeypatch.setattr(files_extension, "files", None)
    monkeypatch.setattr(embedded_model, "EMBEDDED_MODEL", str(tmp_path))
    status, out, _ = run("env")
    found = environment_of(out)
    assert status == 0
    assert found["accelerate"] == "not installed (pip install 'dendritic-bert[train]')"
    assert found["backend cpu"] == "not available: no compiler, install one"
    assert found["backend in use"].startswith("reference")
    assert found["files"].startswith("read and written by Python: the extension is not built (install a C++ compiler")
    assert found["embedded model"].startswith(f"not there: {tmp_path} lacks model.safetensors and tokenizer.json")


def test_env_runs_where_the_forced_backend_is_not_there():
    """In a process of its own, because the variable is read once, when the backends are imported."""
    status, out, err = run_apart("env", DENDRITIC_BERT_BACKEND="quantum")
    assert (status, err) == (0, "")
    assert environment_of(out)["backend"].startswith(f"none: {NO_BACKEND}")
