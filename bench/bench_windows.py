"""Token ids -> logits with dendrites on windows of tokens: ``dsn_window_logits`` in float32 and bfloat16, and
``dsn_window_logits_int8``, beside torch's convolutions.

The window layers after the first are nearly all of the work, and are compared with multiply-adds alone: as many as they
need, in registers. A tap outside of the row is not needed, and torch computes it all the same. Their time is that of
the op less that of the op with the first layer only, which gathers, weighs, pools and runs the head as well. The whole
op is set beside the multiply-adds too, without a target: what the processor could reach of them in an op is not known.
"""

import ctypes
import os
import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from baselines import compiled
from convolutions import DENDRITES, HIDDEN_SIZE, LABELS, LAYERS, RADIUS, WORDS, convolution_pool, make_parameters
from harness import Implementation, Target, hot, largest_error, wall_clock
from torch import Tensor
from workload import SEED, SMALL, Tokens, make_tokens, row_lengths

from dendritic_bert.kernels import backends, ops, prepare, prepare_int8
from dendritic_bert.kernels.backends import cpu
from dendritic_bert.kernels.reference import dsn_window_logits_ref

ROUNDS = 2 if SMALL else 40
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AVX512_FLAGS = ["-mavx512f", "-mfma"]
COMPILER_FLAGS = {"amx": AVX512_FLAGS, "avx512": AVX512_FLAGS, "avx2": ["-mavx2", "-mfma"], "baseline": []}
ALONE = "multiply-adds alone"
LATER_LAYERS = "cpu fp32 packed, layers 1 to 4 alone"
TARGETS = [Target("cpu fp32 packed", "conv1d, eager", at_least=3),
           Target("cpu fp32 packed", "conv1d, torch.compile", at_least=2.5),
           Target(LATER_LAYERS, ALONE, at_least=0.8), Target("cpu fp32 packed", ALONE),
           Target("cpu bf16 packed", "cpu fp32 packed", at_least=1.5),
           Target("cpu int8 packed", "cpu fp32 packed", at_least=2.5)]


def convolution_logits(input_ids: Tensor, attention_mask: Tensor, *parameters: Tensor) -> Tensor:
    """``convolution_pool`` and a head, whose weight and bias come last."""
    return F.linear(convolution_pool(input_ids, attention_mask, *parameters[:-2]), *parameters[-2:])


def needed_multiply_adds(lengths: np.ndarray) -> int:
    """Of the window layers after the first: a tap counts where it lies inside the row."""
    offsets = np.arange(-RADIUS, RADIUS + 1)[:, None]
    taps = sum(int(np.clip(lengths - np.abs(offsets) * 2**layer, 0, None).sum()) for layer in range(1, LAYERS))
    return taps * DENDRITES**2


def multiply_adds_alone(folder: Path) -> Callable[[int], float]:
    """``multiply_adds.cpp``, compiled for the instruction set of the kernels that are measured."""
    library = folder / "multiply_adds.so"
    subprocess.run([*shlex.split(os.environ.get("CXX", "c++")), "-O3", "-ffp-contract=fast", "-shared", "-fPIC",
                    *COMPILER_FLAGS[cpu.instruction_set()], str(Path(__file__).with_name("multiply_adds.cpp")),
                    "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).multiply_adds
    function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_float
    return function


def runs_of(tokens: Tokens, parameters: tuple[Tensor, ...]) -> dict[str, Callable[[], Tensor]]:
    embeddings, windows, head = parameters[:2], parameters[2:7], parameters[7:]
    padded = (tokens.padded, tokens.attention_mask)
    tables = {name: prepare.prepare_windows(*embeddings, None, None, *windows, *head, dtype=dtype)
              for name, dtype in DTYPES.items()}
    runs: dict[str, Callable[[], Tensor]] = {
        "conv1d, eager": partial(convolution_logits, *padded, *parameters),
        "conv1d, torch.compile": partial(compiled(convolution_logits), *padded, *parameters),
    }
    if not SMALL:  # it takes 10 s to compile
        runs["reference, torch.compile"] = partial(compiled(dsn_window_logits_ref), tokens.padded, tables["fp32"],
                                                   attention_mask=tokens.attention_mask)
    if cpu.MISSING is None:
        quantised = prepare_int8.quantise_windows(tables["fp32"])
        runs["cpu int8 packed"] = partial(ops.dsn_window_logits_int8, tokens.packed, quantised,
                                          cu_seqlens=tokens.cu_seqlens, backend="cpu")
    for backend in backends.BACKENDS:
        for name, dtype in DTYPES.items():
            if backend != "reference" and backends.refusal(backend, "dsn_window_logits", "cpu", dtype) is None:
                logits = partial(ops.dsn_window_logits, windowed=tables[name], backend=backend)
                runs[f"{backend} {name} packed"] = partial(logits, tokens.packed, cu_seqlens=tokens.cu_seqlens)
                runs[f"{backend} {name} padded"] = partial(logits, tokens.padded, attention_mask=tokens.attention_mask)
    return runs


def later_layers(tokens: Tokens, parameters: tuple[Tensor, ...], op: Callable[[], Tensor]) -> Implementation:
    """What ``op`` takes longer than the same op with the first layer only."""
    input_weight, weight, bias, *gate = parameters[2:7]
    table = prepare.prepare_windows(*parameters[:2], None, None, input_weight, weight[:0], bias[:1], *gate,
                                    *parameters[7:])
    first_layer = partial(ops.dsn_window_logits, tokens.packed, table, cu_seqlens=tokens.cu_seqlens, backend="cpu")
    return Implementation(op, hot(first_layer), work=tokens.packed.numel(),
                          clock=lambda run: wall_clock(run) - wall_clock(first_layer))


@pytest.mark.parametrize("lengths", ["25 tokens", "ragged"])
@torch.inference_mode()
def test_batch(compare, lengths: str, tmp_path: Path) -> None:
    row_sizes = row_lengths("ragged") if lengths == "ragged" else np.full(8 if SMALL else 1024, 25)
    tokens, parameters = make_tokens(row_sizes, WORDS), make_parameters()
    truth = convolution_logits(tokens.padded, tokens.attention_mask, *(tensor.double() for tensor in parameters))
    num_tokens = tokens.packed.numel()
    runs = runs_of(tokens, parameters)
    implementations = {name: Implementation(run, hot(run), work=num_tokens, error=largest_error(run(), truth))
                       for name, run in runs.items()}
    if "cpu fp32 packed" in runs:
        implementations[LATER_LAYERS] = later_layers(tokens, parameters, runs["cpu fp32 packed"])
    alone = partial(multiply_adds_alone(tmp_path), needed_multiply_adds(row_sizes))
    implementations[ALONE] = Implementation(alone, hot(alone), work=num_tokens)
    compare(implementations, title=f"{len(row_sizes)} rows of {num_tokens / len(row_sizes):.1f} tokens", unit="token",
            baseline="conv1d, eager", rounds=ROUNDS, targets=TARGETS if lengths == "25 tokens" else [],
            conditions=f"V = {WORDS}, H = {HIDDEN_SIZE}, M = {DENDRITES}, J = {LAYERS}, radius {RADIUS}, gated mean, "
                       f"{LABELS} labels, one thread, hot cache, Zipf-distributed ids, seed {SEED}; {ALONE}: those of "
                       "layers 1 to 4 whose tap lies inside the row, in registers; layers 1 to 4 alone: the op less "
                       "the same with one layer; the error is that of the logits")
