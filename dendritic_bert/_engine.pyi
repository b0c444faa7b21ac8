"""The C++ extension of the engine: BERT's tokenizer, and models from text to logits. It knows no torch and no numpy.

Memory of numpy's is passed as its address.
"""

import os
from typing import Any

def checksum(address: int, size: int) -> int:
    """XXH64 of memory, with seed 0."""

def apply_scores(function: int, temperature: float, logits: int, scores: int, rows: int, columns: int) -> None:
    """Scores of float32 logits, from one address to another, which may be the same. ``function`` is a place in
    ``SCORE_FUNCTIONS``."""

class Model:
    """Texts to logits; threads may share it.

    address, size: where a file of a model (docs/engine.md) lies, at a multiple of 64. owner: what keeps it there.
    tokenizer: one that it shares, in the place of the file's own, which then need not be there. Raises ValueError, and
    says why, for what is no such file.
    """

    labels: list[str]
    text_columns: list[str]
    num_positions: int
    has_pairs: bool
    scoring: tuple[int, float]
    def __new__(cls, address: int, size: int, owner: object, tokenizer: Tokenizer | None = None) -> Model: ...
    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Model:
        """Map a file into memory. Raises OSError, and ValueError for what is no file of a model."""
    def logits(self, texts: Any, threads: int, second_texts: Any = None) -> tuple[bytearray, int, int, int]:
        """The logits of a list of str, or of what exports Arrow's C data interface for strings or bytes, float32
        ``[B, C]``; how many texts were cut; the length of the longest row if the tables are too short for it, so that
        no logit counts, and else 0; the first text with a logit that is not finite, or -1.

        ``second_texts`` are those of pairs, which the model must have. Raises TypeError for what is no str,
        UnicodeEncodeError for a lone surrogate, and ValueError for an array with nulls or of another type, for a text
        of more than 1 GiB, and if there are not as many second texts.
        """
    def scores(
        self, texts: Any, threads: int, function: int, temperature: float, second_texts: Any = None
    ) -> tuple[tuple[bytearray, bytearray], int, int, int]:
        """The scores ``[B, C]`` float32 in the place of the logits, and the label ``[B]`` int32 with the highest."""
    def answers(
        self, texts: list[str], threads: int, function: int, temperature: float, labels: list[str]
    ) -> tuple[list[dict[str, Any]], int] | None:
        """``{"label": str, "score": float}`` of each text, the label with the highest score, and how many texts were
        cut. None if a row is too long or a logit not finite."""


class Tokenizer:
    """BertNormalizer, BertPreTokenizer and WordPiece; threads may share it.

    vocabulary: every token and its id. most_characters: a word of more of them is unknown. added_tokens: content, id,
    whether it is only found, so that it hides what overlaps it, and then read as text, and whether its span takes in
    the white space before it and behind it. prefix, suffix: the ids of the special tokens before and behind each text.
    pair: id and token type of all that the row of a pair is made of, with -1 as the id of either text; () for no pairs.
    log2_cache_lines: 2 to this power is the number of cache lines, of two words each, that every thread remembers.
    """

    largest_id: int
    def __new__(
        cls, vocabulary: dict[str, int], unknown_id: int, continuing_prefix: str, most_characters: int,
        clean_text: bool, handle_chinese_chars: bool, strip_accents: bool, lowercase: bool,
        added_tokens: tuple[tuple[str, int, bool, bool, bool], ...], prefix: tuple[int, ...], suffix: tuple[int, ...],
        pair: tuple[tuple[int, int], ...] = ..., log2_cache_lines: int = ...,
    ) -> Tokenizer: ...
    def encode(self, texts: list[str], max_length: int, keeps_end: bool) -> tuple[bytearray, bytearray, int]:
        """The rows of the texts, int32 ids one row behind another; int64 ``cu_seqlens``; how many rows were cut.

        A row longer than ``max_length`` keeps its special tokens, and the end of its text or the beginning. Raises
        UnicodeEncodeError for a lone surrogate, TypeError for what is no str, ValueError for a text of more than 1 GiB,
        or if ``max_length`` leaves no room for the special tokens.
        """
    def encode_pairs(
        self, texts: list[str], second_texts: list[str], max_length: int, keeps_end: bool
    ) -> tuple[bytearray, bytearray, bytearray, int]:
        """As ``encode``, of pairs of texts; int32 token types come third, none if all of them are 0.

        Of a row that is too long the longer text is cut until both are of one length, and then both are.
        """
    def spans(self, text: str) -> bytearray:
        """Id, word, first character and the one behind the last of every token of a text, int32 ``[T, 4]``, without
        special tokens around it."""
