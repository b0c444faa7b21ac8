"""The part ``windows`` of the results: what teacher, natural text, windows and gate each add on SST-2, and how accuracy
grows with the number of texts and of parameters.

The teacher is not trained here: its margins come with the texts, in the files of ``--text_dir``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments import Experiment, Summary

from dendritic_bert.training.distillation import distill
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.markdown import markdown_table
from dendritic_bert.training.options import TrainingOptions

TEXT_FILES = ("train", "quotes", "movie_reviews", "imdb_top")
EPOCHS = 8
# The loss of the study that found the recipe is 0.8 T BCE + 0.2 cross-entropy at T = 2. BCE between two probabilities
# has the gradient of KL between two pairs of logits, so that T^2 KL has T times that of T BCE: 2/3 to 1/3 is the same
# ratio as 0.8 to 0.2.
TEACHER_SHARE = 0.6667
RECIPE: dict[str, Any] = {
    "task": "sst2", "epochs": EPOCHS, "batch_size": 512, "lr": 2e-3, "warmup": 0.05, "word_dropout": 0.1,
    "classifier_dropout": 0.1, "ema": 0.999, "vocab_size": 9600, "hidden_size": 32, "window_dendrites": 32,
    "window_layers": 5, "teacher_share": TEACHER_SHARE, "temperature": 2.0, "num_augmented": 0,
    "save_dtype": "float16"}
SMALL = {"vocab_size": 6000, "hidden_size": 16}
NO_WINDOWS: dict[str, Any] = {"window_dendrites": 0, "window_layers": 0, "dsn": True, "max_position_embeddings": 0,
                              "embedding_norm": "none"}
# What is left out of the recipe or changed, one thing at a time, trained with the first seed alone.
CHANGES: dict[str, dict[str, Any]] = {
    "no windows, gated mean": NO_WINDOWS | {"pooling": "gated_mean"},
    "no windows, mean": NO_WINDOWS | {"pooling": "mean_masked"},
    "no gate": {"pooling": "mean_masked"},
    "with LayerNorm": {"embedding_norm": "layer_norm"},
    "2 layers": {"window_layers": 2},
    "3 layers": {"window_layers": 3},
    "4 layers": {"window_layers": 4},
    "16 dendrites a layer": {"window_dendrites": 16},
    "64 dendrites a layer": {"window_dendrites": 64},
}
# Files, and epochs that make about as many steps as EPOCHS of all of them.
CURVE: dict[tuple[str, ...], int] = {TEXT_FILES[:1]: 51, TEXT_FILES[:2]: 48, TEXT_FILES[:3]: 27,
                                     ("train", "quotes", "imdb_top"): 9}
NAMES = {"recipe": "the recipe", "small": "the small recipe"}


def recipe_options(data_dir: str, text_dir: str, fraction: float = 1.0, **changes: Any) -> DistillationOptions:
    """The recipe but for ``changes``; ``files`` among them are the names of files of ``text_dir``."""
    files = changes.pop("files", TEXT_FILES)
    margins = [str(Path(text_dir) / f"{name}.tsv.xz") for name in files]
    rows = {"data_dir": data_dir, "extra_margins": margins, "fraction": fraction}
    return DistillationOptions(**RECIPE | rows | changes)


def first_experiments(data_dir: str, text_dir: str, fraction: float) -> list[Experiment]:
    """The two recipes, which are trained with every seed."""
    return [Experiment({"kind": kind, "change": "", "texts": ""},
                       recipe_options(data_dir, text_dir, fraction, **changes), distill)
            for kind, changes in (("recipe", {}), ("small", SMALL))]


def other_experiments(data_dir: str, text_dir: str, fraction: float) -> list[Experiment]:
    """Everything that is trained with the first seed alone."""
    found = [Experiment({"kind": "change", "change": name, "texts": ""},
                        recipe_options(data_dir, text_dir, fraction, **changes), distill)
             for name, changes in CHANGES.items()]
    found += [Experiment({"kind": "curve", "change": "", "texts": " ".join(files)},
                         recipe_options(data_dir, text_dir, fraction, files=files, epochs=epochs), distill)
              for files, epochs in CURVE.items()]
    alone = {name: value for name, value in RECIPE.items()
             if name not in ("teacher_share", "temperature", "num_augmented", "epochs")}
    found.append(Experiment({"kind": "change", "change": "neither teacher nor natural text", "texts": ""},
                            TrainingOptions(**alone | {"data_dir": data_dir, "fraction": fraction,
                                                       "epochs": CURVE[TEXT_FILES[:1]]})))
    return found


def windows_tables(summaries: list[Summary]) -> list[str]:
    """The paragraphs and tables of ``windows.md``."""
    by_kind: dict[str, list[Summary]] = {}
    for summary in summaries:
        by_kind.setdefault(summary.columns["kind"], []).append(summary)
    recipe = by_kind["recipe"][0]
    rows = [[NAMES[kind], *_figures(by_kind[kind][0])] for kind in NAMES if kind in by_kind]
    changes = [[summary.columns["change"], *_figures(summary), f"{100 * (summary.mean - recipe.mean):+.1f}"]
               for summary in by_kind.get("change", [])]
    curve = sorted([*by_kind.get("curve", []), recipe], key=Summary.num_texts)
    texts = [[f"{summary.num_texts():,}", summary.columns["texts"] or " ".join(TEXT_FILES), *_figures(summary)]
             for summary in curve]
    return [
        f"Dev accuracy in percent, mean ± standard deviation over {recipe.num_seeds} seeds, after the last epoch; no "
        "epoch and no seed is chosen. Seconds are those of one thread, beside whatever else ran on the machine; of a "
        "training that was interrupted, those since it went on.\n",
        markdown_table(["", "accuracy", "parameters", "seconds"], rows, num_text_columns=1),
        "One thing changed, with the first seed alone; the difference is to the mean of the recipe. One standard error "
        f"of an accuracy on {recipe.rows[0]['num_dev']} sentences is "
        f"{100 * float(recipe.rows[0]['standard_error']):.1f} points.\n",
        markdown_table(["change", "accuracy", "parameters", "seconds", "difference"], changes, num_text_columns=1),
        "The number of texts, with about the same number of steps.\n",
        markdown_table(["texts", "files", "accuracy", "parameters", "seconds"], texts, num_text_columns=2),
    ]


def _figures(summary: Summary) -> list[str]:
    return [summary.percent(), f"{summary.parameters():,}", f"{summary.seconds():.0f}"]
