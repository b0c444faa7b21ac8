"""``dendritic-bert train``, ``distill``, ``pretrain``, ``sweep`` and ``evaluate``: trainings, and the scores of a model
on a task.

The flags of a training are the fields of the dataclass of its options.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import fields
from typing import Any

from .. import embedded_model
from .messages import print_json, say
from .models import expect_model

TRAIN = """\
Train on rows of your own, or on a task of GLUE, and score the last epoch on the dev rows. The results are printed as
JSON. Rows of your own need no other flag: columns, labels and a dev set are found, and said.

  dendritic-bert train --train_file reviews.csv
  dendritic-bert train --train_file reviews.csv --init random
  dendritic-bert train --train_file 'part-*.parquet' --dev_file dev.csv --text_column body --label_column topic
  dendritic-bert train --task sst2 --dsn --data_dir glue --output_dir my-model
  dendritic-bert train --train_file reviews.csv --window_dendrites 32 --window_layers 5
  dendritic-bert train --model_name prajjwal1/bert-tiny --benchmark glue --task sst2 --dsn --epochs 3"""

DISTILL = """\
Train on the probabilities that a teacher gives for the training rows, for texts made of parts of them and for texts of
your own. The results are printed as JSON. A teacher without a classifier is fine-tuned first. With text_file no labels
are needed: any sequence classifier is turned into a small fast model, whose card says how often the two agree.

  dendritic-bert distill --teacher my-classifier --text_file unlabelled.txt --output_dir my-model
  dendritic-bert distill --teacher all-MiniLM-L6-v2 --train_file reviews.csv --extra_text more-reviews.txt
  dendritic-bert distill --teacher all-MiniLM-L6-v2 --task sst2 --dsn --data_dir glue --output_dir my-model"""

PRETRAIN = """\
Teach a small encoder to give the sentence embeddings of a larger one, on texts without labels. Trainings on tables of
your own start from it (train --model_name), and TextEncoder gives its embeddings for search. The results are printed
as JSON. The teacher's embeddings are kept: the same command goes on where an interrupted one ended.

  dendritic-bert pretrain --teacher all-MiniLM-L6-v2 --text_file sentences.txt.xz --output_dir my-encoder
  dendritic-bert pretrain --teacher my-teacher --text_file a.txt b.parquet --window_dendrites 64 --window_layers 4"""

SWEEP = """\
Train repeatedly with hyperparameters that Optuna chooses: for rows of your own around the values that fit them, for a
task in the space of a sweep file of Weights & Biases (--space). A table and a picture are written. The same command
continues a sweep that was interrupted.

  dendritic-bert sweep --train_file reviews.csv --trials 20 --output_dir sweep
  dendritic-bert sweep --task sst2 --dsn --data_dir glue --trials 30 --seeds 0 1 2 --output_dir sweep"""

# Flags of evaluate that say how rows of one's own are read.
OWN_ROWS = {"text_column": "column of the texts", "text_pair_column": "column of the second texts",
            "label_column": "column of the labels", "label_separator": "what stands between labels",
            "input_format": "format of the files (default: by their names)",
            "delimiter": "what stands between the fields of a CSV file (default: a comma)"}


def _options_class(command: str) -> Any:
    """The dataclass whose fields are the flags of ``command``."""
    from ..pretraining.options import PretrainingOptions
    from ..training.distillation_options import DistillationOptions
    from ..training.options import TrainingOptions
    from ..training.sweep_options import SweepOptions

    return {"train": TrainingOptions, "distill": DistillationOptions, "pretrain": PretrainingOptions,
            "sweep": SweepOptions}[command]


def option_flags(command: str) -> argparse.ArgumentParser:
    """A parser with a flag for each field of the options of ``command``."""
    from transformers import HfArgumentParser

    options_class = _options_class(command)
    parser = HfArgumentParser(options_class, add_help=False)
    for action in parser._actions:
        if action.dest in options_class.unused:
            action.help = argparse.SUPPRESS
        elif action.option_strings[0].startswith("--no_"):
            action.help = f"turn --{action.dest} off"
        elif action.dest in options_class.own_defaults:
            text = re.sub(r" \(default: [^()]*\)", "", str(action.help))
            action.help = f"{text} (default: {options_class.own_defaults[action.dest]})"
        elif action.default not in (None, []) and action.default is not False and "(default: " not in str(action.help):
            action.help = f"{action.help} (default: %(default)s)"
    return parser


def _options(args: argparse.Namespace, command: str) -> Any:
    """The dataclass with the values of the command line; values that do not fit are a wrong command line."""
    options_class = _options_class(command)
    try:
        return options_class(**{field.name: getattr(args, field.name) for field in fields(options_class)})
    except ValueError as error:
        args.parser.error(str(error).rstrip("."))


def run_train(args: argparse.Namespace) -> None:
    """Train, and print the results."""
    import torch

    from ..training.trainer import train

    options = _options(args, "train")
    expect_model(options.model_name)
    results = train(options)
    if os.environ.get("RANK", "0") == "0":  # torchrun runs this in every process
        print_json(results)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # gloo's threads may abort a process that ends while they live


def run_distill(args: argparse.Namespace) -> None:
    """Train on a teacher's probabilities, and print the results."""
    from ..training.distillation import distill

    options = _options(args, "distill")
    expect_model(options.model_name)
    expect_model(options.teacher)
    print_json(distill(options))


