"""Lines of UTF-8 to texts, and results to lines of JSON."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring


def decode_lines(stream: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream, which end in LF or CRLF. Bytes that are not UTF-8 become U+FFFD, and a byte order mark at
    the start belongs to no line."""
    for number, line in enumerate(stream):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        yield line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="replace")


def json_line(text: str, label: str, score: float) -> str:
    """A result as a line of JSON, as dendritic-bert writes it."""
    return f'{{"text": {encode_basestring(text)}, "label": {encode_basestring(label)}, "score": {score:.6f}}}\n'
