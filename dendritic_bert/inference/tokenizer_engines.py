"""The engines that turn texts into packed ids, the fastest first; all of them give the ids of Hugging Face's tokenizer.

Tokenization takes most of the time once the model is one kernel: Hugging Face's `tokenizers` spends about 3 us per
token, the kernel 0.05.

* ``nanotoken``: a WordPiece in Rust, 30 to 100 times as fast. It serves where it is installed (extra ``fast``) and
  agrees with Hugging Face's tokenizer, with this very vocabulary, on every string of ``tokenizer_test_strings``.
* ``word-cache``: remembers the ids that Hugging Face's tokenizer gave for each word (see ``word_cache``). It serves
  BERT's own kind of tokenizer.
* ``tokenizers``: Hugging Face's own. It serves every tokenizer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from .tokenizer_test_strings import TEST_STRINGS
from .word_cache import cumulative_lengths, is_exact_for, word_cache_encoder

ENGINES = ("nanotoken", "word-cache", "tokenizers")
# texts -> input_ids [T] int32, cu_seqlens [B + 1] int64
Encode = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]


def build_engine(
    name: str, backend: Tokenizer, prefix: list[int], suffix: list[int]
) -> tuple[str, Encode | None]:
    """The engine ``name`` for the tokenizer ``backend``: "" and its function, or why it cannot serve and None.

    ``prefix`` and ``suffix`` are the ids of the special tokens before and after each text.
    """
    return _BUILDERS[name](backend, prefix, suffix)


def _nanotoken(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> tuple[str, Encode | None]:
    if importlib.util.find_spec("nanotoken") is None:
        return "nanotoken is not installed (pip install dendritic-bert[fast]).", None
    try:
        from nanotoken import WordPieceTokenizer

        encode_batch = WordPieceTokenizer.from_json(backend.to_str()).encode_batch

        # A work unit of nanotoken is 1 MiB of text, more than a batch; the classifier's threads take whole batches.
        def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
            ids, offsets = encode_batch(texts, parallel=False)
            return ids.view(np.int32), offsets

        added = [token.content for token in backend.get_added_tokens_decoder().values()]
        texts = [*TEST_STRINGS, *(f"{token} x{token}y {token.lower()} {token.upper()}{token}" for token in added)]
        actual, expected = encode(texts), _tokenizers_encoder(backend)(texts)
    except Exception as error:  # an optional package, alpha, of any version: whatever it raises, the next engine serves
        return f"nanotoken cannot load this tokenizer ({type(error).__name__}: {error}).", None
    if not all(map(np.array_equal, actual, expected)):
        return "nanotoken differs from Hugging Face's tokenizer on the test strings.", None
    return "", encode


def _word_cache(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> tuple[str, Encode | None]:
    if not is_exact_for(backend):
        return "The word-cache is exact only for WordPiece behind BertNormalizer and BertPreTokenizer.", None
    return "", word_cache_encoder(backend, prefix, suffix)


def _tokenizers(backend: Tokenizer, prefix: list[int], suffix: list[int]) -> tuple[str, Encode | None]:
    return "", _tokenizers_encoder(backend)


def _tokenizers_encoder(backend: Tokenizer) -> Encode:
    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [encoding.ids for encoding in backend.encode_batch_fast(texts)]
        cu_seqlens = cumulative_lengths(np.fromiter(map(len, rows), np.int64, len(rows)))
        return np.fromiter(chain.from_iterable(rows), np.int32, cu_seqlens[-1]), cu_seqlens

    return encode


_BUILDERS: dict[str, Callable[[Tokenizer, list[int], list[int]], tuple[str, Encode | None]]] = {
    "nanotoken": _nanotoken, "word-cache": _word_cache, "tokenizers": _tokenizers,
}
