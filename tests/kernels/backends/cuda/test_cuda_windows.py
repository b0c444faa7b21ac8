"""The CUDA kernel of dsn_window_logits, run on the CPU (tests/support/cuda_on_cpu): against float64, in three schedules
that must give the same bits."""

import pytest
import torch
from cases import VOCAB_SIZE, case_id, covering_sample, tokens
from cuda_on_cpu import as_backend, build
from cuda_on_cpu.as_backend import WATCHED
from cuda_on_cpu.window_assertions import (
    PLAIN,
    assert_a_bad_index_makes_its_row_nan,
    assert_a_row_has_the_same_bits_in_any_batch,
    assert_gates_are_clipped,
    assert_masked_columns_in_front_keep_their_place,
    assert_masked_tokens_are_not_read,
    assert_nan_stays_in_its_row,
    assert_rows_of_every_length,
    assert_window_logits_of_case,
    packed_rows,
    window_logits,
    windowed_of,
)
from helpers import change_backend
from window_workload import AXES

from dendritic_bert.kernels import ops

pytestmark = [pytest.mark.skipif(build.missing() is not None, reason=str(build.missing())),
              pytest.mark.usefixtures("kernels_on_cpu", "outputs_start_as_nan")]


@pytest.mark.parametrize("case", covering_sample(AXES, 4 if WATCHED else 28, seed=31), ids=case_id)
def test_logits(case):
    assert_window_logits_of_case(case)


@pytest.mark.parametrize("case", [case for case in covering_sample(AXES, 4 if WATCHED else 22, seed=32)
                                  if case["layers"] > 1], ids=case_id)
def test_bfloat16_layers(case):
    assert_window_logits_of_case(case, torch.bfloat16)


def test_lengths_around_a_tile_and_a_part():
    assert_rows_of_every_length([31, 32, 33, 0, 127, 1, 128, 129, 2, 95], layers=2)


@pytest.mark.parametrize("lengths", [[130, 3, 260, 0, 129]] if WATCHED else [[300], [130, 3, 260, 0, 129]])
def test_a_row_longer_than_a_tile_is_cut_into_pieces(lengths):
    """A tile of 128 columns pools 32 of them between the 31 that five layers see on either side."""
    with as_backend.shared_memory_of(38 * 1024):
        assert_rows_of_every_length(lengths, dendrites=32, layers=5)


@pytest.mark.parametrize("lengths", [[2, 1030]] if WATCHED else [[1100], [2, 1030]])
def test_a_long_row_is_split_over_blocks(lengths):
    assert_rows_of_every_length(lengths, dendrites=16, layers=3)


def test_more_rows_than_a_tile_holds():
    assert_rows_of_every_length([3] * 23 + [0, 1])


@pytest.mark.parametrize("layers", [0, 2])
def test_the_384_outputs_of_an_encoder(layers):
    """They take more of the place of u than u does."""
    assert_rows_of_every_length([7, 0, 12], hidden_size=96, layers=layers, num_labels=384, num_dendrites=0,
                                is_folded=False)


def test_masked_tokens_are_not_read():
    assert_masked_tokens_are_not_read()


def test_masked_columns_in_front_keep_their_place():
    assert_masked_columns_in_front_keep_their_place()


def test_nan_stays_in_its_row():
    assert_nan_stays_in_its_row()


def test_gates_are_clipped():
    assert_gates_are_clipped()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_in_any_batch(dtype):
    assert_a_row_has_the_same_bits_in_any_batch(dtype)


@pytest.mark.parametrize(("name", "value"), [("input_ids", VOCAB_SIZE), ("input_ids", -1), ("input_ids", 2**40),
                                             ("token_type_ids", 2), ("token_type_ids", -1)])
def test_a_bad_index_makes_its_row_nan_and_no_other(name, value):
    assert_a_bad_index_makes_its_row_nan(name, value)


@pytest.mark.parametrize("cu_seqlens", [[0, 3, 2, 5], [0, -3, 5], [0, 2**31 - 1, 5], [1, 3, 5], [0, 3, 6], [0, 3, 4]])
def test_invalid_cu_seqlens_are_never_followed(cu_seqlens):
    arguments = {"input_ids": torch.arange(5), "cu_seqlens": torch.tensor(cu_seqlens)}
    assert window_logits(arguments, windowed_of(PLAIN | {"layers": 2})).isnan().any()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)], ids=str)
def test_batches_without_tokens(shape):
    windowed = windowed_of(PLAIN | {"num_dendrites": 0})
    logits = window_logits({"input_ids": torch.zeros(shape, dtype=torch.int64)}, windowed)
    assert torch.equal(logits, windowed.bias.expand(shape[0], -1))


def test_ids_to_logits_is_one_launch():
    before = as_backend.load().cuda_on_cpu_launches()
    ops.dsn_window_logits(**tokens("padded", 40, 7), windowed=windowed_of(PLAIN), backend="cuda")
    assert as_backend.load().cuda_on_cpu_launches() - before == 1


@pytest.mark.parametrize(("changes", "message"), [
    ({"dendrites": 80, "layers": 1}, "dsn_window_logits has 80 channels, the cuda backend takes 64 at most"),
    ({"layers": 8}, "windows see 255 columns to each side, those of the cuda backend 240 at most"),
])
def test_windows_beyond_a_tile_are_passed_over(changes, message):
    with pytest.raises(RuntimeError, match=message):
        ops.dsn_window_logits(torch.zeros(1, 1, dtype=torch.int64), windowed_of(PLAIN | changes), backend="cuda")


@pytest.mark.parametrize(("changes", "message"), [
    ({"layers": 8}, "taps has 3 taps beside 8 layers, which see more than 240 columns to each side"),
    ({"layers": 2, "radius": 81}, "taps has 163 taps beside 2 layers"),
])
def test_the_operator_refuses_them_too(changes, message, monkeypatch):
    change_backend(monkeypatch, "cuda", largest_reach=None)
    with pytest.raises(RuntimeError, match=message):
        ops.dsn_window_logits(torch.zeros(1, 1, dtype=torch.int64), windowed_of(PLAIN | changes), backend="cuda")


def test_more_shared_memory_than_there_is():
    windowed = windowed_of(PLAIN | {"layers": 2})
    message = r"dsn_window_logits could not be launched for 2 rows, .* bytes of dynamic shared memory|invalid argument"
    with as_backend.shared_memory_of(8 * 1024), pytest.raises(RuntimeError, match=message):
        ops.dsn_window_logits(**packed_rows([3, 4]), windowed=windowed, backend="cuda")
