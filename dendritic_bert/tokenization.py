"""Text to packed token ids: the fastest engine that gives exactly what the Hugging Face tokenizer gives.

Tokenization is where the time goes once the model is one kernel: Hugging Face's `tokenizers` spends about 3 us a
token, the kernel 0.05. Three engines stand behind one class, in this order of choice:

* ``nanotoken``: a Rust WordPiece, 30 to 100 times faster, taken where it is installed (extra ``fast``) and agrees with
  Hugging Face on every string of ``probes.PROBES`` with this very vocabulary;
* ``word-cache``: Hugging Face's ids of every chunk between ASCII spaces, remembered. Exact because BertNormalizer and
  BertPreTokenizer never look across an ASCII space;
* ``tokenizers``: Hugging Face's, for tokenizers of any other make.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from .probes import PROBES

ENGINES = ("nanotoken", "word-cache", "tokenizers")


class PackedBatch(NamedTuple):
    """Token ids of B texts, one after another, no padding.

    input_ids: ``[T]`` int32, special tokens included. cu_seqlens: ``[B + 1]`` int64, row b is
    ``input_ids[cu_seqlens[b]:cu_seqlens[b + 1]]``. num_truncated: rows that were cut to ``max_length``.
    """

    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    num_truncated: int


Encode = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]


class PackedTokenizer:
    """A Hugging Face fast tokenizer that hands over packed ids, the same ids, sooner.

    ``tokenizer`` is a ``tokenizers.Tokenizer`` or a fast tokenizer of transformers; its own padding and truncation are
    ignored. ``engine`` forces one of ``ENGINES`` and raises ValueError where it cannot serve; None takes the first that
    can. ``self.engine`` names the choice, ``self.reason`` says why no faster one was taken ("" for the fastest).
    """

    def __init__(self, tokenizer: Any, engine: str | None = None):
        backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise TypeError(f"tokenizer is a {type(tokenizer).__name__}, pass a tokenizers.Tokenizer or a fast "
                            "tokenizer of transformers.")
        if engine not in (None, *ENGINES):
            raise ValueError(f"engine is {engine!r}, known are {', '.join(ENGINES)}.")
        self.backend = _plain_copy(backend)
        self.prefix, self.suffix = _special_frame(self.backend)
        self.engine, self._encode, self.reason = self._choose(engine)

    @classmethod
    def from_pretrained(cls, name_or_path: str, engine: str | None = None) -> PackedTokenizer:
        """Load the tokenizer of a folder or a hub id, as ``AutoTokenizer`` does.

        Raises OSError where neither is there, ValueError where it holds no fast tokenizer that can be read.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        except OSError:
            raise
        except Exception as error:  # `tokenizers` raises bare Exceptions, transformers several lines of advice
            raise ValueError(f"{name_or_path} holds no fast tokenizer that can be read ({type(error).__name__}): save "
                             "one there with tokenizer.save_pretrained().") from error
        if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
            # Where the vocabulary's file is missing, transformers makes a tokenizer that knows the special tokens only.
            raise ValueError(f"{name_or_path} holds no vocabulary: save a whole tokenizer there with "
                             "tokenizer.save_pretrained().")
        return cls(tokenizer, engine=engine)

    def _choose(self, wanted: str | None) -> tuple[str, Encode, str]:
        reasons: list[str] = []
        for engine in ENGINES if wanted is None else (wanted,):
            reason, encode = _BUILDERS[engine](self.backend, self.prefix, self.suffix)
            if encode is not None:
                return engine, encode, " ".join(reasons)
            reasons.append(reason)
        raise ValueError(f"engine is {wanted!r}, which cannot serve this tokenizer: {reasons[0]}")

    def __call__(self, texts: Iterable[str], max_length: int | None = None) -> PackedBatch:
        """Tokenize B texts; rows longer than ``max_length`` tokens lose their end but keep the closing special tokens.

        Lone surrogates, which no UTF-8 can hold, count as U+FFFD. Raises TypeError where an element is no str,
        ValueError where ``max_length`` leaves no room for the special tokens.
        """
        if max_length is not None and max_length < len(self.prefix) + len(self.suffix):
            raise ValueError(f"max_length is {max_length}, the special tokens alone take "
                             f"{len(self.prefix) + len(self.suffix)}.")
        texts = check_texts(texts)
        try:
            input_ids, cu_seqlens = self._encode(texts)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate; `tokenizers` calls it a TypeError
            input_ids, cu_seqlens = self._encode([without_surrogates(text) for text in texts])
        if max_length is None or len(input_ids) <= max_length:  # as one short text is
            return PackedBatch(input_ids, cu_seqlens, 0)
        return _truncate(input_ids, cu_seqlens, max_length, len(self.suffix))


