"""Text to packed token ids: the ids of the Hugging Face tokenizer, from the fastest engine that gives exactly those."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from .texts import check_texts, without_surrogates
from .tokenizer_engines import ENGINES, Encode, build_engine
from .tokenizer_files import load_tokenizer
from .word_cache import cumulative_lengths


class PackedBatch(NamedTuple):
    """Token ids of B texts, one after another, without padding.

    input_ids: ``[T]`` int32, special tokens included. cu_seqlens: ``[B + 1]`` int64; row b is
    ``input_ids[cu_seqlens[b]:cu_seqlens[b + 1]]``. num_truncated: how many rows were cut to ``max_length``.
    """

    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    num_truncated: int


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
        has_types = "token_type_ids" in getattr(tokenizer, "model_input_names", ["token_type_ids"])
        self._types = types if has_types and any(np.hstack(types)) else None
        direction = (backend.truncation or {}).get("direction", "right")
        self.truncation_side: str = getattr(tokenizer, "truncation_side", direction)
        self.model_max_length = self._length_limit(getattr(tokenizer, "model_max_length", None))
        self._wanted = engine
        self.engine, self._encode, self.reason = self._choose(engine)

    @classmethod
    def from_pretrained(cls, name_or_path: str, engine: str | None = None) -> PackedTokenizer:
        """Load the tokenizer of a folder or of a hub id, as ``AutoTokenizer`` does.

        Raises OSError if there is no such folder or id, ValueError if it holds no fast tokenizer that can be read.
        """
        try:
            tokenizer = load_tokenizer(name_or_path)
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
        # `tokenizers` too ignores a limit that leaves no room for the special tokens.
        return model_max_length if model_max_length >= len(self.prefix) + len(self.suffix) else math.inf

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

    def __call__(self, texts: Iterable[str], max_length: int | None = None) -> PackedBatch:
        """Tokenize B texts.

        A row longer than ``max_length`` tokens keeps its special tokens and loses the end of its text, or the
        beginning if ``truncation_side`` is "left". A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD. Raises
        TypeError for an element that is not a str, ValueError if ``max_length`` leaves no room for the special tokens.
        """
        if max_length is not None and max_length < len(self.prefix) + len(self.suffix):
            raise ValueError(f"max_length is {max_length}, the special tokens alone take "
                             f"{len(self.prefix) + len(self.suffix)}.")
        texts = check_texts(texts)
        try:
            input_ids, cu_seqlens = self._encode(texts)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, for which `tokenizers` raises TypeError
            input_ids, cu_seqlens = self._encode([without_surrogates(text) for text in texts])
        if max_length is None or len(input_ids) <= max_length:  # as one short text is
            return PackedBatch(input_ids, cu_seqlens, 0)
        kept_before = len(self.prefix) if self.truncation_side == "left" else max_length - len(self.suffix)
        return _truncate(input_ids, cu_seqlens, max_length, kept_before)

    def token_type_ids(self, batch: PackedBatch) -> np.ndarray | None:
        """The token types of a batch of this tokenizer, ``[T]`` int32; None if all of them are 0, as BERT's are."""
        if self._types is None:
            return None
        before, inside, after = self._types
        types = np.full(len(batch.input_ids), inside, np.int32)
        types[batch.cu_seqlens[:-1, None] + np.arange(len(before))] = before
        types[batch.cu_seqlens[1:, None] - np.arange(len(after), 0, -1)] = after
        return types


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


def _truncate(input_ids: np.ndarray, cu_seqlens: np.ndarray, max_length: int, kept_before: int) -> PackedBatch:
    """Cut long rows to ``max_length`` tokens: the first ``kept_before``, and as many of the last as then fit."""
    lengths = np.diff(cu_seqlens)
    long_rows = np.flatnonzero(lengths > max_length)
    if not len(long_rows):
        return PackedBatch(input_ids, cu_seqlens, 0)
    kept = np.minimum(lengths, max_length)
    ends = cumulative_lengths(kept)
    source = np.arange(ends[-1]) + np.repeat(cu_seqlens[:-1] - ends[:-1], kept)
    behind = np.arange(kept_before, max_length)
    source[ends[long_rows, None] + behind] = cu_seqlens[long_rows + 1, None] - max_length + behind
    return PackedBatch(input_ids[source], ends, len(long_rows))
