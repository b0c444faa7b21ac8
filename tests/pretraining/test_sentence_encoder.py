"""Embeddings beside transformers' own model, text by text, and how a folder says how to pool."""

import numpy as np
import pytest
import torch
from small_teacher import DIMENSION, save_teacher, some_texts
from transformers import AutoModel, AutoTokenizer

from dendritic_bert.pretraining.sentence_encoder import SentenceEncoder, read_pooling

TEXTS = ["", "a", *some_texts(9), " ".join(some_texts(9))]
CLS, MEAN = "pooling_mode_cls_token", "pooling_mode_mean_tokens"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_are_those_of_transformers(teacher, pooling):
    found = SentenceEncoder(teacher, pooling, max_length=20).encode(TEXTS)
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), DIMENSION))
    model, tokenizer = AutoModel.from_pretrained(teacher).double().eval(), AutoTokenizer.from_pretrained(teacher)
    for row, text in zip(found, TEXTS):
        with torch.no_grad():
            hidden = model(**tokenizer(text, truncation=True, max_length=20, return_tensors="pt")).last_hidden_state[0]
        expected = (hidden.mean(dim=0) if pooling == "mean" else hidden[0]).numpy()
        # 64 roundings on the way to a number of a row of length 1, some of them of numbers ten times as large.
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=640 * 2.0**-24)


@pytest.mark.parametrize(("positions", "model_max_length", "expected"), [(24, 512, 24), (40, 12, 12)])
def test_a_text_is_cut_to_what_the_teacher_reads(tmp_path, positions, model_max_length, expected):
    folder = save_teacher(tmp_path, max_position_embeddings=positions)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = model_max_length
    tokenizer.save_pretrained(folder)
    text = " ".join(some_texts(9))
    found = SentenceEncoder(folder, max_length=128)
    assert found.max_length == expected
    assert np.array_equal(found.encode([text]), SentenceEncoder(folder, max_length=expected).encode([text]))


@pytest.mark.parametrize(("settings", "expected"), [
    (None, "mean"), ({CLS: True, MEAN: False}, "cls"), ({CLS: False, MEAN: True}, "mean"),
    ({"pooling_mode": "cls"}, "cls"), ({"embedding_dimension": 32, "pooling_mode": "mean"}, "mean")])
def test_the_pooling_of_a_folder(tmp_path, settings, expected):
    folder = save_teacher(tmp_path, settings)
    assert read_pooling(folder) == expected
    assert SentenceEncoder(folder).pooling == expected


@pytest.mark.parametrize(("settings", "said"), [
    ({CLS: True, MEAN: True}, f"{CLS} and {MEAN}"), ({CLS: False, "pooling_mode_max_tokens": True}, "pooling_mode_max"),
    ({}, "nothing"), ({"pooling_mode": "lasttoken"}, "lasttoken")])
def test_a_pooling_that_is_not_known(tmp_path, settings, said):
    with pytest.raises(ValueError, match=rf"pools by {said}.* pass teacher_pooling=\"mean\" or \"cls\"\.$"):
        SentenceEncoder(save_teacher(tmp_path, settings))


def test_the_digest_follows_weights_and_settings(teacher, tmp_path):
    settings = [(teacher, "mean", 20, False), (teacher, "cls", 20, False), (teacher, "mean", 19, False),
                (teacher, "mean", 20, True), (save_teacher(tmp_path, initializer_range=0.1), "mean", 20, False)]
    model = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[3, 3] += 1
    model.save_pretrained(tmp_path)
    assert len({SentenceEncoder(*some).digest for some in settings}) == len(settings)
    assert SentenceEncoder(*settings[0]).digest == SentenceEncoder(*settings[0]).digest


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(OSError, match=r"^teacher .* cannot be loaded \(\w+\): pass a folder or a hub id"):
        SentenceEncoder(str(tmp_path), "mean")
