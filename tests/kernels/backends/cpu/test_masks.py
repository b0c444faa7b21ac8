"""Masks on the CPU, which its kernels read in words of 64 tokens and in vectors of 4 to 64."""

import pytest
import torch
from cases import VOCAB_SIZE, exact_logits, generator, head, parameters
from dsn_workload import prepared
from helpers import assert_within_rounding
from rounding import tracked
from window_workload import exact_window_logits, window_head, window_parameters
from window_workload import prepared as prepared_windows

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends import cpu
from dendritic_bert.kernels.prepare import fold
from dendritic_bert.kernels.reference import dsn_logits_folded_ref, dsn_logits_ref, dsn_window_logits_ref

pytestmark = pytest.mark.skipif(cpu.MISSING is not None, reason="the extension was not built")
DTYPES = {torch.bool: True, torch.uint8: 255, torch.int32: -(2**31), torch.int64: 2**40}  # and what means valid
LENGTHS = (1, 7, 31, 63, 64, 65, 130, 300)


def masks_of(length: int) -> torch.Tensor:
    """Rows that are full, empty, padded on the right, on the left and on both sides, with one hole and with many."""
    column = torch.arange(length)
    third, half = length // 3, length // 2
    return torch.stack([column >= 0, column < 0, column < half, column >= third, (column >= third) & (column < half),
                        column != half, column % 3 != 1, torch.rand(length, generator=generator(6)) < 0.5])


def tokens_of(length: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Rows under every mask; ids that are not valid are outside of the table."""
    mask = masks_of(length)
    ids = torch.randint(VOCAB_SIZE, mask.shape, generator=generator(7)).masked_fill(~mask, -1)
    return {"input_ids": ids, "attention_mask": mask.to(dtype) * torch.tensor(DTYPES[dtype], dtype=dtype)}


@pytest.mark.parametrize("type_dtype", [None, torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_logits(length, dtype, type_dtype):
    arguments = tokens_of(length, dtype)
    if type_dtype is not None:
        types = torch.randint(2, arguments["input_ids"].shape, generator=generator(8), dtype=type_dtype)
        arguments["token_type_ids"] = types.masked_fill(arguments["input_ids"] < 0, -1)
    table, dsn_head = prepared(parameters(20, num_positions=300), head(20, 3, 1), torch.float32)
    eager, exact = dsn_logits_ref(**arguments, table=table, head=dsn_head), exact_logits(arguments, table, dsn_head)
    assert_within_rounding(ops.dsn_logits(**arguments, table=table, head=dsn_head, backend="cpu"), eager, exact)
    folded = fold(table, dsn_head)
    assert_within_rounding(ops.dsn_logits_folded(**arguments, folded=folded, backend="cpu"),
                           dsn_logits_folded_ref(**arguments, folded=folded),
                           dsn_logits_folded_ref(**arguments, folded=tracked(folded)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_window_logits(length, dtype):
    arguments = tokens_of(length, dtype)
    values = window_parameters(layers=3, dendrites=16)
    windowed = prepared_windows(values, window_head(values))
    assert_within_rounding(ops.dsn_window_logits(**arguments, windowed=windowed, backend="cpu"),
                           dsn_window_logits_ref(**arguments, windowed=windowed),
                           exact_window_logits(arguments, windowed))


@pytest.mark.parametrize("column", [0, 40, 63, 64, 129])
@pytest.mark.parametrize(("name", "bad"), [("input_ids", VOCAB_SIZE), ("token_type_ids", 2), ("token_type_ids", -1)])
def test_a_bad_index_among_valid_tokens_is_named(name, bad, column):
    arguments = tokens_of(130, torch.int64)
    arguments["token_type_ids"] = torch.ones_like(arguments["input_ids"])
    arguments[name][5, column] = bad
    table, dsn_head = prepared(parameters(20, num_positions=130), head(20, 3, 0), torch.float32)
    with pytest.raises(RuntimeError, match=f"{name} holds {bad} in row 5"):
        ops.dsn_logits_folded(**arguments, folded=fold(table, dsn_head), backend="cpu")
