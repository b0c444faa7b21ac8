"""The engines that turn texts into packed ids, the fastest first; both give the ids of Hugging Face's tokenizer.

* ``native``: the project's own tokenizer in C++ (``csrc/engine``). It serves BERT's own kind of tokenizer where it is
  built and agrees with Hugging Face's tokenizer, with this very vocabulary, on every string of
  ``tokenizer_test_strings``.
* ``tokenizers``: Hugging Face's own. It serves every tokenizer.

An engine raises TypeError or UnicodeEncodeError for a lone surrogate, which UTF-8 cannot hold.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from .tokenizer_test_strings import TEST_STRINGS

ENGINES = ("native", "tokenizers")
A_TEXT = -1  # in the place of an id


class PackedBatch(NamedTuple):
    """Token ids of B texts or pairs of texts, one row after another, without padding.

    input_ids: ``[T]`` int32, special tokens included. cu_seqlens: ``[B + 1]`` int64; row b is
    ``input_ids[cu_seqlens[b]:cu_seqlens[b + 1]]``. token_type_ids: ``[T]`` int32; None if all of them are 0, as those
    of BERT's single texts are. num_truncated: how many rows were cut to ``max_length``.
    """

    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    token_type_ids: np.ndarray | None
    num_truncated: int


class Template(NamedTuple):
    """What a row is made of, for a pair of BERT's [CLS] first [SEP] second [SEP].

    ids: those of the special tokens, and ``A_TEXT`` in the place of each text. types: the token type of each special
    token, and that of all tokens of each text.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]

    @property
    def num_special(self) -> int:
        return len(self.ids) - self.ids.count(A_TEXT)

    def token_types(self, lengths: np.ndarray) -> np.ndarray | None:
        """``[T]`` int32 of B rows, whose parts are of ``lengths`` ``[B, parts]``; None if all of them are 0."""
        if not any(self.types):
            return None
        return np.repeat(np.tile(np.array(self.types, np.int32), len(lengths)), lengths.ravel())


class Spans(NamedTuple):
    """The T tokens of one text, without special tokens around it; all are ``[T]`` integers.

    A token comes from the characters ``starts`` to ``ends`` - 1 of the text, which are the offsets of Hugging Face's
    tokenizers, and belongs to the word with the number in ``words``.
    """

    ids: np.ndarray
    words: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class NativeEngine:
    """``single`` and ``pair`` are what rows are made of; no pair can be encoded without the second."""

    def __init__(self, backend: Tokenizer, single: Template, pair: Template | None):
        from .._engine import Tokenizer as NativeTokenizer

        self._single, self._pair = single, pair
        self.tokenizer = NativeTokenizer(**native_settings(backend, single, pair))

    def encode(self, texts: list[str], max_length: int | None, keeps_end: bool) -> PackedBatch:
        """A row longer than ``max_length`` keeps its special tokens, and the beginning of its text or the end."""
        ids, cu_seqlens, num_truncated = self.tokenizer.encode(texts, _limit(max_length), keeps_end)
        ends = np.frombuffer(cu_seqlens, np.int64)
        types = None
        if any(self._single.types):
            lengths = np.ones((len(texts), len(self._single.ids)), np.int64)
            lengths[:, self._single.ids.index(A_TEXT)] = np.diff(ends) - self._single.num_special
            types = self._single.token_types(lengths)
        return PackedBatch(np.frombuffer(ids, np.int32), ends, types, num_truncated)

    def encode_pairs(self, first: list[str], second: list[str], max_length: int | None, keeps_end: bool) -> PackedBatch:
        """Of a row that is too long the longer text is cut until both are of one length, and then both are."""
        assert self._pair is not None
        ids, cu_seqlens, types, num_truncated = self.tokenizer.encode_pairs(
            first, second, _limit(max_length), keeps_end)
        return PackedBatch(np.frombuffer(ids, np.int32), np.frombuffer(cu_seqlens, np.int64),
                           np.frombuffer(types, np.int32) if any(self._pair.types) else None, num_truncated)

    def spans(self, text: str) -> Spans:
        """The tokens of a text, and where they come from."""
        return Spans(*np.frombuffer(self.tokenizer.spans(text), np.int32).reshape(-1, 4).T)


