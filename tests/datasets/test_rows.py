"""Rows are encoded as BERT's tokenizer encodes them, padded, held out, and dropped from at random."""

from itertools import chain

import numpy as np
import pytest
import torch
from glue_files import write_task
from small_classifier import hugging_face_tokenizer

from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.rows import EncodedRows, RowDataset, Rows, encode_rows, hold_out, pad_rows
from dendritic_bert.inference.tokenization import PackedTokenizer


def test_rows_held_out(tmp_path):
    write_task(tmp_path, "qnli", {"dev": 50})
    rows = read_rows("qnli", "dev", str(tmp_path))
    kept, held = hold_out(rows, 0.2)
    assert (len(kept.labels), len(held.labels)) == (40, 10)
    everything = sorted(zip(*rows.columns, rows.labels))
    assert sorted([*zip(*kept.columns, kept.labels), *zip(*held.columns, held.labels)]) == everything
    assert hold_out(rows, 0.2)[1].columns == held.columns
    with pytest.raises(ValueError, match=r"^hold_out is 0\.001, which of 50 rows leaves none on one side"):
        hold_out(rows, 0.001)


def flat(rows: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(rows))


TEXTS = ["The quick brown fox", "", "a charming and often affecting journey: ...", "unflinchingly bleak!", "dog, " * 9]


@pytest.mark.parametrize("max_length", [5, 6, 9, 10, 17, 200])
@pytest.mark.parametrize("engine", ["native", "tokenizers"])
def test_pairs_are_those_of_transformers(max_length, engine):
    """Every pair of texts: the ids, the types, and what truncation leaves of each."""
    theirs = hugging_face_tokenizer()
    theirs.backend_tokenizer.post_processor = pair_processor()
    firsts, seconds = map(list, zip(*[(a, b) for a in TEXTS for b in TEXTS]))
    rows = Rows((firsts, seconds), np.arange(len(firsts)), "")
    ours = encode_rows(rows, PackedTokenizer(theirs, engine=engine), max_length)
    plain = theirs(firsts, seconds)
    cut = theirs(firsts, seconds, truncation="longest_first", max_length=max_length)
    assert np.diff(ours.cu_seqlens).tolist() == list(map(len, cut["input_ids"]))
    assert ours.input_ids.tolist() == flat(cut["input_ids"])
    assert ours.token_type_ids.tolist() == flat(cut["token_type_ids"])
    assert ours.input_ids.dtype == np.int32
    assert ours.num_truncated == sum(len(ids) > max_length for ids in plain["input_ids"])


def pair_processor():
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
                              special_tokens=[("[CLS]", 4), ("[SEP]", 3)])


def test_single_texts_are_those_of_transformers():
    theirs = hugging_face_tokenizer()
    ours = encode_rows(Rows((TEXTS,), np.arange(5), ""), PackedTokenizer(theirs), 7)
    plain, cut = theirs(TEXTS)["input_ids"], theirs(TEXTS, truncation=True, max_length=7)["input_ids"]
    assert ours.input_ids.tolist() == flat(cut)
    assert (ours.token_type_ids, ours.num_truncated) == (None, sum(len(ids) > 7 for ids in plain))


def test_no_room_for_a_pair():
    with pytest.raises(ValueError, match=r"^max_length is 2, the special tokens of a pair alone take 3\.$"):
        encode_rows(Rows((["a"], ["b"]), np.zeros(1), ""), PackedTokenizer(hugging_face_tokenizer()), 2)


def encoded(lengths: list[int], labels=None, types: bool = False) -> EncodedRows:
    """Rows of ids 2 5 6 7 ... 3, as [CLS] ... [SEP]."""
    rows = [[2, *range(5, 3 + length), 3] for length in lengths]
    ids = np.array(flat(rows), np.int32)
    labels = np.arange(len(lengths)) if labels is None else labels
    return EncodedRows(ids, np.cumsum([0, *lengths]), ids % 2 if types else None, labels, 0)


def test_padding():
    dataset = RowDataset(encoded([4, 2, 3], types=True))
    batch = pad_rows([dataset[i] for i in (0, 2, 1)])
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[2, 5, 6, 3], [2, 5, 3, 0], [2, 3, 0, 0]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]],
        "token_type_ids": [[0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]],
        "labels": [0, 2, 1],
    }
    assert {values.dtype for values in batch.values()} == {torch.int64}
    regression = RowDataset(encoded([3], labels=np.array([2.5], np.float32)))
    assert pad_rows([regression[0]])["labels"].dtype == torch.float32
    assert "token_type_ids" not in pad_rows([regression[0]])


def test_word_dropout_statistics():
    """A share p of the words is dropped, all equally likely and new in every epoch; [CLS] and [SEP] never are."""
    length, reads, p = 50, 4000, 0.3
    dataset = RowDataset(encoded([length]), p, never_dropped=[0, 2, 3], seed=0)
    masks = np.array([dataset.set_epoch(epoch) or dataset[0]["attention_mask"] for epoch in range(reads)])
    assert masks[:, [0, -1]].all()
    kept = masks[:, 1:-1].mean(axis=0)
    assert np.abs(kept - (1 - p)).max() < 5 * np.sqrt(p * (1 - p) / reads)  # 1 in 20,000 for 48 places
    pairs = np.corrcoef(masks[:, 1:-1].T)[np.triu_indices(length - 2, 1)]
    assert np.abs(pairs).max() < 5.5 / np.sqrt(reads)
    assert len(np.unique(masks, axis=0)) > 0.99 * reads


def test_word_dropout_follows_its_seed_and_epoch_alone():
    def masks(seed, *epochs):
        np.random.seed(torch.randint(1 << 30, ()).item())  # noqa: NPY002 -- what must not count
        dataset = RowDataset(encoded([40] * 20), 0.5, never_dropped=[2, 3], seed=seed)
        for epoch in epochs:
            dataset.set_epoch(epoch)
        return np.stack([dataset[i]["attention_mask"] for i in range(20)])

    assert np.array_equal(masks(1, 0, 1, 2), masks(1, 2))
    assert not np.array_equal(masks(1, 2), masks(2, 2))
    assert not np.array_equal(masks(1, 1), masks(1, 2))


def test_word_dropout_draws_for_a_few_tokens_at_once_what_one_draw_gives(monkeypatch):
    """Models in use were trained with masks of one draw for all tokens."""
    monkeypatch.setattr("dendritic_bert.datasets.rows.MASK_CHUNK", 6)
    rows = encoded([7, 2, 11, 40, 3])._replace(input_ids=np.arange(63, dtype=np.uint16) % 9)
    dataset = RowDataset(rows, 0.4, never_dropped=[2, 3], seed=8)
    dataset.set_epoch(5)
    expected = (np.random.default_rng([8, 5]).random(63, np.float32) >= 0.4) | np.isin(rows.input_ids, [2, 3])
    assert np.concatenate([dataset[i]["attention_mask"] for i in range(5)]).tolist() == expected.tolist()


def test_no_word_dropout():
    dataset = RowDataset(encoded([9] * 5))
    assert all(dataset[i]["attention_mask"].all() for i in range(5))
    with pytest.raises(ValueError, match=r"^word_dropout is 1\.0, expected 0 <= word_dropout < 1\.$"):
        RowDataset(encoded([9]), 1.0)
