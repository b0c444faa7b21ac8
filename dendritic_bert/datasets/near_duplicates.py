"""Which texts come close to a dev sentence, so that they are not trained on: those with the same words, or with the
same six in a row. A punctuation mark counts as a word."""

from __future__ import annotations

import re
from collections.abc import Iterable

NGRAM = 6  # words in a row that no text may share with a dev sentence
_WORD = re.compile(r"\w+|[^\w\s]")  # "it's" is the three words of "it 's", as in the files of GLUE

Words = tuple[str, ...]


class DevSentences:
    """The dev sentences and their n-grams, in lower case."""

    def __init__(self, dev_texts: Iterable[str]):
        self.sentences = {_words(text) for text in dev_texts}
        self.ngrams = {ngram for sentence in self.sentences for ngram in _ngrams(sentence)}

    def are_close_to(self, text: str) -> bool:
        words = _words(text)
        return words in self.sentences or not self.ngrams.isdisjoint(_ngrams(words))


def _words(text: str) -> Words:
    return tuple(_WORD.findall(text.lower()))


def _ngrams(words: Words) -> list[Words]:
    return [words[start:start + NGRAM] for start in range(len(words) - NGRAM + 1)]
