"""A WordPiece vocabulary of one's own texts, in any script, or another with their words; the same at every call.

    texts -> characters (counted) -> alphabet -> words (counted) -> word pieces -> BertTokenizer
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.trainers import WordLevelTrainer, WordPieceTrainer
from transformers import BertTokenizer

MIN_FREQUENCY = 2  # occurrences of a word piece in the texts
NUM_SPECIAL = 5  # [PAD], [UNK], [CLS], [SEP] and [MASK]
MOST_CHARACTERS = 1 << 27  # of longer texts every n-th is learnt from: a million different words take 0.7 GB
ALPHABET_SHARE = 4  # the characters of the texts get at most a quarter of the vocabulary
BATCH_TEXTS = 4096
MOST_ADDED = 16_000  # words, as many as the encoder of the package has pieces


def train_vocabulary(texts: Iterable[str], vocab_size: int, cased: bool = False) -> BertTokenizer:
    """BERT's tokenizer with a WordPiece vocabulary of ``texts``, learnt by the trainer of ``tokenizers``.

    ``cased`` keeps capitals and accents; else both are taken off, as in BERT's uncased models. Chinese characters are
    words of their own. Every printable character of ASCII is in the vocabulary, and the most frequent other characters
    of the texts, which with their "##" forms take at most a quarter of it. No texts are kept in memory, but words and
    their counts are; of more than ``MOST_CHARACTERS`` of text every second, third, ... text is learnt from.

    Args:
        texts: read twice; an iterator, which can be read but once, is made a list.
        vocab_size: largest number of word pieces. There are fewer if no more occur twice.

    Raises ValueError if ``vocab_size`` cannot hold the special tokens and ASCII.
    """
    if iter(texts) is texts:
        texts = list(texts)
    tokenizer = BertTokenizer(do_lower_case=not cased)
    backend = tokenizer.backend_tokenizer
    counts = _count_characters(texts)
    alphabet, continuing, rare = _choose_alphabet(counts, backend.normalizer, vocab_size, cased)
    # The trainer numbers "##x" in the order of a hash table and breaks ties by these numbers. As special tokens they
    # are numbered here, which makes the vocabulary the same at every call.
    first = [*tokenizer.get_vocab(), *alphabet, *(f"##{character}" for character in continuing)]
    if vocab_size < len(first):
        raise ValueError(f"vocab_size is {vocab_size}, the characters of the texts alone take {len(first)}: raise it.")
    some = islice(texts, 0, None, -(-sum(counts.values()) // MOST_CHARACTERS) or 1)
    backend.train_from_iterator(_batches_without(some, rare), WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=MIN_FREQUENCY, special_tokens=first, show_progress=False))
    return BertTokenizer(vocab=backend.get_vocab(), do_lower_case=not cased)


def add_words(tokenizer: Any, texts: Iterable[str], least: int) -> None:
    """Put the words of ``texts`` that a WordPiece ``tokenizer`` splits or does not know behind its others, in place.

    They are those that occur ``least`` times or more, the ``MOST_ADDED`` most frequent first, ties in alphabetical
    order. Words that begin with an added one may be split in another way than before. A tokenizer of another kind stays
    as it is.
    """
    backend = tokenizer.backend_tokenizer
    if not isinstance(pieces := backend.model, WordPiece):
        return
    words = Tokenizer(WordLevel())
    words.normalizer, words.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    words.train_from_iterator(_batches(texts), WordLevelTrainer(
        vocab_size=2**31, min_frequency=least, show_progress=False))
    counted, known = words.get_vocab(), tokenizer.get_vocab()
    new = [word for word in sorted(counted, key=counted.__getitem__)
           if word not in known and len(word) <= pieces.max_input_chars_per_word][:MOST_ADDED]
    first = 1 + max(known.values())
    backend.model = with_vocabulary(pieces, known | {word: first + place for place, word in enumerate(new)})


def with_vocabulary(pieces: WordPiece, vocabulary: dict[str, int]) -> WordPiece:
    """A model as ``pieces`` is, of another vocabulary."""
    return WordPiece(vocabulary, unk_token=pieces.unk_token,
                     continuing_subword_prefix=pieces.continuing_subword_prefix,
                     max_input_chars_per_word=pieces.max_input_chars_per_word)


def _count_characters(texts: Iterable[str]) -> dict[str, int]:
    """The characters of all texts with their numbers of occurrences, the most frequent first, ties by code point."""
    counts = np.zeros(0x110000, np.int64)
    for batch in _batches(texts):
        found = np.bincount(np.frombuffer("".join(batch).encode("utf-32-le", "replace"), np.uint32))
        counts[:len(found)] += found
    codes = np.flatnonzero(counts)
    order = codes[np.argsort(-counts[codes], kind="stable")]
    return {chr(code): int(counts[code]) for code in order}


def _choose_alphabet(counts: dict[str, int], normalizer: Any, vocab_size: int,
                     cased: bool) -> tuple[list[str], list[str], dict[int, str]]:
    """The characters of the vocabulary in order, those of them that may stand within a word, and a table for
    ``str.translate`` that takes the other characters out of a text."""
    alphabet = set(string.printable) - set(string.whitespace)
    if not cased:
        alphabet -= set(string.ascii_uppercase)
    within = set(alphabet)
    room = min(vocab_size // ALPHABET_SHARE, vocab_size - NUM_SPECIAL - 2 * len(alphabet))
    rare: dict[int, str] = {}
    for character in counts:
        normal = normalizer.normalize_str(character)
        new = set(normal) - set(string.whitespace) - alphabet
        stands_alone = normal.startswith(" ")  # as a Chinese character does, around which the normalizer puts spaces
        cost = len(new) if stands_alone else 2 * len(new)
        if cost > room:
            rare[ord(character)] = " "
            continue
        room -= cost
        alphabet |= new
        within |= set() if stands_alone else new
    return sorted(alphabet), sorted(within), rare


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, BATCH_TEXTS)):
        yield batch


def _batches_without(texts: Iterable[str], rare: dict[int, str]) -> Iterator[list[str]]:
    for batch in _batches(texts):
        yield [text.translate(rare) for text in batch] if rare else batch
