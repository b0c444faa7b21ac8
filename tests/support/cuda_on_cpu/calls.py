"""Calls of the CUDA kernels on the CPU, for their tests: cases, batches, tables, and every schedule."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import (
    LAYOUTS,
    awkward,
    case_id,
    covering_sample,
    exact_token_logits,
    head,
    parameters,
    tokens,
)
from cuda_on_cpu import as_backend
from rounding import Rounded

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS, DsnHead, DsnTable
from dendritic_bert.kernels.prepare import prepare_head, prepare_table
from dendritic_bert.kernels.reference import dsn_token_logits_ref

TABLE_DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]
TOKEN_AXES = {
    "layout": LAYOUTS,
    "hidden_size": [16, 100, 128, 384, 768],
    "length": [0, 1, 2, 31, 129, 512],
    "rows": [1, 3, 64],
    "token_types": [False, True],
    "positions": [False, True],
    "num_types": [1, 2, 3],
    "index_dtype": [torch.int32, torch.int64],
    "mask_dtype": [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32],
    "view": ["plain", "odd offset", "strided", "transposed"],
}
LOGITS_AXES = TOKEN_AXES | {
    "pooling": POOLINGS,
    "num_labels": [1, 2, 9],
    "num_dendrites": list(range(9)),
    "activation": list(ACTIVATIONS),
    "dtype": TABLE_DTYPES,
}
EMBED_AXES = TOKEN_AXES | {
    "pooling": POOLINGS,
    "dtype": TABLE_DTYPES[:3],
    "dropout": [(0.0, 0.0), (0.1, 0.0), (0.0, 0.5), (0.3, 0.2)],
    "eps": [1e-12, 1e-5],
    "sparse_grad": [False, True],
}
SEED = 2**40 + 17


def cases(axes: dict, count: int, seed: int = 0) -> Any:
    count = count // 4 if as_backend.WATCHED else count
    return pytest.mark.parametrize("case", covering_sample(axes, count, seed), ids=case_id)


def once(call: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return call()


def in_every_schedule(call: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What ``call`` returns, which must be the same to the bit whichever thread and block run first."""
    first = None
    for schedule in as_backend.SCHEDULES:
        with as_backend.scheduled(*schedule):
            results = call()
        first = first or results
        for name, value in results.items():
            value, expected = value.to_dense().contiguous(), first[name].to_dense().contiguous()
            where = f"{name} in schedule {schedule}: "
            torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True, msg=where.__add__)
    assert first is not None
    return first


def token_arguments_of(case: dict, elements: int = 2**16) -> dict[str, torch.Tensor]:
    elements //= 16 if as_backend.WATCHED else 1
    rows = min(case["rows"], max(2, elements // (case["length"] * case["hidden_size"] + 1)))
    return tokens(case["layout"], rows, case["length"], **{
        name: case[name] for name in ("token_types", "positions", "num_types", "index_dtype", "mask_dtype")})


def in_view(values: Any, view: str) -> Any:
    """The dictionary, the prepared table or the head, with every tensor laid out in memory as ``view`` says."""
    if isinstance(values, dict):
        return {name: awkward(value, view) for name, value in values.items()}
    return type(values)(*(awkward(value, view) if isinstance(value, torch.Tensor) else value for value in values))


def prepared(case: dict, num_positions: int) -> tuple[DsnTable, DsnHead]:
    values = parameters(case["hidden_size"], num_positions=num_positions, num_types=case.get("num_types", 2))
    *tables, ln_weight, ln_bias = values.values()
    head_values = head(case["hidden_size"], case.get("num_labels", 3), case.get("num_dendrites", 2))
    return (prepare_table(*tables, dtype=case.get("dtype", torch.float32)),
            prepare_head(ln_weight, ln_bias, **head_values, activation=case.get("activation", "sigmoid")))


def logits(arguments: dict, table: DsnTable, dsn_head: DsnHead, pooling: str = "mean_masked") -> torch.Tensor:
    return in_every_schedule(lambda: {"logits": ops.dsn_logits(
        **arguments, table=table, head=dsn_head, pooling=pooling, backend="cuda")})["logits"]


def token_logits(arguments: dict, table: DsnTable, dsn_head: DsnHead) -> torch.Tensor:
    return in_every_schedule(lambda: {"logits": ops.dsn_token_logits(
        **arguments, table=table, head=dsn_head, backend="cuda")})["logits"]


def expected_token_logits(arguments: dict, table: DsnTable, dsn_head: DsnHead) -> tuple[torch.Tensor, Rounded]:
    """By torch's own ops, and in float64."""
    return (dsn_token_logits_ref(**arguments, table=table, head=dsn_head),
            exact_token_logits(arguments, table, dsn_head))
