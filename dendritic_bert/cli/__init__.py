"""The command line: ``dendritic-bert classify | train | evaluate | convert | env | demo``.

Results go to standard output, everything else to standard error. Exit status: 0; 1 where something went wrong, with one
line that says what and what to do; 2 for a wrong command line; 130 where it was interrupted.

torch and transformers take seconds to import, so each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from .. import __version__

if TYPE_CHECKING:
    from ..inference.classifier import FileReport, TextClassifier

PROG = "dendritic-bert"

CLASSIFY = """\
Classify texts: one line each with text, label and score, in order.

  dendritic-bert classify "a charming journey" "unflinchingly bleak"
  cut -f1 reviews.tsv | dendritic-bert classify | jq .label
  dendritic-bert classify --file reviews.csv --column review --output labels.csv

Without TEXT and --file the texts come from standard input, one a line. An output file appears when it is whole;
after an interruption, or when a malformed record was mended, the same command goes on where the first one ended."""

TRAIN = """\
Train on a task of GLUE and score the last epoch on the whole dev set; the results are printed as JSON.

  dendritic-bert train --task sst2 --dsn --data_dir glue --output_dir my-model
  dendritic-bert train --model_name prajjwal1/bert-tiny --benchmark glue --task sst2 --dsn --epochs 3"""

CONVERT = """\
Make a model of this package, or with --perforated one that PerforatedAI trains on.

  dendritic-bert convert prajjwal1/bert-tiny my-dsn                       BERT's embeddings under a new head
  dendritic-bert convert PAI/best_model.pt my-model --config config.json  a network that grew dendrites, its head kept
  dendritic-bert convert my-model PAI --perforated                        and back, to go on from there"""

DISTILL = """\
Train on a teacher's probabilities for the training rows and for text made of their parts; the results are printed as
JSON. A teacher without a classifier is fine-tuned first.

  dendritic-bert distill --teacher all-MiniLM-L6-v2 --task sst2 --dsn --data_dir glue --output_dir my-model"""

SWEEP = """\
Train again and again with other hyperparameters, chosen by Optuna in the space of a sweep file of Weights & Biases;
writes a table and a picture, and goes on where an earlier run ended.

  dendritic-bert sweep --task sst2 --dsn --data_dir glue --trials 30 --seeds 0 1 2 --output_dir sweep"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, ``sys.argv[1:]`` by default; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    _reserve_standard_descriptors()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        # What reads our output, such as `head`, has had enough. Python flushes once more at its end: to nowhere.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as interrupt:
        _say(" ".join(["interrupted", *map(str, interrupt.args)]))
        return 130
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        _say(f"error: {_one_line(error)}")
        return 1


def _reserve_standard_descriptors() -> None:
    """Where a standard stream is closed, the next file opened would take its number, and what is meant for the stream
    would be written into it."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def _run(argv: list[str]) -> int:
    try:
        args = build_parser(argv).parse_args(argv)
        args.run(args)
    except SystemExit as end:  # how argparse ends after --help, --version and a wrong command line
        return int(end.code or 0)
    return 0


def _say(message: str) -> None:
    if sys.stderr is not None:  # print would take standard output in its place
        print(f"{PROG}: {message}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _one_line(error: Exception) -> str:
    """The first line of the message; with the error's type where the message was not written to stand alone."""
    lines = str(error).strip().splitlines()
    if isinstance(error, (ImportError, OSError, RuntimeError, ValueError)) and lines:
        return lines[0]
    return ": ".join([type(error).__name__, *lines[:1]])


