"""The engines that turn texts into packed ids, the fastest first; both give the ids of Hugging Face's tokenizer.

* ``native``: the project's own tokenizer in C++ (``csrc/engine``). It serves BERT's own kind of tokenizer where it is
  built and agrees with Hugging Face's tokenizer, with this very vocabulary, on every string of
  ``tokenizer_test_strings``.
* ``tokenizers``: Hugging Face's own. It serves every tokenizer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from .tokenizer_test_strings import TEST_STRINGS

ENGINES = ("native", "tokenizers")


class Rows(NamedTuple):
    """``input_ids`` ``[T]`` int32, ``cu_seqlens`` ``[B + 1]`` int64, and how many rows were cut."""

    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    num_truncated: int


# Texts, the length of the longest row or None, and whether a longer one keeps the end of its text. TypeError or
# UnicodeEncodeError for a lone surrogate.
Encode = Callable[[list[str], "int | None", bool], Rows]


def build_engine(name: str, backend: Tokenizer, prefix: list[int], suffix: list[int]) -> tuple[str, Encode | None]:
    """The engine ``name`` for the tokenizer ``backend``: "" and its function, or why it cannot serve and None.

    ``prefix`` and ``suffix`` are the ids of the special tokens before and after each text.
    """
    if name == "tokenizers":
        return "", _tokenizers_encoder(backend, prefix, suffix)
    reason = native_refusal(backend)
    if reason is not None:
        return reason, None
    encode = _native_encoder(backend, prefix, suffix)
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    texts = [*TEST_STRINGS, *(f"{token} x{token}y {token.lower()} {token.upper()}{token}" for token in added)]
    ours, theirs = encode(texts, None, False), _tokenizers_encoder(backend, prefix, suffix)(texts, None, False)
    if not (np.array_equal(ours.input_ids, theirs.input_ids) and np.array_equal(ours.cu_seqlens, theirs.cu_seqlens)):
        return "The native engine differs from Hugging Face's tokenizer on the test strings.", None
    return "", encode


def native_refusal(backend: Tokenizer) -> str | None:
    """Why the native engine cannot serve this tokenizer, or None."""
    try:
        from .._engine import Tokenizer as _  # noqa: F401
    except ImportError as error:
        return f"The native engine is not built ({error}): install the package again where there is a C++ compiler."
    model, added = backend.model, backend.get_added_tokens_decoder().values()
    if not (isinstance(model, WordPiece) and isinstance(backend.normalizer, BertNormalizer)
            and isinstance(backend.pre_tokenizer, BertPreTokenizer)):
        return "The native engine serves WordPiece behind BertNormalizer and BertPreTokenizer alone."
    if model.token_to_id(model.unk_token) is None:
        return f"The native engine needs {model.unk_token!r} in the vocabulary."
    # White space beside a token is no part of any other, so that lstrip and rstrip change nothing.
    if any(token.normalized or token.single_word or any(map(str.isspace, token.content)) for token in added):
        return "The native engine finds no added token that is normalized, a single word or has white space in it."
    return None


def native_settings(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> dict[str, Any]:
    """The arguments of the native engine's tokenizer, for one that it does not refuse."""
    model, normalizer = backend.model, backend.normalizer
    splits_special = backend.encode_special_tokens
    strip_accents = normalizer.lowercase if normalizer.strip_accents is None else normalizer.strip_accents
    return {
        "vocabulary": backend.get_vocab(with_added_tokens=False), "unknown_id": model.token_to_id(model.unk_token),
        "continuing_prefix": model.continuing_subword_prefix, "most_characters": model.max_input_chars_per_word,
        "clean_text": normalizer.clean_text, "handle_chinese_chars": normalizer.handle_chinese_chars,
        "strip_accents": strip_accents, "lowercase": normalizer.lowercase,
        "added_tokens": tuple((token.content, number, splits_special and token.special)
                              for number, token in backend.get_added_tokens_decoder().items()),
        "prefix": tuple(prefix), "suffix": tuple(suffix)}


def _native_encoder(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> Encode:
    from .._engine import Tokenizer as NativeTokenizer

    tokenizer = NativeTokenizer(**native_settings(backend, prefix, suffix))

    def encode(texts: list[str], max_length: int | None, keeps_end: bool) -> Rows:
        ids, cu_seqlens, num_truncated = tokenizer.encode(
            texts, sys.maxsize if max_length is None else max_length, keeps_end)
        return Rows(np.frombuffer(ids, np.int32), np.frombuffer(cu_seqlens, np.int64), num_truncated)

    return encode


def _tokenizers_encoder(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> Encode:
    def encode(texts: list[str], max_length: int | None, keeps_end: bool) -> Rows:
        rows = [encoding.ids for encoding in backend.encode_batch_fast(texts)]
        cu_seqlens = cumulative_lengths(np.fromiter(map(len, rows), np.int64, len(rows)))
        input_ids = np.fromiter(chain.from_iterable(rows), np.int32, cu_seqlens[-1])
        if max_length is None or len(input_ids) <= max_length:
            return Rows(input_ids, cu_seqlens, 0)
        return _truncate(input_ids, cu_seqlens, max_length, len(prefix) if keeps_end else max_length - len(suffix))

    return encode


def _truncate(input_ids: np.ndarray, cu_seqlens: np.ndarray, max_length: int, kept_before: int) -> Rows:
    """Cut long rows to ``max_length`` tokens: the first ``kept_before``, and as many of the last as then fit."""
    lengths = np.diff(cu_seqlens)
    long_rows = np.flatnonzero(lengths > max_length)
    if not len(long_rows):
        return Rows(input_ids, cu_seqlens, 0)
    kept = np.minimum(lengths, max_length)
    ends = cumulative_lengths(kept)
    source = np.arange(ends[-1]) + np.repeat(cu_seqlens[:-1] - ends[:-1], kept)
    behind = np.arange(kept_before, max_length)
    source[ends[long_rows, None] + behind] = cu_seqlens[long_rows + 1, None] - max_length + behind
    return Rows(input_ids[source], ends, len(long_rows))


def cumulative_lengths(lengths: np.ndarray) -> np.ndarray:
    """``cu_seqlens`` ``[B + 1]`` int64 of B rows of these lengths."""
    cu_seqlens = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return cu_seqlens
