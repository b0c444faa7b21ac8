"""Lines of UTF-8 to texts, and results to lines of JSON."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring


def decode_lines(stream: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream, without the LF or CRLF at their ends."""
    for line in decode_whole_lines(stream):
        yield line.rstrip("\r\n")


def decode_whole_lines(stream: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream with their ends. Each byte that is not UTF-8 becomes U+FFFD, and a byte order mark at the
    start belongs to no line."""
    for number, line in enumerate(stream):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        try:
            yield line.decode()
        except UnicodeDecodeError:
            yield re.sub("[\udc80-\udcff]", "\ufffd", line.decode(errors="surrogateescape"))


def json_line(text: str, label: str, score: float) -> str:
    """A result as a line of JSON, as dendritic-bert writes it."""
    return f'{{"text": {encode_basestring(text)}, "label": {encode_basestring(label)}, "score": {score:.6f}}}\n'
