"""Commands that read texts, from the command line, files or standard input, and write a result for each."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from .flag_types import positive_number
from .messages import say

if TYPE_CHECKING:
    from ..inference.file_classification import FileReport
    from ..inference.text_logits import TextLogits

_OF_FILES = ("input_format", "column", "text_pair_column", "keep_columns", "delimiter")


def add_text_flags(parser: argparse.ArgumentParser, model: str) -> None:
    """Add the flags that say where texts come from, where results go to, and what happens on the way; ``model`` is the
    help of --model."""
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="a text, or - for standard input; after --, a TEXT may begin with a "
                                                 "dash")
    add("--file", "-f", nargs="+", metavar="F",
        help="read the texts from these files, one after another; F may be a pattern, as 'part-*.csv', or - for "
             "standard input, and compressed by gzip or zstd")
    add("--input-format", choices=["text", "csv", "tsv", "jsonl", "parquet", "arrow"],
        help="format of the input (default: what the suffix says; text, one per line, without a suffix)")
    add("--column", metavar="NAME", help="column, or key of the JSON objects, that holds the text (default: the one "
                                         "that the model was trained on, text, or the only column of strings)")
    add("--keep-columns", metavar="A,B", help="columns to write before the text, or all for every other one; one with "
                                              "the name of a result is written as input_NAME")
    add("--delimiter", metavar="C", help="character between the fields of CSV, tab for a tab (default: ,)")
    add("--on-error", choices=["stop", "skip", "null"], default="stop",
        help="what to do at a malformed record: stop the run, skip the record, or write null for it (default: "
             "%(default)s)")
    add("--output", "-o", metavar="O", help="write the results to O (default: standard output); lines are compressed "
                                            "if O ends in .gz or .zst")
    add("--format", choices=["json", "csv", "tsv", "parquet", "arrow"],
        help="format of the output (default: what the suffix says; json, one object per line, without a suffix)")
    add("--model", metavar="M", help=model)
    add("--revision", metavar="R", help="branch, tag or commit of a hub id (default: its main branch)")
    add("--device", metavar="D", help="where the model computes, such as cuda (default: cpu)")
    add("--batch-size", type=positive_number, default=4096, metavar="N",
        help="number of texts that are taken at a time (default: %(default)s); with 1, and 1 thread, each line of a "
             "stream is answered at once")
    add("--threads", type=positive_number, metavar="N",
        help="number of threads (default: PyTorch's own number, that of the cores unless OMP_NUM_THREADS is set)")
    add("--restart", action="store_true", help="start over instead of continuing an interrupted run (resume=False)")


def write_results(args: argparse.Namespace, done: str, load: Callable[[], TextLogits],
                  write: Callable[..., FileReport]) -> None:
    """Load a model, let it write the results of the texts that ``args`` name, and say what these do not show.

    ``write`` is called with the model and those arguments of ``TextClassifier.classify_file`` that the flags here name;
    ``done`` is what then has happened to the texts, such as "classified".
    """
    source, input_format, column = _texts(args)
    if len(args.texts) == 1 and os.path.isfile(args.texts[0]):
        say(f"hint: {args.texts[0]} is taken as a text, for what is in that file pass --file {args.texts[0]}")
    model = load()
    to_file = args.output not in (None, "-")
    try:
        report = write(
            model, source, args.output, input_format=input_format, column=column,
            keep_columns=_names(args.keep_columns), delimiter=args.delimiter or ",", format=args.format,
            on_error=args.on_error, batch_size=args.batch_size, threads=args.threads, resume=not args.restart,
            # A bar among results on the same terminal is hard to read.
            progress=None if to_file or not _is_terminal(sys.stdout) else False)
    except KeyboardInterrupt:
        if to_file and isinstance(source, list) and "-" not in source:
            raise KeyboardInterrupt("(the same command goes on where this one ended)") from None
        raise
    if column is None:
        _say_columns(report, model)
    _say_report(report, done, args.output if to_file else None, model.max_length, args.on_error)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()  # a standard stream that is closed is None


def _names(listed: str | None) -> str | list[str] | None:
    return listed.split(",") if listed not in (None, "all") else listed  # type: ignore[union-attr]


def _texts(args: argparse.Namespace) -> tuple[list[str] | BinaryIO, str | None, str | None]:
    """Where the texts come from, their format, and the column."""
    from ..inference.file_formats import INPUT_FORMATS, choose_format
    from ..inference.readers import expand_patterns

    piped = args.texts == ["-"] or (not args.texts and args.file is None)
    if args.texts and args.file is not None:
        args.parser.error("TEXT and --file are both given, pass one of them")
    if not args.texts and args.file is None and (sys.stdin is None or sys.stdin.isatty()):
        args.parser.error("there are no texts: pass TEXT, --file F or texts on standard input")
    if piped or args.file is not None:
        source = ["-"] if piped else args.file
        files = expand_patterns(source)
        formats = {choose_format("input_format", args.input_format, file, INPUT_FORMATS) for file in files}
        if args.column and formats == {"text"}:
            args.parser.error(f"--column is {args.column}, but the input is read as lines of text: pass "
                              "--input-format, such as csv")
        return source, args.input_format, args.column
    if any(getattr(args, name, None) for name in _OF_FILES):
        args.parser.error("--input-format, --column, --text-pair-column, --keep-columns and --delimiter describe a "
                          "file, but TEXT is given")
    # As JSON, because an argument may hold line ends, and bytes that are not UTF-8 (as lone surrogates).
    return io.BytesIO("".join(json.dumps({"text": text}) + "\n" for text in args.texts).encode()), "jsonl", "text"


def _say_columns(report: FileReport, model: TextLogits) -> None:
    """Say which columns were taken where none was named, unless it is the column "text"."""
    from ..datasets.label_spelling import on_one_line

    trained = model.config.training_columns or {}
    first, second = report.column, report.text_pair_column
    why = "on which the model was trained" if trained.get("text_column") == first else "the only one of strings"
    if second is not None:
        say(f"the texts are pairs of the columns {on_one_line(first)} and {on_one_line(second)}")
    elif first != "text":
        say(f"the texts are those of column {on_one_line(first)}, {why}")


def _say_report(report: FileReport, done: str, output: str | None, max_length: int | None, on_error: str) -> None:
    """Say in one line what the results do not show, if there is anything."""
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
        say("; ".join([f"texts {done}{where}: {report.num_records}", *notes]))
