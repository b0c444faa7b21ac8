"""Tables and labels in Markdown, for model cards and reports."""

from __future__ import annotations

from collections.abc import Iterable


def markdown_table(header: list[str], lines: Iterable[Iterable[str]], num_text_columns: int = 1) -> str:
    """The table with a line end after it; the first columns are aligned left, the others, of figures, right."""
    marks = ["---" if column < num_text_columns else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, marks, *lines]) + "\n"


def table_cell(text: str) -> str:
    """A label within a table."""
    return without_html(" ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")) or "(empty)"


def without_html(text: str) -> str:
    """A text whose <a> is shown as it is, where Markdown would take it for a tag."""
    return text.replace("<", "&lt;")
