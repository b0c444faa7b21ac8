"""What a temperature that is fitted on dev rows does for the probabilities of test rows, on tables of one's own.

    python bench/accuracy/calibration.py --own_dir own --data_dir glue

Each table is trained on with the default options and ``--calibrate``. Writes calibration.csv and calibration.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from own_rows import OWN_TABLES, Table, measure_tables, read_table, table_parser, write_splits
from result_files import made_by, write_csv

from dendritic_bert.training import TrainingOptions, evaluate, train
from dendritic_bert.training.markdown import markdown_table


def measure(name: str, table: Table, folder: Path) -> dict[str, Any]:
    """Train and calibrate on train and dev rows; the log loss and the calibration error of the test rows, with the
    temperature and without."""
    files = write_splits(table, folder)
    label_column = table.names[-1]
    results = train(TrainingOptions(train_file=[files["train"]], dev_file=[files["dev"]], label_column=label_column,
                                    calibrate=True, baseline=False, output_dir=str(folder / "model")))
    found = evaluate(results["output_dir"], dev_file=files["test"], label_column=label_column,
                     output_dir=str(folder / "report"))
    figures = json.loads((folder / "report" / "evaluation.json").read_bytes())
    before = figures.get("without_temperature", found)  # there is none where the temperature is 1
    return {"table": name, "train": results["num_train"], "dev": results["num_dev"], "test": found["num_examples"],
            "accuracy": found["accuracy"], "temperature": results["temperature"],
            "ece_before": before["ece"], "ece": found["ece"],
            "log_loss_before": before["log_loss"], "log_loss": found["log_loss"]}


def write_results(results: list[dict[str, Any]], output: Path) -> list[Path]:
    """Write calibration.csv and calibration.md, and return their paths."""
    table, text = output / "calibration.csv", output / "calibration.md"
    write_csv(table, results)
    lines = [[row["table"], *(f"{row[name]:,}" for name in ("train", "dev", "test")), f"{100 * row['accuracy']:.1f}",
              f"{row['temperature']:.3f}", *(f"{row[name]:.4f}" for name in (
                  "ece_before", "ece", "log_loss_before", "log_loss"))] for row in results]
    text.write_text("\n".join([
        "# Calibration\n",
        "A Dendritic Semantic Network (DSN) on the pretrained encoder with the default options: its accuracy on test "
        "rows in percent, the temperature that `--calibrate` fits on the dev rows, and the expected calibration error "
        "(ECE, 15 bins) and the log loss of the test rows without and with it.\n",
        markdown_table(["table", "training rows", "dev rows", "test rows", "accuracy", "temperature", "ECE without",
                        "ECE with", "log loss without", "log loss with"], lines),
        made_by("calibration")]), encoding="utf-8")
    return [table, text]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and print the paths of what was written."""
    parser = table_parser(__doc__, [*OWN_TABLES, "sst2"], "build/calibration")
    parser.add_argument("--jobs", type=int, default=1, help="tables that are measured at a time (default: 1)")
    args = parser.parse_args(argv)
    results = measure_tables(measure, [(name, read_table(name, args.own_dir, args.data_dir), args.work_dir / name)
                                       for name in args.tables], args.jobs)
    print(*write_results(results, args.output), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
