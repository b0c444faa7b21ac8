"""The tokenizer's word cache: bounded, and with the ids of Hugging Face's tokenizer whatever it has forgotten."""

from itertools import pairwise

import numpy as np
import pytest
from small_classifier import hugging_face_tokenizer

from dendritic_bert.inference.word_cache import WordCache, is_exact_for, word_cache_encoder

BATCH = [f"fox{i} dog{i % 7} {'long' * 20}" for i in range(100)]


@pytest.fixture(scope="module", params=["lower", "cased"])
def hugging_face(request):
    return hugging_face_tokenizer(lowercase=request.param == "lower")


@pytest.fixture(autouse=True)
def small_cache(monkeypatch):
    monkeypatch.setattr(WordCache, "MAX_CHUNKS", 10)


def test_it_stays_bounded(hugging_face):
    cache = WordCache(hugging_face.backend_tokenizer)
    for chunk in " ".join(BATCH).split(" "):
        expected = hugging_face(chunk, add_special_tokens=False)["input_ids"]
        assert np.frombuffer(cache[chunk], np.int32).tolist() == expected
        assert len(cache) <= 10
    assert max(map(len, cache)) <= WordCache.MAX_CHARACTERS


def test_texts_with_special_tokens_around_them(hugging_face):
    backend = hugging_face.backend_tokenizer
    assert is_exact_for(backend)
    ids, cu_seqlens = word_cache_encoder(backend, [hugging_face.cls_token_id], [hugging_face.sep_token_id])(BATCH)
    assert (ids.dtype, cu_seqlens.dtype) == (np.int32, np.int64)
    rows = [ids[start:end].tolist() for start, end in pairwise(cu_seqlens)]
    assert rows == hugging_face(BATCH)["input_ids"]
