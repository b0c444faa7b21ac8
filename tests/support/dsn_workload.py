"""Batches, tables and heads for the tests of ``dsn_logits`` and of the ops beside it."""

import torch
from cases import (
    LAYOUTS,
    awkward,
    head,
    parameters,
    tokens,
)

from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

AXES = {
    "layout": LAYOUTS,
    "pooling": POOLINGS,
    "hidden_size": [16, 20, 32, 48, 64, 96, 100, 128, 129, 312, 384, 768, 1024],
    "length": [0, 1, 2, 31, 129, 512, 600],
    "rows": [0, 1, 3, 17, 64],
    "num_labels": [1, 2, 3, 256],
    "num_dendrites": [0, 1, 2, 3, 4],
    "activation": list(ACTIVATIONS),
    "dtype": [torch.float32, torch.bfloat16, torch.float16, torch.int8],
    "token_types": [False, True],
    "positions": [False, True],
    "num_types": [1, 2, 3],
    "index_dtype": [torch.int32, torch.int64],
    "mask_dtype": [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32],
    "view": ["plain", "odd offset", "strided", "transposed"],
}


def workload(case: dict) -> tuple[dict, dict, dict]:
    """Tokens, parameters and head of a case; batches whose float64 run takes more than a moment get fewer rows."""
    length, hidden_size = case["length"], case["hidden_size"]
    rows = min(case["rows"], max(2, 2**19 // (length * hidden_size + 1)))
    token_arguments = tokens(case["layout"], rows, length, **{
        name: case[name] for name in ("token_types", "positions", "num_types", "index_dtype", "mask_dtype")})
    values = parameters(hidden_size, num_positions=length + 3, num_types=case["num_types"])
    return token_arguments, values, head(hidden_size, case["num_labels"], case["num_dendrites"])


def prepared(values: dict, head_values: dict, dtype: torch.dtype, activation: str = "sigmoid", eps: float = 1e-12):
    *tables, ln_weight, ln_bias = values.values()
    return (prepare_table(*tables, eps=eps, dtype=dtype),
            prepare_head(ln_weight, ln_bias, **head_values, activation=activation))


def in_view(prepared_tensors, view: str, device: str):
    """A DsnTable or DsnHead with every tensor moved and laid out anew."""
    return type(prepared_tensors)(*(awkward(value.to(device), view) if isinstance(value, torch.Tensor) else value
                                    for value in prepared_tensors))
