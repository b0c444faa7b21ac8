"""`encode`: texts of a command line, of a file and of standard input, to embeddings."""

import json

import numpy as np
import pytest
from command_line import TEXTS
from small_encoder import WINDOWS, save_encoder, small_encoder

from dendritic_bert import TextEncoder


@pytest.fixture(scope="module")
def encoder_path(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder"), small_encoder(**WINDOWS))


def embeddings_in(lines: str) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in lines.splitlines()])


@pytest.mark.parametrize("normalize", [True, False])
def test_texts_from_anywhere(run, encoder_path, tmp_path, normalize):
    expected = TextEncoder.from_pretrained(encoder_path).encode(TEXTS, normalize=normalize)
    flags = ["--model", encoder_path, *([] if normalize else ["--no-normalize"])]
    stdin = "\n".join(TEXTS).encode() + b"\n"
    for status, out, err in (run("encode", *flags, *TEXTS), run("encode", *flags, stdin=stdin)):
        assert (status, err) == (0, "")
        assert [json.loads(line)["text"] for line in out.splitlines()] == TEXTS
        np.testing.assert_allclose(embeddings_in(out), expected, rtol=1e-6, atol=6e-7)
    (tmp_path / "in.txt").write_bytes(stdin)
    status, nothing, err = run("encode", *flags, "--file", tmp_path / "in.txt", "--output", tmp_path / "out.jsonl")
    assert (status, nothing) == (0, "")
    assert err == f"dendritic-bert: texts encoded into {tmp_path / 'out.jsonl'}: {len(TEXTS)}\n"
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == out


def test_a_classifier_is_refused(run, model_path):
    status, out, err = run("encode", "--model", model_path, "a text")
    assert (status, out) == (1, "")
    assert err.startswith("dendritic-bert: error: the model classifies (2 labels")
    assert err.count("\n") == 1


def test_a_model_that_is_not_there(run, tmp_path):
    status, _, err = run("encode", "--model", tmp_path / "nowhere", "a text")
    assert status == 1
    assert err == f"dendritic-bert: error: model {tmp_path / 'nowhere'} does not exist: pass a folder or a hub id.\n"
