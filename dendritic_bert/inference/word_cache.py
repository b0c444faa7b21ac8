"""The tokenizer's word cache: the ids of each chunk of text between two ASCII spaces, computed once and remembered.

It is exact because BertNormalizer and BertPreTokenizer never look across an ASCII space.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer


class WordCache(dict[str, bytes]):
    """Maps a chunk between ASCII spaces to its ids, the bytes of an int32 array; it is emptied when it is full."""

    MAX_CHUNKS = 1 << 18  # about 50 MB
    MAX_CHARACTERS = 32  # longer chunks are rarely seen twice

    def __init__(self, backend: Tokenizer):
        super().__init__()
        self.backend = backend

    def __missing__(self, chunk: str) -> bytes:
        ids = np.array(self.backend.encode(chunk, add_special_tokens=False).ids, np.int32).tobytes()
        if len(chunk) <= self.MAX_CHARACTERS:
            if len(self) >= self.MAX_CHUNKS:
                self.clear()
            self[chunk] = ids
        return ids


def word_cache_encoder(
    backend: Tokenizer, prefix: list[int], suffix: list[int]
) -> Callable[[list[str]], tuple[np.ndarray, np.ndarray]]:
    """A function from texts to ``input_ids`` ``[T]`` int32 and ``cu_seqlens`` ``[B + 1]`` int64.

    ``prefix`` and ``suffix`` are the ids of the special tokens before and after each text. The result is what
    ``backend`` itself gives where ``is_exact_for(backend)``.
    """
    cache = WordCache(backend)
    before, after = np.array(prefix, np.int32).tobytes(), np.array(suffix, np.int32).tobytes()

    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [b"".join(map(cache.__getitem__, text.replace("\n", " ").split(" "))) for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows)) // 4 + len(prefix) + len(suffix)
        # A bytearray, so that the array is writable, as torch.from_numpy requires.
        framed = np.frombuffer(bytearray(after + before).join([b"", *rows, b""]), np.int32)
        return framed[len(suffix):len(framed) - len(prefix)], cumulative_lengths(lengths)

    return encode


def is_exact_for(backend: Tokenizer) -> bool:
    """Whether an ASCII space always ends a word of this tokenizer."""
    added = backend.get_added_tokens_decoder().values()
    return (isinstance(backend.model, WordPiece)
            and isinstance(backend.normalizer, BertNormalizer)
            and isinstance(backend.pre_tokenizer, BertPreTokenizer)
            and not any(token.normalized or " " in token.content for token in added))


def cumulative_lengths(lengths: np.ndarray) -> np.ndarray:
    """``cu_seqlens`` ``[B + 1]`` int64 of B rows of these lengths."""
    cu_seqlens = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return cu_seqlens
