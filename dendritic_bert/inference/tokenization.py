"""Text to packed token ids: the ids of the Hugging Face tokenizer, from the fastest engine that gives exactly those."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from .texts import check_texts, without_surrogates
from .tokenizer_engines import ENGINES, Encode, Rows, build_engine, cumulative_lengths, native_settings
from .tokenizer_files import load_tokenizer


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


class PairFrame(NamedTuple):
    """The special tokens of a pair, for BERT [CLS] first [SEP] second [SEP].

    special_ids: int32, of those before, between and after the texts, in that order. lengths: how many of each.
    special_types: their token types. text_types: those of the tokens of either text.
    """

    special_ids: np.ndarray
    lengths: tuple[int, int, int]
    special_types: np.ndarray
    text_types: tuple[int, int]


class PackedTokenizer:
    """A fast tokenizer of Hugging Face whose ids come packed, and sooner.

    ``tokenizer`` is a ``tokenizers.Tokenizer`` or a fast tokenizer of transformers. The settings that count are those
    that count in ``tokenizer(texts, truncation=True)`` of transformers: ``truncation_side`` (the direction of a
    ``Tokenizer``), ``split_special_tokens``, and ``model_max_length``, which is infinite here if it is not set. The
    padding and the length of a ``Tokenizer`` are ignored.

    ``engine`` forces one of ``ENGINES``, and raises ValueError if that one cannot serve this tokenizer; None takes the
    first that can. ``self.engine`` names the one that was taken, and ``self.reason`` says why no faster one was ("" for
    the fastest). Unpickling chooses the engine again, by the same arguments.
    """

    def __init__(self, tokenizer: Any, engine: str | None = None):
        backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise TypeError(f"tokenizer is a {type(tokenizer).__name__}, pass a tokenizers.Tokenizer or a fast "
                            "tokenizer of transformers.")
        if engine not in (None, *ENGINES):
            raise ValueError(f"engine is {engine!r}, known are {', '.join(ENGINES)}.")
        splits_special = getattr(tokenizer, "split_special_tokens", backend.encode_special_tokens)
        self.backend = _plain_copy(backend.to_str(), splits_special)
        self.prefix, self.suffix, types = _special_frame(self.backend)
        # BERT's tokenizer gives type 0 to every token of a single text. Others may not, or may leave the types out.
        self._has_types = "token_type_ids" in getattr(tokenizer, "model_input_names", ["token_type_ids"])
        self._types = types if self._has_types and any(np.hstack(types)) else None
        direction = (backend.truncation or {}).get("direction", "right")
        self.truncation_side: str = getattr(tokenizer, "truncation_side", direction)
        self.model_max_length = self._length_limit(getattr(tokenizer, "model_max_length", None))
        self._wanted = engine
        self.engine, self._encode, self.reason = self._choose(engine)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, engine: str | None = None, revision: str | None = None
    ) -> PackedTokenizer:
        """Load the tokenizer of a folder or of a hub id, at a ``revision`` there, as ``AutoTokenizer`` does.

        Raises OSError if there is no such folder or id, ValueError if it holds no fast tokenizer that can be read.
        """
        try:
            tokenizer = load_tokenizer(name_or_path, revision)
        except OSError:
            raise
        except Exception as error:  # `tokenizers` raises bare Exceptions, transformers several lines of advice
            raise ValueError(f"{name_or_path} holds no fast tokenizer that can be read ({type(error).__name__}): save "
                             "one there with tokenizer.save_pretrained().") from error
        if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
            # If the file of the vocabulary is missing, transformers makes a tokenizer of the special tokens alone.
            raise ValueError(f"{name_or_path} holds no vocabulary: save a whole tokenizer there with "
                             "tokenizer.save_pretrained().")
        return cls(tokenizer, engine=engine)

    def _length_limit(self, model_max_length: Any) -> float:
        if model_max_length is None:
            return math.inf
        try:
            model_max_length = float(model_max_length)
        except (TypeError, ValueError):
            raise ValueError(f"the tokenizer's model_max_length is {model_max_length!r}, expected a number of tokens: "
                             "mend it in tokenizer_config.json.") from None
        # transformers writes 1e30 where none is set. `tokenizers` too ignores a limit that leaves no room for the
        # special tokens.
        return model_max_length if len(self.prefix) + len(self.suffix) <= model_max_length < 2**63 else math.inf

    def __getstate__(self) -> dict[str, Any]:
        # An engine cannot be pickled, and a pickled Tokenizer forgets encode_special_tokens.
        state = {name: value for name, value in self.__dict__.items() if name not in ("_encode", "engine", "reason")}
        return state | {"backend": (self.backend.to_str(), self.backend.encode_special_tokens)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.backend = _plain_copy(*state["backend"])
        self.engine, self._encode, self.reason = self._choose(self._wanted)

    def _choose(self, wanted: str | None) -> tuple[str, Encode, str]:
        reasons: list[str] = []
        for engine in ENGINES if wanted is None else (wanted,):
            reason, encode = build_engine(engine, self.backend, self.prefix, self.suffix)
            if encode is not None:
                return engine, encode, " ".join(reasons)
            reasons.append(reason)
        raise ValueError(f"engine is {wanted!r}, which cannot serve this tokenizer: {reasons[0]}")

    def native_settings(self) -> dict[str, Any] | None:
        """The arguments of the native engine's tokenizer; None if that does not serve, or if a token of a single text
        has another type than 0."""
        if self.engine != "native" or self._types is not None:
            return None
        return native_settings(self.backend, self.prefix, self.suffix)

    def __call__(self, texts: Iterable[str], max_length: int | None = None) -> PackedBatch:
        """Tokenize B texts.

        A row longer than ``max_length`` tokens keeps its special tokens and loses the end of its text, or the
        beginning if ``truncation_side`` is "left". A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD. Raises
        TypeError for an element that is not a str, ValueError if ``max_length`` leaves no room for the special tokens.
        """
        if max_length is not None and max_length < len(self.prefix) + len(self.suffix):
            raise ValueError(f"max_length is {max_length}, the special tokens alone take "
                             f"{len(self.prefix) + len(self.suffix)}.")
        input_ids, cu_seqlens, num_truncated = self._encode_any(check_texts(texts), max_length)
        return PackedBatch(input_ids, cu_seqlens, self._token_types(cu_seqlens), num_truncated)

    def pairs(self, first: Iterable[str], second: Iterable[str], max_length: int | None = None) -> PackedBatch:
        """Tokenize B pairs of texts, as ``tokenizer(first, second, truncation=True)`` of transformers does.

        A row longer than ``max_length`` tokens keeps its special tokens; the longer of its two texts is cut until both
        are of one length, and then both are, at the end or, if ``truncation_side`` is "left", at the beginning. Raises
        TypeError for an element that is not a str, ValueError if there are not as many second texts as first ones, or
        if ``max_length`` leaves no room for the special tokens.
        """
        texts = check_texts(first, "first"), check_texts(second, "second")
        if len(texts[0]) != len(texts[1]):
            raise ValueError(f"first has {len(texts[0])} texts and second {len(texts[1])}: pass one of each for every "
                             "pair.")
        frame = self._pair_frame
        room = math.inf if max_length is None else max_length - len(frame.special_ids)
        if room < 0:
            raise ValueError(f"max_length is {max_length}, the special tokens of a pair alone take "
                             f"{len(frame.special_ids)}.")
        (first_ids, first_cu, _), (second_ids, second_cu, _) = map(self._encode_any, texts)
        whole = np.diff([first_cu, second_cu]) - len(self.prefix) - len(self.suffix)
        kept = _share_room(whole[0], whole[1], room)
        starts = np.stack([first_cu[:-1], second_cu[:-1]]) + len(self.prefix)
        if self.truncation_side == "left":
            starts += whole - kept
        # A row is five pieces of this pool: special tokens, first text, special tokens, second text, special tokens.
        pool = np.concatenate([frame.special_ids, first_ids, second_ids])
        before, between, _ = frame.lengths
        num_rows, num_special = len(texts[0]), len(frame.special_ids)
        lengths = np.empty((num_rows, 5), np.int64)
        lengths[:, 0::2], lengths[:, 1::2] = frame.lengths, kept.T
        sources = np.empty((num_rows, 5), np.int64)
        sources[:, 0::2] = 0, before, before + between
        sources[:, 1::2] = starts.T + [num_special, num_special + len(first_ids)]
        ends = cumulative_lengths(lengths.ravel())
        source = np.arange(ends[-1]) + np.repeat(sources.ravel() - ends[:-1], lengths.ravel())
        types = None
        if self._has_types and (frame.special_types.any() or any(frame.text_types)):
            types = np.concatenate([frame.special_types, np.full(len(first_ids), frame.text_types[0], np.int32),
                                    np.full(len(second_ids), frame.text_types[1], np.int32)])[source]
        return PackedBatch(pool[source], ends[::5], types, int(np.count_nonzero(whole.sum(axis=0) > room)))

    def _encode_any(self, texts: list[str], max_length: int | None = None) -> Rows:
        """Single texts within their special tokens."""
        keeps_end = self.truncation_side == "left"
        try:
            return self._encode(texts, max_length, keeps_end)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, for which `tokenizers` raises TypeError
            return self._encode([without_surrogates(text) for text in texts], max_length, keeps_end)

    def _token_types(self, cu_seqlens: np.ndarray) -> np.ndarray | None:
        """The token types of single texts, ``[T]`` int32; None if all of them are 0, as BERT's are."""
        if self._types is None:
            return None
        before, inside, after = self._types
        types = np.full(cu_seqlens[-1], inside, np.int32)
        types[cu_seqlens[:-1, None] + np.arange(len(before))] = before
        types[cu_seqlens[1:, None] - np.arange(len(after), 0, -1)] = after
        return types

    @functools.cached_property
    def _pair_frame(self) -> PairFrame:
        """Raises ValueError if a pair of this tokenizer is not one text and then the other."""
        encoding = self.backend.encode("a", "a")
        owners = np.array([-1 if owner is None else owner for owner in encoding.sequence_ids])
        first, second = np.flatnonzero(owners == 0), np.flatnonzero(owners == 1)
        if not len(first) or not len(second) or first[-1] > second[0]:
            raise ValueError("the tokenizer puts the second text of a pair before the first: give it a post-processor "
                             "whose pair begins with $A.")
        ids, types = np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32)
        lengths = int(first[0]), int(second[0] - first[-1] - 1), int(len(ids) - 1 - second[-1])
        is_special = owners == -1
        return PairFrame(ids[is_special], lengths, types[is_special], (int(types[first[0]]), int(types[second[0]])))


