"""``dendritic-bert explain``: which words of a text its label comes from, in colour, as JSON or as a page."""

from __future__ import annotations

import argparse
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .messages import say
from .models import load_model

if TYPE_CHECKING:
    from ..inference.explanation import Explanation, Span

DESCRIPTION = """\
Explain the logit of a label: the share of each word in it, and by how much it is lower without the word.

  dendritic-bert explain "a charming but overlong journey"
  dendritic-bert explain --label negative --html page.html "a charming but overlong journey" "unflinchingly bleak"
  head -3 reviews.txt | dendritic-bert explain --json

The shares of the words and of the special tokens add up to the logit minus that of an empty row, or with windows of a
row of zeros. Without TEXT the texts are read from standard input, one per line. On a terminal the words have colours,
green for the label and red against it, unless NO_COLOR is set."""
# Backgrounds from faint to strong, of xterm's 256 colours, each under black letters.
FOR, AGAINST = (194, 157, 120, 77), (224, 217, 210, 203)
FAINT, NORMAL = "\x1b[2m", "\x1b[0m"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``explain``."""
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="a text to explain, or - for standard input; after --, a TEXT may "
                                                 "begin with a dash")
    add("--text-pair", metavar="T", help="the second text, for a model of pairs and a single TEXT")
    add("--label", action="append", metavar="L", help="label whose logit is explained; may be given several times "
                                                      "(default: the label of the highest score; all with --json)")
    add("--model", metavar="M", help="folder or hub id of a model, or tiny, the smaller of the two that come with the "
                                     "package (default: the larger one)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object for each text")
    output.add_argument("--html", metavar="F", help="write a page to F instead of printing")


def run(args: argparse.Namespace) -> None:
    """Explain the texts that ``args`` name."""
    piped = args.texts in ([], ["-"])
    if args.text_pair is not None and (piped or len(args.texts) != 1):
        args.parser.error("--text-pair is the second text of a pair, pass exactly one TEXT with it")
    if not args.texts and (sys.stdin is None or sys.stdin.isatty()):
        args.parser.error("nothing to explain: pass TEXT, or texts on standard input")
    classifier = load_model("TextClassifier", args.model)
    texts = _lines_of_standard_input() if piped else args.texts
    explanations = (classifier.explain(text, args.text_pair, args.label) for text in texts)
    if args.html is not None:
        from ..inference.explanation_html import write_page

        done = list(explanations)
        write_page(args.html, done, args.label)
        say(f"texts explained in {args.html}: {len(done)}")
        return
    if args.json:
        for explanation in explanations:
            print(json.dumps(explanation.to_dict(), allow_nan=False))
        return
    in_colour = _shows_colours()
    blocks = ("\n".join(lines(explanation, label, in_colour)) for explanation in explanations
              for label in args.label or [explanation.label])
    for number, block in enumerate(blocks):
        print(f"\n{block}" if number else block)


def _lines_of_standard_input() -> Iterator[str]:
    from ..inference.readers import open_records

    with open_records("-", "text") as records:
        for batch in records.batches(1, ["text"]):
            yield from batch.columns["text"]


def _shows_colours() -> bool:
    """Whether standard output is a terminal that shows colours, and the user has not said no (no-color.org)."""
    return (sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb")


def lines(explanation: Explanation, label: str, in_colour: bool) -> list[str]:
    """What is printed for one label: the text, its logit as a sum, and a line for each word."""
    number = explanation.labels.index(label)
    largest = max((abs(word.shares[number]) for word in explanation.words), default=0.0)

    def painted(text: str, word: Span | None) -> str:
        text = _printable(text)
        if not in_colour or word is None or not text:
            return text
        shares = getattr(word, "shares", None)
        return f"{FAINT}{text}{NORMAL}" if shares is None else _background(text, shares[number], largest)

    of_words = sum(word.shares[number] for word in explanation.words)
    printed = ["".join(painted(text, word) for text, word in explanation.runs(sequence))
               for sequence in range(1 if explanation.text_pair is None else 2)]
    printed.append(f"{_printable(label)}: score {explanation.scores[number]:.4f}, "
                   f"logit {explanation.logits[number]:+.4f} = "
                   f"{explanation.base_logits[number]:+.4f} ({explanation.baseline}) {of_words:+.4f} (words) "
                   f"{explanation.other[number]:+.4f} (special tokens)")
    printed.append("   share  left out  word")
    printed += [f"{word.shares[number]:+8.4f}  {word.left_out[number]:+8.4f}  {painted(word.text, word)}"
                for word in explanation.words]
    for sequence, which in enumerate(("",) if explanation.text_pair is None else (" of the first", " of the second")):
        read, cut = ([word for word in words if word.sequence == sequence]
                     for words in (explanation.words, explanation.not_read))
        if cut:
            place = (f"up to {_printable(cut[-1].text)!r}" if read and cut[0].start < read[0].start
                     else f"from {_printable(cut[0].text)!r} on")
            printed.append(f"not read, because the model takes fewer tokens: {len(cut)} words{which}, {place}")
    return printed


def _background(text: str, share: float, largest: float) -> str:
    level = int(4.5 * abs(share) / largest) if largest else 0  # below two ninths of the largest: none
    if level == 0:
        return text
    return f"\x1b[38;5;16;48;5;{(FOR if share > 0 else AGAINST)[level - 1]}m{text}{NORMAL}"


def _printable(text: str) -> str:
    """``text`` in one line, without characters by which it could command the terminal."""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
