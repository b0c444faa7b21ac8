"""Distillation: a large model labels much text, a small one learns its probabilities (Hinton et al. 2015).

    teacher (fine-tuned first, if it has no head) -> its logits for training and augmented text -> student

The loss is ``share * T^2 * KL(teacher || student at temperature T) + (1 - share) * cross-entropy``, and what is kept is
an exponential moving average of the student's weights. Another student is another class in ``STUDENTS``.
"""

from __future__ import annotations

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from ..datasets.augmentation import augment
from ..datasets.glue import Glue
from ..datasets.glue_tasks import Task, find_task
from ..datasets.rows import EncodedRows, Rows, encode_rows
from ..inference.tokenization import PackedTokenizer
from .initialization import build_model
from .trainer import Recipe, TrainingOptions, train

LABELLING_TOKENS = 8192  # of a batch, padding included


@dataclass
class DistillationOptions(TrainingOptions):
    """What to train as a student, and by which teacher; the fields of ``TrainingOptions`` are the student's.

    Raises ValueError, naming the field, for values that cannot be trained with.
    """

    command: ClassVar[str] = "distill"

    teacher: str | None = field(default=None, metadata={
        "help": "sequence classifier of the task, a folder or a hub id; an encoder without a head is fine-tuned first"})
    teacher_dir: str | None = field(default=None, metadata={
        "help": "folder for a teacher that is fine-tuned, and for its labels; used again by later runs (default: "
                "teacher in output_dir)"})
    teacher_epochs: int = field(default=2, metadata={"help": "passes over the training rows in fine-tuning"})
    teacher_lr: float = field(default=3e-5, metadata={"help": "highest learning rate in fine-tuning"})
    teacher_batch_size: int = field(default=32, metadata={"help": "training rows a step in fine-tuning"})
    teacher_bf16: bool = field(default=False, metadata={
        "help": "fine-tune with matrix products in bfloat16, and label with them, where the processor has them (AMX)"})
    teacher_seed: int = field(default=0, metadata={"help": "seed of the fine-tuning"})
    student: str = field(default="dsn", metadata={"help": "kind of model that learns"})
    num_augmented: int = field(default=180_000, metadata={"help": "texts made of the training rows' parts"})
    temperature: float = field(default=2.0, metadata={"help": "by which both models' logits are divided"})
    teacher_share: float = field(default=0.5, metadata={"help": "share of the teacher in the loss"})
    ema: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is None:
            raise ValueError("teacher is not given: name the sequence classifier to learn from.")
        if self.benchmark != "glue" or len(find_task(self.task).texts) != 1 or not find_task(self.task).labels:
            raise ValueError(f"task is {self.task!r}, expected one whose rows are single texts with classes: sst2 or "
                             "cola.")
        if self.student not in STUDENTS:
            raise ValueError(f"student is {self.student!r}, expected one of {', '.join(STUDENTS)}.")
        for name in ("teacher_epochs", "teacher_lr", "teacher_batch_size", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0.")
        if self.num_augmented < 0:
            raise ValueError(f"num_augmented is {self.num_augmented}, expected 0 or more.")
        if not 0 <= self.teacher_share <= 1:
            raise ValueError(f"teacher_share is {self.teacher_share}, expected 0 to 1.")

    def notes(self) -> list[str]:
        return [f"Distilled from `{self.teacher}`, which labelled the rows and {self.num_augmented:,} texts made of "
                "their parts."]


class Student(ABC):
    """What learns from the teacher: a model whose output has ``logits``, of ``input_ids`` and ``attention_mask``."""

    @abstractmethod
    def build(self, model_class: Any, options: Any, settings: dict[str, Any], vocab_size: int) -> Any:
        """A fresh model; the arguments are those of ``beginnings.build_model``."""


class DsnStudent(Student):
    """The DSN that the options of a training describe."""

    def build(self, model_class: Any, options: Any, settings: dict[str, Any], vocab_size: int) -> Any:
        return build_model(model_class, options, settings, vocab_size)


STUDENTS: dict[str, type[Student]] = {"dsn": DsnStudent}


def distill(options: DistillationOptions) -> dict[str, Any]:
    """Fine-tune the teacher where it is needed, label text with it, train the student, write it to ``output_dir``.

    Returns what ``training.train`` does, and of the teacher: teacher (its main metric on the dev set), num_augmented.
    Raises as ``train`` does, and ValueError for a teacher with another number of labels.
    """
    benchmark = Distilled(options)
    results = train(options, Recipe(
        benchmark, STUDENTS[options.student]().build,
        partial(distillation_loss, temperature=options.temperature, teacher_share=options.teacher_share)))
    return results | {"teacher": benchmark.teacher_score, "num_augmented": benchmark.num_augmented}


def distillation_loss(output: Any, labels: Tensor, num_items_in_batch: Any = None, *, temperature: float,
                      teacher_share: float) -> Tensor:
    """The loss at the head of this file, the mean over the batch.

    ``labels`` are ``[B, C + 1]``, the teacher's logits and the class; or ``[B]`` classes alone, in evaluation.
    """
    logits = output.logits
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels)
    teacher, classes = labels[:, :-1], labels[:, -1].long()
    divergence = F.kl_div(F.log_softmax(logits / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1),
                          reduction="batchmean", log_target=True)
    return teacher_share * temperature**2 * divergence + (1 - teacher_share) * F.cross_entropy(logits, classes)


