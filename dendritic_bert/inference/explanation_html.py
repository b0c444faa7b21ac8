"""Explanations as one HTML page, which needs no other file: each text with its words coloured by their shares."""

from __future__ import annotations

import html
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic_write import atomic_path

if TYPE_CHECKING:
    from .explanation import Explanation, Span

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>Which words the logits come from</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font-family: system-ui, sans-serif; line-height: 1.5; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
.text {{ font-size: 1.15rem; line-height: 2; white-space: pre-wrap; overflow-wrap: anywhere; }}
.text span {{ border-radius: 0.2rem; padding: 0.1rem 0; }}
.against {{ text-decoration: underline dotted; }}
.unread {{ opacity: 0.4; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.1rem 1rem 0.1rem 0; text-align: right; }}
th:last-child, td:last-child {{ text-align: left; }}
</style>
</head>
<body>
<h1>Which words the logits come from</h1>
<p>A word with a green background raises the logit of the label, one with a red background and a dotted underline lowers
it; the stronger the colour, the larger its share beside the largest of the text. The shares of the words and of the
special tokens add up to the logit minus that of an empty row, or with windows of a row of zeros. <i>Left out</i> is
another number: by how much the logit is lower without the word. Words that are faint were not read, because the text is
too long for the model.</p>
{sections}
</body>
</html>
"""
FOR, AGAINST = "26, 127, 55", "207, 34, 46"  # red, green and blue of the backgrounds


def page(explanations: Iterable[Explanation], labels: Sequence[str] | None = None) -> str:
    """The page with the ``sections`` of the explanations."""
    return PAGE.format(sections=sections(explanations, labels))


def sections(explanations: Iterable[Explanation], labels: Sequence[str] | None = None) -> str:
    """A section for each explanation and each of ``labels``; by default for the label of the highest score, or for the
    labels that are explained if that one is not."""
    written = []
    for explanation in explanations:
        default = [explanation.label] if explanation.label in explanation.labels else explanation.labels
        written += [section(explanation, label) for label in (default if labels is None else labels)]
    return "\n".join(written)


def write_page(path: str | os.PathLike[str], explanations: Iterable[Explanation],
               labels: Sequence[str] | None = None) -> None:
    """Write ``page(explanations, labels)``. The file appears under its name when it is complete.

    Raises OSError if it cannot be written.
    """
    text = page(explanations, labels)
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        if target.exists() and not target.is_file():  # a pipe or a device; a folder is an error
            target.write_text(text, encoding="utf-8")
            return
        with atomic_path(target) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise type(error)(f"the page {path} cannot be written ({error.strerror}): name a file in a folder that can be "
                          "written.") from error


def section(explanation: Explanation, label: str) -> str:
    """The part of a page that explains the logit of one label."""
    number = explanation.labels.index(label)
    largest = max((abs(word.shares[number]) for word in explanation.words), default=0.0)
    texts = [
        '<p class="text" dir="auto">' + "".join(
            _run(text, word, number, largest) for text, word in explanation.runs(sequence)) + "</p>"
        for sequence in range(1 if explanation.text_pair is None else 2)]
    rows = [f"<tr><td>{word.shares[number]:+.4f}</td><td>{word.left_out[number]:+.4f}</td>"
            f"<td>{escape(word.text)}</td></tr>" for word in explanation.words]
    return "\n".join([
        "<section>",
        f"<h2>{escape(label)}: score {explanation.scores[number]:.4f}, logit {explanation.logits[number]:+.4f}</h2>",
        *texts,
        "<details>",
        "<summary>Every share</summary>",
        "<table>",
        "<tr><th>share</th><th>left out</th><th>word</th></tr>",
        *rows,
        f"<tr><td>{explanation.other[number]:+.4f}</td><td></td><td><i>special tokens</i></td></tr>",
        f"<tr><td>{explanation.base_logits[number]:+.4f}</td><td></td><td><i>{explanation.baseline}</i></td></tr>",
        f"<tr><td>{explanation.logits[number]:+.4f}</td><td></td><td><i>logit, the sum of the above</i></td></tr>",
        "</table>",
        "</details>",
        "</section>",
    ])


def escape(text: str) -> str:
    """``text`` for HTML, in quotes too; control characters, which HTML cannot hold, become U+FFFD."""
    held = (char if char in "\t\n" or unicodedata.category(char) != "Cc" else "\ufffd" for char in text)
    return html.escape("".join(held))


def _run(text: str, word: Span | None, label: int, largest: float) -> str:
    """A piece of a text: a word with its colour, or what stands between words."""
    if word is None:
        return escape(text)
    shares = getattr(word, "shares", None)
    if shares is None:
        return f'<span class="unread">{escape(text)}</span>'
    share = shares[label]
    strength = abs(share) / largest if largest else 0.0
    kind, colour = ("for", FOR) if share >= 0 else ("against", AGAINST)
    return (f'<span class="{kind}" style="background: rgba({colour}, {0.7 * strength:.2f})" '
            f'title="share {share:+.4f}, left out {word.left_out[label]:+.4f}">{escape(text)}</span>')  # type: ignore[attr-defined]
