"""Pictures of the results, drawn with matplotlib; every function returns the path that it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from experiments import Summary

COLOURS = {"linear": "#4878a8", "MLP": "#d98c3f", "dendritic": "#5a9e6f", "grown": "#8b6bb1"}
PARTS = {"embeddings": "#9db8d2", "encoder": "#e0b88a", "head": "#5a9e6f"}


@contextmanager
def figure(path: Path, width: float = 7.0, height: float = 4.0) -> Iterator[Any]:
    """Axes to draw on, without a display; the picture is written to ``path`` when the block ends without an error."""
    from matplotlib.figure import Figure  # not pyplot, which keeps its figures and looks for a display

    canvas = Figure(figsize=(width, height), layout="constrained")
    axes = canvas.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    canvas.savefig(path, dpi=120)


def architecture(path: Path) -> Path:
    """BERT-tiny beside a Dendritic Semantic Network (DSN): what stays, what goes, and the dendritic head."""
    with figure(path, 8, 5) as axes:
        axes.set(xlim=(0, 10.8), ylim=(0, 10))
        axes.axis("off")
        kept, gone, head = "#dce7f1", "#f3e3d0", "#d9ebdf"
        columns = {
            "BERT-tiny": (0.4, [("word + position + type", kept), ("LayerNorm", kept), ("2 encoder layers", gone),
                                ("pooler on [CLS]", gone), ("linear head", head)]),
            "DSN": (3.9, [("word + position + type", kept), ("LayerNorm", kept), ("mean over the tokens", kept),
                          ("dendritic head", head)]),
        }
        for title, (left, boxes) in columns.items():
            axes.text(left + 1.4, 0.3, title, ha="center", fontsize=11, weight="bold")
            for level, (label, colour) in enumerate(boxes):
                bottom = 1.2 + 1.7 * level
                axes.add_patch(_box(left, bottom, colour))
                axes.text(left + 1.4, bottom + 0.5, label, ha="center", va="center", fontsize=9)
                if level:
                    _arrow(axes, (left + 1.4, bottom - 0.68), (left + 1.4, bottom - 0.02))
        axes.text(8.6, 8.6, "logit", ha="center", va="center")
        axes.text(8.6, 0.7, "pooled vector x", ha="center", va="center")
        axes.text(8.6, 9.6, "dendritic head", ha="center", fontsize=11, weight="bold")
        nodes = {"A x + b": (7.4, 5.2), "$a_0 = f(A_0 x + b_0)$": (8.6, 3.0),
                 "$a_1 = f(A_1 x + b_1 + D a_0)$": (9.4, 5.8)}
        for label, (x, y) in nodes.items():
            axes.text(x, y, label, ha="center", va="center", fontsize=8, bbox={"boxstyle": "round", "fc": head})
            _arrow(axes, (8.6 + (x - 8.6) / 4, 1.0), (x, y - 0.4))
            _arrow(axes, (x, y + 0.4), (8.6 + (x - 8.6) / 4, 8.3))
        _arrow(axes, (8.75, 3.4), (9.25, 5.4))
    return path


def parameter_reduction(summaries: list[Summary], path: Path) -> Path:
    """Live parameters of each model with its dendritic head, by part."""
    chosen = [summary for summary in summaries if summary.columns["head"] == "dendritic"]
    with figure(path, 7, 3) as axes:
        places, left = np.arange(len(chosen)), np.zeros(len(chosen))
        for part, colour in PARTS.items():
            widths = np.array([summary.parameters(part) for summary in chosen]) / 1e6
            axes.barh(places, widths, left=left, color=colour, label=part)
            left += widths
        for place, total in zip(places, left):
            change = f", {100 * (total / left[0] - 1):+.1f} %" if place else ""
            axes.text(total, place, f" {total:.2f} M{change}", va="center")
        axes.set_yticks(places, [summary.columns["model"] for summary in chosen])
        axes.invert_yaxis()
        axes.set(xlabel="live parameters, millions", xlim=(0, 1.3 * left.max()))
        axes.legend(frameon=False, loc="lower right")
    return path


def error_reduction(summaries: list[Summary], path: Path) -> Path:
    """The share of the linear head's error that the other heads remove; the bars are one standard error of the mean."""
    models = list(dict.fromkeys(summary.columns["model"] for summary in summaries))
    found = {(summary.columns["model"], summary.columns["head"]): summary for summary in summaries}
    with figure(path) as axes:
        for offset, head in ((-0.25, "MLP"), (0, "dendritic"), (0.25, "grown")):
            pairs = {place: (found[model, "linear"], found[model, head]) for place, model in enumerate(models)
                     if (model, head) in found}
            heights = [100 * (other.mean - linear.mean) / (1 - linear.mean) for linear, other in pairs.values()]
            errors = [100 * np.hypot(_standard_error(linear), _standard_error(other)) / (1 - linear.mean)
                      for linear, other in pairs.values()]
            axes.bar(np.array(list(pairs)) + offset, heights, 0.23, yerr=errors, capsize=3, color=COLOURS[head],
                     label=head)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(np.arange(len(models)), models)
        axes.set_ylabel("share of the error removed, %")
        axes.legend(frameon=False)
    return path


