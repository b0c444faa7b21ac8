"""Pictures of an evaluation: confusion matrix, reliability curve, and predicted against true values, as PNG files.

matplotlib draws without a display; the same numbers give the same bytes with the same version of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic_write import atomic_path
from .evaluation import NUM_BINS, Reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
MOST_COUNTS = 20  # classes up to which every cell holds its number
MOST_CLASSES = 200  # a larger matrix shows the classes with the most errors
LONGEST_NAME = 30  # characters
MOST_POINTS = 5000  # of a target; of more rows as many are drawn, evenly spread
MOST_TARGETS = 9  # with a part of the picture each; three in a row


def draw_confusion_matrix(path: Path, matrix: np.ndarray, label_names: Sequence[str]) -> None:
    """Draw ``matrix`` ``[C, C]``: darker is a greater share of a row. With at most 20 classes each cell has its count.

    Of more than 200 classes those are drawn that have the most errors.
    """
    from matplotlib.figure import Figure

    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    shown = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
    part, count = matrix[np.ix_(shown, shown)], len(shown)
    names = [_shorten(label_names[index]) for index in shown]
    cell, font = (0.5, 9.0) if count <= MOST_COUNTS else (0.11, 5.0)
    side = max(2.5, cell * count)
    # Inches left of and below the matrix. A layout engine would draw 300 names twice, which takes seconds.
    margin = 0.7 + font / 72 * max(len(name) * (0.65 if name.isascii() else 1) for name in names)
    size = margin + side + 0.4
    figure = Figure(figsize=(size, size))
    axes = figure.add_axes((margin / size, margin / size, side / size, side / size))
    shares = part / np.maximum(matrix.sum(axis=1)[shown, None], 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root shows the few errors of a good model
    axes.set_xticks(range(count), names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(count), names, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    left_out = "" if count == len(matrix) else f", the {count} classes of {len(matrix)} with the most errors"
    axes.set_title(f"Rows: {int(matrix.sum()):,}{left_out}", fontsize=9)
    if count <= MOST_COUNTS:
        for (row, column), number in np.ndenumerate(part):
            axes.text(column, row, f"{number:,}", ha="center", va="center", fontsize=8,
                      color="white" if shares[row, column] > 0.3 else "black")
    _save(figure, path)


def draw_reliability(path: Path, curves: dict[str, Reliability]) -> None:
    """Draw for each name of ``curves`` the share of right answers over their confidence, and below how many there are.

    A model whose confidence can be taken at its word lies on the diagonal.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as right as it is sure")
    edges = np.linspace(0, 1, NUM_BINS + 1)
    for name, curve in curves.items():
        is_used = curve.counts > 0
        top.plot(curve.confidence[is_used], curve.accuracy[is_used], marker="o", markersize=4,
                 label=f"{name}: ECE {curve.ece:.4f}")
        bottom.stairs(curve.counts / curve.counts.sum(), edges)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
    top.legend(fontsize=8, loc="upper left")
    bottom.set(xlabel="confidence", ylabel="share of answers")
    _save(figure, path)


def draw_values(path: Path, predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """Draw the predicted values ``[n, C]`` of a regression against the true ones ``[n, C]``, each target by itself.

    What is predicted without an error lies on the diagonal. Of more than 9 targets the first 9 are drawn.
    """
    from matplotlib.figure import Figure

    count = min(predicted.shape[1], MOST_TARGETS)
    columns = min(count, 3)
    figure = Figure(figsize=(1 + 4 * columns, 4.2 * -(-count // columns)), layout="constrained")
    some = slice(None, None, -(-len(labels) // MOST_POINTS) or 1)
    for number in range(count):
        axes = figure.add_subplot(-(-count // columns), columns, number + 1)
        true, found = labels[some, number], predicted[some, number]
        axes.axline((float(true.mean()), float(true.mean())), slope=1, color="grey", linestyle=":")
        axes.scatter(true, found, s=6, alpha=0.4, linewidths=0)
        axes.set(xlabel="true value", ylabel="predicted value")
        if predicted.shape[1] > 1:
            axes.set_title(_shorten(names[number]), fontsize=9)
    _save(figure, path)


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME - 1]}…"


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as unfinished, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
        figure.savefig(unfinished, format="png", dpi=DPI, metadata={"Software": None})