# ---- what a command line looks like ----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """No abbreviated flags, help texts as they were typed, and errors in one line."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for ``argv``; the flags of ``train`` stand in a dataclass beside torch, and are there when it is."""
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show an error's traceback")
    parser = _Parser(prog=PROG, parents=[common], description="Text classification: BERT's embeddings without its "
                                                              "encoder, in one kernel from token ids to logits.")
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Any, summary: str, description: str | None = None, *flags: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common, *flags], help=summary, description=description or summary)
        command.set_defaults(run=run, parser=command)
        return command

    _add_classify_flags(add("classify", _classify, "texts to labels", CLASSIFY))
    command_name = next((word for word in argv if not word.startswith("-")), None)
    add("train", _train, "train on a task and write weights, tokenizer and model card", TRAIN,
        *_option_flags("train", command_name))
    add("distill", _distill, "train on the probabilities of a larger model, a teacher", DISTILL,
        *_option_flags("distill", command_name))
    add("sweep", _sweep, "search hyperparameters of a training, without an account anywhere", SWEEP,
        *_option_flags("sweep", command_name))
    _add_evaluate_flags(add("evaluate", _evaluate, "score a model on a task; the scores are printed as JSON"))
    _add_convert_flags(add("convert", _convert, "make a model of a checkpoint of BERT's or PerforatedAI's", CONVERT))
    add("env", _env, "versions, processor, backends, tokenizer: what is in use, what is missing and why")
    add("demo", _demo, "classify some sentences, and time the fused kernel beside plain PyTorch")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _add_classify_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="what to classify, - for standard input; after --, a TEXT may begin "
                                                 "with a dash")
    add("--file", "-f", metavar="F", help="read texts from F, - for standard input")
    add("--input-format", choices=["text", "csv", "tsv", "jsonl"],
        help="of the input; the default goes by the suffix, and is text, one a line, without one")
    add("--column", metavar="NAME", help="column, or key of the JSON objects, that holds the text (default: text)")
    add("--on-error", choices=["stop", "skip", "null"], default="stop",
        help="what a malformed record does: stop the run, be left out, or be written as null (default: %(default)s)")
    add("--output", "-o", metavar="O", help="write to O (default: standard output)")
    add("--format", choices=["json", "csv", "tsv"],
        help="of the output; the default goes by the suffix, and is json, one object a line, without one")
    add("--model", metavar="M", help="folder or hub id of a model (default: the one that comes with the package)")
    add("--batch-size", type=_positive, default=4096, metavar="N",
        help="texts at a time (default: %(default)s); with 1, and 1 thread, each line of a stream is answered at once")
    add("--threads", type=_positive, metavar="N", help="default: as many as the processor has cores")
    add("--restart", action="store_true", help="start over instead of going on with an interrupted run (resume=False)")


def _options_class(command_name: str) -> Any:
    """The dataclass whose fields are the command's flags; it stands beside torch."""
    if command_name == "distill":
        from ..training.distillation import DistillationOptions

        return DistillationOptions
    if command_name == "sweep":
        from ..training.sweep import SweepOptions

        return SweepOptions
    from ..training.trainer import TrainingOptions

    return TrainingOptions


def _option_flags(name: str, command_name: str | None) -> list[argparse.ArgumentParser]:
    """A flag for each field of the options of command ``name``, where it is the one that is asked for."""
    if name != command_name:
        return []
    from transformers import HfArgumentParser

    parser = HfArgumentParser(_options_class(name), add_help=False)
    for action in parser._actions:
        if action.default is not None and action.default is not False and not action.required:
            action.help = f"{action.help} (default: %(default)s)"
    return [parser]


def _options(args: argparse.Namespace, command_name: str) -> Any:
    """The dataclass filled from the command line; a value that does not fit ends it as argparse's own errors do."""
    options_class = _options_class(command_name)
    try:
        return options_class(**{field.name: getattr(args, field.name) for field in fields(options_class)})
    except ValueError as error:
        args.parser.error(str(error).rstrip("."))


def _add_evaluate_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="M", help="folder or hub id of a model (default: the one that comes with the package)")
    add("--task", default="sst2", help="task of GLUE (default: %(default)s)")
    add("--data_dir", "--data-dir", help="folder of the GLUE download, or of the task in it; without it the hub is "
                                         "asked")
    add("--split", choices=["train", "dev"], default="dev", help="default: %(default)s")


def _add_convert_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="FILE_OR_FOLDER", help="folder or hub id of a BERT or of a model of this package; file of "
                                                 "PerforatedAI's, or a folder that holds one")
    add("out", metavar="OUT", help="new folder for the model")
    add("--config", metavar="F", help="BERT's config.json, for a file of PerforatedAI's (default: beside the file)")
    add("--activation", choices=["sigmoid", "tanh", "relu", "gelu"],
        help="of the dendrites in a file of PerforatedAI's (default: what its PAI_config.json beside the file says)")
    add("--perforated", action="store_true", help="write PerforatedAI's training form, to train on there")
    add("--num-labels", type=_positive, metavar="N", help="labels of the new head (default: BERT's)")
    add("--num-dendrites", type=int, metavar="N", help="dendrites for each label (default: 0)")
    add("--pooling", choices=["mean_masked", "mean_all", "sum_all"], help="default: mean_masked")


# ---- the commands ----------------------------------------------------------------------------------------------------


def _classify(args: argparse.Namespace) -> None:
    source, input_format, column = _texts(args)
    if len(args.texts) == 1 and os.path.isfile(args.texts[0]):
        _say(f"hint: {args.texts[0]} is classified as a text, to classify what is in that file pass --file "
             f"{args.texts[0]}")
    classifier = _load_classifier(args.model)
    to_file = args.output not in (None, "-")
    try:
        report = classifier.classify_file(
            source, args.output, input_format=input_format, column=column, format=args.format, on_error=args.on_error,
            batch_size=args.batch_size, threads=args.threads, resume=not args.restart,
            progress=None if to_file or not _is_terminal(sys.stdout) else False)  # a bar among results is hard to read
    except KeyboardInterrupt:
        if to_file and isinstance(source, str) and source != "-":
            raise KeyboardInterrupt("(the same command goes on where this one ended)") from None
        raise
    _report(report, args.output if to_file else None, classifier.max_length, args.on_error)


