"""What a distillation can be told of its teacher and its texts, and the checks of it. Nothing here imports torch or
transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..datasets.glue_tasks import find_task
from .data_options import BY_DATA, expect_other_folder, expect_seed, task_of
from .options import WINDOWS, TrainingOptions

# What was chosen on SST-2 for a distillation; own rows have what fits them.
TEACHING_OF_BENCHMARKS = {"num_augmented": 180_000, "teacher_epochs": 2, "teacher_lr": 3e-5}


@dataclass
class DistillationOptions(TrainingOptions):
    """The teacher and what is learnt from it; the fields of ``TrainingOptions`` describe the student.

    Raises ValueError, which names the field, for values that cannot be used.
    """

    command: ClassVar[str] = "distill"
    unused: ClassVar[tuple[str, ...]] = ("class_weights", "label_smoothing")

    teacher: str | None = field(default=None, metadata={
        "help": "sequence classifier of the task, a folder or a hub id; an encoder without a head is fine-tuned first. "
                "Not needed where extra_margins know every text"})
    text_file: list[str] = field(default_factory=list, metadata={
        "help": "texts without labels, in place of training rows: the student learns what the teacher says of them. "
                "Files with a text a line, or tables with a column of texts, plain or compressed"})
    text_licence: str | None = field(default=None, metadata={"help": "licence of text_file, for the model card"})
    extra_text: list[str] = field(default_factory=list, metadata={
        "help": "further texts for the teacher to label, files as for text_file; what comes close to a dev row is left "
                "out"})
    extra_margins: list[str] = field(default_factory=list, metadata={
        "help": "texts with the teacher's logits, which is then not asked: files with a text a line, behind a tab its "
                "margin (the logit of the second class minus that of the first) or all its logits before it"})
    teacher_dir: str | None = field(default=None, metadata={
        "help": "folder for a fine-tuned teacher and for the logits of its texts, both of which later runs use again "
                "(default: teacher in output_dir)"})
    teacher_epochs: int = field(default=BY_DATA, metadata={
        "help": "fine-tuning: passes over the training rows (default: 2, for own rows fits the rows)"})
    teacher_lr: float | None = field(default=None, metadata={
        "help": "fine-tuning: highest learning rate (default: 3e-5, for own rows that of train)"})
    teacher_batch_size: int = field(default=32, metadata={"help": "fine-tuning: training rows per step"})
    teacher_bf16: bool = field(default=False, metadata={
        "help": "fine-tune the teacher, and label texts with it, with matrix products in bfloat16, for processors that "
                "have them (AMX)"})
    teacher_seed: int = field(default=0, metadata={"help": "fine-tuning: seed"})
    num_augmented: int = field(default=BY_DATA, metadata={
        "help": "number of texts made from parts of the training rows, for the teacher to label (default: "
                f"{TEACHING_OF_BENCHMARKS['num_augmented']}, for own rows one for each of them, without a teacher 0)"})
    temperature: float = field(default=2.0, metadata={
        "help": "number by which the logits of both models are divided"})
    teacher_share: float = field(default=0.5, metadata={"help": "share of the teacher in the loss"})
    ema: float = field(default=0.998, metadata=TrainingOptions.__dataclass_fields__["ema"].metadata)

    def __post_init__(self) -> None:
        self._list_files("text_file", "extra_text", "extra_margins")
        self._check_unused()
        if self.text_file:
            self._choose_texts()
        super().__post_init__()
        if self.num_augmented is None and (self.teacher is None or self.text_file):
            self.num_augmented = 0
        if self.benchmark != "own":  # whose rows are counted first
            self._fill(TEACHING_OF_BENCHMARKS)
        if self.teacher is None and (not self.extra_margins or self.text_file or self.num_augmented):
            raise ValueError("teacher is not given: name the sequence classifier to learn from.")
        if self.benchmark == "squad" or (self.benchmark == "glue" and not is_single_text_task(self.task)):
            raise ValueError(f"task is {self.task!r}, expected one whose rows are single texts with classes: sst2 or "
                             "cola.")
        if self.teacher is not None:
            expect_other_folder("teacher", self.teacher, self.output_dir)
        expect_seed("teacher_seed", self.teacher_seed)
        for name in ("teacher_epochs", "teacher_lr", "teacher_batch_size", "temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, expected more than 0.")
        if (self.num_augmented or 0) < 0:
            raise ValueError(f"num_augmented is {self.num_augmented}, expected 0 or more.")
        if not 0 <= self.teacher_share <= 1:
            raise ValueError(f"teacher_share is {self.teacher_share}, expected 0 to 1.")

    def _check_unused(self) -> None:
        """Raise ValueError for an option that a training has a use for and a distillation has none."""
        if self.class_weights != "none" or self.label_smoothing:
            name = "label_smoothing" if self.label_smoothing else "class_weights"
            raise ValueError(f"{name} is {getattr(self, name)}, but a student learns the teacher's probabilities as "
                             "they are: leave it out.")
        if self.text_file and (self.fraction != 1 or self.calibrate):
            name = "calibrate" if self.calibrate else "fraction"
            raise ValueError(f"{name} is {getattr(self, name)}, but it is for rows with labels, and text_file has "
                             "none: leave it out.")

    def _choose_texts(self) -> None:
        """What follows from texts without labels."""
        for name in ("train_file", "dev_file", "dataset_name", "data_dir", "extra_text", "extra_margins",
                     "num_augmented"):
            if getattr(self, name):
                raise ValueError(f"text_file and {name} are both given: the texts take the place of rows, so pass one "
                                 "of the two.")
        self.benchmark = "own"
        if self.task is None:
            self.task = task_of(self.text_file[0])

    def _choose_form(self) -> None:
        if self.text_file and self.init == "random":
            self._fill(WINDOWS)
        super()._choose_form()

    def notes(self) -> list[str]:
        if self.text_file:
            return []
        teacher = f"`{self.teacher}`" if self.teacher else "a teacher whose logits came with the texts"
        augmented = f" and {self.num_augmented:,} texts made from their parts" if self.num_augmented else ""
        extra = ", ".join(Path(file).name for file in (*self.extra_text, *self.extra_margins))
        return [f"Distilled from {teacher}, which labelled the training rows{augmented}."
                + (f" Further texts and labels of the teacher: {extra}." if extra else "")]


def is_single_text_task(name: str) -> bool:
    """Whether the rows of a task of GLUE are single texts with classes."""
    task = find_task(name)
    return len(task.texts) == 1 and bool(task.labels)
