"""The report of an evaluation: tables in Markdown, its figures as JSON, pictures, and the rows that are wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from itertools import compress, repeat
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic_write import atomic_path
from .evaluation import (
    Evaluation,
    confusion_matrix,
    log_loss,
    majority_share,
    most_confused,
    per_class,
    predict,
    probabilities,
    reliability,
    scores,
)
from .markdown import markdown_table, table_cell
from .pictures import draw_confusion_matrix, draw_reliability, draw_values

CLASSES, LABELS, VALUES = "single_label_classification", "multi_label_classification", "regression"
MATRIX_PICTURE, RELIABILITY_PICTURE, VALUES_PICTURE = "confusion_matrix.png", "reliability.png", "predicted_values.png"
PICTURES = (MATRIX_PICTURE, RELIABILITY_PICTURE, VALUES_PICTURE)
MOST_IN_TABLE = 12  # classes up to which the confusion matrix is a table; of more, the pairs are listed
MOST_IN_MATRIX = 2000  # classes up to which there is a matrix at all: 32 MB
TITLES = {"macro_f1": "macro F1", "micro_f1": "micro F1", "ece": "ECE", "pearson": "Pearson", "spearman": "Spearman",
          "rmse": "RMSE", "r2": "R²"}


def write_evaluation(
    folder: Path, evaluation: Evaluation, rows: Iterable[tuple[str, ...]] | None = None,
    places: Iterable[str] | None = None, baseline: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Write evaluation.md, evaluation.json, the pictures, and wrong.csv, if there are ``rows``, to ``folder``.

    wrong.csv holds the rows whose answer is wrong, the most confident first: place, text (and text_pair), label,
    predicted, and score, the probability of the answer. Several labels stand between semicolons, and the score is that
    of the most confident wrong one. Of a regression it holds the rows that are off by more than the RMSE, the worst
    first, and the error in place of a score.

    Args:
        folder: is made if it is not there; files of these names are replaced.
        evaluation: the answers.
        rows: the texts of the evaluated rows in order, each one text or two; they are gone through once.
        places: where each row stands, such as "reviews.csv, line 17".
        baseline: what ``baseline.tfidf_baseline`` gives.

    Returns the metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = scores(*evaluation[:2], evaluation.problem_type, evaluation.temperature)
    draw_pictures(folder, evaluation)
    with atomic_path(folder / "evaluation.json") as path:
        path.write_text(json.dumps(_figures(evaluation, found, baseline), indent=1, ensure_ascii=False) + "\n",
                        encoding="utf-8")
    wrong = "" if rows is None else "The rows whose answers are wrong are in [wrong.csv](wrong.csv).\n"
    with atomic_path(folder / "evaluation.md") as path:
        path.write_text("\n".join([f"# Evaluation on {len(evaluation.labels):,} rows\n",
                                   *report_sections(evaluation, baseline), wrong]), encoding="utf-8")
    if rows is not None:
        _write_wrong(folder / "wrong.csv", evaluation, rows, places)
    return found


def draw_pictures(folder: Path, evaluation: Evaluation) -> None:
    """Draw what ``report_sections`` shows."""
    logits, labels, names, problem_type, temperature = evaluation
    if problem_type == VALUES:
        predicted = predict(logits, problem_type).reshape(len(labels), -1)
        draw_values(folder / VALUES_PICTURE, predicted, labels.reshape(predicted.shape), names)
        return
    if _has_matrix(evaluation):
        draw_confusion_matrix(folder / MATRIX_PICTURE, confusion_matrix(evaluation), names)
    curves = {"as trained": reliability(logits, labels, problem_type)}
    if temperature != 1:
        curves[f"temperature {temperature:.3g}"] = reliability(logits, labels, problem_type, temperature)
    draw_reliability(folder / RELIABILITY_PICTURE, curves)


def report_sections(evaluation: Evaluation, baseline: dict[str, Any] | None = None) -> list[str]:
    """Tables and sentences in Markdown: the metrics beside the baseline's, calibration, classes, and confusion."""
    parts = [_scores_table(evaluation, baseline)]
    if evaluation.problem_type == VALUES:
        return [*parts, f"![predicted values against true ones]({VALUES_PICTURE})\n"]
    parts += [*_calibration(evaluation), "### Classes\n" if evaluation.problem_type == CLASSES else "### Labels\n",
              markdown_table(["label", "precision", "recall", "F1", "rows"],
                             [[table_cell(row["label"]), f"{row['precision']:.4f}", f"{row['recall']:.4f}",
                               f"{row['f1']:.4f}", f"{row['support']:,}"] for row in per_class(evaluation)])]
    if evaluation.problem_type == CLASSES:
        parts += _confusion(evaluation)
    return parts


def _scores_table(evaluation: Evaluation, baseline: dict[str, Any] | None) -> str:
    found = scores(*evaluation[:2], evaluation.problem_type, evaluation.temperature)
    names = [name for name in found if name != "standard_error"]
    lines = [["this model", *(f"{found[name]:.4f}" for name in names)]]
    if baseline is not None:
        lines.append([f"{baseline['name']}, trained on {baseline['num_train']:,} rows in {baseline['seconds']:.0f} s",
                      *(f"{baseline[name]:.4f}" for name in names)])
    majority = majority_share(evaluation.labels, evaluation.problem_type)
    if majority is not None:
        lines.append(["the most frequent label", f"{majority:.4f}", *repeat("", len(names) - 1)])
    table = markdown_table(["", *(TITLES.get(name, name.replace("_", " ")) for name in names)], lines)
    if "standard_error" in found:
        table += (f"\nOne standard error of the accuracy on {len(evaluation.labels):,} rows is "
                  f"{found['standard_error']:.4f}.\n")
    return table


