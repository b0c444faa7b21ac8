"""Distillation: a large model, the teacher, labels many texts; a small one, the student, learns its probabilities.

    teacher (fine-tuned first, if it has no head) -> its logits for training, augmented and natural texts -> student

The loss is ``share * T^2 * KL(teacher || student at temperature T) + (1 - share) * cross-entropy`` (Hinton et al.
2015), and an exponential moving average of the student's weights is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..datasets.augmentation import augment
from ..datasets.benchmark import digest_of
from ..datasets.glue import Glue
from ..datasets.natural_text import away_from_dev, read_logits, read_texts
from ..datasets.own_rows import OwnRows
from ..datasets.rows import EncodedRows, Rows, encode_rows
from ..inference.tokenization import PackedTokenizer
from .defaults import fit_to_texts
from .distillation_options import DistillationOptions
from .initialization import choose_start
from .taught_texts import TaughtTexts, describe_agreement
from .teacher import label_texts, prepare_teacher, teacher_folder
from .trainer import open_own_rows, train

NO_CLASS = -100  # in the place of the class of a text that has none


def distill(options: DistillationOptions) -> dict[str, Any]:
    """Fine-tune the teacher if it has no head, label texts with it, train the student, write it to ``output_dir``.

    Returns what ``train`` returns, and teacher (the main metric of the teacher on the dev set; None if no teacher is
    asked, or there are no labels), num_augmented and num_natural. Raises as ``train`` does, OSError for a teacher that
    cannot be loaded, and ValueError for one whose number of labels is not the task's, or that was fine-tuned otherwise.
    """
    loss = partial(distillation_loss, temperature=options.temperature, teacher_share=options.teacher_share)
    if options.text_file:
        taught = TaughtTexts(options)
        options = choose_start(options, taught.texts(), taught.settings)
        return train(fit_to_texts(options, taught.num_train), taught, loss=loss, describe=describe_agreement)
    benchmark, options = _open_labelled(options)
    if (score := benchmark.findings["teacher"]) is not None:
        print(f"teacher: {benchmark.main_metric} {score:.4f} on the dev rows", file=sys.stderr, flush=True)
    return train(options, benchmark, loss=loss)


def _open_labelled(options: DistillationOptions
                   ) -> tuple[TeacherLabelledGlue | TeacherLabelledOwnRows, DistillationOptions]:
    """The labelled rows, and ``options`` with the number of augmented texts that was left to own rows."""
    if options.benchmark != "own":
        return TeacherLabelledGlue(options), options
    rows = open_own_rows(options, kind=TeacherLabelledOwnRows)
    print(rows.report, file=sys.stderr, flush=True)
    if options.num_augmented is None:
        options = replace(options, num_augmented=rows.num_train)
    rows.ask_teacher(options)
    return rows, options


def distillation_loss(output: Any, labels: Tensor, num_items_in_batch: Any = None, *, temperature: float,
                      teacher_share: float) -> Tensor:
    """The loss that is given at the head of this file, a scalar, the mean over the batch.

    ``output.logits`` are ``[B, C]``. ``labels`` are ``[B, C + 1]``, the teacher's logits and then the class, or
    NO_CLASS, which adds no cross-entropy; or, when the student is scored, ``[B]`` classes. ``num_items_in_batch`` is an
    argument of the Trainer's and is not used.
    """
    logits = output.logits
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels)
    teacher, classes = labels[:, :-1], labels[:, -1].long()
    divergence = F.kl_div(F.log_softmax(logits / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1),
                          reduction="batchmean", log_target=True)
    cross_entropy = F.cross_entropy(logits, classes, ignore_index=NO_CLASS, reduction="sum") / len(classes)
    return teacher_share * temperature**2 * divergence + (1 - teacher_share) * cross_entropy


class TeacherLabelledGlue(Glue):
    """A task of GLUE whose training rows carry the teacher's logits beside their class, with augmented and natural
    texts added, from all of which but the augmented a new vocabulary is made.

    findings: teacher, its main metric on the dev set, None if only its logits are at hand; num_augmented, num_natural.
    """

    def __init__(self, options: DistillationOptions) -> None:
        super().__init__(options.task, options.data_dir, options.hold_out, fraction=options.fraction)
        assert self.train is not None
        first = next(iter(self.dev))
        dev_texts = [text for rows in self.dev.values() for text in rows.columns[0]]
        labelled = label_rows(options, self.train, dev_texts, self.dev[first].columns[0], self.task.num_labels)
        self.rows, self.natural = labelled.rows, labelled.natural
        self.digest = labelled.digest
        score = None
        if labelled.dev_logits is not None:
            score = self.task.scores(labelled.dev_logits, self.dev[first].labels, first)[self.main_metric]
        self.findings: dict[str, Any] = labelled.findings(score)

    def texts(self) -> Iterable[str]:
        return chain(super().texts(), self.natural)

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        _, dev = super().encode(tokenizer, max_length)
        return encode_rows(self.rows, PackedTokenizer(tokenizer), max_length), dev


class TeacherLabelledOwnRows(OwnRows):
    """Rows of one's own whose training rows carry the teacher's logits, as in ``TeacherLabelledGlue``."""

    def ask_teacher(self, options: DistillationOptions) -> None:
        """Label the rows; must be called before ``encode``. Raises as ``distill`` does."""
        if self.columns.text_pair is not None or self.settings["problem_type"] != "single_label_classification":
            raise ValueError(f"{self.source} has {'two texts' if self.columns.text_pair else 'no single class'} in a "
                             "row: distillation needs single texts with one class each.")
        train = Rows(([text for text, in self.rows("train")],), self.targets("train"), self.source)
        dev_texts = [text for text, in self.rows("dev")]
        labelled = label_rows(options, train, dev_texts, dev_texts, len(self.labels), self.labels)
        self.labelled, self.natural = labelled.rows, labelled.natural
        self.digest = f"{self.digest} {labelled.digest}"
        score = None
        if labelled.dev_logits is not None:
            score = self.scores(labelled.dev_logits, "dev")[self.main_metric]
        self.findings: dict[str, Any] = labelled.findings(score)

    @property
    def num_taught(self) -> int:
        return len(self.labelled.labels)

    def texts(self) -> Iterable[str]:
        return list(chain(super().texts(), self.natural)) if self.natural else super().texts()

    def encode(self, tokenizer: Any, max_length: int, dev_length: int | None = None
               ) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        _, dev = super().encode(tokenizer, max_length, dev_length)
        return encode_rows(self.labelled, PackedTokenizer(tokenizer), max_length), dev


class Labelled(NamedTuple):
    """What a student learns from.

    rows: training rows, augmented and natural texts, with labels ``[n, C + 1]`` float32: the teacher's logits, and the
        class. The class of an augmented text is the teacher's; a natural text has NO_CLASS.
    num_augmented: how many texts were made from parts of the training rows.
    natural: the texts of extra_text and extra_margins that are neither training rows nor close to a dev row.
    dev_logits: the teacher's logits of the dev rows, ``[n, C]``; None if no teacher is asked.
    """

    rows: Rows
    num_augmented: int
    natural: list[str]
    dev_logits: np.ndarray | None

    @property
    def digest(self) -> str:
        """Tells these texts with these labels from what another teacher, or other files under the same names, give."""
        return digest_of(self.rows.columns[0], self.rows.labels)

    def findings(self, score: float | None) -> dict[str, Any]:
        """What belongs to the results of the training; ``score`` is the teacher's."""
        return {"teacher": score, "num_augmented": self.num_augmented, "num_natural": len(self.natural)}