def run_pretrain(args: argparse.Namespace) -> None:
    """Learn a teacher's sentence embeddings, and print the results."""
    from ..pretraining.pretraining import pretrain

    options = _options(args, "pretrain")
    expect_model(options.teacher)
    print_json(pretrain(options))


def run_sweep(args: argparse.Namespace) -> None:
    """Search for hyperparameters, and print the results."""
    from ..training.sweep import sweep

    options = _options(args, "sweep")
    expect_model(options.model_name)
    print_json(sweep(options))


def add_evaluate_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``evaluate``."""
    def add(name: str, **settings: Any) -> None:
        parser.add_argument(f"--{name}", *([f"--{name.replace('_', '-')}"] if "_" in name else []), **settings)

    add("model", metavar="M", help="folder or hub id of a model, or tiny, the smaller of the two that come with "
                                     "the package (default: the larger one)")
    add("dev_file", nargs="+", default=[], metavar="F", help="rows of your own to score, in place of a task: files, or "
                                                             "patterns such as 'reviews-*.csv'")
    for name, what in OWN_ROWS.items():
        add(name, help=f"own rows: {what}")
    add("on_error", choices=["stop", "skip"], help="own rows: what to do with a record that cannot be read (default: "
                                                   "stop)")
    add("output_dir", help="own rows: folder for a report with pictures, and for wrong.csv, the wrong rows with "
                           "the most confident first")
    add("task", default="sst2", help="task of GLUE, or squad (default: %(default)s)")
    add("data_dir", help="folder of the GLUE download, of the task in it, or of SQuAD (default: the data is fetched "
                         "from the hub)")
    add("split", choices=["train", "dev"], default="dev", help="rows of the task that are scored (default: "
                                                               "%(default)s)")


def run_evaluate(args: argparse.Namespace) -> None:
    """Score a model on a task or on own rows, and print the scores."""
    expect_model(args.model)
    from ..training.trainer import evaluate

    own_rows = {name: value for name in (*OWN_ROWS, "on_error") if (value := getattr(args, name)) is not None}
    if not args.dev_file and (own_rows or args.output_dir):
        name = next(iter([*own_rows, "output_dir"]))
        args.parser.error(f"{name} is given, but dev_file is not: name the file of your rows")
    model = embedded_model.find_model(args.model)
    if args.dev_file:
        if args.model is None:
            say("no --model is given: the rows are scored with the model of the package, which tells negative from "
                "positive")
        print_json(evaluate(model, dev_file=args.dev_file, output_dir=args.output_dir, **own_rows))
    else:
        print_json(evaluate(model, args.task, args.data_dir, args.split))
