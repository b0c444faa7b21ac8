"""The logits of a model on the dev rows of a benchmark, and its scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..datasets.benchmark import Benchmark
from ..datasets.rows import EncodedRows, RowDataset
from .fit import EVALUATION_BATCH


@torch.no_grad()
def infer_splits(model: Any, dev_rows: dict[str, EncodedRows], benchmark: Benchmark) -> dict[str, list[np.ndarray]]:
    """The logits of every row of every dev split."""
    logits: dict[str, list[np.ndarray]] = {split: [] for split in dev_rows}
    for split, rows in dev_rows.items():
        for batch in DataLoader(RowDataset(rows), EVALUATION_BATCH, collate_fn=benchmark.collate):
            tokens = {name: values for name, values in batch.items() if name not in benchmark.label_names}
            logits[split].extend(benchmark.logits(model(**tokens)).numpy())
    return logits


def score_splits(logits: dict[str, list[np.ndarray]], benchmark: Benchmark) -> dict[str, float]:
    """The metrics of every dev split."""
    return {name: value for split, found in logits.items() for name, value in benchmark.scores(found, split).items()}
