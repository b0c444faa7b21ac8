"""What of a Dendritic Semantic Network (DSN) is exported, and what its export is compared with: our own logits."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..inference.scores import label_names
from ..kernels import ops
from ..kernels.contract import DsnHead, DsnTable
from ..kernels.prepare import prepare_head, prepare_table
from ..model.dendritic_linear import DendriticLinear

TABLE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}


class ExportTables(NamedTuple):
    """A DSN for inference.

    table: the centred tables, the word table as the dtype that was asked for (int8 with a scale per row).
    head: the first layer of the head, with LayerNorm's gamma and beta folded in.
    rest: what follows it, an activation and the second layer where the head has two; else nothing.
    pooling: one of ``POOLINGS``; None for logits of every token.
    has_types: whether ``token_type_ids`` are an input.
    """

    table: DsnTable
    head: DsnHead
    rest: nn.Sequential
    pooling: str | None
    has_types: bool


def make_tables(model: Any, dtype: str, has_types: bool) -> ExportTables:
    """The tables of a model with ``dsn``; ``dtype`` is one of ``TABLE_DTYPES``, the rest is float32."""
    embeddings, head = model.bert.embeddings, getattr(model, model.head_name)
    norm = embeddings.LayerNorm
    first: DendriticLinear = head if isinstance(head, DendriticLinear) else head[0]
    rest = [] if first is head else list(head)[1:]
    with torch.no_grad():
        table = prepare_table(embeddings.word_embeddings.weight, embeddings.position_embeddings.weight,
                              embeddings.token_type_embeddings.weight, norm.eps, TABLE_DTYPES[dtype])
        folded = prepare_head(norm.weight, norm.bias, first.weight, first.bias, first.lateral, first.top,
                              first.activation)
    is_token_head = model.head_name == "qa_outputs"
    return ExportTables(table, folded, nn.Sequential(*rest).float().eval(),
                        None if is_token_head else model.pooling, has_types)


@torch.no_grad()
def own_logits(tables: ExportTables, inputs: dict[str, Tensor]) -> Tensor:
    """The logits ``[B, C]`` (or ``[B, L, 2]``) of the same tables, from the fused op of this package."""
    if tables.pooling is not None:
        return tables.rest(ops.dsn_logits(table=tables.table, head=tables.head, pooling=tables.pooling, **inputs))
    logits = tables.rest(ops.dsn_token_logits(table=tables.table, head=tables.head, **inputs))
    return torch.where(inputs["attention_mask"][..., None] != 0, logits, 0)


def sample_inputs(config: Any, has_types: bool) -> list[dict[str, Tensor]]:
    """Batches of random ids of several sizes, among them a single token, and rows that are padded or empty."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for rows, length in ((1, 1), (3, 7), (5, min(64, config.max_position_embeddings))):
        length = min(length, config.max_position_embeddings)
        lengths = torch.randint(length + 1, (rows, 1), generator=generator)
        lengths[0], lengths[-1] = length, 0 if rows > 1 else length
        batch = {"input_ids": torch.randint(config.vocab_size, (rows, length), generator=generator),
                 "attention_mask": (torch.arange(length) < lengths).long()}
        if has_types:
            batch["token_type_ids"] = torch.randint(config.type_vocab_size, (rows, length), generator=generator)
        batches.append(batch)
    return batches


def describe(model: Any, max_length: int, dtype: str) -> dict[str, str]:
    """What a program that reads the logits must know, as strings, for the file's own metadata."""
    config = model.config
    return {
        "labels": json.dumps(label_names(config.id2label, config.num_labels), ensure_ascii=False),
        "problem_type": config.problem_type or "single_label_classification",
        "temperature": repr(float(config.temperature)),
        "max_length": str(max_length),
        "dtype": dtype,
    }
