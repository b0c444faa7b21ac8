"""Calls the ops of a backend with arguments spoilt at random; run by test_validation.py in a process of its own.

    python malformed_calls.py BACKEND DEVICE

Prints every call before it is made, so that the last line says which one ended the process. Under Triton's interpreter
a call takes 8 ms, and after the first hundred only those are made that spoil an argument in a new way.
"""

import os
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from cases import LAYOUTS, head, moved, parameters, tokens
from window_workload import prepared as prepare_windowed
from window_workload import window_head, window_parameters

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.contract import (
    PARAMETER_DTYPES,
    POOLINGS,
    WINDOW_DTYPES,
    DsnHead,
    DsnTable,
    FoldedDsn,
    QuantisedWindowedDsn,
    WindowedDsn,
)
from dendritic_bert.kernels.prepare import fold, prepare_head, prepare_table
from dendritic_bert.kernels.prepare_int8 import quantise_windows

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    import quick_interpreter  # noqa: F401

CALLS, ALWAYS_MADE = 3000, 100
OPS = ["embed_pool", "window_pool", "dsn_logits", "dsn_logits_folded", "dsn_window_logits", "dsn_window_logits_int8"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.int16, torch.int32,
          torch.int64, torch.uint8, torch.bool, torch.complex64]


def ways_to_spoil(rng: random.Random, value: Any) -> dict[str, Callable[[], Any]]:
    """Each makes one thing wrong, or merely unusual, with an argument."""
    if not isinstance(value, torch.Tensor):
        return {str(other): lambda other=other: other for other in (None, -1, float("nan"), "text")}
    ways: dict[str, Callable[[], Any]] = {
        "meta": lambda: value.to("meta"),
        "flat": lambda: value.flatten(),
        "one more dimension": lambda: value[None],
        "scalar": lambda: value.new_zeros(()),
        "empty": lambda: value[:0] if value.dim() else value,
        "no last dimension": lambda: value[..., :0] if value.dim() else value,
        "half": lambda: value[: value.shape[0] // 2] if value.dim() else value,
        "twice": lambda: torch.cat([value, value], dim=-1) if value.dim() else value,
        "transposed": lambda: value.mT if value.dim() > 1 else value,
        "absent": lambda: None,
    }
    ways |= {str(dtype): lambda dtype=dtype: value.to(dtype) for dtype in DTYPES}
    if value.dtype in (torch.int32, torch.int64) and value.numel():
        ways |= {f"{bad} somewhere": lambda bad=bad: _with_bad_value(rng, value, bad)
                 for bad in (-1, 83, 2**31 - 1, -(2**31), 5)}
    return ways


def _with_bad_value(rng: random.Random, value: torch.Tensor, bad: int) -> torch.Tensor:
    spoilt = value.clone()
    spoilt.view(-1)[rng.randrange(value.numel())] = bad
    return spoilt


def good_call(op: str, rng: random.Random, device: str) -> dict[str, Any]:
    """The arguments of ``op`` by name, the fields of tables and heads as "DsnTable.word" and the like."""
    hidden_size = rng.choice([16, 20, 128])
    layout = rng.choice(LAYOUTS)
    arguments = moved(tokens(layout, rng.randrange(5), rng.randrange(8), token_types=rng.random() < 0.5,
                             positions=rng.random() < 0.5, num_positions=8, seed=rng.randrange(100),
                             index_dtype=rng.choice([torch.int32, torch.int64])), device)
    if op.startswith("dsn_window_logits"):
        arguments.pop("position_ids", None)
        is_int8 = op.endswith("int8")
        windows = window_parameters(hidden_size, layers=rng.randrange(int(is_int8), 4), has_gate=rng.random() < 0.5)
        dtype = torch.float32 if is_int8 else rng.choice(WINDOW_DTYPES)
        windowed = prepare_windowed(windows, window_head(windows), dtype=dtype)
        return arguments | fields_of(quantise_windows(windowed, torch.zeros(1, 4, dtype=torch.int64)) if is_int8
                                     else windowed, device)
    if op == "window_pool":
        arguments.pop("position_ids", None)
        arguments |= {"p_window": rng.choice([0.0, 0.5]), "seed": rng.choice([None, 1])}
        return arguments | window_parameters(hidden_size, layers=rng.randrange(4), has_norm=rng.random() < 0.5,
                                             has_gate=rng.random() < 0.5, dtype=rng.choice(PARAMETER_DTYPES))
    arguments["pooling"] = rng.choice(POOLINGS)
    values = parameters(hidden_size, rng.choice(PARAMETER_DTYPES))
    if op == "embed_pool":
        arguments |= {"p_embed": rng.choice([0.0, 0.5]), "seed": rng.choice([None, 1]),
                      "sparse_grad": rng.random() < 0.5, "eps": 1e-12}
        return arguments | moved(values, device)
    table = prepare_table(*list(values.values())[:3], dtype=rng.choice([*PARAMETER_DTYPES, torch.int8]))
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(hidden_size, 3, rng.randrange(3)))
    for prepared in (fold(table, dsn_head),) if op == "dsn_logits_folded" else (table, dsn_head):
        arguments |= fields_of(prepared, device)
    return arguments