def without_surrogates(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_texts(texts: Iterable[str]) -> list[str]:
    """``texts`` as a list; TypeError, naming the first misfit, where it holds anything but str."""
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        raise TypeError(f"texts is a {type(texts).__name__}, pass a list of str.")
    texts = texts if isinstance(texts, list) else list(texts)
    if set(map(type, texts)) <= {str}:  # 25 ns a text, a sixth of asking isinstance in a loop
        return texts
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{row}] is {text!r:.60} of type {type(text).__name__}, every text must be a str.")
    return list(map(str, texts))


def _plain_copy(backend: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    copy.encode_special_tokens = backend.encode_special_tokens
    return copy


def _special_frame(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids the post-processor puts before and after a text, [CLS] and [SEP] for BERT."""
    full, bare = backend.encode("a"), backend.encode("a", add_special_tokens=False)
    start = full.special_tokens_mask.index(0)
    return full.ids[:start], full.ids[start + len(bare.ids):]


def _truncate(input_ids: np.ndarray, cu_seqlens: np.ndarray, max_length: int, num_suffix: int) -> PackedBatch:
    lengths = np.diff(cu_seqlens)
    long_rows = np.flatnonzero(lengths > max_length)
    if not len(long_rows):
        return PackedBatch(input_ids, cu_seqlens, 0)
    kept = np.minimum(lengths, max_length)
    ends = _cu_seqlens(kept)
    source = np.arange(ends[-1]) + np.repeat(cu_seqlens[:-1] - ends[:-1], kept)
    for back in range(1, num_suffix + 1):
        source[ends[long_rows + 1] - back] = cu_seqlens[long_rows + 1] - back
    return PackedBatch(input_ids[source], ends, len(long_rows))


def _cu_seqlens(lengths: np.ndarray) -> np.ndarray:
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


# ---- the engines: (tokenizer, ids before, ids after) -> (why not, encode or None) ------------------------------------


def _nanotoken(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> tuple[str, Encode | None]:
    if importlib.util.find_spec("nanotoken") is None:
        return "nanotoken is not installed (pip install dendritic-bert[fast]).", None
    try:
        from nanotoken import WordPieceTokenizer

        encode_batch = WordPieceTokenizer.from_json(backend.to_str()).encode_batch

        # One work unit of nanotoken is a MiB of text, more than a batch; threads run whole batches (classifier.py).
        def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
            ids, offsets = encode_batch(texts, parallel=False)
            return ids.view(np.int32), offsets

        added = [token.content for token in backend.get_added_tokens_decoder().values()]
        probes = [*PROBES, *(f"{token} x{token}y {token.lower()} {token.upper()}{token}" for token in added)]
        ours, theirs = encode(probes), _tokenizers(backend, prefix, suffix)[1](probes)
    except Exception as error:  # an optional extra, alpha, of any version: whatever it raises, the next engine serves
        return f"nanotoken cannot load this tokenizer ({type(error).__name__}: {error}).", None
    if not all(map(np.array_equal, ours, theirs)):
        return "nanotoken differs from Hugging Face's tokenizer on the probe strings.", None
    return "", encode


class _WordCache(dict[str, bytes]):
    """Chunk between ASCII spaces -> its ids as int32 bytes; bounded, and emptied when full."""

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


def _word_cache(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> tuple[str, Encode | None]:
    if not _space_is_a_boundary(backend):
        return "The word-cache is exact only for WordPiece behind BertNormalizer and BertPreTokenizer.", None
    cache = _WordCache(backend)
    before, after = np.array(prefix, np.int32).tobytes(), np.array(suffix, np.int32).tobytes()

    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [b"".join(map(cache.__getitem__, text.replace("\n", " ").split(" "))) for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows)) // 4 + len(prefix) + len(suffix)
        # A bytearray, so that the array is writable, which torch.from_numpy asks for.
        framed = np.frombuffer(bytearray(after + before).join([b"", *rows, b""]), np.int32)
        return framed[len(suffix):len(framed) - len(prefix)], _cu_seqlens(lengths)

    return "", encode


def _space_is_a_boundary(backend: Tokenizer) -> bool:
    added = backend.get_added_tokens_decoder().values()
    return (isinstance(backend.model, WordPiece)
            and isinstance(backend.normalizer, BertNormalizer)
            and isinstance(backend.pre_tokenizer, BertPreTokenizer)
            and not any(token.normalized or " " in token.content for token in added))


def _tokenizers(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> tuple[str, Encode]:
    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [encoding.ids for encoding in backend.encode_batch_fast(texts)]
        cu_seqlens = _cu_seqlens(np.fromiter(map(len, rows), np.int64, len(rows)))
        return np.fromiter(chain.from_iterable(rows), np.int32, cu_seqlens[-1]), cu_seqlens

    return "", encode


_BUILDERS: dict[str, Callable[[Tokenizer, list[int], list[int]], tuple[str, Encode | None]]] = {
    "nanotoken": _nanotoken, "word-cache": _word_cache, "tokenizers": _tokenizers,
}
