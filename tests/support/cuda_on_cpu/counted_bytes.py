"""Compares the bytes that bench/analysis/cuda_traffic.py counts with those that the kernels load and store.

tests/bench/analysis/test_cuda_traffic.py runs it, in a process whose library counts every access.
"""

import ctypes

import launches
import pytest
import torch
from cuda_on_cpu import as_backend
from cuda_traffic import cuda_traffic_of, plan_of
from launches import VOCAB_SIZE, Call
from traffic import Traffic
from window_workload import prepared, window_head, window_parameters

from dendritic_bert.kernels.backends import cuda

GROUPS = {"head": ("weight", "bias", "beta_bias", "lateral", "top"), "ln": ("ln_weight", "ln_bias")}
# What is no argument of the op, and the part of its traffic that is the kernels': torch sums the terms of rows.
MADE = {"partial": 1, "arrived": 1, "logits": 1, "rstd": 1, "pooled": 1, "pooled_hat": 1, "row terms": 0.5,
        "d_word": 1, "d_context": 1}
CALLS = [(op, dtype, hidden_size, rows, length)
         for op, dtype in (("dsn_logits", torch.bfloat16), ("dsn_logits", torch.int8), ("embed_pool", torch.float32),
                           ("embed_pool", torch.bfloat16), ("embed_pool_backward", torch.float32),
                           ("embed_pool_backward", torch.bfloat16))
         for hidden_size, rows, length in ((128, 3, 37), (768, 2, 33), (384, 5, 8))]
# Rows that are split over blocks, and short rows of which several share a block.
CALLS += [("dsn_logits", torch.bfloat16, 128, 2, 512), ("embed_pool", torch.float32, 16, 3, 512),
          ("dsn_logits", torch.float32, 16, 2049, 3), ("embed_pool_backward", torch.bfloat16, 16, 2049, 3)]


def counted(library: ctypes.CDLL, begin: int, size: int) -> tuple[int, int]:
    """Read and reset the counts of [begin, begin + size): bytes moved, and different bytes among them."""
    read, written, distinct = ctypes.c_int64(), ctypes.c_int64(), ctypes.c_int64()
    library.cuda_on_cpu_count(ctypes.c_size_t(begin), ctypes.c_size_t(size), ctypes.byref(read), ctypes.byref(written),
                              ctypes.byref(distinct))
    return read.value + written.value, distinct.value


def written_tensors(call: Call) -> dict[str, torch.Tensor]:
    tensors = {name: torch.zeros_like(tensor) for name, tensor in call.tensors().items()}
    ids = torch.randint(VOCAB_SIZE, (call.rows, call.length), generator=torch.Generator().manual_seed(0))
    return tensors | {"input_ids": ids.int(), "attention_mask": torch.ones(call.rows, call.length, dtype=torch.bool)}


def by_name(traffic: Traffic, what: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for stream in traffic.streams:
        sums[stream.name] = sums.get(stream.name, 0) + getattr(stream, what)
    return sums


@pytest.mark.parametrize(("op", "dtype", "hidden_size", "rows", "length"), CALLS, ids=str)
def test_traffic(op, dtype, hidden_size, rows, length, monkeypatch):
    call = Call(op, hidden_size, dtype, rows, length)
    kernels = torch.ops.dendritic_bert
    monkeypatch.setattr(launches, "IMPLEMENTATIONS", {
        "dsn_logits": kernels.dsn_logits_cuda, "embed_pool": kernels.embed_pool_cuda,
        "embed_pool_backward": cuda.embed_pool_backward})
    tensors = written_tensors(call)
    library = as_backend.load()
    counted(library, 0, 2**64 - 1)
    call.launch(tensors)
    passed, distinct = {}, {}
    for name, tensor in tensors.items():
        passed[name], distinct[name] = counted(library, tensor.data_ptr(), tensor.numel() * tensor.element_size())
    other, _ = counted(library, 0, 2**64 - 1)
    for group, names in GROUPS.items():
        passed[group] = sum(passed.pop(name, 0) for name in names)
        distinct[group] = sum(distinct.pop(name, 0) for name in names)

    requested = by_name(cuda_traffic_of(call), "requested")
    made = {"context", *MADE} - set(tensors)
    assert other == sum(MADE.get(name, 1) * size for name, size in requested.items() if name in made)
    for name in passed:
        if name not in made and passed[name] + requested.get(name, 0) > 0:
            assert passed[name] == requested[name], name
    for stream in cuda_traffic_of(call).streams:
        if stream.kind == "table" and stream.name not in (*made, "word_scale"):
            assert distinct[stream.name] == stream.distinct, stream.name


def test_the_calls_take_every_kind_of_plan():
    plans = [plan_of(Call(op, hidden_size, dtype, rows, length)) for op, dtype, hidden_size, rows, length in CALLS]
    assert {plan.warps_per_row for plan in plans} == {1, 4}
    assert {plan.splits for plan in plans} == {1, 2}
    assert {plan.shape for plan in plans} == {"16x1", "32x1", "32x2", "32x3"}


@pytest.mark.parametrize(("rows", "length"), [(40, 3), (7, 25), (3, 129), (1, 512)])
def test_windows_move_at_most_5_percent_more_than_they_must(rows, length):
    """Every tap, value and gate of a token once, as long as a row fits in a tile; the mask twice."""
    values = window_parameters(layers=4, dendrites=16)
    windowed = prepared(values, window_head(values), dtype=torch.bfloat16)
    shape = (rows, length)
    ids = torch.randint(83, shape, generator=torch.Generator().manual_seed(length), dtype=torch.int32)
    mask = torch.ones(shape, dtype=torch.bool)
    library = as_backend.load()
    counted(library, 0, 2**64 - 1)
    torch.ops.dendritic_bert.dsn_window_logits_cuda(ids, *windowed[:-1], 0, mask, None, None)
    passed, distinct = {}, {}
    for name, tensor in {"input_ids": ids, "mask": mask, **windowed._asdict()}.items():
        if isinstance(tensor, torch.Tensor):
            passed[name], distinct[name] = counted(library, tensor.data_ptr(), tensor.numel() * tensor.element_size())
    num_tokens = rows * length
    least = {"input_ids": 4 * num_tokens, "mask": num_tokens, "values": 4 * num_tokens * windowed.values.shape[-1],
             "gate": 4 * num_tokens, "taps": 4 * 16 * rows * (length + 2 * (length - 1))}
    for name in ("input_ids", "values", "gate", "taps"):
        assert passed[name] == least[name], name
    assert passed["mask"] == 2 * least["mask"]
    logits, _ = counted(library, 0, 2**64 - 1)
    assert logits == 4 * 3 * rows
    tables = sum(distinct[name] for name in distinct if name not in least)
    moved = sum(passed[name] for name in least) + tables + logits
    assert moved <= 1.05 * (sum(least.values()) + tables + logits)
