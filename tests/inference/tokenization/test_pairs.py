"""Pairs of texts against transformers' ``tokenizer(first, second, truncation=True)``: ids, types and what is cut."""

import itertools

import numpy as np
import pytest
from small_classifier import WORDS, hugging_face_tokenizer
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.inference.tokenizer_engines import ENGINES

TEXTS = ["", "fox", "the lazy dog", "THE Été  naïve 世界 [SEP] [MASK]ed the", "[CLS] [CLS]", "!" * 9, " ".join(WORDS)]
FIRST, SECOND = map(list, zip(*itertools.product(TEXTS, TEXTS)))
SPECIAL = [("[CLS]", 4), ("[SEP]", 3)]
PROCESSORS = {
    "BERT": None,  # what hugging_face_tokenizer() has
    "RoBERTa": RobertaProcessing(("[SEP]", 3), ("[CLS]", 4)),
    "no special tokens": TemplateProcessing(single="$A", pair="$A:0 $B:1"),
    "types of their own": TemplateProcessing(single="[SEP]:1 $A:2 [CLS]:3", special_tokens=SPECIAL,
                                             pair="[CLS]:3 [SEP]:1 $A:2 [SEP]:0 $B:4 [SEP]:1 [CLS]:5"),
}


def tokenizer_with(processor, side="right", **settings):
    tokenizer = hugging_face_tokenizer()
    if PROCESSORS[processor] is not None:
        tokenizer.backend_tokenizer.post_processor = PROCESSORS[processor]
    tokenizer.truncation_side = side
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    return tokenizer


def rows(values, batch):
    return [row.tolist() for row in np.split(values, batch.cu_seqlens[1:-1])]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_same_as_transformers(processor, side):
    tokenizer = tokenizer_with(processor, side)
    packed = PackedTokenizer(tokenizer)
    whole = tokenizer(FIRST, SECOND)["input_ids"]
    num_special = tokenizer.num_special_tokens_to_add(pair=True)
    for limit in (num_special, num_special + 1, num_special + 2, 9, 10, 21, 1000, None):
        theirs = tokenizer(FIRST, SECOND, truncation=limit is not None, max_length=limit)
        ours = packed.pairs(FIRST, SECOND, limit)
        assert rows(ours.input_ids, ours) == theirs["input_ids"]
        types = np.zeros_like(ours.input_ids) if processor == "RoBERTa" else ours.token_type_ids
        assert rows(types, ours) == theirs["token_type_ids"]
        assert (ours.token_type_ids is None) == (processor == "RoBERTa")
        assert ours.num_truncated == (0 if limit is None else sum(len(ids) > limit for ids in whole))
        assert (ours.input_ids.dtype, ours.cu_seqlens.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine(engine):
    tokenizer = tokenizer_with("BERT")
    ours = PackedTokenizer(tokenizer, engine).pairs(FIRST, SECOND, 12)
    theirs = tokenizer(FIRST, SECOND, truncation=True, max_length=12)
    assert rows(ours.input_ids, ours) == theirs["input_ids"]
    assert rows(ours.token_type_ids, ours) == theirs["token_type_ids"]


def test_a_tokenizer_without_types():
    tokenizer = tokenizer_with("BERT", model_input_names=["input_ids", "attention_mask"])
    assert "token_type_ids" not in tokenizer(FIRST, SECOND)
    assert PackedTokenizer(tokenizer).pairs(FIRST, SECOND).token_type_ids is None


def test_no_pair():
    batch = PackedTokenizer(tokenizer_with("BERT")).pairs([], [])
    assert (batch.input_ids.tolist(), batch.cu_seqlens.tolist(), batch.num_truncated) == ([], [0], 0)


def test_a_lone_surrogate_is_read_as_the_replacement_character():
    packed = PackedTokenizer(tokenizer_with("BERT"))
    ours, expected = packed.pairs(["fox \ud800"], ["\udfff"]), packed.pairs(["fox \ufffd"], ["\ufffd"])
    assert ours.input_ids.tolist() == expected.input_ids.tolist()


def test_what_is_no_pair():
    packed = PackedTokenizer(tokenizer_with("BERT"))
    with pytest.raises(ValueError, match=r"^first has 2 texts and second 1: pass one of each for every pair\.$"):
        packed.pairs(["a", "b"], ["c"])
    with pytest.raises(TypeError, match=r"^second\[1\] is 3 of type int, every text must be a str"):
        packed.pairs(["a", "b"], ["c", 3])
    backwards = tokenizer_with("BERT")
    backwards.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$B $A")
    with pytest.raises(ValueError, match="the tokenizer puts the second text of a pair before the first"):
        PackedTokenizer(backwards).pairs(["a"], ["b"])
