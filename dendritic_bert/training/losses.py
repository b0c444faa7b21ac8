"""The loss of a training with smoothed targets or weighted classes; without either it is the model's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]


def make_loss(problem_type: str | None, label_smoothing: float, weights: Tensor | None) -> Loss | None:
    """What the Trainer takes as ``compute_loss_func``; None leaves the loss to the model, as ``problem_type`` says.

    ``weights`` are ``[C]`` float32, those of ``balanced_weights``. Raises ValueError for smoothed or weighted targets
    of a regression.
    """
    if not label_smoothing and weights is None:
        return None
    if problem_type == "regression":
        name = "label_smoothing" if label_smoothing else "class_weights"
        raise ValueError(f"{name} is given, but the labels are numbers, which have no classes: leave it out.")
    loss = multi_label_loss if problem_type == "multi_label_classification" else single_label_loss
    return partial(loss, label_smoothing=label_smoothing, weights=weights)


def single_label_loss(output: Any, labels: Tensor, num_items_in_batch: Any = None, *, label_smoothing: float,
                      weights: Tensor | None) -> Tensor:
    """Cross-entropy of ``output.logits`` ``[B, C]`` and ``labels`` ``[B]``.

    A share ``label_smoothing`` of each target is spread over all classes (Szegedy et al. 2016), in training alone, so
    that held-out losses can be compared. ``num_items_in_batch`` is an argument of the Trainer's and is not used.
    """
    weights = None if weights is None else weights.to(output.logits)
    smoothing = label_smoothing if torch.is_grad_enabled() else 0.0
    return F.cross_entropy(output.logits, labels, weights, label_smoothing=smoothing)


def multi_label_loss(output: Any, labels: Tensor, num_items_in_batch: Any = None, *, label_smoothing: float,
                     weights: Tensor | None) -> Tensor:
    """Binary cross-entropy of ``output.logits`` ``[B, C]`` and ``labels`` ``[B, C]``, each 0 or 1.

    ``weights`` are those of the rows that have the label.
    """
    weights = None if weights is None else weights.to(output.logits)
    if label_smoothing and torch.is_grad_enabled():
        labels = labels * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(output.logits, labels, pos_weight=weights)


def balanced_weights(class_counts: np.ndarray, num_rows: int, problem_type: str | None) -> Tensor:
    """Weights ``[C]`` float32 that make up for unequal numbers of rows, from the number of rows of each class.

    Single labels: n / (C * count), scikit-learn's "balanced". Several labels: rows without the label over rows with it,
    as PyTorch's ``pos_weight`` is meant. A class without rows weighs 1.
    """
    counts = np.asarray(class_counts, np.float64)
    if problem_type == "multi_label_classification":
        weights = np.maximum(num_rows - counts, 1) / np.maximum(counts, 1)
    else:
        weights = num_rows / (len(counts) * np.maximum(counts, 1))
    return torch.tensor(np.where(counts > 0, weights, 1), dtype=torch.float32)


def classes_and_weights(labels: np.ndarray, problem_type: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The class and the weight of each row, ``[n]`` both, where ``labels`` are those of ``weighted_loss`` for one label
    a row; else ``labels`` and None. A teacher's logits of two classes or more and the class are three columns."""
    if problem_type == "single_label_classification" and labels.ndim == 2 and labels.shape[1] == 2:
        return labels[:, 0].astype(np.int64), labels[:, 1]
    return labels, None


def weighted_loss(output: Any, labels: Tensor, num_items_in_batch: Any = None, *, problem_type: str,
                  label_smoothing: float) -> Tensor:
    """The mean over the batch of weight times loss; the weights of all rows should be 1 on average.

    ``labels`` is ``[B, 2]``, class and weight of each row, or for several labels ``[B, C + 1]``, each 0 or 1, and the
    weight.
    """
    logits, weights = output.logits, labels[:, -1].to(output.logits)
    if problem_type == "single_label_classification":
        losses = F.cross_entropy(logits, labels[:, 0].long(), reduction="none", label_smoothing=label_smoothing)
    else:
        targets = labels[:, :-1].to(logits) * (1 - label_smoothing) + label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    return (weights * losses).mean()
