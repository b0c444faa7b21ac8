"""Calls the ops of a backend with arguments spoilt at random; run by test_bad_input.py in a process of its own.

    python malformed_calls.py BACKEND DEVICE

Prints every call before it is made, so that the last line says which one ended the process.
"""

import os
import random
import sys
from typing import Any

import torch
from cases import LAYOUTS, head, moved, parameters, tokens

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import POOLINGS
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

if os.environ.get("TRITON_INTERPRET") == "1":
    import quick_interpreter  # noqa: F401

CALLS = 3000
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.int16, torch.int32,
          torch.int64, torch.uint8, torch.bool, torch.complex64]


def spoil(rng: random.Random, value: Any) -> tuple[str, Any]:
    """One thing wrong, or merely unusual, with an argument."""
    if not isinstance(value, torch.Tensor):
        return rng.choice([("None", None), ("-1", -1), ("nan", float("nan")), ("text", "text")])
    ways: dict[str, Any] = {
        "another dtype": lambda: value.to(rng.choice(DTYPES)),
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
    if value.dtype in (torch.int32, torch.int64) and value.numel():
        ways |= {f"{bad} somewhere": lambda bad=bad: _with_bad_value(rng, value, bad)
                 for bad in (-1, 83, 2**31 - 1, -(2**31), 5)}
    way = rng.choice(list(ways))
    return way, ways[way]()


def _with_bad_value(rng: random.Random, value: torch.Tensor, bad: int) -> torch.Tensor:
    spoilt = value.clone()
    spoilt.view(-1)[rng.randrange(value.numel())] = bad
    return spoilt


def good_call(rng: random.Random, device: str) -> tuple[str, dict[str, Any]]:
    hidden_size = rng.choice([16, 20, 128])
    layout = rng.choice(LAYOUTS)
    arguments = moved(tokens(layout, rng.randrange(5), rng.randrange(8), token_types=rng.random() < 0.5,
                             positions=rng.random() < 0.5, num_positions=8, seed=rng.randrange(100),
                             index_dtype=rng.choice([torch.int32, torch.int64])), device)
    arguments["pooling"] = rng.choice(POOLINGS)
    values = parameters(hidden_size, rng.choice([torch.float32, torch.bfloat16, torch.float16]))
    if rng.random() < 0.5:
        arguments |= {"p_embed": rng.choice([0.0, 0.5]), "seed": rng.choice([None, 1]),
                      "sparse_grad": rng.random() < 0.5, "eps": 1e-12}
        return "embed_pool", arguments | moved(values, device)
    dtype = rng.choice([torch.float32, torch.bfloat16, torch.float16, torch.int8])
    table = prepare_table(*list(values.values())[:3], dtype=dtype)
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(hidden_size, 3, rng.randrange(3)))
    for prepared in (table, dsn_head):
        for name, value in prepared._asdict().items():
            arguments[f"{type(prepared).__name__}.{name}"] = (
                value.to(device) if isinstance(value, torch.Tensor) else value)
    return "dsn_logits", arguments


def call(op: str, arguments: dict[str, Any], backend: str) -> None:
    if op == "dsn_logits":
        fields = {kind: {name.split(".")[1]: arguments.pop(name) for name in list(arguments) if name.startswith(kind)}
                  for kind in ("DsnTable", "DsnHead")}
        arguments |= {"table": ops.DsnTable(**fields["DsnTable"]), "head": ops.DsnHead(**fields["DsnHead"])}
    else:
        for value in arguments.values():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                value.requires_grad_()
    result = getattr(ops, op)(**arguments, backend=backend)
    cu_seqlens, input_ids = arguments.get("cu_seqlens"), arguments["input_ids"]
    rows = input_ids.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    assert list(result.shape[:-1]) == [rows], f"result of shape {list(result.shape)}"
    if result.requires_grad:
        result.sum().backward()


def main(backend: str, device: str) -> None:
    rng = random.Random(0)
    torch.set_num_threads(1)
    refused = 0
    for number in range(CALLS):
        op, arguments = good_call(rng, device)
        spoilt = {}
        for name in rng.sample(list(arguments), rng.choice([0, 1, 1, 1, 2])):
            spoilt[name], arguments[name] = spoil(rng, arguments[name])
        print(number, op, {name: list(value.shape) if isinstance(value, torch.Tensor) else value
                           for name, value in arguments.items()}, spoilt, flush=True)
        try:
            call(op, arguments, backend)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
            if not spoilt:
                raise AssertionError("a good call was refused") from error
            refused += 1
    assert CALLS // 4 < refused < CALLS, f"{refused} of {CALLS} calls refused"


if __name__ == "__main__":
    main(*sys.argv[1:])