def fields_of(prepared: Any, device: str) -> dict[str, Any]:
    return {f"{type(prepared).__name__}.{name}": value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in prepared._asdict().items()}


def call(op: str, arguments: dict[str, Any], backend: str) -> None:
    """Calls ``op``, and where it is differentiable its backward pass; checks the shape of the result."""
    arguments = dict(arguments)
    if op in ("embed_pool", "window_pool"):
        for value in arguments.values():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                value.requires_grad_()
    for kind, argument in ((DsnTable, "table"), (DsnHead, "head"), (FoldedDsn, "folded"),
                           (WindowedDsn, "windowed"), (QuantisedWindowedDsn, "quantised")):
        prefix = f"{kind.__name__}."
        fields = {name.removeprefix(prefix): arguments.pop(name) for name in list(arguments) if name.startswith(prefix)}
        if fields:
            arguments[argument] = kind(**fields)
    result = getattr(ops, op)(**arguments, backend=backend)
    cu_seqlens, input_ids = arguments.get("cu_seqlens"), arguments["input_ids"]
    rows = input_ids.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    assert list(result.shape[:-1]) == [rows], f"result of shape {list(result.shape)}"
    if result.requires_grad:
        result.sum().backward()


def main(backend: str, device: str) -> None:
    rng = random.Random(0)
    torch.set_num_threads(1)
    dtypes = {"dsn_window_logits_int8": torch.int8}
    served = [op for op in OPS if backends.refusal(backend, op, device, dtypes.get(op, torch.float32)) is None]
    made = refused = 0
    seen: set[tuple[str, ...]] = set()
    for number in range(CALLS):
        op = rng.choice(served)
        arguments = good_call(op, rng, device)
        spoilt = {}
        for name in rng.sample(list(arguments), rng.choice([0, 1, 1, 1, 2])):
            ways = ways_to_spoil(rng, arguments[name])
            spoilt[name] = rng.choice(list(ways))
            arguments[name] = ways[spoilt[name]]()
        kinds = {(op, name, way) for name, way in spoilt.items()} or {(op,)}
        if INTERPRETED and number >= ALWAYS_MADE and kinds <= seen:
            continue
        seen |= kinds
        made += 1
        print(number, op, {name: list(value.shape) if isinstance(value, torch.Tensor) else value
                           for name, value in arguments.items()}, spoilt, flush=True)
        try:
            call(op, arguments, backend)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
            if not spoilt:
                raise AssertionError("a good call was refused") from error
            refused += 1
    assert made // 4 < refused < made, f"{refused} of {made} calls refused"


if __name__ == "__main__":
    main(*sys.argv[1:])