def _calibration(evaluation: Evaluation) -> list[str]:
    logits, labels, _, problem_type, temperature = evaluation
    error = reliability(logits, labels, problem_type).ece
    text = f"The expected calibration error (ECE, 15 bins) of the probabilities is {error:.4f}"
    if temperature != 1:
        calibrated = reliability(logits, labels, problem_type, temperature).ece
        text += (f" without a temperature, and {calibrated:.4f} with the temperature {temperature:.4g}, by which "
                 "scores divide the logits")
    return ["### Calibration\n", f"{text}.\n", f"![reliability curve]({RELIABILITY_PICTURE})\n"]


def _confusion(evaluation: Evaluation) -> list[str]:
    names = [table_cell(name) for name in evaluation.label_names]
    parts = ["### Confusion\n"]
    if len(names) <= MOST_IN_TABLE:
        parts += ["A row of the table is a label, a column an answer.\n", markdown_table(
            ["label", *names], [[name, *(f"{count:,}" for count in counts)]
                                for name, counts in zip(names, confusion_matrix(evaluation).tolist())])]
    elif pairs := most_confused(evaluation):
        parts += ["The pairs that are confused most often:\n", markdown_table(
            ["label", "predicted", "rows"], [[table_cell(label), table_cell(answer), f"{count:,}"]
                                             for label, answer, count in pairs], num_text_columns=2)]
    return [*parts, f"![confusion matrix]({MATRIX_PICTURE})\n"] if _has_matrix(evaluation) else parts


def _has_matrix(evaluation: Evaluation) -> bool:
    return evaluation.problem_type == CLASSES and len(evaluation.label_names) <= MOST_IN_MATRIX


def _figures(evaluation: Evaluation, found: dict[str, float], baseline: dict[str, Any] | None) -> dict[str, Any]:
    logits, labels, _, problem_type, temperature = evaluation
    figures: dict[str, Any] = {"num_examples": len(labels), "problem_type": problem_type, "scores": found,
                               "baseline": baseline}
    if problem_type == VALUES:
        return figures
    curve = reliability(logits, labels, problem_type, temperature)
    figures |= {"temperature": temperature, "majority": majority_share(labels, problem_type),
                "reliability": {name: values.tolist() for name, values in curve._asdict().items()},
                "per_class": per_class(evaluation)}
    if temperature != 1:
        figures["without_temperature"] = {"log_loss": log_loss(logits, labels, problem_type),
                                          "ece": reliability(logits, labels, problem_type).ece}
    if _has_matrix(evaluation):
        figures["confusion_matrix"] = confusion_matrix(evaluation).tolist()
    return figures


# ---- the rows that are wrong -----------------------------------------------------------------------------------------


def _write_wrong(
    path: Path, evaluation: Evaluation, rows: Iterable[tuple[str, ...]], places: Iterable[str] | None
) -> None:
    is_wrong, confidence = _find_wrong(evaluation)
    texts = list(compress(rows, is_wrong))
    where = [] if places is None else list(compress(places, is_wrong))
    columns = ["text", "text_pair"][:len(texts[0])] if texts else ["text"]
    last = "error" if evaluation.problem_type == VALUES else "score"
    answers = predict(evaluation.logits[is_wrong], evaluation.problem_type)
    with atomic_path(path) as unfinished, open(unfinished, "w", encoding="utf-8", errors="backslashreplace",
                                               newline="") as file:
        # Every text is quoted: before Python 3.13, csv leaves a lone CR unquoted, at which its reader ends the row.
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow([*(["place"] if where else []), *columns, "label", "predicted", last])
        labels = evaluation.labels[is_wrong]
        for i in np.argsort(-confidence, kind="stable"):
            writer.writerow([*([where[i]] if where else []), *texts[i], _name(labels[i], evaluation),
                             _name(answers[i], evaluation), round(float(confidence[i]), 6)])


def _find_wrong(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are wrong, ``[n]`` bool, and how confident the wrong answer is, or how far off, for each of these."""
    logits, labels, _, problem_type, temperature = evaluation
    answers = predict(logits, problem_type)
    if problem_type == VALUES:
        errors = np.abs(answers.reshape(len(labels), -1) - labels.reshape(len(labels), -1)).max(axis=1)
        is_wrong = errors > np.sqrt(np.mean(errors.astype(np.float64) ** 2))
        return is_wrong, errors[is_wrong]
    is_other = answers != labels
    if problem_type == CLASSES:
        return is_other, probabilities(logits[is_other], problem_type, temperature).max(axis=1, initial=0)
    is_wrong = is_other.any(axis=1)
    sure = probabilities(logits[is_wrong], problem_type, temperature)
    return is_wrong, np.where(is_other[is_wrong], np.maximum(sure, 1 - sure), 0).max(axis=1, initial=0)


def _name(answer: Any, evaluation: Evaluation) -> str:
    if evaluation.problem_type == CLASSES:
        return evaluation.label_names[answer]
    if evaluation.problem_type == LABELS:
        return ";".join(compress(evaluation.label_names, answer))
    return ";".join(np.format_float_positional(np.float32(value), trim="-") for value in np.atleast_1d(answer))
