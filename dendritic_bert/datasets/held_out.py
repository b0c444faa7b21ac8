"""Which rows of a table are held out to score a model on."""

from __future__ import annotations

import numpy as np

from .labels import CLASSES, Labels

HOLD_OUT = 0.1  # share of own rows that is scored on where there is no dev file


def draw_held_out(labels: Labels, digests: np.ndarray, share: float, seed: int) -> np.ndarray:
    """``[n]`` bool, whether a row is held out: a ``share`` of the rows, the same for the same arguments.

    The draw is stratified: of each class its ``share`` is held out, rounded so that the whole is right, and never all
    of its rows. For a regression and for multi-label it is random. Rows with the same text fall on the same side, and a
    text that has several labels is trained on. Texts are drawn, in random order, while their rows fit into the share,
    up to twice the share of the different texts: where one text stands in most rows, the others are not used up, and
    fewer rows are held out.

    Args:
        labels: of all n rows.
        digests: ``[n]`` uint64, equal for equal texts.

    Raises ValueError if one side would be empty, as where every text has several labels.
    """
    generator = np.random.default_rng(seed)
    _, first, text_of, num_rows = np.unique(digests, return_index=True, return_inverse=True, return_counts=True)
    if len(first) == 1 < len(digests):
        raise ValueError(f"all {len(digests)} rows have the same text, and rows with the same text stay on one side: "
                         "pass dev_file.")
    if labels.problem_type == CLASSES:
        clashes = np.zeros(len(first), np.bool_)
        clashes[text_of[labels.values != labels.values[first][text_of]]] = True
        if clashes.all():
            raise ValueError(f"each text of the {len(digests)} rows has several labels, and such a text is trained on: "
                             "put them into one row, as a list or with label_separator, or pass dev_file.")
        candidates = np.flatnonzero(~clashes)
        classes = labels.values[first[candidates]]
        order = generator.permutation(len(candidates))
        order = order[np.argsort(classes[order], kind="stable")]  # class by class, in random order within each
        counts = np.bincount(classes, minlength=len(labels.names))
        strata, sizes = np.split(candidates[order], np.cumsum(counts)[:-1]), labels.counts()
        most_texts = np.minimum(np.ceil(2 * share * counts), counts - 1)
    else:
        chosen = generator.choice(len(first), min(len(first), round(share * len(digests))), replace=False)
        strata, sizes, most_texts = [chosen], np.array([len(digests)]), np.ceil([2 * share * len(first)])
    held = _draw_texts(strata, num_rows, sizes, most_texts, share)[text_of]
    if held.all() or not held.any():
        raise ValueError(f"hold_out is {share}, which of {len(held)} rows leaves none on one side: change it, or pass "
                         "dev_file.")
    return held


def _draw_texts(strata: list[np.ndarray], num_rows: np.ndarray, sizes: np.ndarray, most_texts: np.ndarray,
                share: float) -> np.ndarray:
    """Whether each text is held out: in each stratum those, in order, that fit into its share of its rows.

    Where texts of several rows fit into no share, as where each text of a small class stands twice, the strata that
    lack most give one text more, while the whole is not more than the share of all rows.

    Args:
        strata: the texts of each in the order in which they are tried.
        num_rows: rows of each text.
        sizes: rows of each stratum. most_texts: how many of its texts may be drawn.
    """
    drawn = np.zeros(len(num_rows), np.bool_)
    wanted = _strata_sizes(sizes, share)
    held = np.array([_draw_fitting(drawn, num_rows, *stratum) for stratum in zip(strata, wanted, most_texts)])
    left = max(1, round(share * int(sizes.sum()))) - int(held.sum())
    lacking = sizes * share - held
    for number in np.argsort(-lacking, kind="stable"):
        if left <= 0 or lacking[number] <= 1e-9:
            break
        texts = strata[number][~drawn[strata[number]]]
        most_rows = sizes[number] // 2 - held[number]
        if drawn.any():
            most_rows = min(most_rows, left)
        if len(strata[number]) - len(texts) < most_texts[number]:
            left -= _draw_fitting(drawn, num_rows, texts, most_rows, 1)
    return drawn


def _draw_fitting(drawn: np.ndarray, num_rows: np.ndarray, texts: np.ndarray, most_rows: int, most_texts: int) -> int:
    """Mark as drawn those of the texts, in order, that fit; the number of their rows."""
    left, fewest = int(most_rows), num_rows[texts].min(initial=len(drawn))
    for text in texts:
        if left < fewest or most_texts <= 0:
            break
        if num_rows[text] <= left:
            drawn[text] = True
            left -= int(num_rows[text])
            most_texts -= 1
    return int(most_rows) - left


def _strata_sizes(counts: np.ndarray, share: float) -> np.ndarray:
    """How many of the ``counts`` rows of each stratum are held out, by largest remainders; at least one stays."""
    exact = counts * share
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    left = max(1, round(share * int(counts.sum()))) - int(sizes.sum())
    can_give = np.flatnonzero((sizes < counts - 1) & (sizes < exact - 1e-9))
    sizes[can_give[np.argsort((sizes - exact)[can_give], kind="stable")][:max(left, 0)]] += 1
    return np.minimum(sizes, np.maximum(counts - 1, 0))
