"""Which rows of a table are held out to score a model on."""

from __future__ import annotations

import numpy as np

from .label_kinds import CLASSES, Labels

HOLD_OUT = 0.1  # share of own rows that is scored on where there is no dev file


def draw_held_out(labels: Labels, digests: np.ndarray, share: float, seed: int) -> np.ndarray:
    """``[n]`` bool, whether a row is held out: a ``share`` of the rows, the same for the same arguments.

    The draw is stratified: of each class its ``share`` is held out, rounded so that the whole is right, and never all
    of its rows. For a regression and for multi-label it is random. Rows with the same text fall on the same side, and a
    text that has several labels is trained on.

    Args:
        labels: of all n rows.
        digests: ``[n]`` uint64, equal for equal texts.

    Raises ValueError if one side would be empty.
    """
    generator = np.random.default_rng(seed)
    _, first, text_of = np.unique(digests, return_index=True, return_inverse=True)
    drawn = np.zeros(len(first), np.bool_)
    if labels.problem_type == CLASSES:
        clashes = np.zeros(len(first), np.bool_)
        clashes[text_of[labels.values != labels.values[first][text_of]]] = True
        candidates = np.flatnonzero(~clashes)
        classes = labels.values[first[candidates]]
        sizes = _strata_sizes(classes, len(labels.names), share)
        order = generator.permutation(len(candidates))
        order = order[np.argsort(classes[order], kind="stable")]  # class by class, in random order within each
        counts = np.bincount(classes, minlength=len(labels.names))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        drawn[candidates[order[rank < np.repeat(sizes, counts)]]] = True
    else:
        drawn[generator.choice(len(first), round(share * len(first)), replace=False)] = True
    held = drawn[text_of]
    if held.all() or not held.any():
        raise ValueError(f"hold_out is {share}, which of {len(held)} rows leaves none on one side: change it, or pass "
                         "dev_file.")
    return held


def _strata_sizes(classes: np.ndarray, num_classes: int, share: float) -> np.ndarray:
    """How many rows of each class are held out, by largest remainders; at least one stays."""
    counts = np.bincount(classes, minlength=num_classes)
    exact = counts * share
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    left = max(1, round(share * len(classes))) - int(sizes.sum())
    can_give = np.flatnonzero((sizes < counts - 1) & (sizes < exact - 1e-9))
    sizes[can_give[np.argsort((sizes - exact)[can_give], kind="stable")][:max(left, 0)]] += 1
    return np.minimum(sizes, np.maximum(counts - 1, 0))
