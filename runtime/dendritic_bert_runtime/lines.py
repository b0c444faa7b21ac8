"""Lines of UTF-8 to texts in batches, and results to lines of JSON."""

from __future__ import annotations

import io
import os
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator
from contextlib import suppress
from json.encoder import encode_basestring

BATCH_SIZE, BLOCK_BYTES = 4096, 1 << 22  # a batch of texts ends at one of them
HEAD_BYTES = 4096  # how many bytes of the start of a stream are looked at
# The little-endian mark of UTF-32 begins with that of UTF-16, so it must come first.
BYTE_ORDER_MARKS = {BOM_UTF32_LE: "utf-32", BOM_UTF32_BE: "utf-32", BOM_UTF16_LE: "utf-16", BOM_UTF16_BE: "utf-16"}
COMPRESSED = {"gzip": rb"\x1f\x8b", "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"}  # by the first bytes


def decode_lines(stream: io.BufferedReader, name: object) -> Iterator[str]:
    """As ``decode_whole_lines``, without the LF or CRLF at the ends of the lines."""
    for line in decode_whole_lines(stream, name):
        yield line.rstrip("\r\n")


def decode_whole_lines(stream: io.BufferedReader, name: object) -> Iterator[str]:
    """The lines of a stream with their ends: of UTF-8, or of UTF-16 or UTF-32 where a byte order mark says so.

    What cannot be decoded becomes U+FFFD, and the mark belongs to no line. Reads of the stream wait from now on:
    those of a pipe that does not wait, as ssh and asyncio leave one, give b"" for what is not there yet, as they do at
    the end. Raises ValueError, which calls the stream ``name``, if its first bytes are those of something else.
    """
    with suppress(OSError):  # of a stream that is no file of the system
        os.set_blocking(stream.fileno(), True)
    head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
    encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if encoding is not None:
        yield from io.TextIOWrapper(stream, encoding, "replace", newline="\n")
        return
    _refuse_foreign_bytes(head, name)
    if first := stream.readline().removeprefix(BOM_UTF8):
        yield decode(first)
    yield from map(decode, stream)


def in_batches(texts: Iterator[str], batch_size: int = BATCH_SIZE) -> Iterator[list[str]]:
    """The texts in lists of ``batch_size``, or of fewer that are long."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) == batch_size or size >= BLOCK_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _refuse_foreign_bytes(head: bytes, name: object) -> None:
    for kind, start in COMPRESSED.items():
        if re.match(start, head):
            raise ValueError(f"{name} is not text but {kind}, by its first bytes: decompress it once, or add .gz or "
                             ".zst to the name of a file that lacks it.")
    if head.count(0) > len(head) // 8:
        raise ValueError(f"{name} is not text in UTF-8, {head.count(0)} of its first {len(head)} bytes are 0: where it "
                         "is UTF-16 without a byte order mark, convert it (iconv -f UTF-16LE -t UTF-8).")


def decode(text: bytes) -> str:
    """A text, in which each byte that is not UTF-8 has become U+FFFD."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return re.sub("[\udc80-\udcff]", "\ufffd", text.decode(errors="surrogateescape"))


def json_line(text: str, label: str, score: float) -> str:
    """A result as a line of JSON, as dendritic-bert writes it."""
    return f'{{"text": {encode_basestring(text)}, "label": {encode_basestring(label)}, "score": {score:.6f}}}\n'