class TokenizersEngine:
    """As ``NativeEngine``."""

    def __init__(self, backend: Tokenizer, single: Template, pair: Template | None):
        self._backend, self._single, self._pair = backend, single, pair

    def encode(self, texts: list[str], max_length: int | None, keeps_end: bool) -> PackedBatch:
        return self._rows(self._single, [texts], max_length, keeps_end)

    def encode_pairs(self, first: list[str], second: list[str], max_length: int | None, keeps_end: bool) -> PackedBatch:
        assert self._pair is not None
        return self._rows(self._pair, [first, second], max_length, keeps_end)

    def spans(self, text: str) -> Spans:
        encoding = self._backend.encode(text, add_special_tokens=False)
        starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        return Spans(np.array(encoding.ids, np.int64), np.array(encoding.word_ids, np.int64), starts, ends)

    def _rows(self, template: Template, columns: list[list[str]], max_length: int | None,
              keeps_end: bool) -> PackedBatch:
        """Rows of one text or two, each of which is made of pieces of a pool: special tokens, and tokens of texts."""
        rows = [[encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
                for texts in columns]
        whole = np.array([[len(row) for row in column] for column in rows], np.int64)  # [1 or 2, B]
        kept = whole if max_length is None else share_room(whole, max_length - template.num_special)
        pool = np.fromiter(chain(template.ids, *chain.from_iterable(rows)), np.int32, len(template.ids) + whole.sum())
        starts = len(template.ids) + cumulative_lengths(whole.ravel())[:-1].reshape(whole.shape)
        texts = [place for place, number in enumerate(template.ids) if number == A_TEXT]
        lengths = np.ones((len(columns[0]), len(template.ids)), np.int64)
        sources = np.tile(np.arange(len(template.ids)), (len(columns[0]), 1))
        lengths[:, texts], sources[:, texts] = kept.T, (starts + whole - kept if keeps_end else starts).T
        ends = cumulative_lengths(lengths.ravel())
        source = np.arange(ends[-1]) + np.repeat(sources.ravel() - ends[:-1], lengths.ravel())
        return PackedBatch(pool[source], ends[::len(template.ids)], template.token_types(lengths),
                           int(np.count_nonzero((whole != kept).any(axis=0))))


Engine = NativeEngine | TokenizersEngine


def build_engine(name: str, backend: Tokenizer, single: Template, pair: Template | None) -> tuple[str, Engine | None]:
    """The engine ``name`` for the tokenizer ``backend``: "" and the engine, or why it cannot serve and None."""
    reference = TokenizersEngine(backend, single, pair)
    if name == "tokenizers":
        return "", reference
    reason = native_refusal(backend)
    if reason is not None:
        return reason, None
    engine = NativeEngine(backend, single, pair)
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    texts = [*TEST_STRINGS, *(f"{token} x{token}y {token.lower()} {token.upper()}{token}" for token in added)]
    ours, theirs = engine.encode(texts, None, False), reference.encode(texts, None, False)
    if not (np.array_equal(ours.input_ids, theirs.input_ids) and np.array_equal(ours.cu_seqlens, theirs.cu_seqlens)):
        return "The native engine differs from Hugging Face's tokenizer on the test strings.", None
    return "", engine


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
    # White space beside a token is no part of any other, so that lstrip and rstrip change spans alone.
    if any(token.normalized or token.single_word or any(map(str.isspace, token.content)) for token in added):
        return "The native engine finds no added token that is normalized, a single word or has white space in it."
    return None


def native_settings(backend: Tokenizer, single: Template, pair: Template | None) -> dict[str, Any]:
    """The arguments of the native engine's tokenizer, for one that it does not refuse."""
    model, normalizer = backend.model, backend.normalizer
    splits_special = backend.encode_special_tokens
    strip_accents = normalizer.lowercase if normalizer.strip_accents is None else normalizer.strip_accents
    text = single.ids.index(A_TEXT)
    return {
        "vocabulary": backend.get_vocab(with_added_tokens=False), "unknown_id": model.token_to_id(model.unk_token),
        "continuing_prefix": model.continuing_subword_prefix, "most_characters": model.max_input_chars_per_word,
        "clean_text": normalizer.clean_text, "handle_chinese_chars": normalizer.handle_chinese_chars,
        "strip_accents": strip_accents, "lowercase": normalizer.lowercase,
        "added_tokens": tuple(
            (token.content, number, splits_special and token.special, token.lstrip, token.rstrip)
            for number, token in backend.get_added_tokens_decoder().items()),
        "prefix": single.ids[:text], "suffix": single.ids[text + 1:],
        "pair": () if pair is None else tuple(zip(*pair))}


def share_room(lengths: np.ndarray, room: int) -> np.ndarray:
    """What is left of texts of ``lengths`` ``[1, B]``, or of pairs ``[2, B]``, where a row has room for so many tokens.

    The longer text of a pair is cut until both are equal, and then both are: "longest_first" of transformers.
    """
    if len(lengths) == 1:
        return np.minimum(lengths, room)
    first, second = lengths
    shorter = np.minimum(np.minimum(first, second), room // 2)
    longer = np.minimum(np.maximum(first, second), room - shorter)
    return np.where(first > second, [longer, shorter], [shorter, longer])


def _limit(max_length: int | None) -> int:
    return sys.maxsize if max_length is None else max_length


def cumulative_lengths(lengths: np.ndarray) -> np.ndarray:
    """``cu_seqlens`` ``[B + 1]`` int64 of B rows of these lengths."""
    cu_seqlens = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return cu_seqlens
