"""What a training or an evaluation on rows of one's own says: temperature, baseline, card, report, and warnings."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.own_rows import OwnRows
from ..datasets.rows import EncodedRows
from .baseline import MOST_CLASSES, num_fits, tfidf_baseline
from .calibration import fit_temperature
from .dev_logits import infer_splits
from .evaluation import Evaluation
from .options import TrainingOptions
from .own_data_card import write_own_data_card


def describe_training(options: TrainingOptions, benchmark: OwnRows, dev_rows: dict[str, EncodedRows], folder: Path,
                      results: dict[str, Any]) -> None:
    """Judge the model in ``folder``: add temperature and baseline to ``results``, write the model card with its
    pictures, and warn of a model that is weak."""
    model = benchmark.model_class.from_pretrained(folder).eval()
    evaluation = answer_rows(model, benchmark, dev_rows)
    if options.calibrate:
        temperature = fit_temperature(evaluation.logits, evaluation.labels, evaluation.problem_type)
        evaluation = evaluation._replace(temperature=temperature)
        model.config.temperature = temperature
        model.config.save_pretrained(folder)
    results["temperature"] = evaluation.temperature
    if options.baseline:
        _add_baseline(results, options, benchmark)
    write_own_data_card(folder, options, results, model.config, evaluation, benchmark)
    _warn_of_weak_results(results, len(np.unique(evaluation.labels, axis=0)))


def answer_rows(model: Any, benchmark: OwnRows, dev_rows: dict[str, EncodedRows]) -> Evaluation:
    """The answers of ``model`` to the dev rows."""
    logits = np.stack(infer_splits(model, dev_rows, benchmark)["dev"])
    names = benchmark.labels or [f"value {number}" for number in range(logits.shape[1])]
    return Evaluation(logits, benchmark.targets("dev"), names, benchmark.settings["problem_type"],
                      model.config.temperature)


def _add_baseline(results: dict[str, Any], options: TrainingOptions, benchmark: OwnRows) -> None:
    """Train the baseline and say its score, or why there is none."""
    targets, problem_type = benchmark.targets("train"), benchmark.settings["problem_type"]
    if (count := num_fits(targets, problem_type)) > MOST_CLASSES:
        print(f"no baseline: TF-IDF with a logistic regression for each of {count:,} classes would take minutes",
              file=sys.stderr, flush=True)
        return
    results["baseline"] = baseline = tfidf_baseline(
        benchmark.rows("train"), targets, benchmark.rows("dev"), benchmark.targets("dev"), problem_type,
        options.seeds[0], None if options.class_weights == "none" else options.class_weights)
    metric = results["metric"]
    print(f"dev {metric}: {results['runs'][0][metric]:.4f}; {baseline['name']} on the same rows: "
          f"{baseline[metric]:.4f} ({baseline['seconds']:.0f} s)", file=sys.stderr, flush=True)


def _is_constant_at_best(run: dict[str, Any], metric: str, majority: float, num_classes: int) -> bool:
    """Whether neither the accuracy is above that of the most frequent class alone, nor F1, averaged over the classes
    of the dev rows, above that and above a share of one class. A model that finds rare classes, too, may have the lower
    accuracy."""
    f1_of_constant = 2 * majority / (1 + majority) / num_classes
    return run[metric] <= majority and run.get("macro_f1", 0.0) <= max(f1_of_constant, 1 / num_classes)


def _warn_of_weak_results(results: dict[str, Any], num_classes: int) -> None:
    """Warn of dev rows of one class; of a model that does no better than the most frequent one; or else of one below
    the baseline, and say where the difference is within the standard error of the model's accuracy."""
    metric, run = results["metric"], results["runs"][0]
    score, noise = run[metric], run.get("standard_error", 0.0)
    baseline = results.get("baseline")
    if results["majority"] == 1:
        warnings.warn(f"all dev rows have the same label, so that {metric} {score:.4f} says nothing: pass a "
                      "--dev_file with other labels too, or a larger --hold_out.", stacklevel=3)
    elif results["majority"] is not None and _is_constant_at_best(run, metric, results["majority"], num_classes):
        warnings.warn(f"{metric} {score:.4f} is not above the share of the most frequent label, "
                      f"{results['majority']:.4f}, so nothing was learnt: see whether the columns named above are the "
                      "right ones, then train with more --epochs or a higher --lr.", stacklevel=3)
    elif run.get("r2", 1.0) <= 0:
        warnings.warn(f"r2 {run['r2']:.4f} is not above 0, that of the mean of the numbers, so nothing was learnt: see "
                      "whether the columns named above are the right ones, then train with more --epochs or a higher "
                      "--lr.", stacklevel=3)
    elif baseline is not None and score < baseline[metric]:
        by_chance = baseline[metric] - score <= noise
        within = f" (a difference within one standard error, {noise:.4f})" if by_chance else ""
        warnings.warn(f"{metric} {score:.4f} is below that of {baseline['name']} on the same rows, "
                      f"{baseline[metric]:.4f}{within}: search for better options with `dendritic-bert sweep`, "
                      "start from another pretrained model with --model_name, or add rows.", stacklevel=3)
