"""A stream of lines, of which one block of bytes at a time is in memory."""

from __future__ import annotations

import io
from typing import BinaryIO

from .streams import some_bytes

READ_BYTES = 1 << 18  # what is read at once lies in the second-level cache while it is scanned


class LineBlocks:
    """The bytes of ``stream``, for whoever scans ``block`` from ``place`` on, and for whoever reads a line at a time.

    ``block_bytes`` are read at once, at most; ``longest`` is the number of bytes of the longest line that is wanted.
    """

    def __init__(self, stream: BinaryIO, block_bytes: int, longest: int):
        self.stream, self.block, self.place = stream, b"", 0
        self._read_bytes, self._longest, self._is_at_end = min(block_bytes, READ_BYTES), longest, False

    def fill(self) -> bool:
        """Read on, up to the end of a line, the end of the stream, or more than the longest line; False at the end."""
        before = len(self.block) - self.place
        longer = io.BytesIO()  # which gives its bytes away without a copy, and a line may have 64 MiB
        longer.write(memoryview(self.block)[self.place:])
        self.block, self.place = b"", 0
        while not self._is_at_end:
            part = some_bytes(self.stream, self._read_bytes)
            self._is_at_end = not part
            longer.write(part)
            if b"\n" in part or longer.tell() > self._longest:
                break
        self.block = longer.getvalue()
        return len(self.block) > before

    def go_to(self, place: int) -> None:
        """Let ``place`` of the block be the next that is read."""
        self.place = place
        if place > 4 * READ_BYTES:  # a long line was before it
            self.block, self.place = self.block[place:], 0

    def readline(self) -> bytes:
        """The next line with its end, or the first bytes of it, one more than the longest has; b"" at the end."""
        end = self.block.find(b"\n", self.place) + 1
        while not end and len(self.block) - self.place <= self._longest and self.fill():
            end = self.block.find(b"\n", self.place) + 1
        first, most = self.place, self.place + self._longest + 1
        self.place = min(end or len(self.block), most)
        return self.block[first:self.place]

    def put_back(self, data: bytes) -> None:
        """Let ``data`` be read again before what follows."""
        if data == self.block[self.place - len(data):self.place]:
            self.place -= len(data)
        else:
            self.block, self.place = data + self.block[self.place:], 0
