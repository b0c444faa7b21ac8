"""``dendritic-bert-classify``: labels of texts from the command line or of the lines of standard input."""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import islice

from .classifier import TextClassifier

BATCH_SIZE = 4096  # lines that are read before they are answered, where they do not come from a terminal


def main() -> int:
    """Write a line of JSON with text, label and score for each text, in order."""
    parser = argparse.ArgumentParser(prog="dendritic-bert-classify", description=main.__doc__)
    parser.add_argument("text", nargs="*", metavar="TEXT", help="texts; without any, the lines of standard input")
    parser.add_argument("--model", metavar="FILE", help="a file of `dendritic-bert export MODEL FILE --format engine`")
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads (default: one for each processor)")
    args = parser.parse_args()
    try:
        classifier = TextClassifier(args.model)
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        lines = iter(args.text or (line.rstrip("\r\n") for line in sys.stdin))
        while texts := list(islice(lines, 1 if sys.stdin.isatty() else BATCH_SIZE)):
            for text, answer in zip(texts, classifier(texts, args.threads)):
                answer["score"] = round(answer["score"], 6)
                print(json.dumps({"text": text, **answer}, ensure_ascii=False))
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        print(f"dendritic-bert-classify: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
