"""What ``train --dendrites N`` adds to a training: held-out rows, a rule, and stages in the place of one run.

A dendrite grows where the loss on held-out training rows stalls; the dev set decides nothing. ``epochs`` is the most of
each stage, so a training takes as many stages as dendrites are tried.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import Trainer

from ..datasets.rows import EncodedRows, RowDataset
from .callback import GrowDendrites, Rule, most_epochs
from .perforatedai_rule import SAVE_NAME, PerforatedGrowth
from .rule import Growth

if TYPE_CHECKING:
    from ..training.trainer import TrainingOptions

SCHEDULES = ("perforatedai", "plain")


def check_growing(options: TrainingOptions) -> None:
    """Raise ValueError, naming the field, for values that nothing can grow with."""
    if options.dendrites < 0:
        raise ValueError(f"dendrites is {options.dendrites}, expected 0 or more.")
    if options.dendrites and options.num_dendrites:
        raise ValueError(f"dendrites is {options.dendrites} and num_dendrites is {options.num_dendrites}: pass "
                         "dendrites to grow them, num_dendrites to have them from the start.")
    if options.dendrites and options.ema:
        raise ValueError(f"dendrites is {options.dendrites} and ema is {options.ema}, but averaged weights cannot grow "
                         "on the way: pass num_dendrites to have them from the start, or ema 0.")
    for name in ("patience", "dendrite_tries"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} is {getattr(options, name)}, expected 1 or more.")
    if not 0 < options.validation_share < 1:
        raise ValueError(f"validation_share is {options.validation_share}, expected more than 0 and less than 1.")
    if options.dendrite_schedule not in SCHEDULES:
        raise ValueError(f"dendrite_schedule is {options.dendrite_schedule!r}, expected one of {', '.join(SCHEDULES)}.")


def total_epochs(options: TrainingOptions) -> int:
    """The most epochs that a training can take."""
    return most_epochs(options.dendrites, options.dendrite_tries, options.epochs)


def hold_out_rows(rows: EncodedRows, options: TrainingOptions) -> tuple[EncodedRows, EncodedRows | None]:
    """Rows to train on, and those whose loss decides on growth: the same at every call, None where nothing grows.

    Raises ValueError where there are too few rows for both.
    """
    if not options.dendrites:
        return rows, None
    order = np.random.default_rng(0).permutation(len(rows.labels))
    num_held = math.ceil(options.validation_share * len(order))
    if num_held == len(order):
        raise ValueError(f"validation_share is {options.validation_share}, which of {len(order)} rows leaves none to "
                         "train on: lower it.")
    return _take(rows, np.sort(order[num_held:])), _take(rows, np.sort(order[:num_held]))


def _take(rows: EncodedRows, places: np.ndarray) -> EncodedRows:
    lengths = np.diff(rows.cu_seqlens)[places]
    cu_seqlens = np.concatenate([[0], lengths.cumsum()])
    tokens = np.repeat(rows.cu_seqlens[places] - cu_seqlens[:-1], lengths) + np.arange(cu_seqlens[-1])
    types = None if rows.token_type_ids is None else rows.token_type_ids[tokens]
    return rows._replace(input_ids=rows.input_ids[tokens], cu_seqlens=cu_seqlens, token_type_ids=types,
                         labels=rows.labels[places])


def train_and_grow(
    trainer: Trainer, model: Any, options: TrainingOptions, held_out: EncodedRows, checkpoint: str | None
) -> None:
    """Train in stages, from ``checkpoint`` where there is one. Raises as ``GrowDendrites.train`` does."""
    settings: dict[str, Any] = {"patience": options.patience, "tries": options.dendrite_tries, "maximize": False}
    rule: Rule
    if options.dendrite_schedule == "plain":
        rule = Growth(model, options.dendrites, **settings)
    else:
        with trainer.args.main_process_first(local=False):  # what the first process writes the others read
            rule = PerforatedGrowth(model, options.dendrites, str(trainer.args.output_dir), **settings)
    GrowDendrites(trainer, rule, RowDataset(held_out), options.epochs).train(checkpoint)


def keep_graphs(checkpoints: Path, folder: Path) -> None:
    """Move what PerforatedAI drew and wrote of a training, its best weights among it, beside the model."""
    if (checkpoints / SAVE_NAME).is_dir():
        shutil.rmtree(folder / SAVE_NAME, ignore_errors=True)
        shutil.move(checkpoints / SAVE_NAME, folder / SAVE_NAME)
