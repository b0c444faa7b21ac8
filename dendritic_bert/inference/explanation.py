"""Which words a logit comes from: each word's share in it, and what the logit loses without the word.

The pooled row of a Dendritic Semantic Network (DSN) is a mean over tokens, pooled = sum_t x_t / n, and an empty row's
is 0. For a head without dendrites a logit is therefore a sum over tokens:

    logits = b + sum_t A x_t / n        b: the logits of the empty row, A x_t / n: the share of token t

With dendrites, or a hidden layer, A becomes the mean gradient G of the head on the way from the empty row to this one
(``integrated_gradients``): the share of token t is G x_t / n, and the shares still add up to the logits minus those of
the empty row.

Windows and a gate let tokens act on each other, so that the pooled row is no sum over tokens. There the share of a word
is its integrated gradient on the way from a row of zeros, of as many tokens whose embeddings, and biases of the gate,
are 0. Without windows that row has the logits of the empty row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .columns import warn_of_other_kind
from .explained_model import ExplainedModel
from .integrated_gradients import head_logits, mean_gradient, path_shares
from .scores import NonFiniteScores
from .texts import without_surrogates
from .tokenizer_engines import A_TEXT, PackedBatch, Spans, cumulative_lengths, share_room

if TYPE_CHECKING:
    from .classifier import TextClassifier

# How many tokens are computed at a time, which bounds the memory: in rows between the baseline and a text's, 50 MB at 5
# layers of 32 dendrites, and in the rows of a text without each of its words.
PATH_TOKENS, LEFT_OUT_TOKENS = 2**12, 2**18


@dataclass(frozen=True)
class Span:
    """A word of a text: characters ``start`` to ``end`` - 1 of the text, or of the second text if ``sequence`` is 1."""

    text: str
    start: int
    end: int
    sequence: int


@dataclass(frozen=True)
class Word(Span):
    """A word, and what each label owes to it.

    tokens: the word pieces that the model has read; the share of an [UNK] is that of every word it does not know.
    shares: ``[C]`` float64, the word's share in each logit.
    left_out: ``[C]`` float64, by how much each logit is lower without the word's tokens. This is another number than
    the share: without the word the mean has fewer tokens, and those behind it move up by its positions.
    """

    tokens: tuple[str, ...]
    shares: np.ndarray
    left_out: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """The logits of one text as sums over its words: ``logits`` is ``base_logits`` plus the shares of all words plus
    ``other``.

    text, text_pair: what the offsets of the words count characters of. A lone surrogate has become U+FFFD.
    label: the label of the highest score, which need not be among ``labels``.
    labels: the C labels that are explained.
    scores: ``[C]`` float64, what the classifier makes of the logits.
    logits: ``[C]`` float64, from the parameters in float64, before any temperature. The classifier's own differ by
    rounding, above all where its tables have 16 or 8 bits.
    base_logits: ``[C]`` float64, the logits of the ``baseline``.
    baseline: "empty row", which has not even special tokens; or for a model with windows "row of zeros", which has as
        many tokens as the text, each with an embedding, and a bias of the gate, of zeros.
    words: the words that the model has read, in order.
    other: ``[C]`` float64, the share of the special tokens, for BERT [CLS] and [SEP].
    not_read: the words that were cut off because the text has too many tokens.
    """

    text: str
    text_pair: str | None
    label: str
    labels: tuple[str, ...]
    scores: np.ndarray
    logits: np.ndarray
    base_logits: np.ndarray
    baseline: str
    words: tuple[Word, ...]
    other: np.ndarray
    not_read: tuple[Span, ...]

    def runs(self, sequence: int = 0) -> Iterator[tuple[str, Span | None]]:
        """The text, or the second text, in pieces: each word, read or not, and what stands between words, with None."""
        text = self.text if sequence == 0 else self.text_pair or ""
        words: list[Span] = [word for word in (*self.words, *self.not_read) if word.sequence == sequence]
        position = 0
        for word in sorted(words, key=lambda word: word.start):
            yield text[position:word.start], None
            yield word.text, word
            position = word.end
        yield text[position:], None

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from .explanation_html import sections

        return sections([self])

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts, lists and numbers, which JSON can hold; what has a number for each label maps its name."""
        def by_label(values: np.ndarray) -> dict[str, float]:
            return dict(zip(self.labels, values.tolist()))

        def span(word: Span) -> dict[str, Any]:
            return {"text": word.text, "start": word.start, "end": word.end, "sequence": word.sequence}

        return {
            "text": self.text, "text_pair": self.text_pair, "label": self.label, "scores": by_label(self.scores),
            "logits": by_label(self.logits), "base_logits": by_label(self.base_logits), "baseline": self.baseline,
            "words": [span(word) | {"tokens": list(word.tokens), "shares": by_label(word.shares),
                                    "left_out": by_label(word.left_out)} for word in self.words],
            "other": by_label(self.other), "not_read": [span(word) for word in self.not_read],
        }