def label_rows(options: DistillationOptions, train: Rows, all_dev_texts: list[str], dev_texts: list[str],
               num_labels: int, names: list[str] | None = None) -> Labelled:
    """Ask the teacher about ``train``, about texts made of its parts, about natural texts, none of them close to
    ``all_dev_texts``, and about ``dev_texts``. ``names`` are those of the classes, by which a teacher's outputs are put
    in order. What extra_margins tell of a text is not asked."""
    given = read_logits(options.extra_margins, num_labels)
    texts = [text.strip() for text in train.columns[0]]
    known = set(texts)
    others = dict.fromkeys(chain(given, read_texts(options.extra_text, options.text_column)))
    natural = away_from_dev((text for text in others if text not in known), all_dev_texts)
    augmented = augment(train.columns[0], all_dev_texts, options.num_augmented)
    unknown = [text for text in chain(train.columns[0], augmented, natural) if text.strip() not in given]
    if options.teacher is None:
        if unknown:
            raise ValueError(f"extra_margins have no margin of {len(unknown):,} texts, the first {unknown[0]!r}, and "
                             "teacher is not given: name a teacher, or margins of every training row.")
        asked, dev_logits = np.zeros((0, num_labels), np.float32), None
    else:
        folder = teacher_folder(options.teacher_dir, options.output_dir)
        teacher = prepare_teacher(options, folder, digest_of([*(names or ()), *train.columns[0]], train.labels))
        ask = partial(label_texts, teacher, num_labels=num_labels, max_length=options.max_length, folder=folder,
                      bf16=options.teacher_bf16, names=names)
        dev_logits, asked = ask(dev_texts), ask(unknown)
    logits = _in_order([*train.columns[0], *augmented, *natural], given, asked)
    of_augmented = logits[len(texts):len(texts) + len(augmented)].argmax(axis=1)
    classes = np.concatenate([train.labels, of_augmented, np.full(len(natural), NO_CLASS)])
    rows = Rows(([*train.columns[0], *augmented, *natural],), np.column_stack([logits, classes]).astype(np.float32),
                train.source)
    return Labelled(rows, len(augmented), natural, dev_logits)


def _in_order(texts: Sequence[str], given: dict[str, tuple[float, ...]], asked: np.ndarray) -> np.ndarray:
    """The logits of ``texts``: those that are given, and in the places of the others those that were asked for."""
    found = [given.get(text.strip()) for text in texts]
    is_given = np.array([logits is not None for logits in found], np.bool_)
    result = np.empty((len(texts), asked.shape[1]), np.float32)
    result[~is_given] = asked
    if is_given.any():
        result[is_given] = np.array([logits for logits in found if logits is not None], np.float32)
    return result
