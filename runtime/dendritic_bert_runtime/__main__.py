"""``dendritic-bert-classify``: labels of texts from the command line, a file or the lines of standard input."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from .classifier import TextClassifier, without_surrogates
from .lines import BATCH_SIZE, decode_lines, in_batches, json_line


def main() -> int:
    """Write a line of JSON with text, label and score for each text, in order."""
    parser = argparse.ArgumentParser(prog="dendritic-bert-classify", description=main.__doc__)
    add = parser.add_argument
    add("text", nargs="*", metavar="TEXT", help="texts; without any, the lines of standard input")
    add("--file", "-f", metavar="F", help="read the texts from this file: lines of text, CSV, TSV or JSON Lines, plain "
                                          "or compressed by gzip or zstd, Parquet or Arrow, as its suffix says")
    add("--column", metavar="NAME",
        help="column, or key of the JSON objects, that holds the text (default: that of the model's training, or text, "
             "or the only one of strings; of CSV and TSV, the only one there is)")
    add("--output", "-o", metavar="O", help="write to this file, in any of these formats (default: standard output)")
    add("--model", metavar="FILE", help="a file of `dendritic-bert export MODEL FILE --format engine`")
    add("--threads", type=int, metavar="N", help="number of threads (default: one for each processor)")
    args = parser.parse_args()
    if args.file is None and (args.column or args.output):
        parser.error("--column and --output go with --file")
    if args.file is not None and args.text:
        parser.error("TEXT and --file are both given, pass one of them")
    try:
        classifier = TextClassifier(args.model)
        if args.column is None:
            classifier.expect_single_texts()
        classifier.expect_one_score()
        if args.file is not None:
            classify_file(classifier, args)
        elif args.text:
            write_lines(classifier, map(without_surrogates, args.text), args.threads, BATCH_SIZE)
        else:
            is_typed = sys.stdin.isatty()
            write_lines(classifier, decode_lines(sys.stdin.buffer, "standard input"), args.threads,
                        1 if is_typed else BATCH_SIZE)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, ImportError) as error:
        print(f"dendritic-bert-classify: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # 128 and the number of the signal, as a shell says it
    return 0


def write_lines(classifier: TextClassifier, texts: Iterator[str], threads: int | None, batch_size: int) -> None:
    """Write a line for each text to standard output, after every ``batch_size`` texts, or fewer that are long."""
    for batch in in_batches(texts, batch_size):
        answers = classifier(batch, threads)
        lines = (json_line(text, answer["label"], answer["score"]) for text, answer in zip(batch, answers))
        sys.stdout.buffer.write("".join(lines).encode())
        sys.stdout.buffer.flush()


def classify_file(classifier: TextClassifier, args: argparse.Namespace) -> None:
    """Write the labels of the file that ``args`` name. Raises ImportError if there is no pyarrow."""
    try:
        from . import files
    except ImportError:
        raise ImportError('pyarrow is missing, which reads files: pip install "dendritic-bert-runtime[files]", or pass '
                          "lines of text on standard input.") from None
    files.classify_file(classifier, args.file, args.output or sys.stdout.buffer, args.column, args.threads)


if __name__ == "__main__":
    sys.exit(main())
