"""Ids that are packed on disk are those that were written, in the smallest type, and no file is left behind."""

import numpy as np
import pytest

from dendritic_bert.datasets.packed_files import pack_rows
from dendritic_bert.datasets.rows import EncodedRows, RowDataset, pad_rows


def batches(lengths, vocab_size, pairs):
    rng = np.random.default_rng(0)
    for part in lengths:
        ids = rng.integers(0, vocab_size, sum(part)).astype(np.int32)
        yield EncodedRows(ids, np.cumsum([0, *part]), ids % 2 if pairs else None, np.empty(len(part)), len(part) // 2)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("vocab_size", "dtype"), [(300, np.uint16), (1 << 16, np.uint16), ((1 << 16) + 1, np.int32)])
def test_rows_come_back(tmp_path, vocab_size, dtype, pairs):
    lengths = [[3, 2, 7], [2], [128] * 5, [2, 2]]
    labels = np.arange(11)
    packed = pack_rows(batches(lengths, vocab_size, pairs), labels, vocab_size, tmp_path)
    parts = list(batches(lengths, vocab_size, pairs))
    assert packed.input_ids.dtype == dtype
    assert packed.input_ids.tolist() == np.concatenate([part.input_ids for part in parts]).tolist()
    assert np.diff(packed.cu_seqlens).tolist() == [length for part in lengths for length in part]
    assert packed.cu_seqlens.dtype == np.int64
    assert packed.num_truncated == 1 + 0 + 2 + 1
    assert (packed.token_type_ids is None) is not pairs
    if pairs:
        assert packed.token_type_ids.tolist() == np.concatenate([part.token_type_ids for part in parts]).tolist()
    assert list(tmp_path.iterdir()) == []
    dataset = RowDataset(packed, 0.5, never_dropped=[0])
    batch = pad_rows([dataset[i] for i in (10, 5)])
    assert batch["input_ids"].shape == (2, 128)
    assert batch["input_ids"][1].tolist() == parts[2].input_ids[128:256].tolist()


def test_no_rows(tmp_path):
    packed = pack_rows([], np.zeros(0), 10, tmp_path)
    assert (len(packed.input_ids), packed.cu_seqlens.tolist(), packed.token_type_ids) == (0, [0], None)
