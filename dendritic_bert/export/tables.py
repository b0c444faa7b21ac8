"""What of a Dendritic Semantic Network (DSN) is exported, and what its export is compared with: our own logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..inference.scores import label_names
from ..kernels.prepare import centre, quantise

TABLE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}


class ExportTables(NamedTuple):
    """A DSN for inference; float32 but for ``word``.

    word: ``[V, H]``, the word table as the dtype that was asked for. word_scale: ``[V]`` beside int8, else None.
    context: ``[K, P, H]``, the row of a token type plus that of a position; P is 1 in a model without positions. Before
        LayerNorm, which subtracts the mean, the rows of both tables are centred.
    norm: weight and bias of LayerNorm, ``[H]`` each, and its eps; None in a model without it.
    windows: input weight, weight and bias of the window layers, as in ``reference.window_pool_ref``; None without.
    gate: its weight ``[H + M]`` and the bias of every word ``[V]``; None without.
    head: the layers of the head, each a ``DendriticLinear`` or an activation.
    pooling: that of the model; None for logits of every token.
    has_types, has_positions: whether ``token_type_ids`` are an input, and whether a token has a position.
    """

    word: Tensor
    word_scale: Tensor | None
    context: Tensor
    norm: tuple[Tensor, Tensor, float] | None
    windows: tuple[Tensor, Tensor, Tensor] | None
    gate: tuple[Tensor, Tensor] | None
    head: nn.Sequential
    pooling: str | None
    has_types: bool
    has_positions: bool


@torch.no_grad()
def make_tables(model: Any, dtype: str, has_types: bool) -> ExportTables:
    """The tables of a model with ``dsn``; ``dtype`` is one of ``TABLE_DTYPES``."""
    body, head = model.bert, getattr(model, model.head_name)
    embeddings, norm = body.embeddings, body.embeddings.LayerNorm
    has_positions = model.config.max_position_embeddings > 0
    word = embeddings.word_embeddings.weight.double()
    context = embeddings.token_type_embeddings.weight.double()[:, None]
    if has_positions:
        context = context + embeddings.position_embeddings.weight.double()
    if norm is not None:
        word, context = centre(word), centre(context)
    word_scale = None
    if dtype == "int8":
        word, word_scale = quantise(word, torch.int8)
    windows, gate = getattr(body, "windows", None), getattr(body, "gate", None)
    layers = head.children() if isinstance(head, nn.Sequential) else [head]
    return ExportTables(
        word.to(TABLE_DTYPES[dtype]), word_scale, context.float(),
        None if norm is None else (norm.weight.detach().float(), norm.bias.detach().float(), norm.eps),
        None if windows is None else tuple(weight.detach().float() for weight in windows.weights()),
        None if gate is None else (gate.weight.detach().float(), gate.word_bias.detach().float()),
        nn.Sequential(*layers).float().eval(), None if model.head_name == "qa_outputs" else model.pooling, has_types,
        has_positions)


@torch.no_grad()
def round_words(model: Any, tables: ExportTables) -> None:
    """Give the model the words of the tables, so that its logits are those that an exact program has."""
    words = tables.word.float()
    model.bert.embeddings.word_embeddings.weight.copy_(
        words if tables.word_scale is None else words * tables.word_scale[:, None])


@torch.no_grad()
def own_logits(model: Any, inputs: Mapping[str, Tensor | None]) -> Tensor:
    """The logits of the model itself, ``[B, C]``; of question answering ``[B, L, 2]``."""
    output = model(**inputs)
    return output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], dim=-1)


def sample_inputs(config: Any, has_types: bool) -> list[dict[str, Tensor]]:
    """Batches of random ids of several sizes, among them a single token, and rows that are padded or empty."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for rows, length in ((1, 1), (3, 7), (5, 64)):
        length = min(length, config.max_position_embeddings or length)
        lengths = torch.randint(length + 1, (rows, 1), generator=generator)
        lengths[0], lengths[-1] = length, 0 if rows > 1 else length
        batch = {"input_ids": torch.randint(config.vocab_size, (rows, length), generator=generator),
                 "attention_mask": (torch.arange(length) < lengths).long()}
        if has_types:
            batch["token_type_ids"] = torch.randint(config.type_vocab_size, (rows, length), generator=generator)
        batches.append(batch)
    return batches


def describe(model: Any, max_length: int | None, dtype: str) -> dict[str, str]:
    """What a program that reads the logits must know, as strings, for the file's own metadata."""
    config = model.config
    return {
        "labels": json.dumps(label_names(config.id2label, config.num_labels), ensure_ascii=False),
        "problem_type": config.problem_type or "single_label_classification",
        "temperature": repr(float(config.temperature)),
        "max_length": "" if max_length is None else str(max_length),
        "dtype": dtype,
    }
