"""What a command line looks like: the commands, and which module has the flags and the work of each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from . import classify, convert, encode, explain, export, train
from .messages import PROG


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviated flags, keeps help texts as they are, and reports an error in one line."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for ``argv``.

    The flags of a training are made only for the command that ``argv`` names, because that imports transformers.
    """
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                        help="show the traceback of an error")
    parser = Parser(prog=PROG, parents=[common], description="Text classification: BERT's embeddings without its "
                                                             "encoder, in one kernel from token ids to logits.")
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Any, summary: str, description: str | None = None, *flags: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common, *flags], help=summary, description=description or summary)
        command.set_defaults(run=run, parser=command)
        return command

    named = next((word for word in argv if not word.startswith("-")), None)
    classify.add_flags(add("classify", classify.run, "give texts their labels", classify.DESCRIPTION))
    encode.add_flags(add("encode", encode.run, "give texts their embeddings", encode.DESCRIPTION))
    explain.add_flags(add("explain", explain.run, "say which words a label comes from", explain.DESCRIPTION))
    for name, run, summary, description in (
        ("train", train.run_train, "train on your own rows or on a task, and write weights, tokenizer and model card",
         train.TRAIN),
        ("distill", train.run_distill, "train on the probabilities of a larger model, the teacher", train.DISTILL),
        ("pretrain", train.run_pretrain, "learn a sentence encoder's embeddings, from which trainings start",
         train.PRETRAIN),
        ("sweep", train.run_sweep, "search for the hyperparameters of a training, without an account anywhere",
         train.SWEEP),
    ):
        add(name, run, summary, description, *([train.option_flags(name)] if name == named else []))
    train.add_evaluate_flags(add("evaluate", train.run_evaluate,
                                 "score a model on your own rows or on a task; the scores are printed as JSON"))
    convert.add_flags(add("convert", convert.run, "make a model from a checkpoint of BERT or PerforatedAI",
                          convert.DESCRIPTION))
    export.add_flags(add("export", export.run, "write a model as a program that runs without this package",
                         export.DESCRIPTION))
    add("env", _run_env, "versions, processor, backends, tokenizer: what is in use, and what is missing and why")
    add("demo", _run_demo, "classify a few sentences, and time the fused kernel beside plain PyTorch")
    return parser


# These two have no flags, so that their modules, the second of which imports torch, are not needed before they run.


def _run_env(args: argparse.Namespace) -> None:
    from . import environment

    environment.run()


def _run_demo(args: argparse.Namespace) -> None:
    from . import demo

    demo.run()
