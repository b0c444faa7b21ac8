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
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from .tokenizer_test_strings import PROBES

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

    ``tokenizer`` is a ``tokenizers.Tokenizer`` or a fast tokenizer of transformers. Of its settings those count that
    count in ``tokenizer(texts, truncation=True)`` of transformers: ``truncation_side`` (a ``Tokenizer``'s own
    direction), ``split_special_tokens``, and ``model_max_length``, which here is infinite where there is none. A
    ``Tokenizer``'s own padding and length are ignored. ``engine`` forces one of ``ENGINES`` and raises ValueError where
    it cannot serve; None takes the first that can. ``self.engine`` names the choice, ``self.reason`` says why no faster
    one was taken ("" for the fastest). Pickled, it is made anew with the same arguments.
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
        # BERT's tokenizer gives every token of a single text type 0; another may not, or may leave types out.
        has_types = "token_type_ids" in getattr(tokenizer, "model_input_names", ["token_type_ids"])
        self._types = types if has_types and any(np.hstack(types)) else None
        direction = (backend.truncation or {}).get("direction", "right")
        self.truncation_side: str = getattr(tokenizer, "truncation_side", direction)
        self.model_max_length = self._length_limit(getattr(tokenizer, "model_max_length", None))
        self._wanted = engine
        self.engine, self._encode, self.reason = self._choose(engine)

    @classmethod
    def from_pretrained(cls, name_or_path: str, engine: str | None = None) -> PackedTokenizer:
        """Load the tokenizer of a folder or a hub id, as ``AutoTokenizer`` does.

        Raises OSError where neither is there, ValueError where it holds no fast tokenizer that can be read.
        """
        try:
            tokenizer = load_tokenizer(name_or_path)
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

    def _length_limit(self, model_max_length: Any) -> float:
        if model_max_length is None:
            return math.inf
        try:
            model_max_length = float(model_max_length)
        except (TypeError, ValueError):
            raise ValueError(f"the tokenizer's model_max_length is {model_max_length!r}, expected a number of tokens: "
                             "mend it in tokenizer_config.json.") from None
        # A limit that leaves no room for the special tokens is none to `tokenizers` either.
        return model_max_length if model_max_length >= len(self.prefix) + len(self.suffix) else math.inf

    def __getstate__(self) -> dict[str, Any]:
        # The engine does not pickle, and `tokenizers` would forget encode_special_tokens.
        state = {name: value for name, value in self.__dict__.items() if name not in ("_encode", "engine", "reason")}
        return state | {"backend": (self.backend.to_str(), self.backend.encode_special_tokens)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.backend = _plain_copy(*state["backend"])
        self.engine, self._encode, self.reason = self._choose(self._wanted)

    def _choose(self, wanted: str | None) -> tuple[str, Encode, str]:
        reasons: list[str] = []
        for engine in ENGINES if wanted is None else (wanted,):
            reason, encode = _BUILDERS[engine](self.backend, self.prefix, self.suffix)
            if encode is not None:
                return engine, encode, " ".join(reasons)
            reasons.append(reason)
        raise ValueError(f"engine is {wanted!r}, which cannot serve this tokenizer: {reasons[0]}")

    def __call__(self, texts: Iterable[str], max_length: int | None = None) -> PackedBatch:
        """Tokenize B texts; rows longer than ``max_length`` tokens keep their special tokens and lose the end of the
        text, or its beginning where ``truncation_side`` is "left".

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
        kept_before = len(self.prefix) if self.truncation_side == "left" else max_length - len(self.suffix)
        return _truncate(input_ids, cu_seqlens, max_length, kept_before)

    def token_type_ids(self, batch: PackedBatch) -> np.ndarray | None:
        """The token types of a batch that this tokenizer made, ``[T]`` int32; None where all are 0, as with BERT's."""
        if self._types is None:
            return None
        before, inside, after = self._types
        types = np.full(len(batch.input_ids), inside, np.int32)
        types[batch.cu_seqlens[:-1, None] + np.arange(len(before))] = before
        types[batch.cu_seqlens[1:, None] - np.arange(len(after), 0, -1)] = after
        return types


class BertFolderTokenizer:
    """What ``AutoTokenizer`` asks for where a folder of ours names no class of tokenizer."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """tokenizer.json as it stands; BERT's tokenizer where there is a vocab.txt alone, which lower-cases unless
        tokenizer_config.json says otherwise."""
        from transformers import BertTokenizer, PreTrainedTokenizerFast
        from transformers.utils import has_file

        where = {name: kwargs[name] for name in ("revision", "token", "cache_dir", "local_files_only")
                 if name in kwargs}
        has_json, has_vocabulary = (has_file(name_or_path, os.path.join(kwargs.get("subfolder", ""), file), **where)
                                    for file in ("tokenizer.json", "vocab.txt"))
        tokenizer_class = BertTokenizer if has_vocabulary and not has_json else PreTrainedTokenizerFast
        return tokenizer_class.from_pretrained(name_or_path, *args, **kwargs)


def load_tokenizer(name_or_path: str | os.PathLike[str]) -> Any:
    """``AutoTokenizer.from_pretrained``, also of a vocab.txt beside a configuration that does not name its type, as
    those of the first BERT checkpoints; raises what that raises."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name_or_path)
    except ValueError:
        return BertFolderTokenizer.from_pretrained(name_or_path)


def without_surrogates(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_texts(texts: Iterable[str]) -> list[str]:
    """``texts`` as a list of plain str: of a list, tuple, generator, Series, or a one-dimensional array of numpy's,
    pandas' or Arrow's strings.

    Raises TypeError where ``texts`` is a single str or looks like texts but holds something else (a table's columns, a
    mapping's keys, a set in no order, the lines of a file with their ends), and where an element is no str, naming it.
    """
    texts = texts if isinstance(texts, list) else _as_list(texts)
    if set(map(type, texts)) <= {str}:  # 25 ns a text, a sixth of asking isinstance in a loop
        return texts
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            shown = " ".join(repr(text).split())
            raise TypeError(f"texts[{row}] is {shown:.60} of type {type(text).__name__}, every text must be a str: "
                            "convert it or leave it out.")
    return list(map(str.__str__, texts))  # str() would ask a subclass, an Enum's member say, for another name


def _as_list(texts: Any) -> list[Any]:
    shape = getattr(texts, "shape", None)
    if isinstance(texts, Mapping) or (isinstance(shape, tuple) and len(shape) > 1):
        remedy = "pass one column of it"
    elif isinstance(texts, io.IOBase):
        remedy = "pass a list of its lines without their ends, or its name to classify_file"
    elif isinstance(texts, (set, frozenset)):
        remedy = "which has no order: pass a list of str"
    elif isinstance(texts, (str, bytes, bytearray, memoryview)) or not isinstance(texts, Iterable) or shape == ():
        remedy = "pass a list of str"
    elif hasattr(texts, "casefold"):  # a UserString, a text that is translated when it is shown
        remedy = "pass str() of it"
    elif isinstance(texts, np.ndarray):
        return texts.tolist()
    else:  # Arrow's arrays iterate over scalars of their own
        return texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    raise TypeError(f"texts is a {type(texts).__name__}, {remedy}.")


def _plain_copy(backend: str, encode_special_tokens: bool) -> Tokenizer:
    copy = Tokenizer.from_str(backend)
    copy.no_padding()
    copy.no_truncation()
    copy.encode_special_tokens = encode_special_tokens
    return copy


def _special_frame(backend: Tokenizer) -> tuple[list[int], list[int], tuple[list[int], int, list[int]]]:
    """The ids the post-processor puts before and after a text, [CLS] and [SEP] for BERT; the token types of those
    before, of the text and of those after."""
    full, bare = backend.encode("a"), backend.encode("a", add_special_tokens=False)
    start = full.special_tokens_mask.index(0)
    end = start + len(bare.ids)
    return full.ids[:start], full.ids[end:], (full.type_ids[:start], full.type_ids[start], full.type_ids[end:])


def _truncate(input_ids: np.ndarray, cu_seqlens: np.ndarray, max_length: int, kept_before: int) -> PackedBatch:
    """Cut long rows to ``max_length`` tokens: their first ``kept_before`` stay, and as many of the last as then fit."""
    lengths = np.diff(cu_seqlens)
    long_rows = np.flatnonzero(lengths > max_length)
    if not len(long_rows):
        return PackedBatch(input_ids, cu_seqlens, 0)
    kept = np.minimum(lengths, max_length)
    ends = _cu_seqlens(kept)
    source = np.arange(ends[-1]) + np.repeat(cu_seqlens[:-1] - ends[:-1], kept)
    behind = np.arange(kept_before, max_length)
    source[ends[long_rows, None] + behind] = cu_seqlens[long_rows + 1, None] - max_length + behind
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
