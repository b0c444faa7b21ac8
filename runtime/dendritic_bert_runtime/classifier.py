"""Classification of texts with a model file, as ``dendritic-bert export MODEL FILE --format engine`` writes one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._engine import Model

if TYPE_CHECKING:
    import numpy as np

EMBEDDED_MODEL = Path(__file__).with_name("model.dsn")
ENGINE_TEXTS = 1 << 16  # that the engine is given at a time: Python sees an interrupt when its call has ended
NO_FUNCTION = 2  # of the codes in a model's ``scoring``: logits are scores, as in a regression


class TextClassifier:
    """Classifies texts as dendritic-bert's ``TextClassifier`` does, to the same bits.

    ``path`` is a model file; None is the model that comes with the package, which tells positive from negative
    sentences of English. ``labels`` are the names of its labels, ``text_columns`` the columns whose texts it was
    trained on, where they are known, and ``num_truncated`` counts the texts that were cut to the model's length. Calls
    may overlap. It can be pickled, and the copy opens the file again. It takes single texts, and warns where the model
    was trained on pairs.

    Raises OSError if the file cannot be read, and ValueError, with the reason, if it is no model.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = os.fspath(EMBEDDED_MODEL if path is None else path)
        self._model = Model.open(self.path)
        self.labels, self.text_columns = self._model.labels, self._model.text_columns
        self.num_truncated = 0

    def __reduce__(self) -> Any:
        return TextClassifier, (self.path,)

    def __call__(self, texts: str | Iterable[str], threads: int | None = None) -> list[dict[str, Any]]:
        """One ``{"label": str, "score": float}`` for each text, in order: its best label.

        ``threads`` is the number of threads; None is one for each processor that this process may use. Raises TypeError
        for a text that is no str, and for a mapping or a set; and ValueError for a score that is NaN or infinite, and
        for a text of more tokens than the model takes.
        """
        texts = [texts] if isinstance(texts, str) else _as_list(texts)
        self._warn_of_pairs()
        if len(texts) <= ENGINE_TEXTS:
            return self._answers(texts, 0, threads)
        answers: list[dict[str, Any]] = []
        for start in range(0, len(texts), ENGINE_TEXTS):
            answers += self._answers(texts[start:start + ENGINE_TEXTS], start, threads)
        return answers

    def predict_array(self, texts: Any, threads: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The labels ``[B]`` int32, as numbers, and the scores ``[B, C]`` float32 of B texts: a list of str or an array
        of strings of Arrow. ``threads`` and the errors are those of a call; they do not change a bit."""
        import numpy as np

        texts = texts if hasattr(texts, "__arrow_c_array__") else _as_list(texts)
        self._warn_of_pairs()
        if len(texts) <= ENGINE_TEXTS:
            return self._arrays(texts, 0, threads)
        labels, scores = np.empty(len(texts), np.int32), np.empty((len(texts), len(self.labels)), np.float32)
        for start in range(0, len(texts), ENGINE_TEXTS):
            part = slice(start, start + ENGINE_TEXTS)
            labels[part], scores[part] = self._arrays(texts[part], start, threads)
        return labels, scores

    def expect_single_texts(self) -> None:
        """Raise ValueError if the model was trained on pairs, whose answers to single texts mean little."""
        if len(self.text_columns) > 1:
            raise ValueError(f"the model was trained on {self._pairs()}, and single texts are read here: use "
                             "dendritic-bert, or pass --column with --file for single texts.")

    def expect_one_score(self) -> None:
        """Raise ValueError if a text has several numbers, of which a record would have the largest alone."""
        if len(self.labels) > 1 and self._model.scoring[0] == NO_FUNCTION:
            raise ValueError(f"the model is a regression of {len(self.labels)} targets, of which a record here has "
                             "room for one: use dendritic-bert classify, or predict_array.")

    def _pairs(self) -> str:
        first, second = self.text_columns
        return f"pairs, of the columns {first!r} and {second!r}"

    def _warn_of_pairs(self) -> None:
        if len(self.text_columns) > 1:
            warnings.warn(f"the model was trained on {self._pairs()}, but single texts are classified: use "
                          "dendritic-bert, which takes pairs.", stacklevel=3)

    def _answers(self, texts: list[Any], first: int, threads: int | None) -> list[dict[str, Any]]:
        """The answers to some texts of a call, of which the first has the number ``first``."""
        function, temperature = self._model.scoring
        try:
            found = self._model.answers(texts, _thread_count(threads), function, temperature, self.labels)
        except UnicodeEncodeError:
            return self._answers(list(map(without_surrogates, texts)), first, threads)
        except TypeError:
            _expect_texts(texts, first)
            raise
        if found is None:
            self._scores(texts, first, threads)  # which says of which text, and why
            raise ValueError("the model gives a text a score that is NaN or infinite: load another one.")
        answers, num_truncated = found
        self.num_truncated += num_truncated
        return answers

    def _arrays(self, texts: Any, first: int, threads: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The labels and the scores of some texts of a call, of which the first has the number ``first``."""
        import numpy as np

        try:
            scores, labels, num_truncated = self._scores(texts, first, threads)
        except UnicodeEncodeError:
            return self._arrays(list(map(without_surrogates, texts)), first, threads)
        except TypeError:
            if isinstance(texts, list):
                _expect_texts(texts, first)
            raise
        self.num_truncated += num_truncated
        return np.frombuffer(labels, np.int32), np.frombuffer(scores, np.float32).reshape(-1, len(self.labels))

    def _scores(self, texts: Any, first: int, threads: int | None) -> tuple[bytearray, bytearray, int]:
        """Scores and labels of texts, and how many were cut. Raises ValueError where they are none."""
        (scores, labels), num_truncated, longest_row, not_finite = self._model.scores(
            texts, _thread_count(threads), *self._model.scoring)
        if longest_row:
            raise ValueError(f"a text has {longest_row} tokens, more than the model takes "
                             f"({self._model.num_positions}): split it into several texts.")
        if not_finite >= 0:
            raise ValueError(f"the model gives texts[{first + not_finite}] a score that is NaN or infinite: load "
                             "another one.")
        return scores, labels, num_truncated


def _as_list(texts: Any) -> list[Any]:
    """The texts of a call as a list. Raises TypeError for what looks like texts but holds something else."""
    if isinstance(texts, Mapping):
        remedy = "pass one column of it"
    elif isinstance(texts, (set, frozenset)):
        remedy = "which has no order: pass a list of str"
    elif isinstance(texts, (str, bytes, bytearray, memoryview)) or not isinstance(texts, Iterable):
        remedy = "pass a list of str"
    else:
        return list(texts)
    raise TypeError(f"texts is a {type(texts).__name__}, {remedy}.")


def _expect_texts(texts: list[Any], first: int) -> None:
    """Raise TypeError for an element that is no str; that at 0 has the number ``first``."""
    for row, text in enumerate(texts, first):
        if not isinstance(text, str):
            shown = " ".join(repr(text).split())
            raise TypeError(f"texts[{row}] is {shown:.60} of type {type(text).__name__}, every text must be a str: "
                            "convert it or leave it out.")


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ValueError(f"threads is {threads}, it must be at least 1.")
    return threads


def without_surrogates(text: str) -> str:
    """Join surrogate pairs, and replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
