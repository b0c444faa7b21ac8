"""The CPU kernel of dsn_window_logits where its own constants matter: strips, halos, tiles and threads."""

import pytest
import torch
from cases import VOCAB_SIZE, generator
from helpers import assert_within_rounding
from window_workload import exact_window_logits, prepared, window_head, window_parameters

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends import cpu
from dendritic_bert.kernels.contract import WINDOW_DTYPES
from dendritic_bert.kernels.reference import dsn_window_logits_ref

pytestmark = pytest.mark.skipif(cpu.MISSING is not None, reason="the extension was not built")
STRIP_COLUMNS = 256  # strip_columns of csrc/cpu/window_strip.h


def ids_of(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed ids of rows of these lengths, and their cu_seqlens."""
    return (torch.randint(VOCAB_SIZE, (sum(lengths),), generator=generator(3)),
            torch.tensor([0, *lengths]).cumsum(0))


@pytest.mark.parametrize(("length", "layers", "radius"), [
    (STRIP_COLUMNS, 5, 1), (STRIP_COLUMNS + 63, 5, 1), (STRIP_COLUMNS + 63, 1, 1), (700, 3, 2), (1100, 5, 1),
    (1000, 0, 1)])
def test_rows_longer_than_a_strip(length, layers, radius):
    """A part of a row is computed with a halo of radius * (2^J - 1) columns, and holes in the mask go across parts."""
    values = window_parameters(layers=layers, radius=radius, dendrites=16)
    windowed = prepared(values, window_head(values))
    mask = torch.rand(2, length, generator=generator(4)) < 0.9
    mask[1, :100], mask[1, length - 20:] = False, False
    arguments = {"input_ids": torch.randint(VOCAB_SIZE, (2, length), generator=generator(5)), "attention_mask": mask}
    logits = ops.dsn_window_logits(**arguments, windowed=windowed, backend="cpu")
    assert_within_rounding(logits, dsn_window_logits_ref(**arguments, windowed=windowed),
                           exact_window_logits(arguments, windowed))


@pytest.mark.parametrize("dendrites", [16, 48])
def test_rows_around_a_tile(dendrites):
    """Every number of tokens up to 26: tiles of 1 to 12, one and two panels wide, and dilations on both sides of the
    length."""
    values = window_parameters(layers=5, dendrites=dendrites)
    windowed = prepared(values, window_head(values))
    ids, cu_seqlens = ids_of(*range(27))
    arguments = {"input_ids": ids, "cu_seqlens": cu_seqlens}
    logits = ops.dsn_window_logits(**arguments, windowed=windowed, backend="cpu")
    assert_within_rounding(logits, dsn_window_logits_ref(**arguments, windowed=windowed),
                           exact_window_logits(arguments, windowed))


def assert_bfloat16_logits(arguments: dict[str, torch.Tensor], dendrites: int, layers: int, radius: int) -> None:
    values = window_parameters(layers=layers, radius=radius, dendrites=dendrites)
    windowed = prepared(values, window_head(values), dtype=torch.bfloat16)
    logits = ops.dsn_window_logits(**arguments, windowed=windowed, backend="cpu")
    assert_within_rounding(logits, dsn_window_logits_ref(**arguments, windowed=windowed),
                           exact_window_logits(arguments, windowed))


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dendrites", [16, 32, 48, 64])
def test_bfloat16_rows_around_a_tile(dendrites, layers, radius):
    """Rows of fewer tokens than a tile of AMX has, of as many and of more; one, two, three and four panels."""
    ids, cu_seqlens = ids_of(0, 1, 15, 16, 17, 25)
    assert_bfloat16_logits({"input_ids": ids, "cu_seqlens": cu_seqlens}, dendrites, layers, radius)


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("dendrites", [16, 32, 48])
def test_bfloat16_rows_with_holes(dendrites, radius):
    """Rows in one strip and in two, with a halo; what is not valid has ids outside of the table."""
    mask = torch.rand(4, 300, generator=generator(4)) < 0.8
    mask[1, 25:], mask[2, :17], mask[3] = False, False, False
    ids = torch.randint(VOCAB_SIZE, mask.shape, generator=generator(5)).masked_fill(~mask, -1)
    assert_bfloat16_logits({"input_ids": ids, "attention_mask": mask}, dendrites, 4, radius)


@pytest.mark.parametrize("dtype", WINDOW_DTYPES)
@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads, dtype):
    values = window_parameters(layers=4, dendrites=32)
    windowed = prepared(values, window_head(values), dtype=dtype)
    ids, cu_seqlens = ids_of(*([25, 0, 3, 60] * 60), 600)
    before, logits = torch.get_num_threads(), {}
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            logits[count] = ops.dsn_window_logits(ids, windowed, cu_seqlens=cu_seqlens, backend="cpu")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(logits[threads], logits[1])


def test_bfloat16_layers_are_those_of_rounded_weights_and_rounded_u():
    """Weights that bfloat16 represents, and a first layer whose u it represents: then float32 layers, J = 2, compute
    the same up to the order of their sums."""
    values = window_parameters(layers=2, dendrites=32)
    for name in ("word_embeddings", "token_type_embeddings", "window_input_weight", "window_bias", "window_weight"):
        values[name] = (8 * values[name]).round() / 8
    values["window_input_weight"] = values["window_input_weight"].sign() * (torch.rand(3, 12, 32) < 0.2)
    half, full = (prepared(values, window_head(values), dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert torch.equal(half.taps.bfloat16().float(), full.taps)
    ids, cu_seqlens = ids_of(25, 1, 7)
    arguments = {"input_ids": ids, "cu_seqlens": cu_seqlens}
    assert_within_rounding(ops.dsn_window_logits(**arguments, windowed=half, backend="cpu"),
                           ops.dsn_window_logits(**arguments, windowed=full, backend="cpu"),
                           exact_window_logits(arguments, full))
