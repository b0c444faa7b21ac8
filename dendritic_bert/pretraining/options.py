"""What the pretraining of an encoder can be told, and the checks of it. Nothing here imports torch or transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, ClassVar, Literal

from ..training.data_options import expect_other_folder, task_of
from ..training.options import TrainingOptions

# What an encoder has unless it is told; docs/pretraining.md compares.
RECIPE: dict[str, Any] = {
    "epochs": 5, "batch_size": 512, "lr": 3e-3, "weight_decay": 0.01, "word_dropout": 0.0, "head_lr_factor": 1.0,
    "label_smoothing": 0.0, "hidden_size": 96, "vocab_size": 16000, "max_length": 64, "pooling": "gated_mean",
    "embedding_norm": "none", "max_position_embeddings": 0}
# What a training has a use for and pretraining has none, by the reason that is given where it is refused.
REFUSED = {
    "pretraining reads text_file": (
        "train_file", "dev_file", "dataset_name", "dataset_config", "data_dir", "hold_out", "fraction",
        "text_pair_column", "input_format", "delimiter", "on_error"),
    "the texts of pretraining have no labels": (
        "label_column", "label_separator", "problem_type", "class_weights", "label_smoothing", "calibrate", "baseline"),
    "pretraining takes an encoder as it is": ("encoder_windows", "add_words", "word_share"),
    "the head of an encoder is a projection": (
        "dendrites", "num_dendrites", "head_hidden", "dendrite_activation", "dendrite_schedule", "dendrite_tries",
        "validation_share", "encoder_pooling")}


@dataclass
class PretrainingOptions(TrainingOptions):
    """The teacher, the texts and how they are learnt from; the fields of ``TrainingOptions`` describe the encoder.

    Raises ValueError, which names the field, for values that cannot be used.
    """

    command: ClassVar[str] = "pretrain"
    own_defaults: ClassVar[dict[str, Any]] = RECIPE | {"window_dendrites": 0, "window_layers": 0}
    # init has one value left, which the commands on the cards of encoders name.
    unused: ClassVar[tuple[str, ...]] = (*chain(*REFUSED.values()), "init")

    teacher: str | None = field(default=None, metadata={
        "help": "sentence encoder whose embeddings are learnt, a folder or a hub id of a transformers model"})
    text_file: list[str] = field(default_factory=list, metadata={
        "help": "texts to learn them on, which need no labels: files with a text a line, or tables with a column of "
                "texts, plain or compressed"})
    text_licence: str | None = field(default=None, metadata={"help": "licence of text_file, for the model card"})
    teacher_pooling: Literal["folder", "mean", "cls"] = field(default="folder", metadata={
        "help": "how the teacher's token vectors become one: as its 1_Pooling/config.json says (the mean where there "
                "is none), their mean, or the first"})
    teacher_max_length: int = field(default=128, metadata={"help": "tokens to which the teacher cuts a text"})
    teacher_bf16: bool = field(default=False, metadata={
        "help": "ask the teacher with matrix products in bfloat16: several times faster on processors that have them"})
    teacher_dir: str | None = field(default=None, metadata={
        "help": "folder for the teacher's embeddings, which later runs use again (default: teacher in output_dir)"})
    embedding_size: int | None = field(default=None, metadata={
        "help": "numbers of an embedding: so many principal axes of the teacher's embeddings are learnt (default: all "
                "their numbers)"})
    num_held_out: int = field(default=5000, metadata={
        "help": "texts that are not trained on, for the cosine between the embeddings and the teacher's; at most a "
                "tenth"})
    gram_weight: float = field(default=1.0, metadata={
        "help": "weight of the squared difference between the cosines of a batch's texts and the teacher's"})
    words_from: Literal["teacher", "random"] = field(default="teacher", metadata={
        "help": "teacher: the word table begins as the teacher's embeddings of the words of the vocabulary, on the "
                "main axes of its embeddings of the texts; random: as random numbers"})
    joint: bool = field(default=False, metadata={
        "help": "train the model without windows beside the one with windows, with the same word table, into the "
                "folder without_windows of output_dir"})

    def __post_init__(self) -> None:
        self._list_files("text_file")
        self._check_unused()
        self._choose_recipe()
        super().__post_init__()
        if self.teacher is None:
            raise ValueError("teacher is not given: name the sentence encoder to learn from.")
        expect_other_folder("teacher", self.teacher, self.output_dir)
        if not self.text_file:
            raise ValueError("text_file is not given: name files of texts.")
        if self.joint and not (self.has_windows and self.model_name is None and self.embedding_norm == "none"):
            raise ValueError("joint is True, but two models with one word table are trained from the start, with "
                             "windows and without LayerNorm: pass window_dendrites and window_layers and leave "
                             "model_name and embedding_norm out.")
        for name in ("teacher_max_length", "num_held_out", "embedding_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more.")
        if not 0 <= self.gram_weight < math.inf:
            raise ValueError(f"gram_weight is {self.gram_weight}, expected 0 or more.")

    @property
    def start(self) -> str:
        if self.words_from == "random" or self.model_name is not None:
            return super().start
        return "the teacher's embeddings of the words of the vocabulary"

    def _check_unused(self) -> None:
        """Raise ValueError for an option that a training has a use for and pretraining has none."""
        defaults = {option.name: option.default for option in fields(self)} | RECIPE
        for reason, names in REFUSED.items():
            for name in names:
                if (value := getattr(self, name)) not in (None, [], defaults[name]):
                    raise ValueError(f"{name} is {value}, but {reason}: leave it out.")

    def _choose_recipe(self) -> None:
        """The values of ``RECIPE`` in the fields that were left out, and the texts in the place of rows."""
        self.benchmark, self.dsn = "own", True
        if self.task is None and self.text_file:
            self.task = task_of(self.text_file[0])
        brought: tuple[str, ...] = ()
        if self.model_name is not None:
            brought = ("hidden_size", "vocab_size", "embedding_norm", "max_position_embeddings")
        elif self.tokenizer_name is not None:
            brought = ("vocab_size",)
        self._fill({name: value for name, value in RECIPE.items() if name not in brought})
