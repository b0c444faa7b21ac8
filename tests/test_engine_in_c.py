"""The engine as a library for C: the example in examples/engine, and the program that tests it on other machines,
compiled here, give what Python gives."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from compiled_kernels import compiled_kernels
from engine_cases import MODELS, write_case
from helpers import REPOSITORY

from dendritic_bert import TextClassifier
from dendritic_bert.embedded_model import find_model
from dendritic_bert.export import export

TEXTS = ["a charming journey", "dull", "", "caf\u00e9 [SEP] \U0001f600", "x " * 600]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The path of the library, linked from the engine's sources and the kernels that setup.py has compiled."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler on this machine")
    sources = [path for path in (REPOSITORY / "csrc" / "engine").glob("*.cpp") if not path.stem.startswith("python_")]
    library = tmp_path_factory.mktemp("engine") / "libdendritic_bert.so"
    subprocess.run(["c++", "-O1", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", *sources,
                    *compiled_kernels(), "-o", library], check=True)
    return library


def compiled(source: Path, library: Path) -> Path:
    """The path of a program in C, beside the library that it uses."""
    program = library.with_name(source.stem)
    subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", source, f"-I{REPOSITORY / 'csrc' / 'engine'}",
                    library, f"-Wl,-rpath,{library.parent}", "-lm", "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def example(library):
    return compiled(REPOSITORY / "examples" / "engine" / "classify.c", library)


@pytest.fixture(scope="module")
def conformance(library):
    return compiled(REPOSITORY / "tests" / "portability" / "conformance.c", library)


def test_labels_and_scores_are_pythons(example, tmp_path):
    export(find_model("tiny", ""), tmp_path / "tiny.dsn", "engine")
    done = subprocess.run([example, tmp_path / "tiny.dsn"], input="".join(f"{text}\n" for text in TEXTS).encode(),
                          capture_output=True, check=True)
    answers = [line.split("\t") for line in done.stdout.decode().splitlines()]
    expected = TextClassifier.from_pretrained("tiny")(TEXTS)
    assert [label for label, _ in answers] == [answer["label"] for answer in expected]
    assert [f"{answer['score']:.9g}" for answer in expected] == [score for _, score in answers]


def test_a_line_is_one_text_whatever_is_in_it(example, tmp_path):
    """However long it is, and with a NUL within."""
    export(find_model("tiny", ""), tmp_path / "tiny.dsn", "engine")
    texts = ["dull " * 300_000, "a charming\0ly dull journey", "dull"]
    done = subprocess.run([example, tmp_path / "tiny.dsn"], input="\n".join(texts).encode(), capture_output=True,
                          check=True)
    expected = TextClassifier.from_pretrained("tiny")(texts)
    assert done.stdout.decode().splitlines() == [f"{answer['label']}\t{answer['score']:.9g}" for answer in expected]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_cannot_be_read_or_written(example, tmp_path):
    export(find_model("tiny", ""), tmp_path / "tiny.dsn", "engine")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([example, tmp_path / "tiny.dsn"], input=b"dull\n", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"standard output cannot be written: No space left on device\n")
    folder = os.open(tmp_path, os.O_RDONLY)
    done = subprocess.run([example, tmp_path / "tiny.dsn"], stdin=folder, capture_output=True)
    os.close(folder)
    assert (done.returncode, done.stderr) == (1, b"standard input cannot be read: Is a directory\n")


def test_what_is_no_model(example, tmp_path):
    (tmp_path / "other.dsn").write_bytes(b"DSN")
    for path, message in (("other.dsn", "the model cannot be read: it is no model of the engine"),
                          ("missing.dsn", "missing.dsn cannot be opened: No such file")):
        done = subprocess.run([example, tmp_path / path], capture_output=True, text=True)
        assert done.returncode == 1
        assert message in done.stderr


@pytest.mark.parametrize("model", MODELS)
def test_every_form_passes_the_test_for_other_machines(conformance, model, tmp_path):
    case = write_case(model, tmp_path)
    done = subprocess.run([conformance, case.model, case.cases, "0"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("texts, largest difference 0\n")


def test_the_test_for_other_machines_can_fail(conformance, tmp_path):
    case = write_case("full_width", tmp_path)
    other = write_case("full_width_float16", tmp_path)
    for model, cases in ((case.model, other.cases), (other.model, case.cases)):
        assert subprocess.run([conformance, model, cases, "1e-5"], capture_output=True).returncode == 1
    changed = bytearray(case.cases.read_bytes())
    changed[32 + 8 * (int.from_bytes(changed[:8], "little") + 1) + 2] ^= 0x40  # a bit of the first logit
    case.cases.write_bytes(changed)
    assert subprocess.run([conformance, case.model, case.cases, "1e-5"], capture_output=True).returncode == 1


@pytest.mark.parametrize("model", ["full_width", "folded", "windows", "windows_int8"])
def test_a_call_without_memory_fails_and_the_next_one_does_not(library, model, tmp_path):
    program = compiled(REPOSITORY / "tests" / "portability" / "no_memory.c", library)
    done = subprocess.run([program, write_case(model, tmp_path).model], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 20
