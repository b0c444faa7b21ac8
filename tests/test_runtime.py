"""The runtime without PyTorch: the results of the package, from numpy and the engine alone."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from helpers import REPOSITORY
from small_classifier import WORDS

from dendritic_bert import TextClassifier, _engine
from dendritic_bert.embedded_model import find_model
from dendritic_bert.export import export

TEXTS = ["a charming journey", "", *WORDS, "caf\u00e9 [SEP]", "x " * 600, "lone \ud800"]
MAX_LENGTH = 40


@pytest.fixture(scope="module")
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


def test_results_are_the_packages(runtime):
    ours, theirs = TextClassifier.from_pretrained("tiny"), runtime.TextClassifier()
    ours.max_length = MAX_LENGTH
    assert theirs.labels == ours.labels
    for threads in (None, 1, 2):
        assert theirs(TEXTS, threads) == ours(TEXTS)
    assert theirs("good film") == ours("good film")
    assert theirs.num_truncated == ours.num_truncated == 3
    texts = TEXTS[:-1]
    for given in (texts, tuple(texts), pa.array(texts)):
        for expected, found in zip(ours.predict_array(texts), theirs.predict_array(given, threads=2), strict=True):
            assert np.array_equal(found, expected)
            assert found.dtype == expected.dtype
    assert pickle.loads(pickle.dumps(theirs))(TEXTS) == ours(TEXTS)


def test_errors(runtime, tmp_path):
    with pytest.raises(FileNotFoundError):
        runtime.TextClassifier(tmp_path / "missing.dsn")
    (tmp_path / "cut.dsn").write_bytes(runtime.classifier.EMBEDDED_MODEL.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"cut\.dsn cannot be read: it has .* bytes and should have .*: copy it again"):
        runtime.TextClassifier(tmp_path / "cut.dsn")
    with pytest.raises(TypeError):
        runtime.TextClassifier()(["a", 1])
    with pytest.raises(ValueError, match="threads is 0, it must be at least 1"):
        runtime.TextClassifier()(["a"], threads=0)


def test_the_command_needs_no_torch_and_for_labels_no_numpy(folder):
    code = ("import sys; from dendritic_bert_runtime.__main__ import main; status = main(); "
            "print(sorted({'torch', 'numpy', 'transformers', 'tokenizers'} & set(sys.modules)), file=sys.stderr); "
            "sys.exit(status)")
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}

    def run(*arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, **options)

    done = run(input=b"a charming journey\r\ndull \xff\n")
    assert done.stderr.decode().strip() == "[]"
    answers = [json.loads(line) for line in done.stdout.decode().splitlines()]
    texts = ["a charming journey", "dull \ufffd"]
    assert answers == [{"text": text, "label": answer["label"], "score": round(answer["score"], 6)}
                       for text, answer in zip(texts, TextClassifier.from_pretrained("tiny")(texts))]
    assert run("dull", input=b"").stdout.startswith(b'{"text": "dull", "label": ')
    done = run("--model", str(folder / "none"), "dull")
    assert done.returncode == 1
    assert b"No such file or directory" in done.stderr