def few_rows(grouped: dict[tuple[str, int], dict[str, list[float]]], methods: list[str], path: Path) -> Path:
    """Accuracy in percent over the rows of a class, a panel for each table; the bars are one standard deviation over
    the draws. ``grouped`` has the accuracies of each table and number of rows, 0 for all of them, by method."""
    from matplotlib.figure import Figure

    tables = list(dict.fromkeys(table for table, _ in grouped))
    canvas = Figure(figsize=(4 * len(tables), 4), layout="constrained")
    for axes, table in zip(canvas.subplots(1, len(tables), squeeze=False)[0], tables):
        numbers = [rows for name, rows in grouped if name == table]
        for method in methods:
            found = [(place, grouped[table, rows][method]) for place, rows in enumerate(numbers)
                     if method in grouped[table, rows]]
            axes.errorbar([place for place, _ in found], [np.mean(values) for _, values in found],
                          [np.std(values) for _, values in found], marker="o", capsize=3, label=method)
        axes.set_xticks(range(len(numbers)), [str(rows or "all") for rows in numbers])
        axes.set(title=table, xlabel="rows of a class")
        axes.spines[["top", "right"]].set_visible(False)
    canvas.axes[0].set_ylabel("accuracy on test, %")
    canvas.axes[-1].legend(frameon=False, fontsize=8)
    canvas.savefig(path, dpi=120)
    return path


def accuracy_against_parameters(summaries: list[Summary], path: Path) -> Path:
    """Mean accuracy over parameters; the bars are one standard deviation over the seeds."""
    with figure(path) as axes:
        for summary in summaries:
            head = summary.columns["head"]
            # Side by side, so that they do not overlap.
            shift = {"linear": 0.94, "MLP": 0.98, "dendritic": 1.02, "grown": 1.06}[head]
            axes.errorbar(shift * summary.parameters() / 1e6, 100 * summary.mean, 100 * (summary.sd or 0), fmt="o",
                          capsize=3, color=COLOURS[head])
        for head, colour in COLOURS.items():
            axes.plot([], [], "o", color=colour, label=head)
        for model in dict.fromkeys(summary.columns["model"] for summary in summaries):
            group = [summary for summary in summaries if summary.columns["model"] == model]
            top = max(summary.mean + (summary.sd or 0) for summary in group)
            axes.annotate(model, (group[0].parameters() / 1e6, 100 * top), (0, 6), textcoords="offset points",
                          ha="center")
        axes.set_xscale("log")
        axes.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"], minor=False)
        axes.minorticks_off()
        axes.set(xlabel="live parameters, millions", ylabel="dev accuracy, %")
        axes.margins(x=0.15, y=0.2)
        axes.legend(frameon=False, loc="lower right")
    return path


def accuracy_of_texts(summaries: list[Summary], path: Path) -> Path:
    """Mean accuracy over the number of texts; the bars are one standard deviation over the seeds."""
    ticks = (50, 100, 200, 400)  # thousands
    with figure(path) as axes:
        for kinds, colour in ((("small",), COLOURS["MLP"]), (("recipe", "curve"), COLOURS["dendritic"])):
            found = sorted((summary for summary in summaries if summary.columns["kind"] in kinds),
                           key=lambda summary: summary.num_texts())
            if found:
                axes.errorbar([summary.num_texts() / 1000 for summary in found],
                              [100 * summary.mean for summary in found],
                              [100 * (summary.sd or 0) for summary in found], fmt="o-", capsize=3, color=colour,
                              label=f"{found[0].parameters() / 1e6:.2f} M parameters")
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="texts, thousands", ylabel="dev accuracy, %")
        axes.legend(loc="lower right")
        axes.margins(x=0.15, y=0.2)
    return path


def _standard_error(summary: Summary) -> float:
    return (summary.sd or 0) / summary.num_seeds ** 0.5


def _box(left: float, bottom: float, colour: str) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((left, bottom), 2.8, 1.0, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="#666666")


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#444444"})
