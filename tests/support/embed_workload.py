"""Batches and parameters for the tests of ``embed_pool``."""

import torch
from cases import (
    LAYOUTS,
    awkward,
    parameters,
    tokens,
)

from dendritic_bert.kernels.contract import POOLINGS

AXES = {
    "layout": LAYOUTS,
    "pooling": POOLINGS,
    "hidden_size": [16, 20, 32, 48, 64, 96, 100, 128, 129, 312, 384, 768, 1024],
    "length": [0, 1, 2, 31, 129, 512, 600],
    "rows": [0, 1, 3, 17, 64],
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "token_types": [False, True],
    "positions": [False, True],
    "num_types": [1, 2, 3],
    "index_dtype": [torch.int32, torch.int64],
    "mask_dtype": [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32, torch.float16],
    "view": ["plain", "odd offset", "strided", "transposed"],
    "dropout": [(0.0, 0.0), (0.1, 0.0), (0.0, 0.5), (0.3, 0.2)],
    "eps": [1e-12, 1e-5],
}
SEED = 2**40 + 17


def workload(case: dict) -> tuple[dict, dict, dict]:
    """Tokens, parameters and options of a case; batches whose float64 run takes more than a moment get fewer rows."""
    length, hidden_size = case["length"], case["hidden_size"]
    elements = 2**19 if case["dropout"][0] == 0 else 2**17  # the reference's Philox takes 30 ns an element
    rows = min(case["rows"], max(2, elements // (length * hidden_size + 1)))
    token_arguments = tokens(case["layout"], rows, length, **{
        name: case[name] for name in ("token_types", "positions", "num_types", "index_dtype", "mask_dtype")})
    values = parameters(hidden_size, case["dtype"], num_positions=length + 3, num_types=case["num_types"])
    p_embed, p_pool = case["dropout"]
    options = {"pooling": case["pooling"], "eps": case["eps"], "p_embed": p_embed, "p_pool": p_pool}
    return token_arguments, values, options


def in_view(values: dict, case: dict, device: str) -> dict:
    return {name: awkward(value.to(device), case["view"]) for name, value in values.items()}
