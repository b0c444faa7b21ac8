"""A teacher, texts, and the options of a pretraining of two seconds."""

import pytest
from small_teacher import save_teacher, some_texts

from dendritic_bert import PretrainingOptions


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "sentences.txt"
    path.write_text("\n".join(some_texts(500)) + "\n")
    return str(path)


@pytest.fixture
def options(teacher, text_file, tmp_path):
    """Makes options; keyword arguments override them."""
    def make(**changes) -> PretrainingOptions:
        return PretrainingOptions(**{
            "teacher": teacher, "text_file": text_file, "output_dir": str(tmp_path / "encoder"), "epochs": 4,
            "hidden_size": 16, "vocab_size": 300, "batch_size": 64, "lr": 0.01, "teacher_max_length": 20} | changes)

    return make
