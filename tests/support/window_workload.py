"""Batches, parameters and tables for the tests of windows: of ``window_pool`` and ``dsn_window_logits``."""

from typing import Any

import torch
from cases import LAYOUTS, VOCAB_SIZE, generator, head, tokens
from rounding import Rounded, rounded_to, tracked
from torch import Tensor

from dendritic_bert.kernels.contract import ACTIVATIONS, WindowedDsn
from dendritic_bert.kernels.prepare import prepare_windows
from dendritic_bert.kernels.reference import dsn_window_logits_ref

AXES = {
    "layout": LAYOUTS,
    "hidden_size": [1, 7, 16, 32, 40, 96],
    "dendrites": [1, 16, 24, 32, 48, 64],
    "layers": [0, 1, 2, 3, 5],
    "radius": [1, 1, 1, 2],
    "length": [0, 1, 2, 5, 12, 13, 25, 31, 64, 129, 300],
    "rows": [0, 1, 3, 17],
    "num_labels": [1, 2, 3, 150],
    "num_dendrites": [0, 1, 2, 3],
    "activation": list(ACTIVATIONS),
    "has_norm": [False, True],
    "has_gate": [False, True, True],
    "is_folded": [False, True, None],
    "token_types": [False, True],
    "num_types": [1, 2, 3],
    "index_dtype": [torch.int32, torch.int64],
    "mask_dtype": [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32],
    "view": ["plain", "odd offset", "strided"],
}
NAMES = ("word_embeddings", "token_type_embeddings", "ln_weight", "ln_bias", "window_input_weight", "window_weight",
         "window_bias", "gate_weight", "gate_bias")


def window_parameters(hidden_size: int = 12, dendrites: int = 16, layers: int = 3, radius: int = 1, *,
                      has_norm: bool = False, has_gate: bool = True, num_types: int = 2,
                      dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor | None]:
    """The parameters of ``window_pool`` by name, scaled so that neither u nor the gate grows with the layers."""
    rng = generator(seed)
    taps, dendrites = 2 * radius + 1, dendrites if layers else 0
    shapes_and_scales = {
        "word_embeddings": ((VOCAB_SIZE, hidden_size), 1.0), "token_type_embeddings": ((num_types, hidden_size), 0.3),
        "ln_weight": ((hidden_size,), 1.0), "ln_bias": ((hidden_size,), 0.5),
        "window_input_weight": ((taps, hidden_size, dendrites), (taps * hidden_size) ** -0.5),
        "window_weight": ((max(0, layers - 1), taps, dendrites, dendrites), (taps * max(1, dendrites)) ** -0.5),
        "window_bias": ((layers, dendrites), 0.3),
        "gate_weight": ((hidden_size + dendrites,), (hidden_size + dendrites) ** -0.5), "gate_bias": ((VOCAB_SIZE,), 1)}
    values: dict[str, Tensor | None] = {name: scale * torch.randn(shape, generator=rng).to(dtype)
                                        for name, (shape, scale) in shapes_and_scales.items()}
    absent = ([] if has_norm else ["ln_weight", "ln_bias"]) + ([] if has_gate else ["gate_weight", "gate_bias"])
    return values | dict.fromkeys(absent)


def window_head(values: dict[str, Tensor | None], num_labels: int = 3, num_dendrites: int = 2) -> dict[str, Tensor]:
    """A head for what ``window_pool`` makes with ``values``."""
    words, bias = values["word_embeddings"], values["window_bias"]
    assert words is not None
    assert bias is not None
    return head(words.shape[1] + bias.shape[1], num_labels, num_dendrites)


def workload(case: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor | None], dict[str, Tensor]]:
    """Tokens, parameters and head of a case of ``AXES``."""
    rows = min(case["rows"], max(2, 2000 // (case["length"] + 1)))
    token_arguments = tokens(case["layout"], rows, case["length"], **{
        name: case[name] for name in ("token_types", "num_types", "index_dtype", "mask_dtype")})
    # LayerNorm of a single channel is beta, so that every token would be the same, and so would its rounding errors.
    has_norm = case["has_norm"] and case["hidden_size"] > 1
    values = window_parameters(case["hidden_size"], case["dendrites"], case["layers"], case["radius"],
                               has_norm=has_norm, has_gate=case["has_gate"], num_types=case["num_types"])
    return token_arguments, values, window_head(values, case["num_labels"], case["num_dendrites"])


def prepared(values: dict[str, Tensor | None], head_values: dict[str, Tensor], **options: Any) -> WindowedDsn:
    return prepare_windows(*(values[name] for name in NAMES), **head_values, **options)


def exact_window_logits(token_arguments: dict[str, Tensor], windowed: WindowedDsn) -> Rounded:
    """The float64 run of the reference on prepared tables as they are. Beside bfloat16 matrices u is rounded to
    bfloat16 too, which is counted as an error of the matrix that it is multiplied by: of each product the same."""
    token_arguments = {name: value.cpu() for name, value in token_arguments.items()}
    exact = tracked(windowed)
    if windowed.window_weight.dtype == torch.bfloat16:
        exact = exact._replace(window_weight=rounded_to(torch.bfloat16, windowed.window_weight.cpu()))
    result: Any = dsn_window_logits_ref(**token_arguments, windowed=exact)
    return result
