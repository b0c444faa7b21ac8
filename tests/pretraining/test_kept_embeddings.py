"""A file of embeddings grows by whole batches, and an interruption at any point changes nothing of what it ends as."""

import zlib

import numpy as np
import pytest

from dendritic_bert.pretraining import kept_embeddings
from dendritic_bert.pretraining.kept_embeddings import embed_texts
from dendritic_bert.pretraining.texts import Texts

DIMENSION = 7


class Stopped(BaseException):
    """As a kill: nothing catches it."""


class CountedTeacher:
    """Seven numbers made of the bytes of a text; counts its texts, and ends before it has given ``limit``."""

    dimension = DIMENSION

    def __init__(self, digest: str = "one", limit: int = 10**9) -> None:
        self.digest, self.limit, self.asked = digest, limit, 0

    def encode(self, texts):
        self.asked += len(texts)
        if self.asked > self.limit:
            raise Stopped
        return np.stack([expected_row(text) for text in texts])


def expected_row(text: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIMENSION).astype(np.float32)


@pytest.fixture
def texts(text_file, monkeypatch):
    monkeypatch.setattr(kept_embeddings, "BATCH_TEXTS", 128)
    return Texts([text_file], None, 50)


def test_rows_are_the_teachers_rounded_to_float16(texts, tmp_path):
    found = embed_texts(CountedTeacher(), texts, tmp_path / "new")
    np.testing.assert_array_equal(found, np.stack([expected_row(text) for text in texts]).astype(np.float16))


@pytest.mark.parametrize("torn", [0, 1, 77, 128 * DIMENSION * 2 - 1])
def test_an_interrupted_file_is_gone_on_with(texts, tmp_path, torn):
    whole = embed_texts(CountedTeacher(), texts, tmp_path / "whole")
    with pytest.raises(Stopped):
        embed_texts(CountedTeacher(limit=300), texts, tmp_path / "torn")
    path, = (tmp_path / "torn").iterdir()
    assert path.stat().st_size == 256 * DIMENSION * 2  # two batches
    with open(path, "ab") as file:  # of a third, some bytes reached the disk
        file.write(b"x" * torn)
    teacher = CountedTeacher()
    assert embed_texts(teacher, texts, tmp_path / "torn").tobytes() == whole.tobytes()
    assert teacher.asked == 500 - 256
    teacher.asked = 0
    assert embed_texts(teacher, texts, tmp_path / "torn").tobytes() == whole.tobytes()
    assert teacher.asked == 0


def test_other_texts_and_teachers_have_files_of_their_own(texts, text_file, tmp_path):
    embed_texts(CountedTeacher(), texts, tmp_path)
    embed_texts(CountedTeacher(), Texts([text_file], None, 49), tmp_path)
    embed_texts(CountedTeacher("another"), texts, tmp_path)
    assert len(list(tmp_path.glob("embeddings-*.f16"))) == 3


def test_progress_has_rate_and_time_left(texts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kept_embeddings, "LINE_SECONDS", 0.0)
    embed_texts(CountedTeacher(), texts, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("teacher: 128 of 500 texts, ")
    assert lines[-1].startswith("teacher: 500 of 500 texts, ")
    assert lines[-1].endswith(" a second, 0 min left")


def test_two_trainings_do_not_write_one_file(texts, tmp_path):
    """Their batches would come one behind the other, each twice, and every row from there on in a wrong place."""
    class Interrupting(CountedTeacher):
        def encode(self, batch):
            with pytest.raises(BlockingIOError, match=r"^teacher_dir .*both is in use by another training: "):
                embed_texts(CountedTeacher(), texts, tmp_path / "both")
            return super().encode(batch)

    found = embed_texts(Interrupting(), texts, tmp_path / "both")
    assert found.tobytes() == embed_texts(CountedTeacher(), texts, tmp_path / "one").tobytes()
