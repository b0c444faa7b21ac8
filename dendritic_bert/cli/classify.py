"""``dendritic-bert classify``: texts from the command line, a file or standard input, to labels and scores."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from .flag_types import number_or_all, positive_number
from .messages import say
from .models import load_classifier

if TYPE_CHECKING:
    from ..inference.classifier import FileReport

DESCRIPTION = """\
Classify texts: one line for each, with text, label and score, in order.

  dendritic-bert classify "a charming journey" "unflinchingly bleak"
  cut -f1 reviews.tsv | dendritic-bert classify | jq .label
  dendritic-bert classify --file reviews.csv --column review --output labels.csv

Without TEXT and --file the texts are read from standard input, one per line. An output file appears when it is
complete. If the run is interrupted, or stops at a malformed record that is then mended, the same command continues
where that run ended."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``classify``."""
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="a text to classify, or - for standard input; after --, a TEXT may "
                                                 "begin with a dash")
    add("--file", "-f", nargs="+", metavar="F",
        help="read the texts from these files, one after another; F may be a pattern, as 'part-*.csv', or - for "
             "standard input, and compressed by gzip or zstd")
    add("--input-format", choices=["text", "csv", "tsv", "jsonl", "parquet", "arrow"],
        help="format of the input (default: what the suffix says; text, one per line, without a suffix)")
    add("--column", metavar="NAME", help="column, or key of the JSON objects, that holds the text (default: text, or "
                                         "the only column of strings)")
    add("--text-pair-column", metavar="NAME", help="column of the second texts, for a model that was trained on pairs")
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
    add("--top-k", type=number_or_all, metavar="K",
        help="write the K labels with the highest scores, or all of them, in a list: labels of a JSON object, "
             "label_1, score_1, label_2, ... elsewhere (default: the best, as label and score)")
    add("--threshold", type=float, metavar="P",
        help="write every label with this score or more, in such a list, which may be empty: for multi-label models")
    add("--abstain-below", type=float, metavar="P", help="write no label (null, or nothing) where the score is lower")
    add("--all-scores", action="store_true",
        help="write the score of every label too: scores of a JSON object, columns score_LABEL elsewhere")
    add("--function-to-apply", choices=["sigmoid", "softmax", "none"],
        help="what makes scores of the logits (default: what the model's kind of problem asks for)")
    add("--model", metavar="M", help="folder or hub id of a model, or tiny, the smaller of the two that come with the "
                                     "package (default: the larger one)")
    add("--revision", metavar="R", help="branch, tag or commit of a hub id (default: its main branch)")
    add("--device", metavar="D", help="where the model computes, such as cuda (default: cpu)")
    add("--batch-size", type=positive_number, default=4096, metavar="N",
        help="number of texts that are classified at a time (default: %(default)s); with 1, and 1 thread, each line of "
             "a stream is answered at once")
    add("--threads", type=positive_number, metavar="N",
        help="number of threads (default: the number of cores of the processor)")
    add("--restart", action="store_true", help="start over instead of continuing an interrupted run (resume=False)")


def run(args: argparse.Namespace) -> None:
    """Classify the texts that ``args`` name, and say what the results themselves do not show."""
    source, input_format, column = _texts(args)
    if len(args.texts) == 1 and os.path.isfile(args.texts[0]):
        say(f"hint: {args.texts[0]} is classified as a text, to classify what is in that file pass --file "
            f"{args.texts[0]}")
    classifier = load_classifier(args.model, args.device, args.revision)
    to_file = args.output not in (None, "-")
    try:
        report = classifier.classify_file(
            source, args.output, input_format=input_format, column=column, text_pair_column=args.text_pair_column,
            top_k={None: "", "all": None}.get(args.top_k, args.top_k), function_to_apply=args.function_to_apply,
            threshold=args.threshold, abstain_below=args.abstain_below, all_scores=args.all_scores,
            keep_columns=_names(args.keep_columns), delimiter=_character(args.delimiter), format=args.format,
            on_error=args.on_error, batch_size=args.batch_size, threads=args.threads, resume=not args.restart,
            # A bar among results on the same terminal is hard to read.
            progress=None if to_file or not _is_terminal(sys.stdout) else False)
    except KeyboardInterrupt:
        if to_file and isinstance(source, list) and "-" not in source:
            raise KeyboardInterrupt("(the same command goes on where this one ended)") from None
        raise
    if column is None and report.column != "text":
        say(f"the texts are those of column {report.column}, the only one of strings")
    _say_report(report, args.output if to_file else None, classifier.max_length, args.on_error)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()  # a standard stream that is closed is None


def _names(listed: str | None) -> str | list[str] | None:
    return listed.split(",") if listed not in (None, "all") else listed  # type: ignore[union-attr]


def _character(delimiter: str | None) -> str:
    return {None: ",", "tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)  # type: ignore[return-value]


def _texts(args: argparse.Namespace) -> tuple[list[str] | BinaryIO, str | None, str | None]:
    """Where the texts come from, their format, and the column."""
    from ..inference.file_formats import INPUT_FORMATS, choose_format

    piped = args.texts == ["-"] or (not args.texts and args.file is None)
    if args.texts and args.file is not None:
        args.parser.error("TEXT and --file are both given, pass one of them")
    if not args.texts and args.file is None and (sys.stdin is None or sys.stdin.isatty()):
        args.parser.error("nothing to classify: pass TEXT, --file F or texts on standard input")
    if piped or args.file is not None:
        source = ["-"] if piped else args.file
        formats = {choose_format("input_format", args.input_format, file, INPUT_FORMATS) for file in source}
        if args.column and formats == {"text"}:
            args.parser.error(f"--column is {args.column}, but the input is read as lines of text: pass "
                              "--input-format, such as csv")
        return source, args.input_format, args.column
    if args.input_format or args.column or args.text_pair_column or args.keep_columns or args.delimiter:
        args.parser.error("--input-format, --column, --text-pair-column, --keep-columns and --delimiter describe a "
                          "file, but TEXT is given")
    # As JSON, because an argument may hold line ends, and bytes that are not UTF-8 (as lone surrogates).
    return io.BytesIO("".join(json.dumps({"text": text}) + "\n" for text in args.texts).encode()), "jsonl", "text"


def _say_report(report: FileReport, output: str | None, max_length: int | None, on_error: str) -> None:
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
        say("; ".join([f"texts classified{where}: {report.num_records}", *notes]))