def explain(classifier: TextClassifier, text: str, text_pair: str | None = None,
            labels: Sequence[str] | None = None) -> Explanation:
    """See ``TextClassifier.explain``."""
    warn_of_other_kind(classifier.config.training_columns, text_pair is not None, "explained",
                       "pass a text and its second one, text_pair (--text-pair)" if text_pair is None
                       else "leave out text_pair (--text-pair)")
    model = ExplainedModel(classifier._source)
    chosen = _label_numbers(classifier.labels, labels)
    row = _read(classifier, text, text_pair)
    left_out = _left_out(classifier, row)[:, chosen]  # [number of words, C]
    shares, logits, base_logits = _shares(model, row, chosen)
    words = []
    for number, span in enumerate(row.words):
        tokens = np.flatnonzero(row.word == number)
        words.append(Word(**vars(span), tokens=tuple(row.tokens[token] for token in tokens),
                          shares=shares[number], left_out=left_out[number]))
    scores = classifier.answers().scores(logits[None])[0]
    return Explanation(
        text=row.texts[0], text_pair=row.texts[1] if len(row.texts) > 1 else None,
        label=classifier.labels[int(scores.argmax())], labels=tuple(classifier.labels[label] for label in chosen),
        scores=scores[chosen], logits=logits[chosen], base_logits=base_logits[chosen],
        baseline="row of zeros" if classifier.config.window_layers else "empty row", words=tuple(words),
        other=shares[-1], not_read=tuple(row.not_read))


class _Row(NamedTuple):
    """One text or pair as the model reads it.

    tokens: ``[T]`` names of the word pieces. word: ``[T]``, the index in ``words`` of the word to which a token
    belongs, -1 for special tokens.
    """

    texts: list[str]
    batch: PackedBatch
    tokens: list[str]
    word: np.ndarray
    words: list[Span]
    not_read: list[Span]


def _label_numbers(names: list[str], labels: Sequence[str] | None) -> list[int]:
    if labels is None:
        return list(range(len(names)))
    wrong = labels if isinstance(labels, str) else next((label for label in labels if label not in names), None)
    if wrong is not None or not labels:
        raise ValueError(f"labels is {labels!r:.80}, pass a list of labels of the model: {', '.join(names[:20])}"
                         f"{', ...' if len(names) > 20 else ''}.")
    return [names.index(label) for label in labels]


