"""New texts for a teacher to label, put together from parts of the training texts.

The training rows of SST-2 are the constituents of parsed sentences, so the constituents of a sentence can be read off
the rows: they are the parts that are rows themselves. A third of the texts each are: a sentence in which one to three
constituents are replaced by others of about the same length; a span of a sentence; two phrases, one after the other. In
distillation such texts do what unlabelled texts do (Tang et al. 2019, Jiao et al. 2020).

A text that comes close to a dev sentence is left out (``near_duplicates``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from .near_duplicates import DevSentences

JOINTS = ((), (",",), ("and",), ("but",), (".",))  # words between two phrases
LENGTH_SLACK = 1  # words by which a replacement may be longer or shorter
MAX_REPLACED = 3  # constituents of one sentence

Words = tuple[str, ...]


def augment(texts: list[str], dev_texts: Iterable[str], number: int, seed: int = 0) -> list[str]:
    """``number`` distinct texts made of ``texts``, none of which is among them; the same for the same arguments.

    There are fewer if the texts have too few parts. A word is what stands between spaces.
    """
    rng = np.random.default_rng(seed)
    phrases = [tuple(text.split()) for text in texts]
    known = set(phrases)
    sentences = _sentences(known)
    parts = {sentence: _constituents(sentence, known) for sentence in sentences}
    distinct = list(dict.fromkeys(phrases))
    by_length: dict[int, list[Words]] = defaultdict(list)
    for phrase in distinct:
        by_length[len(phrase)].append(phrase)
    dev = DevSentences(dev_texts)
    makers = (lambda: _replace(_pick(sentences, rng), parts, by_length, rng), lambda: _span(_pick(sentences, rng), rng),
              lambda: _pick(distinct, rng) + JOINTS[rng.integers(len(JOINTS))] + _pick(distinct, rng))
    found: dict[Words, None] = {}
    for trial in range(4 * number):
        if len(found) == number:
            break
        made = makers[trial % len(makers)]()
        if made and made not in known and not dev.are_close_to(" ".join(made)):
            found[made] = None
    return [" ".join(words) for words in found]


def _sentences(known: set[Words]) -> list[Words]:
    """The phrases that are not part of another, longest first."""
    inner: set[Words] = set()
    sentences = []
    for phrase in sorted(known, key=lambda words: (-len(words), words)):
        if phrase and phrase not in inner:
            sentences.append(phrase)
            inner.update(phrase[start:end] for start, end in _constituents(phrase, known))
    return sentences


def _constituents(phrase: Words, known: set[Words]) -> list[tuple[int, int]]:
    """(start, end) of every smaller known phrase in this one."""
    size = len(phrase)
    return [(start, end) for start in range(size) for end in range(start + 1, size + 1)
            if end - start < size and phrase[start:end] in known]


def _pick(phrases: list[Words], rng: np.random.Generator) -> Words:
    return phrases[rng.integers(len(phrases))]


def _replace(sentence: Words, parts: dict[Words, list[tuple[int, int]]], by_length: dict[int, list[Words]],
             rng: np.random.Generator) -> Words:
    """The sentence with one to three constituents replaced, none of them inside another; () if it has none."""
    constituents = parts[sentence]
    if not constituents:
        return ()
    chosen: list[tuple[int, int]] = []
    for _ in range(rng.integers(1, MAX_REPLACED + 1)):
        start, end = constituents[rng.integers(len(constituents))]
        if all(end <= other_start or start >= other_end for other_start, other_end in chosen):
            chosen.append((start, end))
    words = sentence
    for start, end in sorted(chosen, reverse=True):
        length = end - start + int(rng.integers(-LENGTH_SLACK, LENGTH_SLACK + 1))
        candidates = by_length.get(length) or by_length[end - start]
        words = words[:start] + _pick(candidates, rng) + words[end:]
    return words


def _span(sentence: Words, rng: np.random.Generator) -> Words:
    """At least half of the words of a sentence, in a row."""
    size = len(sentence)
    length = rng.integers(size // 2, size + 1)
    start = rng.integers(0, size - length + 1)
    return sentence[start:start + length]
