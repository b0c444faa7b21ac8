"""The engine as a library for C: the example in examples/engine, compiled, gives what Python gives."""

import shutil
import subprocess

import pytest
from helpers import REPOSITORY

from dendritic_bert import TextClassifier
from dendritic_bert.embedded_model import find_model
from dendritic_bert.export import export

TEXTS = ["a charming journey", "dull", "", "caf\u00e9 [SEP] \U0001f600", "x " * 600]
OBJECTS = REPOSITORY / "build" / "temp"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The path of the example, linked with the engine's sources and the kernels that setup.py has compiled."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler on this machine")
    folder = tmp_path_factory.mktemp("engine")
    objects = [OBJECTS / "csrc" / "cpu" / "dispatch.o", OBJECTS / "csrc" / "cpu" / "window_int8_dispatch.o",
               *OBJECTS.glob("*/csrc/cpu/*kernel.o"), *OBJECTS.glob("*/csrc/cpu/window_int8.o")]
    sources = [path for path in (REPOSITORY / "csrc" / "engine").glob("*.cpp") if not path.stem.startswith("python_")]
    library = folder / "libdendritic_bert.so"
    subprocess.run(["c++", "-O1", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", *sources,
                    *objects, "-o", library], check=True)
    subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", REPOSITORY / "examples" / "engine" / "classify.c",
                    f"-I{REPOSITORY / 'csrc' / 'engine'}", library, f"-Wl,-rpath,{folder}", "-o", folder / "classify"],
                   check=True)
    return folder / "classify"


def test_labels_and_scores_are_pythons(example, tmp_path):
    export(find_model("tiny", ""), tmp_path / "tiny.dsn", "engine")
    done = subprocess.run([example, tmp_path / "tiny.dsn"], input="".join(f"{text}\n" for text in TEXTS).encode(),
                          capture_output=True, check=True)
    answers = [line.split("\t") for line in done.stdout.decode().splitlines()]
    expected = TextClassifier.from_pretrained("tiny")(TEXTS)
    assert [label for label, _ in answers] == [answer["label"] for answer in expected]
    assert [f"{answer['score']:.9g}" for answer in expected] == [score for _, score in answers]


def test_what_is_no_model(example, tmp_path):
    (tmp_path / "other.dsn").write_bytes(b"DSN")
    for path, message in (("other.dsn", "the model cannot be read: it is no model of the engine"),
                          ("missing.dsn", "missing.dsn cannot be opened: No such file")):
        done = subprocess.run([example, tmp_path / path], capture_output=True, text=True)
        assert done.returncode == 1
        assert message in done.stderr
