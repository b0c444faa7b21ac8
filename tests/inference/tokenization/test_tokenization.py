"""Packed ids against Hugging Face's own tokenizer, whatever engine serves."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_classifier import SPECIAL_TOKENS, hugging_face_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.inference.tokenizer_engines import ENGINES
from dendritic_bert.inference.tokenizer_test_strings import TEST_STRINGS


@pytest.fixture(scope="module", params=["lower", "cased"])
def hugging_face(request):
    tokenizer = hugging_face_tokenizer(lowercase=request.param == "lower")
    assert tokenizer.cls_token_id == 4
    assert tokenizer.backend_tokenizer.normalizer.lowercase == (request.param == "lower")
    return tokenizer


@pytest.fixture(scope="module", params=ENGINES)
def packed(request, hugging_face):
    tokenizer = PackedTokenizer(hugging_face, engine=request.param)
    assert tokenizer.engine == request.param
    return tokenizer


def rows(batch) -> list[list[int]]:
    assert batch.input_ids.dtype == np.int32
    assert batch.cu_seqlens.dtype == np.int64
    assert batch.input_ids.shape == (batch.cu_seqlens[-1],)
    starts = batch.cu_seqlens.tolist()
    return [batch.input_ids[start:end].tolist() for start, end in pairwise(starts)]


def test_the_test_strings(packed, hugging_face):
    assert rows(packed(list(TEST_STRINGS))) == hugging_face(list(TEST_STRINGS))["input_ids"]


# Strings that mix what tokenizers trip over with arbitrary code points, joined with and without spaces.
pieces = st.one_of(st.sampled_from(TEST_STRINGS), st.sampled_from(SPECIAL_TOKENS),
                   st.text(st.characters(exclude_categories=["Cs"])), st.text("aeßΣ#'[]SEPCL \t\n\u0301\u200d\u3000世"))
texts = st.builds(str.join, st.sampled_from(["", " "]), st.lists(pieces, max_size=5))


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(texts, max_size=6))
def test_any_unicode(packed, hugging_face, batch):
    expected = hugging_face(batch)["input_ids"] if batch else []
    assert rows(packed(batch)) == expected


@settings(max_examples=30, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=6), max_length=st.integers(3, 20))
def test_truncation_keeps_the_closing_token(packed, hugging_face, batch, max_length):
    cut = packed(batch, max_length=max_length)
    assert rows(cut) == hugging_face(batch, truncation=True, max_length=max_length)["input_ids"]
    assert cut.num_truncated == sum(len(row) > max_length for row in hugging_face(batch)["input_ids"])


def test_special_tokens_alone(packed):
    assert rows(packed(["", "fox fox"], max_length=2)) == [[4, 3], [4, 3]]
    with pytest.raises(ValueError, match="max_length is 1, the special tokens alone take 2"):
        packed([""], max_length=1)


def test_lone_surrogates_count_as_the_replacement_character(packed):
    assert rows(packed(["a \ud800b", "\ud83d\ude00"])) == rows(packed(["a \ufffdb", "\U0001f600"]))


def test_texts_of_another_type(packed):
    assert rows(packed((np.str_("fox"), "dog"))) == rows(packed(["fox", "dog"]))
    with pytest.raises(TypeError, match=r"texts\[1\] is nan of type float"):
        packed(["fox", float("nan")])
    with pytest.raises(TypeError, match="texts is a str"):
        packed("fox")


def test_ids_are_writable_and_not_shared(packed):
    """torch.from_numpy warns about a read-only array; an engine that reused a buffer would change earlier batches."""
    first = packed(["the quick brown fox"])
    kept = first.input_ids.copy()
    packed(["another text, longer than the first one was", "lazy dog"])
    assert first.input_ids.flags.writeable
    assert np.array_equal(first.input_ids, kept)


def test_padding_and_truncation_of_the_file_are_ignored():
    tokenizer = train_tokenizer(lowercase=True)
    bare = PackedTokenizer(Tokenizer.from_str(tokenizer.to_str()))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(8)
    batch = ["the quick brown fox jumps over the lazy dog", "fox"]
    assert rows(PackedTokenizer(tokenizer)(batch)) == rows(bare(batch))
    assert tokenizer.truncation["max_length"] == 8, "the caller's tokenizer must be left as it was"


def test_the_side_of_the_file_is_followed():
    """As transformers does, which else takes nothing of it."""
    tokenizer = train_tokenizer(lowercase=True)
    tokenizer.enable_truncation(8, direction="left")
    batch = ["the quick brown fox jumps over the lazy dog", "fox"]
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert rows(PackedTokenizer(tokenizer)(batch, 5)) == theirs(batch, truncation=True, max_length=5)["input_ids"]


def test_bad_arguments(hugging_face):
    with pytest.raises(ValueError, match="engine is 'spacy', known are native"):
        PackedTokenizer(hugging_face, engine="spacy")
    with pytest.raises(TypeError, match="tokenizer is a str"):
        PackedTokenizer("bert-base-uncased")


def test_from_pretrained(hugging_face, tmp_path):
    hugging_face.save_pretrained(tmp_path)
    batch = list(TEST_STRINGS)
    assert rows(PackedTokenizer.from_pretrained(str(tmp_path))(batch)) == AutoTokenizer.from_pretrained(tmp_path)(
        batch)["input_ids"]


def test_from_pretrained_without_a_tokenizer(hugging_face, tmp_path):
    with pytest.raises(OSError, match="missing"):
        PackedTokenizer.from_pretrained(str(tmp_path / "missing"))
    hugging_face.save_pretrained(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "config.json").write_text('{"model_type": "dendritic_bert"}')
    for broken in (None, whole[:1000], whole.replace('"WordPiece"', '"WordPieces"'), "{}"):
        (tmp_path / "tokenizer.json").unlink(missing_ok=True)
        if broken is not None:
            (tmp_path / "tokenizer.json").write_text(broken)
        with pytest.raises(ValueError, match=f"{tmp_path} holds no (vocabulary|fast tokenizer that can be read)"):
            PackedTokenizer.from_pretrained(str(tmp_path))
