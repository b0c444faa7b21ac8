"""``dendritic-bert train``, ``distill``, ``sweep`` and ``evaluate``: trainings, and the scores of a model on a task.

The flags of a training are the fields of the dataclass of its options.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from typing import Any

from .. import embedded_model
from .messages import print_json
from .models import expect_model

TRAIN = """\
Train on a task of GLUE, and score the last epoch on the whole dev set. The results are printed as JSON.

  dendritic-bert train --task sst2 --dsn --data_dir glue --output_dir my-model
  dendritic-bert train --model_name prajjwal1/bert-tiny --benchmark glue --task sst2 --dsn --epochs 3"""

DISTILL = """\
Train on the probabilities that a teacher gives for the training rows, and for texts made of parts of them. The results
are printed as JSON. A teacher without a classifier is fine-tuned first.

  dendritic-bert distill --teacher all-MiniLM-L6-v2 --task sst2 --dsn --data_dir glue --output_dir my-model"""

SWEEP = """\
Train repeatedly with hyperparameters that Optuna chooses, in the search space of a sweep file of Weights & Biases. A
table and a picture are written. The same command continues a sweep that was interrupted.

  dendritic-bert sweep --task sst2 --dsn --data_dir glue --trials 30 --seeds 0 1 2 --output_dir sweep"""


def _options_class(command: str) -> Any:
    """The dataclass whose fields are the flags of ``command``."""
    from ..training import options

    return {"train": options.TrainingOptions, "distill": options.DistillationOptions,
            "sweep": options.SweepOptions}[command]


def option_flags(command: str) -> argparse.ArgumentParser:
    """A parser with a flag for each field of the options of ``command``."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(_options_class(command), add_help=False)
    for action in parser._actions:
        if action.default is not None and action.default is not False and not action.required:
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
    from ..training.trainer import train

    options = _options(args, "train")
    expect_model(options.model_name)
    results = train(options)
    if os.environ.get("RANK", "0") == "0":  # torchrun runs this in every process
        print_json(results)


def run_distill(args: argparse.Namespace) -> None:
    """Train on a teacher's probabilities, and print the results."""
    from ..training.distillation import distill

    options = _options(args, "distill")
    expect_model(options.model_name)
    expect_model(options.teacher)
    print_json(distill(options))


def run_sweep(args: argparse.Namespace) -> None:
    """Search for hyperparameters, and print the results."""
    from ..training.sweep import sweep

    options = _options(args, "sweep")
    expect_model(options.model_name)
    print_json(sweep(options))


def add_evaluate_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``evaluate``."""
    add = parser.add_argument
    add("--model", metavar="M", help="folder or hub id of a model (default: the model that comes with the package)")
    add("--task", default="sst2", help="task of GLUE (default: %(default)s)")
    add("--data_dir", "--data-dir", help="folder of the GLUE download, or of the task in it (default: the data is "
                                         "fetched from the hub)")
    add("--split", choices=["train", "dev"], default="dev", help="rows that are scored (default: %(default)s)")


def run_evaluate(args: argparse.Namespace) -> None:
    """Score a model on a task, and print the scores."""
    expect_model(args.model)
    from ..training.trainer import evaluate

    print_json(evaluate(args.model or embedded_model.EMBEDDED_MODEL, args.task, args.data_dir, args.split))