def _read(classifier: TextClassifier, text: str, text_pair: str | None) -> _Row:
    """The row of a text or a pair, as the classifier makes it, and the words to which its tokens belong."""
    texts = [text] if text_pair is None else [text, text_pair]
    for name, value in zip(("text", "text_pair"), texts):
        if not isinstance(value, str):
            raise TypeError(f"{name} is a {type(value).__name__}, pass one str; explain takes one text at a time.")
    texts = [without_surrogates(value) for value in texts]
    tokenizer = classifier.tokenizer
    batch = (tokenizer(texts, classifier.max_length) if text_pair is None else
             tokenizer.pairs(texts[:1], texts[1:], classifier.max_length))
    template = tokenizer.single if text_pair is None or tokenizer.pair is None else tokenizer.pair
    spans = [tokenizer.spans(value) for value in texts]
    whole = np.array([[len(of_text.ids)] for of_text in spans])
    counts = share_room(whole, len(batch.input_ids) - template.num_special)[:, 0].tolist()
    words: list[Span] = []
    not_read: list[Span] = []
    parts = []
    for sequence, (of_text, count) in enumerate(zip(spans, counts)):
        every, word_of_token = _words(texts[sequence], of_text, sequence)
        cut = len(of_text.ids) - count
        kept = word_of_token[cut:] if tokenizer.truncation_side == "left" else word_of_token[:count]
        first, last = (kept[0], kept[-1] + 1) if count else (0, 0)
        parts.append(kept - first + len(words))
        words += every[first:last]
        not_read += every[:first] + every[last:]
    of_texts = iter(parts)
    word = np.concatenate([next(of_texts) if part == A_TEXT else [-1] for part in template.ids])
    tokens = [str(tokenizer.backend.id_to_token(number)) for number in batch.input_ids.tolist()]
    return _Row(texts, batch, tokens, word.astype(np.int64), words, not_read)


def _words(text: str, spans: Spans, sequence: int) -> tuple[list[Span], np.ndarray]:
    """The words of a text, and the index of the word to which each of its tokens belongs."""
    _, first, word_of_token = np.unique(spans.words, return_index=True, return_inverse=True)
    last = np.append(first, len(spans.ids))[1:] - 1
    places = zip(spans.starts[first].tolist(), spans.ends[last].tolist())
    return [Span(text[start:end], start, end, sequence) for start, end in places], word_of_token


def _shares(model: ExplainedModel, row: _Row, labels: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shares of each word, and last of the special tokens, in the logits of ``labels``, ``[number of words + 1,
    number of labels]``; and all logits of the row and of the baseline, ``[C]`` each."""
    parts, part_of_token = len(row.words) + 1, torch.from_numpy(row.word) % (len(row.words) + 1)
    with torch.inference_mode(False):
        x, gates = model.embeddings(row.batch), model.gates(row.batch)
        if model.pools_a_sum:
            if model.config.pooling != "sum_all":
                x = x / max(1, len(x))
            pooled = x.sum(dim=0)
            logits = head_logits(model.head, torch.stack([pooled, torch.zeros_like(pooled)]))
            of_tokens = (x @ mean_gradient(model.head, x).T)[:, labels]
            shares = torch.zeros(parts, len(labels), dtype=torch.float64).index_add(0, part_of_token, of_tokens)
        else:
            def scaled_logits(factors: Tensor) -> Tensor:
                return model.scaled_logits(x, gates, factors[:, part_of_token])[:, labels]

            ends = torch.tensor([[1.0], [0.0]], dtype=torch.float64).repeat(1, len(x))
            logits = model.scaled_logits(x, gates, ends)
            shares = path_shares(scaled_logits, parts, max(1, PATH_TOKENS // max(1, len(x))))
    return shares.numpy(), logits[0].numpy(), logits[1].numpy()


@torch.no_grad()
def _left_out(classifier: TextClassifier, row: _Row) -> np.ndarray:
    """By how much the logits are lower without each word, ``[number of words, C]``.

    The tokens behind a word move up, as they would if the text had been written without it. Raises ValueError for
    logits that are NaN or infinite.
    """
    is_there = row.word != np.arange(-1, len(row.words))[:, None]  # row 0 is the whole text
    is_there[0] = True
    rows_at_a_time = max(1, LEFT_OUT_TOKENS // max(1, len(row.word)))
    parts = []
    for first in range(0, len(is_there), rows_at_a_time):
        some = is_there[first:first + rows_at_a_time]
        ids, types = (None if values is None else np.broadcast_to(values, some.shape)[some]
                      for values in (row.batch.input_ids, row.batch.token_type_ids))
        assert ids is not None
        batch = PackedBatch(ids, cumulative_lengths(some.sum(axis=1)), types, 0)
        parts.append(classifier._logits(batch).double().cpu().numpy())
    logits = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise NonFiniteScores(0, "the text", classifier._why_not_finite())
    return logits[0] - logits[1:]
