"""What ``train --dendrites N`` adds to a training: held-out rows, a rule, and stages.

A dendrite grows when the loss on held-out training rows stalls; the dev set decides nothing. The option ``epochs``
limits each stage, and there is one stage more than dendrites are tried.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer

from ..datasets.packed_files import pack_rows
from ..datasets.rows import EncodedRows, RowDataset
from ..training.options import TrainingOptions
from .callback import GrowDendrites, Rule, most_epochs
from .perforatedai_rule import SAVE_NAME, PerforatedGrowth
from .rule import Growth

TAKEN_AT_ONCE = 1 << 16  # rows whose tokens are copied from one file to another at once


def total_epochs(options: TrainingOptions) -> int:
    """The most epochs that a training can take."""
    return most_epochs(options.dendrites, options.dendrite_tries, options.epochs)


def hold_out_rows(rows: EncodedRows, options: TrainingOptions) -> tuple[EncodedRows, EncodedRows | None]:
    """Rows to train on, and the held-out rows whose loss decides when a dendrite grows, None if none is to grow.

    The split is the same at every call. Raises ValueError if no rows would be left to train on.
    """
    if not options.dendrites:
        return rows, None
    order = np.random.default_rng(0).permutation(len(rows.labels))
    num_held = math.ceil(options.validation_share * len(order))
    if num_held == len(order):
        raise ValueError(f"validation_share is {options.validation_share}, which of {len(order)} rows leaves none to "
                         "train on: lower it.")
    return _take(rows, np.sort(order[num_held:])), _take(rows, np.sort(order[:num_held]))


def _take(rows: EncodedRows, indices: np.ndarray) -> EncodedRows:
    """The rows at ``indices``, whose tokens lie on disk, as those of ``rows`` do where there are many."""
    vocab_size = 1 + int(rows.input_ids.max(initial=0))
    parts = (_copy(rows, indices[start:start + TAKEN_AT_ONCE]) for start in range(0, len(indices), TAKEN_AT_ONCE))
    return pack_rows(parts, rows.labels[indices], vocab_size)._replace(num_truncated=rows.num_truncated)


def _copy(rows: EncodedRows, indices: np.ndarray) -> EncodedRows:
    lengths = np.diff(rows.cu_seqlens)[indices]
    cu_seqlens = np.concatenate([[0], lengths.cumsum()])
    tokens = np.repeat(rows.cu_seqlens[indices] - cu_seqlens[:-1], lengths) + np.arange(cu_seqlens[-1])
    types = None if rows.token_type_ids is None else rows.token_type_ids[tokens]
    return EncodedRows(rows.input_ids[tokens], cu_seqlens, types, rows.labels[indices], 0)


def train_and_grow(
    trainer: Trainer, model: Any, options: TrainingOptions, held_out: EncodedRows, checkpoint: str | None
) -> None:
    """Train in stages, from ``checkpoint`` if there is one. Raises as ``GrowDendrites.train`` does."""
    settings: dict[str, Any] = {"patience": options.patience, "tries": options.dendrite_tries, "maximize": False}
    rule: Rule
    if options.dendrite_schedule == "plain":
        rule = Growth(model, options.dendrites, **settings)
    else:
        with trainer.args.main_process_first(local=False):  # the others read what it writes
            rule = PerforatedGrowth(model, options.dendrites, str(trainer.args.output_dir), **settings)
    GrowDendrites(trainer, rule, RowDataset(held_out), options.epochs).train(checkpoint)


def move_graphs(checkpoints: Path, folder: Path) -> None:
    """Move PerforatedAI's folder of a training, with its graph, its tables and its best weights, beside the model."""
    if (checkpoints / SAVE_NAME).is_dir():
        shutil.rmtree(folder / SAVE_NAME, ignore_errors=True)
        shutil.move(checkpoints / SAVE_NAME, folder / SAVE_NAME)
