"""Fixtures of the tests of the runtime without PyTorch."""

import shutil

import pytest
from helpers import REPOSITORY
from runtime_models import MAX_LENGTH

from dendritic_bert import _engine
from dendritic_bert.embedded_model import find_model
from dendritic_bert.export import export


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with the package, as runtime/setup.py puts it together, but with the small model."""
    folder = tmp_path_factory.mktemp("runtime")
    package = folder / "dendritic_bert_runtime"
    shutil.copytree(REPOSITORY / "runtime" / "dendritic_bert_runtime", package)
    (package / "_engine.abi3.so").symlink_to(_engine.__file__)
    export(find_model("tiny"), package / "model.dsn", "engine", max_length=MAX_LENGTH)
    return folder


@pytest.fixture
def runtime(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    import dendritic_bert_runtime

    return dendritic_bert_runtime


@pytest.fixture
def classify_file(runtime):
    from dendritic_bert_runtime.files import classify_file

    return classify_file
