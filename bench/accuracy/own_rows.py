"""How good the defaults for rows of one's own are: beside the best of a sweep, and beside TF-IDF.

    python bench/accuracy/own_rows.py --own_dir own --data_dir glue

The tables are three of one's own kind (150 intents, news in two columns, ironic tweets), SST-2, and 100 rows of each.
What a sweep chooses, it chooses on dev rows; every score in the result is on test rows, which decide nothing. Each
sweep, and each table's result, is kept in ``work_dir``, from which an interrupted run continues. Writes own_rows.csv
and own_rows.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from experiments import in_parallel
from result_files import made_by, write_csv

from dendritic_bert.atomic_write import atomic_path
from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.own_rows import OwnRows
from dendritic_bert.training import TrainingOptions, evaluate, train
from dendritic_bert.training.baseline import tfidf_baseline
from dendritic_bert.training.markdown import markdown_table
from dendritic_bert.training.sweep import sweep
from dendritic_bert.training.sweep_options import SweepOptions

SPLITS = ("train", "dev", "test")
DEV_SHARE, MOST_DEV = 0.1, 2000  # of the training rows, for tables without dev rows
SAMPLE, SAMPLE_CLASSES = 100, 10  # rows of a small table; classes, where there are more
MANY_ROWS = 20_000  # beyond them a sweep has half of its trials: 20 of SST-2 would take as long as all else together
OWN_TABLES = {"clinc150": "intent", "ag_news": "topic", "irony": "label"}  # each with its label column


class Table(NamedTuple):
    """Rows of text columns and a label by split; ``names`` are the columns, the label's last."""

    names: list[str]
    rows: dict[str, list[list[str]]]


def read_table(name: str, own_dir: Path, data_dir: Path) -> Table:
    """The rows of "sst2", or of a table in ``own_dir``, which need not have dev rows."""
    if name == "sst2":
        splits = {split: read_rows("sst2", file, str(data_dir))
                  for split, file in (("train", "train"), ("test", "dev"))}
        table = Table(["text", "label"], {split: [[text, ("negative", "positive")[label]] for text, label
                                                  in zip(rows.columns[0], rows.labels)]
                                          for split, rows in splits.items()})
    else:
        table = Table([], {})
        for split in SPLITS:
            path = own_dir / f"{name}_{split}.csv"
            if path.exists():
                with open(path, newline="", encoding="utf-8") as file:
                    names, *rows = csv.reader(file)
                table = Table(names, {**table.rows, split: rows})
    if "dev" not in table.rows:
        rows = table.rows["train"]
        order = np.random.default_rng(0).permutation(len(rows))
        num_dev = min(MOST_DEV, round(DEV_SHARE * len(rows)))
        table.rows["dev"] = [rows[i] for i in order[:num_dev]]
        table.rows["train"] = [rows[i] for i in order[num_dev:]]
    return table


def take_sample(table: Table) -> Table:
    """``SAMPLE`` training rows; of a table with many classes, rows of ``SAMPLE_CLASSES`` of them, in every split."""
    rng = np.random.default_rng(0)
    classes = sorted({row[-1] for row in table.rows["train"]})
    if len(classes) > 2 * SAMPLE_CLASSES:
        classes = rng.permutation(classes)[:SAMPLE_CLASSES].tolist()
    rows = {split: [row for row in found if row[-1] in classes] for split, found in table.rows.items()}
    rows["train"] = [rows["train"][i] for i in rng.permutation(len(rows["train"]))[:SAMPLE]]
    return Table(table.names, rows)


def write_splits(table: Table, folder: Path) -> dict[str, str]:
    """Write a table as one CSV file for each split, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {split: str(folder / f"{split}.csv") for split in SPLITS}
    for split, path in files.items():
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([table.names, *table.rows[split]])
    return files


def table_parser(description: str | None, tables: list[str], work_dir: str) -> argparse.ArgumentParser:
    """A parser with the flags of a measurement on ``tables``, whose models go to ``work_dir``."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own_dir", type=Path, required=True, help="folder of the three tables")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the GLUE download")
    parser.add_argument("--output", type=Path, default=Path("bench/results/accuracy"), help="folder for the results")
    parser.add_argument("--work_dir", type=Path, default=Path(work_dir), help="folder for the models")
    parser.add_argument("--tables", nargs="+", default=tables, choices=tables, help="tables to measure (default: all)")
    return parser


