"""SQuAD: passages are cut into overlapping windows, and answers are spans of their tokens.

    read_questions -> Question -> encode_windows -> Windows -> a model -> best_spans -> exact match and F1

The windows are those of BERT's own SQuAD code: [CLS] question [SEP] part of the passage [SEP], where each part overlaps
the one before by ``stride`` tokens (Devlin et al. 2018; transformers' ``run_qa.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.modeling import DendriticBertForQuestionAnswering
from .benchmark import Benchmark
from .hub import load_dataset
from .rows import EncodedRows

HUB_DATASET = "rajpurkar/squad"
# XQuAD has no training questions; its English file serves as a dev set.
FILES = {"train": ("train-v1.1.json",), "dev": ("dev-v1.1.json", "xquad.en.json")}
WINDOW, STRIDE = 384, 128  # tokens
NUM_CANDIDATES = 20  # best starts and best ends of a window that are paired, as in run_qa.py
MAX_ANSWER_TOKENS = 30


class Question(NamedTuple):
    """A question on a passage; ``answers[i]`` stands at character ``starts[i]`` of ``context``."""

    id: str
    title: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


class Windows(NamedTuple):
    """Questions as a model reads them: n windows of T tokens in all.

    rows: one row per window; ``labels`` ``[n, 2]`` are the first and the last token of the first answer, or 0 and 0
        ([CLS]) if the window does not hold it.
    questions: ``[n]``, index of the question of each window.
    offsets: ``[T, 2]``, first and last character (exclusive) of the passage that a token covers; -1 outside the
        passage, where no answer can be.
    """

    rows: EncodedRows
    questions: np.ndarray
    offsets: np.ndarray


class Span(NamedTuple):
    """A candidate for an answer, scored by the sum of its two logits."""

    text: str
    score: float


def read_questions(split: str, data_dir: str | None = None) -> list[Question]:
    """The questions of "train" or "dev".

    Args:
        data_dir: a folder with SQuAD 1.1's files, or a file of that form; None asks the hub.

    Raises:
        FileNotFoundError: ``data_dir`` does not hold the split.
        ValueError: the file is not in the form of SQuAD 1.1, or an answer does not stand where the file says; the
            message names the question.
        OSError: the hub cannot be reached.
        ImportError: ``data_dir`` is None and ``datasets`` is not installed.
    """
    if data_dir is None:
        return _read_hub(split)
    path = Path(data_dir)
    if path.is_dir():
        path = next((path / name for name in FILES[split] if (path / name).is_file()), path)
    if not path.is_file():
        raise FileNotFoundError(f"data_dir {data_dir} holds no {' or '.join(FILES[split])}: pass the folder of SQuAD "
                                "1.1, or no data_dir to fetch it from the hub"
                                f"{', or hold_out to train on dev questions' if split == 'train' else ''}.")
    try:
        articles = json.loads(path.read_bytes())["data"]
        questions = [
            Question(entry["id"], article.get("title", str(number)), entry["question"].strip(), paragraph["context"],
                     tuple(answer["text"] for answer in entry["answers"]),
                     tuple(answer["answer_start"] for answer in entry["answers"]))
            for number, article in enumerate(articles) for paragraph in article["paragraphs"]
            for entry in paragraph["qas"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not in the form of SQuAD 1.1 ({type(error).__name__}: {error}): fetch it "
                         "again.") from error
    return _check_answers(questions, str(path))


def _read_hub(split: str) -> list[Question]:
    table = load_dataset(HUB_DATASET, split={"dev": "validation"}.get(split, split), what=HUB_DATASET,
                         check="the network", instead="data_dir, the folder of SQuAD 1.1")
    return _check_answers([Question(row["id"], row["title"], row["question"].strip(), row["context"],
                              tuple(row["answers"]["text"]), tuple(row["answers"]["answer_start"])) for row in table],
                    HUB_DATASET)


def _check_answers(questions: list[Question], source: str) -> list[Question]:
    if not questions:
        raise ValueError(f"{source} holds no question: fetch it again.")
    for question in questions:
        if not question.answers:
            raise ValueError(f"{source}: question {question.id} has no answer, as in SQuAD 2.0: pass SQuAD 1.1.")
        for text, start in zip(question.answers, question.starts):
            if not text or question.context[start:start + len(text)] != text:
                raise ValueError(f"{source}: question {question.id} has the answer {text!r:.40}, which does not stand "
                                 f"at {start} of its passage: fetch the file again.")
    return questions


# ---- windows ---------------------------------------------------------------------------------------------------------


def encode_windows(
    questions: list[Question], tokenizer: Any, max_length: int = WINDOW, stride: int = STRIDE
) -> Windows:
    """Tokenize with a fast tokenizer of transformers.

    Raises ValueError, which names the question, if ``max_length`` leaves no room for a question beside ``stride``
    tokens of its passage.
    """
    texts = [question.question for question in questions]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids]
    longest = int(np.argmax(lengths))
    needed = lengths[longest] + tokenizer.num_special_tokens_to_add(pair=True) + stride + 1
    if max_length < needed:
        raise ValueError(f"max_length is {max_length}, but question {questions[longest].id} takes {needed} with a "
                         f"stride of {stride}: raise it.")
    encoded = tokenizer(texts, [question.context for question in questions], truncation="only_second",
                        max_length=max_length, stride=stride, return_overflowing_tokens=True,
                        return_offsets_mapping=True, return_token_type_ids=True)
    owners = np.array(encoded["overflow_to_sample_mapping"])
    offsets, labels = [], []
    for window, owner in enumerate(owners):
        covered = np.array(encoded["offset_mapping"][window])
        covered[[part != 1 for part in encoded.sequence_ids(window)]] = -1
        offsets.append(covered)
        labels.append(_answer_tokens(covered, questions[owner]))
    ids = encoded["input_ids"]
    return Windows(
        EncodedRows(np.fromiter(chain.from_iterable(ids), np.int32), np.cumsum([0, *map(len, ids)]),
                    np.fromiter(chain.from_iterable(encoded["token_type_ids"]), np.int32), np.array(labels),
                    int(np.sum(np.bincount(owners) > 1))),
        owners, np.concatenate(offsets))


def _answer_tokens(covered: np.ndarray, question: Question) -> tuple[int, int]:
    """First and last token of the first answer in a window; [CLS] twice if the window does not hold all of it."""
    start = question.starts[0]
    end = start + len(question.answers[0])
    inside = np.flatnonzero((covered[:, 1] > start) & (covered[:, 0] < end) & (covered[:, 0] >= 0))
    if not len(inside) or covered[inside[0], 0] > start or covered[inside[-1], 1] < end:
        return 0, 0
    return int(inside[0]), int(inside[-1])


# ---- answers ---------------------------------------------------------------------------------------------------------


def best_spans(logits: Any, windows: Windows, questions: list[Question], num_best: int = 20) -> list[list[Span]]:
    """For each question the ``num_best`` best spans of all its windows, the best first.

    ``logits[i]`` is ``[L, 2]``: the start and end logits of the tokens of window i, and of any padding after them. A
    span lies in the passage, does not end before it starts, and has at most ``MAX_ANSWER_TOKENS`` tokens.
    """
    spans: list[list[Span]] = [[] for _ in questions]
    for window, owner in enumerate(windows.questions):
        tokens = slice(windows.rows.cu_seqlens[window], windows.rows.cu_seqlens[window + 1])
        covered = windows.offsets[tokens]
        scores = np.where(covered >= 0, np.asarray(logits[window])[:len(covered)], -np.inf)
        starts, ends = np.argsort(-scores, axis=0, kind="stable")[:NUM_CANDIDATES].T
        sums = scores[starts, 0][:, None] + scores[ends, 1]
        lengths = ends - starts[:, None] + 1
        sums[(lengths < 1) | (lengths > MAX_ANSWER_TOKENS)] = -np.inf
        for pair in np.argsort(-sums, axis=None, kind="stable")[:num_best]:
            first, last = starts[pair // len(ends)], ends[pair % len(ends)]
            if np.isfinite(score := sums.flat[pair]):
                text = questions[owner].context[covered[first, 0]:covered[last, 1]]
                spans[owner].append(Span(text, float(score)))
    return [sorted(found, key=lambda span: -span.score)[:num_best] for found in spans]


class Squad(Benchmark):
    """SQuAD 1.1, or the English part of XQuAD.

    The arguments are those of ``Glue``, but ``share`` is a share of the articles. Raises as ``read_questions`` does.
    """

    model_class = DendriticBertForQuestionAnswering
    label_names = ("start_positions", "end_positions")
    main_metric = "f1"
    longest = WINDOW

    def __init__(self, data_dir: str | None, share: float | None = None, with_train: bool = True,
                 split: str = "dev", fraction: float = 1.0) -> None:
        reads_train = with_train and share is None
        self.train = read_questions("train", data_dir) if reads_train else []
        self.dev = read_questions(split, data_dir)
        if share is not None:
            self.train, self.dev = _hold_out(self.dev, share)
        if self.train and fraction < 1:
            order = np.random.default_rng(0).permutation(len(self.train))[:max(1, round(fraction * len(self.train)))]
            self.train = [self.train[index] for index in np.sort(order)]
        self.settings: dict[str, Any] = {"num_labels": 2}
        self.source = data_dir or HUB_DATASET
        self.num_train, self.num_dev = len(self.train), len(self.dev)

    def texts(self) -> Iterable[str]:
        contexts = dict.fromkeys(question.context for question in self.train)
        return chain(contexts, (question.question for question in self.train))

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        self.windows = encode_windows(self.dev, tokenizer, max_length)
        train = encode_windows(self.train, tokenizer, max_length).rows if self.train else None
        return train, {"dev": self.windows.rows}

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """As in ``Benchmark``; ``start_positions`` and ``end_positions`` ``[B]`` take the place of ``labels``."""
        batch = super().collate(rows)
        labels = batch.pop("labels")
        return {**batch, "start_positions": labels[:, 0], "end_positions": labels[:, 1]}

    def logits(self, output: Any) -> Tensor:
        return torch.stack([output.start_logits, output.end_logits], dim=-1).float()

    def scores(self, logits: Any, split: str) -> dict[str, float]:
        from torchmetrics.functional.text import squad

        if isinstance(logits, tuple):  # as the Trainer gathers them: starts and ends
            logits = np.stack(logits, axis=-1)
        spans = best_spans(logits, self.windows, self.dev, num_best=1)
        found = squad(
            [{"id": question.id, "prediction_text": best[0].text if best else ""}
             for question, best in zip(self.dev, spans)],
            [{"id": question.id, "answers": {"text": list(question.answers), "answer_start": list(question.starts)}}
             for question in self.dev])
        return {name: found[name].item() / 100 for name in ("f1", "exact_match")}


def _hold_out(questions: list[Question], share: float) -> tuple[list[Question], list[Question]]:
    """Split by whole articles, the same at every call, so that no passage has questions on both sides."""
    titles = sorted({question.title for question in questions})
    held = set(np.random.default_rng(0).permutation(titles)[:round(share * len(titles))].tolist())
    if not 0 < len(held) < len(titles):
        raise ValueError(f"hold_out is {share}, which of {len(titles)} articles leaves none on one side: change it.")
    return ([question for question in questions if question.title not in held],
            [question for question in questions if question.title in held])
