"""Text to packed token ids: the ids of the Hugging Face tokenizer, from the fastest engine that gives exactly those."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from .texts import check_texts, without_surrogates
from .tokenizer_engines import (
    A_TEXT,
    ENGINES,
    Engine,
    NativeEngine,
    PackedBatch,
    Spans,
    Template,
    build_engine,
    native_settings,
)
from .tokenizer_files import load_tokenizer

if TYPE_CHECKING:
    from .._engine import Tokenizer as NativeTokenizer


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
        # BERT's tokenizer gives type 0 to every token of a single text. Others may not, or may leave the types out.
        has_types = "token_type_ids" in getattr(tokenizer, "model_input_names", ["token_type_ids"])
        single = _template(self.backend, 1, has_types)
        if single is None:
            raise ValueError("the tokenizer has no token for the text 'a': give it a vocabulary that knows letters, or "
                             "an unknown token.")
        self.single: Template = single
        self.pair = _template(self.backend, 2, has_types)
        direction = (backend.truncation or {}).get("direction", "right")
        self.truncation_side: str = getattr(tokenizer, "truncation_side", direction)
        self.model_max_length = self._length_limit(getattr(tokenizer, "model_max_length", None))
        self._wanted = engine
        self.engine, self._engine, self.reason = self._choose(engine)

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
        return model_max_length if self.single.num_special <= model_max_length < 2**63 else math.inf

    def __getstate__(self) -> dict[str, Any]:
        # An engine cannot be pickled, and a pickled Tokenizer forgets encode_special_tokens.
        state = {name: value for name, value in self.__dict__.items() if name not in ("_engine", "engine", "reason")}
        return state | {"backend": (self.backend.to_str(), self.backend.encode_special_tokens)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.backend = _plain_copy(*state["backend"])
        self.engine, self._engine, self.reason = self._choose(self._wanted)

    def _choose(self, wanted: str | None) -> tuple[str, Engine, str]:
        reasons: list[str] = []
        for name in ENGINES if wanted is None else (wanted,):
            reason, engine = build_engine(name, self.backend, self.single, self.pair)
            if engine is not None:
                return name, engine, " ".join(reasons)
            reasons.append(reason)
        raise ValueError(f"engine is {wanted!r}, which cannot serve this tokenizer: {reasons[0]}")

    @property
    def native(self) -> NativeTokenizer | None:
        """The engine's tokenizer, for a model of the engine; None if it does not serve, or if a token of a single text
        has another type than 0, which such a model does not know."""
        return self._engine.tokenizer if isinstance(self._engine, NativeEngine) and not any(self.single.types) else None

    def native_settings(self) -> dict[str, Any]:
        """The arguments of that tokenizer."""
        return native_settings(self.backend, self.single, self.pair)

    def __call__(self, texts: Iterable[str], max_length: int | None = None) -> PackedBatch:
        """Tokenize B texts.

        A row longer than ``max_length`` tokens keeps its special tokens and loses the end of its text, or the
        beginning if ``truncation_side`` is "left". A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD. Raises
        TypeError for an element that is not a str, ValueError if ``max_length`` leaves no room for the special tokens.
        """
        if max_length is not None and max_length < self.single.num_special:
            raise ValueError(f"max_length is {max_length}, the special tokens alone take {self.single.num_special}.")
        return self._encode_any(self._engine.encode, [check_texts(texts)], max_length)

    def pairs(self, first: Iterable[str], second: Iterable[str], max_length: int | None = None) -> PackedBatch:
        """Tokenize B pairs of texts, as ``tokenizer(first, second, truncation=True)`` of transformers does.

        A row longer than ``max_length`` tokens keeps its special tokens; the longer of its two texts is cut until both
        are of one length, and then both are, at the end or, if ``truncation_side`` is "left", at the beginning. Raises
        TypeError for an element that is not a str, ValueError if there are not as many second texts as first ones, or
        if ``max_length`` leaves no room for the special tokens.
        """
        columns = [check_texts(first, "first"), check_texts(second, "second")]
        if len(columns[0]) != len(columns[1]):
            raise ValueError(f"first has {len(columns[0])} texts and second {len(columns[1])}: pass one of each for "
                             "every pair.")
        if self.pair is None:
            raise ValueError("the tokenizer puts the second text of a pair before the first: give it a post-processor "
                             "whose pair begins with $A.")
        if max_length is not None and max_length < self.pair.num_special:
            raise ValueError(f"max_length is {max_length}, the special tokens of a pair alone take "
                             f"{self.pair.num_special}.")
        return self._encode_any(self._engine.encode_pairs, columns, max_length)

    def spans(self, text: str) -> Spans:
        """The tokens of a text, without special tokens around it and however many there are, and their places in it."""
        return self._engine.spans(without_surrogates(text))

    def _encode_any(self, encode: Callable[..., PackedBatch], columns: list[list[str]],
                    max_length: int | None) -> PackedBatch:
        keeps_end = self.truncation_side == "left"
        try:
            return encode(*columns, max_length, keeps_end)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, for which `tokenizers` raises TypeError
            return encode(*[list(map(without_surrogates, texts)) for texts in columns], max_length, keeps_end)


def _plain_copy(backend: str, encode_special_tokens: bool) -> Tokenizer:
    copy = Tokenizer.from_str(backend)
    copy.no_padding()
    copy.no_truncation()
    copy.encode_special_tokens = encode_special_tokens
    return copy


def _template(backend: Tokenizer, num_texts: int, has_types: bool) -> Template | None:
    """What the post-processor makes of one text, or of two; None if these do not come in their order."""
    encoding = backend.encode("a", "a" if num_texts == 2 else None)
    parts: list[tuple[int, int]] = []
    texts: list[int] = []
    for owner, tokens in groupby(zip(encoding.sequence_ids, encoding.ids, encoding.type_ids), itemgetter(0)):
        of_part = [(number, kind if has_types else 0) for _, number, kind in tokens]
        if owner is None:
            parts += of_part
        else:
            parts.append((A_TEXT, of_part[0][1]))
            texts.append(owner)
    return Template(*zip(*parts)) if texts == [*range(num_texts)] else None
