"""The texts of files in a fixed order, streamed: what is kept in memory does not grow with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

from ..datasets.natural_text import stream_texts

HELD_OUT_SHARE = 10  # at most a tenth of the texts is held out


class Texts:
    """The texts of ``files`` without empty ones: first those that are held out, evenly spread over the files, then all
    that are different from them.

    The files are read at every iteration, and once before, to count.

    num_held_out, num_train: numbers of texts. digest: tells these texts in this order from any others.

    Args:
        files, column: as in ``natural_text.read_texts``.
        num_held_out: how many texts to hold out; at most a tenth.

    Raises as ``natural_text.read_texts`` does, and ValueError if no text would be left to train on.
    """

    def __init__(self, files: Sequence[str], column: str | None, num_held_out: int) -> None:
        self.files, self.column = files, column
        total = sum(1 for _ in self._stream())
        self.held_out = self._spread(total, max(1, min(num_held_out, total // HELD_OUT_SHARE)))
        self._are_held_out = frozenset(self.held_out)
        digest = hashlib.sha256()
        count = 0
        for text in self:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
            count += 1
        self.num_held_out, self.num_train = len(self.held_out), count - len(self.held_out)
        self.digest = digest.hexdigest()
        if self.num_train < 1:
            raise ValueError(f"text_file has {total} texts, of which none would be left to train on: name files of "
                             "more.")

    def __len__(self) -> int:
        return self.num_held_out + self.num_train

    def __iter__(self) -> Iterator[str]:
        yield from self.held_out
        for text in self._stream():
            if text not in self._are_held_out:
                yield text

    def batches(self, size: int, start: int = 0) -> Iterator[list[str]]:
        """Lists of ``size`` texts, the last of fewer, from text ``start`` on."""
        rest = islice(self, start, None)
        while batch := list(islice(rest, size)):
            yield batch

    def _stream(self) -> Iterator[str]:
        return stream_texts(self.files, self.column)

    def _spread(self, total: int, count: int) -> list[str]:
        """``count`` different texts, fewer if some occur twice, from the middles of as many parts of ``total``."""
        places = (total * (2 * part + 1) // (2 * count) for part in range(count))
        found: dict[str, None] = {}
        wanted = next(places)
        for place, text in enumerate(self._stream()):
            if place == wanted:
                found[text] = None
                wanted = next(places, -1)
        return list(found)
