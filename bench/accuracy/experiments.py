"""Series of trainings, each a row of a CSV file, so that an interrupted series continues; and their summaries."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from result_files import Row, read_csv, write_csv

from dendritic_bert.training import TrainingOptions, train
from dendritic_bert.training.command_line import changed_fields


class Experiment(NamedTuple):
    """A training, and the columns that name it (name of a column -> value). ``run(options)`` returns its results."""

    columns: dict[str, str]
    options: TrainingOptions
    run: Callable[[Any], dict[str, Any]] = train


class Summary(NamedTuple):
    """The rows of one experiment, with mean and standard deviation (None for one seed) of a metric over its seeds."""

    columns: dict[str, str]
    mean: float
    sd: float | None
    num_seeds: int
    rows: list[Row]

    def parameters(self, part: str = "all") -> int:
        """Number of live parameters of "embeddings", "windows", "encoder", "head" or "all"."""
        return int(self.rows[0][f"parameters_{part}"])

    def num_texts(self) -> int:
        """Number of rows and natural texts trained on."""
        return int(self.rows[0]["num_train"]) + int(self.rows[0].get("num_natural") or 0)

    def seconds(self) -> float:
        """Mean time of a training, in seconds."""
        return float(np.mean([float(row["seconds"]) for row in self.rows]))

    def percent(self) -> str:
        """Mean and standard deviation in percent, such as "82.9 ± 0.4"."""
        return f"{100 * self.mean:.1f}" + ("" if self.sd is None else f" ± {100 * self.sd:.1f}")


def run_experiments(experiments: Iterable[Experiment], seeds: Iterable[int], path: Path, jobs: int = 1) -> list[Row]:
    """Train every experiment with every seed, ``jobs`` trainings at a time, and add a row for each to ``path``, a CSV
    file. Trainings whose row is there already are not repeated.

    A row holds the experiment's columns, seed, the task's metrics, ``metric`` (the name of the main one), live
    parameters by part, numbers of rows trained and scored on, seconds, and ``settings``, a digest of the options, so
    that rows of other options are not taken for these. Returns the rows of these experiments. Models are not kept.
    """
    trainings = [(experiment, {**experiment.columns, "seed": str(seed), "settings": digest(experiment.options)})
                 for experiment in experiments for seed in seeds]
    rows = read_csv(path)

    def matches(row: Row, key: Row, *free: str) -> bool:
        return all(row.get(name) == value for name, value in key.items() if name not in free)

    def found() -> list[Row]:
        """The rows in the order of the experiments, not in that of their ends."""
        return [row for _, key in trainings for row in rows if matches(row, key)]

    others = [row for row in rows if not any(matches(row, key, "settings") for _, key in trainings)]
    folder = path.with_suffix(".unfinished")
    calls = [(experiment, key, folder / f"{key['settings']}-{key['seed']}") for experiment, key in trainings
             if not any(matches(row, key) for row in rows)]
    for row in in_parallel(_run, calls, jobs):
        rows.append(row)
        write_csv(path, others + found())
    shutil.rmtree(folder, ignore_errors=True)
    return found()


def in_parallel(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """Yield what ``function`` returns for each tuple of arguments, in the order in which the calls end.

    ``jobs`` processes have one thread each: two trainings of these sizes take less time on one core each than one after
    the other on both. After an error no further call starts.
    """
    if jobs == 1:
        yield from (function(*call) for call in calls)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))
    try:
        for future in as_completed([pool.submit(function, *call) for call in calls]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def summarise(rows: list[Row], names: list[str], metric: str | None = None) -> list[Summary]:
    """A summary for each combination of values in the columns ``names``, in the order of the rows; of ``metric``, or of
    each row's main metric."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    summaries = []
    for values, group in groups.items():
        scores = [float(row[metric or row["metric"]]) for row in group]
        sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
        summaries.append(Summary(dict(zip(names, values)), float(np.mean(scores)), sd, len(scores), group))
    return summaries


def _run(experiment: Experiment, key: Row, folder: Path) -> Row:
    print(f"{', '.join(experiment.columns.values())}, seed {key['seed']}", file=sys.stderr, flush=True)
    results = experiment.run(replace(experiment.options, seeds=[int(key["seed"])], output_dir=str(folder)))
    shutil.rmtree(folder)
    scores = {name: value for name, value in results["runs"][0].items() if name != "seed"}
    parts = {f"parameters_{part}": number for part, number in results["live_parameters"].items()}
    row = {**scores, "metric": results["metric"], "majority": results["majority"], "num_train": results["num_train"],
           "num_dev": results["num_dev"], "num_natural": results.get("num_natural"), **parts}
    return {name: "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
            for name, value in row.items()} | key


def digest(options: TrainingOptions) -> str:
    """A digest of the options that decide a training's result, except the data. An option that is added later does not
    change it while it has its default value."""
    free = {"output_dir", "data_dir", "seeds", "teacher_dir", "report_to", "wandb_project"}
    settings = {name: [Path(file).name for file in value] if name in ("extra_margins", "extra_text") else value
                for name, value in changed_fields(options).items() if name not in free}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