# ---- what the student reads ------------------------------------------------------------------------------------------


class Distilled(Glue):
    """A task of GLUE whose training rows, and more text made of them, carry the teacher's logits beside the class.

    Of augmented text the class is the teacher's. teacher_score: the teacher's main metric on the dev set.
    """

    def __init__(self, options: DistillationOptions) -> None:
        super().__init__(options.task, options.data_dir, options.hold_out, fraction=options.fraction)
        assert self.train is not None
        texts = self.train.columns[0]
        dev = {split: rows.columns[0] for split, rows in self.dev.items()}
        extra = augment(texts, [text for rows in dev.values() for text in rows], options.num_augmented)
        folder = Path(options.teacher_dir or Path(options.output_dir) / "teacher")
        teacher = prepare_teacher(options, self.task, folder)
        label = partial(label_texts, teacher, task=self.task, max_length=options.max_length, folder=folder,
                        bf16=options.teacher_bf16)
        first = next(iter(dev))
        scores = self.task.scores(label(dev[first]), self.dev[first].labels, first)
        self.teacher_score = scores[self.main_metric]
        # Each by itself: a student of the rows alone reads the same file.
        logits = np.concatenate([label(part) for part in (texts, extra) if part])
        classes = np.concatenate([self.train.labels, logits[len(texts):].argmax(axis=1)])
        self.num_augmented = len(extra)
        self.rows = Rows((texts + extra,), np.column_stack([logits, classes]).astype(np.float32), self.source)

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        _, dev = super().encode(tokenizer, max_length)
        return encode_rows(self.rows, PackedTokenizer(tokenizer), max_length), dev


# ---- the teacher -----------------------------------------------------------------------------------------------------


def prepare_teacher(options: DistillationOptions, task: Task, folder: Path) -> str:
    """The teacher that ``options`` name, or where it has no head for a classification one that is fine-tuned into
    ``folder`` (once: later calls find it there)."""
    name = str(options.teacher)
    try:
        architectures = AutoConfig.from_pretrained(name).architectures or []
    except (OSError, ValueError) as error:
        raise OSError(f"teacher {name} cannot be loaded ({type(error).__name__}): pass a folder or a hub id of a model "
                      "of transformers.") from error
    if any(architecture.endswith("ForSequenceClassification") for architecture in architectures):
        return name
    if not (folder / "config.json").exists():
        print(f"teacher {name} has no classifier: it is fine-tuned into {folder}", file=sys.stderr, flush=True)
        train(teacher_options(options, str(folder)))
    return str(folder)


def teacher_options(options: DistillationOptions, output_dir: str) -> TrainingOptions:
    """How the teacher is fine-tuned: with its encoder, the mean of its tokens under a linear head.

    On SST-2, over two seeds, the averaged weights have 89.6 where those of the last step have 89.2. At 6e-5 and not
    averaged it is 89.3; three epochs of 64 rows a step at 1e-4 with frozen words have 89.1 (one seed).
    """
    return TrainingOptions(
        model_name=options.teacher, task=options.task, data_dir=options.data_dir, hold_out=options.hold_out,
        fraction=options.fraction, output_dir=output_dir, epochs=options.teacher_epochs, lr=options.teacher_lr,
        batch_size=options.teacher_batch_size, warmup=0.06, ema=0.999, word_dropout=0.0, encoder_pooling="mean",
        max_length=options.max_length, bf16=options.teacher_bf16, seeds=[options.teacher_seed])


def label_texts(
    name: str, texts: list[str], task: Task, max_length: int, folder: Path, bf16: bool = False
) -> np.ndarray:
    """The logits ``[n, C]`` float32 of a sequence classifier for ``texts``; kept in ``folder`` for the next time.

    Raises ValueError where it has another number of labels than the task.
    """
    key = "\n".join([_fingerprint(name), f"{task.num_labels} {max_length} {bf16}", *texts]).encode("utf-8", "replace")
    kept = folder / f"logits-{hashlib.sha256(key).hexdigest()[:16]}.npy"
    if kept.exists():
        return np.load(kept)
    model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32).eval()
    if model.config.num_labels != task.num_labels:
        raise ValueError(f"teacher {name} has {model.config.num_labels} labels, the task has {task.num_labels}: pass a "
                         "model trained on it.")
    tokenizer = AutoTokenizer.from_pretrained(name)
    encoded = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(texts)), key=lambda place: len(encoded[place]))
    logits = np.empty((len(texts), task.num_labels), np.float32)
    device = next(model.parameters()).device.type
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
        while order:
            size = max(1, LABELLING_TOKENS // len(encoded[order[-1]]))  # the longest first: memory ends at once, if so
            batch, order = order[-size:], order[:-size]
            rows = tokenizer.pad({"input_ids": [encoded[place] for place in batch]}, return_tensors="pt")
            logits[batch] = model(**rows).logits.float().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    new = kept.with_suffix(f".{os.getpid()}.npy")
    np.save(new, logits)
    new.replace(kept)
    return logits


def _fingerprint(name: str) -> str:
    """A digest of a folder's weights; a hub id stands for itself."""
    if not Path(name).is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(Path(name).glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
