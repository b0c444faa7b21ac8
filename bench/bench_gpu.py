"""On a GPU: token ids -> logits, and forward with backward, beside eager PyTorch and torch.compile.

Times are the device's own, between two events. A "cold" cache holds another 256 MB. ``make gpu`` runs this bench;
without a GPU it is skipped.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from baselines import compiled, eager_logits
from harness import Implementation, gradients, hot, largest_error, relative_error
from torch import Tensor
from workload import SEED, VOCAB_SIZE, Tokens, Weights, make_tokens, make_weights

from dendritic_bert.kernels import backends, ops, prepare
from dendritic_bert.kernels.reference import embed_pool_ref

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
ROUNDS = 50
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8,
          "fp8": torch.float8_e4m3fn}
# 8,192 rows fill the device; 64 are a batch that a server may wait for.
CASES = [(128, 8192), (768, 8192), (128, 64)]
LENGTH = 32


def moved(values: Any) -> Any:
    """A named tuple of tensors, or of tuples of tensors, moved to the GPU."""
    return type(values)(*(tuple(t.cuda() for t in v) if isinstance(v, tuple) else v.cuda() for v in values))


def device_clock(run: Callable[[], Any]) -> float:
    """Seconds between two events around ``run``."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


@cache
def _flush_buffer() -> Tensor:
    return torch.empty(2**28, dtype=torch.int8, device="cuda")


def cold() -> tuple[()]:
    """A ``prepare`` that leaves none of the tables in the last-level cache, of which the largest holds 50 MB."""
    _flush_buffer().zero_()
    return ()


def bounds_of(op: str, hidden_size: int, rows: int) -> dict[tuple[str, torch.dtype], float]:
    """(backend, dtype) -> the tokens per second that this device allows."""
    from launches import Call  # imports Triton, which a machine without a GPU may lack
    from roofline import OPS, bounds_on

    return {(backend.lower(), dtype): bound.tokens_per_second for dtype in OPS[op]
            for backend, bound in bounds_on(torch.cuda.get_device_name(), Call(op, hidden_size, dtype, rows, LENGTH)
                                            ).items()}


def replayed(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``run`` captured in a CUDA graph: the time that it takes when the CPU has nothing to do."""
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def case(hidden_size: int, rows: int) -> tuple[Tokens, Weights]:
    return moved(make_tokens(np.full(rows, LENGTH))), moved(make_weights(hidden_size))


@pytest.mark.parametrize("state", ["hot", "cold"])
@pytest.mark.parametrize(("hidden_size", "rows"), CASES)
@torch.inference_mode()
def test_logits(compare, hidden_size: int, rows: int, state: str) -> None:
    tokens, model = case(hidden_size, rows)
    padded = (tokens.padded, tokens.attention_mask)
    truth = eager_logits(*padded, model.double())
    runs: dict[str, Callable[[], Tensor]] = {
        "eager reference": partial(eager_logits, *padded, model),
        "reference, torch.compile": partial(compiled(eager_logits), *padded, model)}
    head = prepare.prepare_head(*model.embeddings[3:], *model.head)
    allowed = bounds_of("dsn_logits", hidden_size, rows) if state == "hot" else {}
    bounds: dict[str, float | None] = {}
    for backend in backends.KERNEL_BACKENDS:
        for name, dtype in DTYPES.items():
            if backends.refusal(backend, "dsn_logits", "cuda", dtype) is not None:
                continue
            table = prepare.prepare_table(*model.embeddings[:3], dtype=dtype)
            logits = partial(ops.dsn_logits, table=table, head=head, backend=backend)
            packed = partial(logits, tokens.packed, cu_seqlens=tokens.cu_seqlens)
            of_table: dict[str, Callable[[], Tensor]] = {
                f"{backend} {name} packed": packed,
                f"{backend} {name} padded": partial(logits, padded[0], attention_mask=padded[1]),
                f"{backend} {name} packed, CUDA graph": replayed(packed)}
            runs |= of_table
            bounds |= dict.fromkeys(of_table, allowed.get((backend, dtype)))
    compare({name: Implementation(run, hot(run) if state == "hot" else cold, work=tokens.packed.numel(),
                                  error=largest_error(run(), truth), clock=device_clock, bound=bounds.get(name))
             for name, run in runs.items()},
            title=f"GPU, H = {hidden_size}, {rows} x {LENGTH} tokens, {state} cache", unit="token",
            baseline="eager reference", targets=[], rounds=ROUNDS,
            conditions=f"{torch.cuda.get_device_name()}, V = {VOCAB_SIZE}, Zipf-distributed ids, 2 labels, no "
                       f"dendrite, seed {SEED}; time between two events on the device; the bound is that of "
                       "bench/analysis/roofline.py")


@pytest.mark.parametrize(("hidden_size", "rows"), CASES)
def test_forward_and_backward(compare, hidden_size: int, rows: int) -> None:
    tokens, model = case(hidden_size, rows)
    embeddings = tuple(tensor.requires_grad_() for tensor in model.embeddings)
    grad_pooled = torch.randn(rows, hidden_size).cuda()

    def eager(*parameters: Tensor) -> Tensor:
        return embed_pool_ref(tokens.padded, *parameters, attention_mask=tokens.attention_mask)

    embeds = {"eager autograd": eager, "eager autograd, torch.compile": compiled(eager)}
    for backend in backends.KERNEL_BACKENDS:
        if backends.refusal(backend, "embed_pool", "cuda", torch.float32) is None:
            for name, options in (("dense", {}), ("sparse", {"sparse_grad": True})):
                embeds[f"{backend} packed, {name}"] = partial(
                    ops.embed_pool, tokens.packed, cu_seqlens=tokens.cu_seqlens, backend=backend, **options)
    runs = {name: partial(gradients, embed, embeddings, grad_pooled) for name, embed in embeds.items()}
    truth = gradients(eager, tuple(tensor.detach().double().requires_grad_() for tensor in embeddings),
                      grad_pooled.double())
    compare({name: Implementation(run, hot(run), work=tokens.packed.numel(), error=relative_error(run(), truth),
                                  clock=device_clock) for name, run in runs.items()},
            title=f"GPU, forward + backward, H = {hidden_size}, {rows} x {LENGTH} tokens", unit="token",
            baseline="eager autograd", targets=[], rounds=ROUNDS,
            conditions=f"{torch.cuda.get_device_name()}, V = {VOCAB_SIZE}, fp32, no dropout, seed {SEED}; time between "
                       "two events on the device; the error is the largest of any gradient, relative to the largest "
                       "entry of that gradient")
