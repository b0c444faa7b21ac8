"""How many words of the texts a vocabulary holds."""

from __future__ import annotations

from typing import Any

import numpy as np


class WordCounter:
    """Counts the words of token ids, and those among them that are [UNK]."""

    def __init__(self, tokenizer: Any) -> None:
        vocabulary = tokenizer.get_vocab()
        self.vocab_size = max(len(tokenizer), 1 + max(vocabulary.values()))
        self.counts = np.zeros(self.vocab_size, np.int64)
        self.unknown = tokenizer.unk_token_id
        special = set(tokenizer.all_special_ids) - {self.unknown}
        self.begins_word = np.ones(self.vocab_size, np.bool_)
        self.begins_word[[number for token, number in vocabulary.items()
                          if token.startswith("##") or number in special]] = False

    def add(self, ids: np.ndarray) -> None:
        self.counts += np.bincount(ids, minlength=self.vocab_size)

    @property
    def num_words(self) -> int:
        return int(self.counts[self.begins_word].sum())

    @property
    def num_unknown(self) -> int:
        return 0 if self.unknown is None else int(self.counts[self.unknown])
