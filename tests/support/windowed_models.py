"""Small models without positions, with windows and a gate or without, and what they compute, by torch's convolution."""

import copy

import torch
import torch.nn.functional as F
from small_classifier import small_model

from dendritic_bert import DendriticBertForSequenceClassification

# By name, the fields of a configuration.
KINDS = {
    "recipe": {"window_dendrites": 32, "window_layers": 5, "pooling": "gated_mean", "embedding_norm": "none"},
    "mean": {"window_dendrites": 16, "window_layers": 1, "num_dendrites": 0},
    "wide": {"window_dendrites": 24, "window_layers": 3, "window_radius": 2, "hidden_size": 7, "pooling": "gated_mean",
             "num_labels": 3},
    "many_labels": {"window_dendrites": 8, "window_layers": 2, "num_labels": 30, "num_dendrites": 1},
    "gate": {"pooling": "gated_mean", "num_dendrites": 1},
    "plain_gate": {"pooling": "gated_mean", "embedding_norm": "none"},
    "no_positions": {},
    "plain": {"embedding_norm": "none", "num_labels": 1},
}
# How far float32 may be off, relative to 1 or the value: the logit of a gate is a sum of 48 terms of magnitude 32
# together, each step of which may be rounded by 32 * 2^-24, and exp makes a relative error of it.
ROUNDING = 1e-4
LENGTHS = (5, 0, 1, 40)  # the last is longer than the small model's position table would be


def windowed_model(**config) -> DendriticBertForSequenceClassification:
    """Random weights in every part; a new model has zeros in some."""
    model = small_model(**{"max_position_embeddings": 0, "vocab_size": 600, "num_attention_heads": 1,
                           "initializer_range": 0.5, **config})
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("gate", "bias", "lateral", "top")):
                parameter.normal_(std=0.5, generator=generator)
    return model


def padded_rows(holes: bool = False) -> dict[str, torch.Tensor]:
    """Rows of ``LENGTHS`` tokens of both types; or with ``holes`` a mask of zeros and ones anywhere."""
    generator = torch.Generator().manual_seed(1)
    shape = len(LENGTHS), max(LENGTHS)
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    if holes:
        mask = torch.randint(2, shape, generator=generator)
        mask[1] = 0
    return {"input_ids": torch.randint(600, shape, generator=generator), "attention_mask": mask,
            "token_type_ids": torch.randint(2, shape, generator=generator)}


def packed(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same rows packed, which needs a mask without holes."""
    valid = rows["attention_mask"].bool()
    return {"input_ids": rows["input_ids"][valid], "token_type_ids": rows["token_type_ids"][valid],
            "cu_seqlens": torch.tensor([0, *valid.sum(dim=1)]).cumsum(0)}


@torch.no_grad()
def expected_pooled(model, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """The pooled rows in float64, one row at a time, by ``conv1d``."""
    body, config = copy.deepcopy(model.bert).double(), model.config
    return torch.stack([_pooled_row(body, config, ids, mask != 0, types) for ids, mask, types in zip(
        rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])])


def expected_logits(model, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    return copy.deepcopy(model.classifier).double()(expected_pooled(model, rows))


def _pooled_row(body, config, ids: torch.Tensor, valid: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    parts = body.embeddings
    x = parts.word_embeddings(ids) + parts.token_type_embeddings(types)
    if config.embedding_norm == "layer_norm":
        x = parts.LayerNorm(x)
    x = x * valid[:, None]
    h, channels = x, x.T[None]
    for layer in range(config.window_layers):
        taps = body.windows.input_weight if layer == 0 else body.windows.weight[layer - 1]  # [R, in, out]
        step = F.conv1d(channels, taps.permute(2, 1, 0), body.windows.bias[layer],
                        padding=config.window_radius * 2**layer, dilation=2**layer).relu()
        channels = (step if layer == 0 else channels + step) * valid
        h = torch.cat([x, channels[0].T], dim=1)
    gates = valid.double()
    if config.pooling == "gated_mean":
        gates = gates * (h @ body.gate.weight + body.gate.word_bias[ids]).clamp(-8, 8).exp()
    return (gates @ h) / gates.sum() if valid.any() else torch.zeros(h.shape[1], dtype=torch.float64)