def _plain_copy(backend: str, encode_special_tokens: bool) -> Tokenizer:
    copy = Tokenizer.from_str(backend)
    copy.no_padding()
    copy.no_truncation()
    copy.encode_special_tokens = encode_special_tokens
    return copy


def _special_frame(backend: Tokenizer) -> tuple[list[int], list[int], tuple[list[int], int, list[int]]]:
    """The ids that the post-processor puts before and after a text, for BERT [CLS] and [SEP]; and the token types of
    those before it, of the text, and of those after it."""
    full, bare = backend.encode("a"), backend.encode("a", add_special_tokens=False)
    start = full.special_tokens_mask.index(0)
    end = start + len(bare.ids)
    return full.ids[:start], full.ids[end:], (full.type_ids[:start], full.type_ids[start], full.type_ids[end:])


def _share_room(first: np.ndarray, second: np.ndarray, room: float) -> np.ndarray:
    """Lengths ``[2, B]`` after "longest_first" truncation: the longer text is cut until both are equal, then both are.
    """
    if math.isinf(room):
        return np.stack([first, second])
    room = int(room)
    shorter = np.minimum(np.minimum(first, second), room // 2)
    longer = np.minimum(np.maximum(first, second), room - shorter)
    return np.where(first > second, [longer, shorter], [shorter, longer])
