"""What a student learns from a teacher and texts without labels, on tables of one's own and SST-2.

    python bench/accuracy/students.py --own_dir own --data_dir glue --bert bert-tiny

The teacher is BERT-tiny, fine-tuned on the training rows. The student sees their texts and no label, as
``dendritic-bert distill --teacher FOLDER --text_file FILE`` does with its defaults. Writes students.csv and
students.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from own_rows import MANY_ROWS, OWN_TABLES, Table, measure_tables, read_table, table_parser, write_splits
from result_files import made_by, write_csv

from dendritic_bert import TextClassifier
from dendritic_bert.training import TrainingOptions, train
from dendritic_bert.training.distillation import distill
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.markdown import markdown_table

# Smaller tables need more passes than the 65,000 rows of SST-2, and so small a BERT a higher rate than a base one.
TEACHER_LR, TEACHER_EPOCHS = 5e-4, {True: 3, False: 12}


def with_one_text(table: Table) -> Table:
    """The table with its text columns joined, in one line."""
    rows = {split: [[" ".join(" ".join(row[:-1]).split()), row[-1]] for row in found]
            for split, found in table.rows.items()}
    return Table(["text", "label"], rows)


def measure(name: str, table: Table, bert: str, folder: Path) -> dict[str, Any]:
    """Fine-tune the teacher, train the student, and compare both on the test rows, which neither has seen."""
    table = with_one_text(table)
    files = write_splits(table, folder)
    texts = folder / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text, _ in table.rows["train"]), encoding="utf-8")
    teacher, student = folder / "teacher", folder / "student"
    data: dict[str, Any] = {"train_file": files["train"], "dev_file": files["dev"], "label_column": "label"}
    if not (teacher / "config.json").exists():
        train(TrainingOptions(model_name=bert, dsn=False, baseline=False, output_dir=str(teacher), lr=TEACHER_LR,
                              epochs=TEACHER_EPOCHS[len(table.rows["train"]) > MANY_ROWS], **data))
    results = distill(DistillationOptions(teacher=str(teacher), text_file=[str(texts)], output_dir=str(student)))
    test_texts, labels = zip(*table.rows["test"])
    answers = {}
    for which, path in (("teacher", teacher), ("student", student)):
        classifier = TextClassifier.from_pretrained(path)
        answers[which] = np.array(classifier.labels)[classifier.predict_array(list(test_texts))[0]]
    return {"table": name, "texts": results["num_train"], "classes": len({row[-1] for row in table.rows["train"]}),
            "test": len(labels), **{which: float(np.mean(found == np.array(labels)))
                                    for which, found in answers.items()},
            "agreement": float(np.mean(answers["teacher"] == answers["student"])),
            "parameters": results["live_parameters"]["all"], "seconds": results["seconds"]}


def write_results(results: list[dict[str, Any]], output: Path) -> list[Path]:
    """Write students.csv and students.md, and return their paths."""
    table, text = output / "students.csv", output / "students.md"
    write_csv(table, results)
    lines = [[row["table"], *(f"{row[name]:,}" for name in ("texts", "classes", "test")),
              *(f"{100 * row[name]:.1f}" for name in ("teacher", "student", "agreement")), f"{row['parameters']:,}",
              f"{row['seconds']:.0f}"] for row in results]
    text.write_text("\n".join([
        "# Students without labels\n",
        "A model on the pretrained encoder that learns from a teacher, BERT-tiny fine-tuned on the training rows, what "
        "it says of their texts: `dendritic-bert distill --teacher FOLDER --text_file FILE` with its defaults. The "
        "accuracy of both on test rows, and how often they agree there, in percent; one seed.\n",
        markdown_table(["table", "texts", "classes", "test rows", "teacher", "student", "agreement", "parameters",
                        "seconds"], lines),
        made_by("students")]), encoding="utf-8")
    return [table, text]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and print the paths of what was written."""
    parser = table_parser(__doc__, [*OWN_TABLES, "sst2"], "build/students")
    parser.add_argument("--bert", required=True, help="BERT-tiny, which becomes the teacher: a folder or a hub id")
    parser.add_argument("--jobs", type=int, default=1, help="tables that are measured at a time (default: 1)")
    args = parser.parse_args(argv)
    results = measure_tables(measure, [(name, read_table(name, args.own_dir, args.data_dir), args.bert,
                                        args.work_dir / name) for name in args.tables], args.jobs)
    print(*write_results(results, args.output), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