def measure_tables(measure: Callable[..., dict[str, Any]], calls: list[tuple[Any, ...]],
                   jobs: int) -> list[dict[str, Any]]:
    """What ``measure`` returns for the arguments in each of ``calls``, a name and a Table first, in their order.

    ``jobs`` tables are measured at a time, those with the most training rows first.
    """
    results: dict[str, dict[str, Any]] = {}
    for result in in_parallel(measure, sorted(calls, key=lambda call: -len(call[1].rows["train"])), jobs):
        results[result["table"]] = result
        print(result, file=sys.stderr, flush=True)
    return [results[name] for name, *_ in calls]


def measure(name: str, table: Table, trials: int, seeds: int, folder: Path) -> dict[str, Any]:
    """Train with the defaults, search for better options on the dev rows, and score both on the test rows."""
    kept = folder / f"{trials}_trials_{seeds}_seeds.json"
    if kept.exists():
        return json.loads(kept.read_text())
    files = write_splits(table, folder)
    data: dict[str, Any] = {"train_file": files["train"], "dev_file": files["dev"], "label_column": table.names[-1]}
    default = [_test_score(TrainingOptions(**data, seeds=[seed], baseline=False, output_dir=str(folder / "model")),
                           files["test"]) for seed in range(seeds)]
    found = sweep(SweepOptions(**data, trials=trials, output_dir=str(folder / "sweep")))
    tuned = [_test_score(TrainingOptions(**data | found["best"], seeds=[seed], baseline=False,
                                         output_dir=str(folder / "model")), files["test"]) for seed in range(seeds)]
    rows = OwnRows.open(files["train"], files["test"], label_column=table.names[-1])
    baseline = tfidf_baseline(rows.rows("train"), rows.targets("train"), rows.rows("dev"), rows.targets("dev"),
                              rows.settings["problem_type"])["accuracy"]
    mean = float(np.mean(default))
    result = {"table": name, "train": len(table.rows["train"]), "test": len(table.rows["test"]),
              "classes": len({row[-1] for row in table.rows["train"]}), "default": mean,
              "trials": found["trials"], "best_of_sweep": float(np.mean(tuned)),
              "standard_error": math.sqrt(mean * (1 - mean) / rows.num_dev), "tfidf": baseline,
              "best": " ".join(f"--{key} {value}" for key, value in found["best"].items())}
    with atomic_path(kept) as unfinished:
        unfinished.write_text(json.dumps(result))
    return result


def _test_score(options: TrainingOptions, test_file: str) -> float:
    train(options)
    accuracy = evaluate(options.output_dir, dev_file=test_file, label_column=options.label_column)["accuracy"]
    shutil.rmtree(options.output_dir)
    return accuracy


def write_results(results: list[dict[str, Any]], seeds: int, output: Path) -> list[Path]:
    """Write own_rows.csv and own_rows.md, and return their paths."""
    table, text = output / "own_rows.csv", output / "own_rows.md"
    write_csv(table, results)
    lines = [[row["table"], f"{row['train']:,}", str(row["classes"]), f"{100 * row['default']:.1f}", str(row["trials"]),
              *(f"{100 * row[name]:.1f}" for name in ("best_of_sweep", "standard_error", "tfidf"))] for row in results]
    text.write_text("\n".join([
        "# The defaults for rows of one's own\n",
        f"Accuracy on test rows in percent, the mean of {seeds} seeds: a Dendritic Semantic Network (DSN) on the "
        "pretrained encoder with the default options, and with the best options of a sweep of so many trials, chosen "
        "on dev rows; one standard error of the default's accuracy; and a logistic regression on TF-IDF of words and "
        "pairs of words.\n",
        markdown_table(["table", "training rows", "classes", "default", "trials", "best of sweep", "standard error",
                        "TF-IDF"], lines),
        made_by("own_rows")]), encoding="utf-8")
    return [table, text]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and print the paths of what was written."""
    tables = [name for table in (*OWN_TABLES, "sst2") for name in (table, f"{table}-{SAMPLE}")]
    parser = table_parser(__doc__, tables, "build/own_rows")
    parser.add_argument("--trials", type=int, default=20,
                        help=f"trainings of a sweep, half as many beyond {MANY_ROWS:,} rows (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings that are averaged (default: 3)")
    parser.add_argument("--jobs", type=int, default=1, help="tables that are measured at a time (default: 1)")
    args = parser.parse_args(argv)
    calls = []
    for name in args.tables:
        table = read_table(name.removesuffix(f"-{SAMPLE}"), args.own_dir, args.data_dir)
        if name.endswith(f"-{SAMPLE}"):
            table = take_sample(table)
        trials = args.trials if len(table.rows["train"]) <= MANY_ROWS else args.trials // 2
        calls.append((name, table, trials, args.seeds, args.work_dir / name))
    results = measure_tables(measure, calls, args.jobs)
    print(*write_results(results, args.seeds, args.output), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
