"""More text of the kind that a task trains on, for a teacher to label: parts of sentences put together anew.

SST-2's training rows are the constituents of parsed sentences, so which parts of a sentence are constituents can be
read off the rows: those that are rows themselves. Three sources, a third of the texts each: a sentence with one to
three of its constituents replaced by others of about their length; a span of a sentence; two phrases in a row. (For
distillation from a teacher such text does what unlabelled text does: Tang et al. 2019, Jiao et al. 2020.)

A text that comes near a dev sentence is left out: the same words, or the same six words in a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

RUN = 6  # words in a row that no text may share with a dev sentence
JOINTS = ((), (",",), ("and",), ("but",), (".",))
LENGTH_SLACK = 1  # words by which a replacement may differ in length

Words = tuple[str, ...]


def augment(texts: list[str], dev_texts: Iterable[str], number: int, seed: int = 0) -> list[str]:
    """``number`` texts made of ``texts``, each a new one; the same for the same arguments.

    Fewer where the rows have too few parts to put together. Words are what stands between spaces.
    """
    rng = np.random.default_rng(seed)
    phrases = [tuple(text.split()) for text in texts]
    known = set(phrases)
    sentences = _sentences(known)
    parts = {sentence: _constituents(sentence, known) for sentence in sentences}
    by_length: dict[int, list[Words]] = defaultdict(list)
    for phrase in dict.fromkeys(phrases):
        by_length[len(phrase)].append(phrase)
    distinct = list(dict.fromkeys(phrases))
    near = _Neighbours(dev_texts)
    makers = (lambda: _replace(_pick(sentences, rng), parts, by_length, rng), lambda: _span(_pick(sentences, rng), rng),
              lambda: _pick(distinct, rng) + JOINTS[rng.integers(len(JOINTS))] + _pick(distinct, rng))
    found: dict[Words, None] = {}
    for trial in range(4 * number):
        if len(found) == number:
            break
        made = makers[trial % len(makers)]()
        if made and made not in known and not near.has(made):
            found[made] = None
    return [" ".join(words) for words in found]


class _Neighbours:
    """Dev sentences, by all that a text must not share with them."""

    def __init__(self, dev_texts: Iterable[str]):
        sentences = [tuple(text.lower().split()) for text in dev_texts]
        self.whole = set(sentences)
        self.runs = {run for sentence in sentences for run in _runs(sentence)}

    def has(self, words: Words) -> bool:
        lower = tuple(word.lower() for word in words)
        return lower in self.whole or not self.runs.isdisjoint(_runs(lower))


def _runs(words: Words) -> list[Words]:
    return [words[start:start + RUN] for start in range(len(words) - RUN + 1)]


def _sentences(known: set[Words]) -> list[Words]:
    """The phrases that are no part of another, longest first."""
    inner: set[Words] = set()
    sentences = []
    for phrase in sorted(known, key=lambda words: (-len(words), words)):
        if phrase and phrase not in inner:
            sentences.append(phrase)
            inner.update(phrase[start:end] for start, end in _constituents(phrase, known))
    return sentences


def _constituents(phrase: Words, known: set[Words]) -> list[tuple[int, int]]:
    """Where a smaller known phrase stands in this one: (start, end)."""
    size = len(phrase)
    return [(start, end) for start in range(size) for end in range(start + 1, size + 1)
            if end - start < size and phrase[start:end] in known]


def _pick(phrases: list[Words], rng: np.random.Generator) -> Words:
    return phrases[rng.integers(len(phrases))]


def _replace(sentence: Words, parts: dict[Words, list[tuple[int, int]]], by_length: dict[int, list[Words]],
             rng: np.random.Generator) -> Words:
    """The sentence with one to three constituents, none inside another, replaced; () where it has none."""
    places = parts[sentence]
    if not places:
        return ()
    chosen: list[tuple[int, int]] = []
    for _ in range(rng.integers(1, 4)):
        start, end = places[rng.integers(len(places))]
        if all(end <= other_start or start >= other_end for other_start, other_end in chosen):
            chosen.append((start, end))
    words = sentence
    for start, end in sorted(chosen, reverse=True):
        length = end - start + int(rng.integers(-LENGTH_SLACK, LENGTH_SLACK + 1))
        candidates = by_length.get(length) or by_length[end - start]
        words = words[:start] + _pick(candidates, rng) + words[end:]
    return words


def _span(sentence: Words, rng: np.random.Generator) -> Words:
    """Words in a row of a sentence, half of them at least."""
    size = len(sentence)
    length = rng.integers(size // 2, size + 1)
    start = rng.integers(0, size - length + 1)
    return sentence[start:start + length]