def _is_terminal(stream: Any) -> bool:
    """False for one that is closed too."""
    return stream is not None and stream.isatty()


def _load_classifier(name: str | None) -> TextClassifier:
    _expect_model(name)
    from ..inference.classifier import TextClassifier

    try:
        return TextClassifier.from_pretrained(name)
    except OSError as error:
        raise OSError(f"model {name or 'of the package'} cannot be loaded ({_one_line(error).rstrip('.')}): pass a "
                      "folder or a hub id.") from error


def _expect_model(name: str | None) -> None:
    """Before a model is loaded: no bars for milliseconds, and a word where it has to come from the hub.

    Raises FileNotFoundError for what is neither a folder nor a hub id.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if name is None or os.path.exists(name):
        return
    from huggingface_hub.utils import HFValidationError, validate_repo_id
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # instead of a line for each attempt to reach the hub, half a minute of them
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise FileNotFoundError(f"model {name} does not exist: pass a folder or a hub id.") from None
    _say(f"there is no folder {name}, asking the Hugging Face hub")


def _texts(args: argparse.Namespace) -> tuple[str | BinaryIO, str | None, str]:
    """Where the texts come from, their format and column."""
    from ..inference.file_formats import INPUT_FORMATS, choose_format

    piped = args.texts == ["-"] or (not args.texts and args.file is None)
    if args.texts and args.file is not None:
        args.parser.error("TEXT and --file are both given, pass one of them")
    if not args.texts and args.file is None and (sys.stdin is None or sys.stdin.isatty()):
        args.parser.error("nothing to classify: pass TEXT, --file F or texts on standard input")
    if piped or args.file is not None:
        source = "-" if piped else args.file
        if args.column and choose_format("input_format", args.input_format, source, INPUT_FORMATS) == "text":
            args.parser.error(f"--column is {args.column}, but the input is read as lines of text: pass --input-format "
                              "csv, tsv or jsonl")
        return source, args.input_format, args.column or "text"
    if args.input_format or args.column:
        args.parser.error("--input-format and --column describe a file, but TEXT is given")
    # As JSON, since an argument may hold line ends, and bytes that are not UTF-8 (as lone surrogates).
    return io.BytesIO("".join(json.dumps({"text": text}) + "\n" for text in args.texts).encode()), "jsonl", "text"


def _report(report: FileReport, output: str | None, max_length: int, on_error: str) -> None:
    """One line on what the results do not show, where there is something to say."""
    notes = [f"{what}: {count}" for what, count in [
        ("of them by an earlier run", report.num_resumed),
        (f"cut to the {max_length} tokens of the model", report.num_truncated),
        ("bytes that are not UTF-8, replaced by U+FFFD", report.num_replaced),
        (f"malformed records {'skipped' if on_error == 'skip' else 'written as null'}", report.num_malformed),
    ] if count]
    if report.num_malformed:
        notes.append(f"the first of them: {report.first_malformed.rstrip('.')}")
    if notes or output:
        where = f" into {output}" if output else ""
        _say("; ".join([f"texts classified{where}: {report.num_records}", *notes]))


def _print_json(results: dict[str, Any]) -> None:
    print(json.dumps(_finite(results), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """``value`` with null for every number that JSON has none for, as the correlation of a constant is."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _train(args: argparse.Namespace) -> None:
    from ..training.trainer import train

    options = _options(args, "train")
    _expect_model(options.model_name)
    results = train(options)
    if os.environ.get("RANK", "0") == "0":  # under torchrun every process comes here
        _print_json(results)


def _distill(args: argparse.Namespace) -> None:
    from ..training.distillation import distill

    options = _options(args, "distill")
    _expect_model(options.model_name)
    _expect_model(options.teacher)
    _print_json(distill(options))


def _sweep(args: argparse.Namespace) -> None:
    from ..training.sweep import sweep

    options = _options(args, "sweep")
    _expect_model(options.model_name)
    _print_json(sweep(options))


def _evaluate(args: argparse.Namespace) -> None:
    _expect_model(args.model)
    from .. import EMBEDDED_MODEL
    from ..training.trainer import evaluate

    _print_json(evaluate(args.model or EMBEDDED_MODEL, args.task, args.data_dir, args.split))


def _convert(args: argparse.Namespace) -> None:
    _expect_model(args.source)
    from ..model.convert import convert

    options = {name: getattr(args, name)
               for name in ("num_labels", "num_dendrites", "pooling", "config", "activation")}
    model = convert(args.source, args.out, to_perforated=args.perforated,
                    **{name: value for name, value in options.items() if value is not None})
    _say(f"{args.out}: {model.num_parameters():,} parameters")


def _env(args: argparse.Namespace) -> None:
    from .environment import describe

    lines = describe()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:{width}}  {value}")


def _demo(args: argparse.Namespace) -> None:
    from .demo import run

    run(_load_classifier(None))
