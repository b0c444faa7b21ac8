"""What a training, a distillation and a search over hyperparameters can be told, and the checks of it.

Each field is the flag of the same name on the command line, with ``metadata["help"]`` as its help text. Nothing here
imports torch or transformers, so that ``dendritic-bert train --help`` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..datasets.glue_tasks import TASKS, find_task

BY_BENCHMARK: Any = None  # stands for the value in BENCHMARK_DEFAULTS
BENCHMARK_DEFAULTS: dict[str, dict[str, Any]] = {
    "glue": {"task": "sst2", "batch_size": 256, "max_length": 128, "word_dropout": 0.2},
    "squad": {"task": "squad", "batch_size": 32, "max_length": 384, "word_dropout": 0.0},
}
# Sizes of a model that starts from random numbers; a checkpoint brings its own.
FRESH_SIZES = {"vocab_size": 30000, "hidden_size": 16, "max_position_embeddings": 512}
SAVE_DTYPES = ("float32", "float16", "bfloat16")
TRACKERS = {"none": None, "wandb": "wandb", "tensorboard": "tensorboard"}  # each with the package that it needs
SCHEDULES = ("perforatedai", "plain")
STUDENTS = ("dsn",)  # distillation.py says how each is built
SWEEP_FILE = Path(__file__).with_name("sweep.yaml")


@dataclass
class TrainingOptions:
    """The model, the data and the method of a training.

    Raises ValueError, which names the field, for values that cannot be used.
    """

    command: ClassVar[str] = "train"

    model_name: str | None = field(default=None, metadata={
        "help": "BERT checkpoint to start from, a folder or a hub id; without it the model starts from random numbers, "
                "with a vocabulary trained on the training texts"})
    tokenizer_name: str | None = field(default=None, metadata={
        "help": "tokenizer of a model that starts from random numbers, a folder or a hub id; without it a vocabulary "
                "is trained"})
    benchmark: Literal["glue", "squad"] = field(default="glue", metadata={"help": "family of tasks"})
    task: str = field(default=BY_BENCHMARK, metadata={
        "help": f"task of the benchmark: {', '.join(TASKS)} (default: sst2), or squad"})
    hold_out: float | None = field(default=None, metadata={
        "help": "train on the dev set but for this share, and score on the share: for a task without training rows"})
    dsn: bool = field(default=False, metadata={
        "help": "train a Dendritic Semantic Network (DSN): the embeddings are pooled under the head, without an "
                "encoder; without this flag BERT's encoder is kept"})
    data_dir: str | None = field(default=None, metadata={
        "help": "folder of the GLUE download, or the task's folder in it; without it the data come from the hub"})
    fraction: float = field(default=1.0, metadata={"help": "share of the training rows to train on, drawn at random"})
    output_dir: str = field(default="outputs", metadata={
        "help": "folder for the weights, the tokenizer and the model card; files of the same names are replaced"})
    epochs: int = field(default=3, metadata={"help": "passes over the training rows"})
    batch_size: int = field(default=BY_BENCHMARK, metadata={
        "help": "training rows per step (default: 256, for squad 32)"})
    lr: float | None = field(default=None, metadata={
        "help": "highest learning rate, which then falls linearly to 0 (default: 2e-3 from random numbers, 3e-4 for a "
                "DSN made of a checkpoint, 1e-4 with its encoder)"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={
        "help": "train once with each seed and report every score; the weights of the first are kept"})
    word_dropout: float = field(default=BY_BENCHMARK, metadata={
        "help": "probability that a token is masked out in training (default: 0.2, for squad 0)"})
    warmup: float = field(default=0.0, metadata={
        "help": "share of the steps during which the learning rate rises from 0"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay"})
    ema: float = field(default=0.0, metadata={
        "help": "decay of an exponential moving average of the weights, which is kept in place of the last weights; 0 "
                "keeps the last weights"})
    freeze_word_embeddings: bool = field(default=False, metadata={"help": "do not train the table of word embeddings"})
    vocab_size: int | None = field(default=None, metadata={
        "help": f"largest size of a new vocabulary (default: {FRESH_SIZES['vocab_size']})"})
    hidden_size: int | None = field(default=None, metadata={
        "help": f"width of new embeddings (default: {FRESH_SIZES['hidden_size']})"})
    max_position_embeddings: int | None = field(default=None, metadata={
        "help": f"length of a new position table (default: {FRESH_SIZES['max_position_embeddings']})"})
    max_length: int = field(default=BY_BENCHMARK, metadata={
        "help": "tokens to which a text is cut (default: 128), or of a window of a SQuAD passage (default: 384)"})
    pooling: Literal["mean_masked", "mean_all", "sum_all"] = field(default="mean_masked", metadata={
        "help": "how the token vectors become one; the last two count padding, for checkpoints trained that way"})
    encoder_pooling: Literal["cls", "mean"] = field(default="cls", metadata={
        "help": "what the encoder gives the head: BERT's pooler output, or the mean over the tokens as in "
                "sentence-transformers"})
    num_dendrites: int = field(default=0, metadata={
        "help": "dendrites of each output of the head's layers, from the start"})
    dendrite_activation: Literal["sigmoid", "tanh", "relu", "gelu"] = field(default="sigmoid", metadata={
        "help": "activation function of the dendrites"})
    head_hidden: int | None = field(default=None, metadata={
        "help": "width of a hidden layer in the head (default: none, the head is a single layer)"})
    dendrites: int = field(default=0, metadata={
        "help": "grow up to this many dendrites for each output, one whenever the loss on held-out training rows "
                "stalls; epochs then limits each stage, the time between two dendrites"})
    dendrite_schedule: Literal["perforatedai", "plain"] = field(default="perforatedai", metadata={
        "help": "what decides when a dendrite grows: PerforatedAI's tracker, or the same rule without that library"})
    patience: int = field(default=10, metadata={
        "help": "epochs without a better held-out loss after which a dendrite grows"})
    dendrite_tries: int = field(default=2, metadata={
        "help": "growing ends when this many dendrites in a row fail to improve the held-out loss"})
    validation_share: float = field(default=0.1, metadata={
        "help": "share of the training rows that decides when to grow and is not trained on"})
    hidden_dropout_prob: float | None = field(default=None, metadata={
        "help": "dropout on the vector of every token (default: the checkpoint's, else 0)"})
    classifier_dropout: float | None = field(default=None, metadata={
        "help": "dropout on the pooled vector (default: the checkpoint's, else hidden_dropout_prob)"})
    bf16: bool = field(default=False, metadata={
        "help": "train with matrix products in bfloat16: several times faster on processors that have them (AMX)"})
    save_dtype: Literal["float32", "float16", "bfloat16"] = field(default="float32", metadata={
        "help": "dtype of the weights that are written and scored"})
    report_to: Literal["none", "wandb", "tensorboard"] = field(default="none", metadata={
        "help": "tracker that receives loss and scores during training; its files go to output_dir"})
    wandb_project: str = field(default="dendritic-bert", metadata={"help": "project for report_to wandb"})

    def __post_init__(self) -> None:
        _expect_choice("benchmark", self.benchmark, BENCHMARK_DEFAULTS)
        for name, value in BENCHMARK_DEFAULTS[self.benchmark].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.benchmark == "squad" and self.task != "squad":
            raise ValueError(f"task is {self.task!r}, but the benchmark squad has one task only: leave it out.")
        if self.benchmark == "glue":
            find_task(self.task)
        self._check_ranges()
        self._check_growth()
        self._check_source()

    def _check_ranges(self) -> None:
        for name in ("epochs", "batch_size", "lr", "head_hidden", *FRESH_SIZES):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, expected more than 0.")
        for name in ("word_dropout", "hidden_dropout_prob", "classifier_dropout", "warmup", "ema"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more and less than 1.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}, expected more than 0 and at most 1.")
        if self.hold_out is not None and not 0 < self.hold_out < 1:
            raise ValueError(f"hold_out is {self.hold_out}, expected more than 0 and less than 1.")
        if self.num_dendrites < 0:
            raise ValueError(f"num_dendrites is {self.num_dendrites}, expected 0 or more.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}, expected one or more, all different.")
        _expect_choice("save_dtype", self.save_dtype, SAVE_DTYPES)
        _expect_choice("report_to", self.report_to, TRACKERS)

    def _check_growth(self) -> None:
        if self.dendrites < 0:
            raise ValueError(f"dendrites is {self.dendrites}, expected 0 or more.")
        if self.dendrites and self.num_dendrites:
            raise ValueError(f"dendrites is {self.dendrites} and num_dendrites is {self.num_dendrites}: pass dendrites "
                             "to grow them, or num_dendrites to have them from the start.")
        if self.dendrites and self.ema:
            raise ValueError(f"dendrites is {self.dendrites} and ema is {self.ema}, but a growing model has no average "
                             "of its weights: pass num_dendrites to have dendrites from the start, or ema 0.")
        for name in ("patience", "dendrite_tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}, expected more than 0 and less than 1.")
        _expect_choice("dendrite_schedule", self.dendrite_schedule, SCHEDULES)

    def _check_source(self) -> None:
        """A checkpoint brings tokenizer and sizes; what starts from random numbers needs a table for its rows."""
        if self.model_name is not None:
            for name in ("tokenizer_name", *FRESH_SIZES):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is {getattr(self, name)}, but model_name brings its own: pass one of the "
                                     "two.")
            return
        if not self.dsn:
            raise ValueError("dsn is False and model_name is not given, so there is no encoder: pass one of the two.")
        if self.tokenizer_name is not None and self.vocab_size is not None:
            raise ValueError(f"vocab_size is {self.vocab_size}, but tokenizer_name brings its own: pass one of the "
                             "two.")
        positions = self.max_position_embeddings or FRESH_SIZES["max_position_embeddings"]
        if self.max_length > positions:
            raise ValueError(f"max_length is {self.max_length}, but the position table has {positions} rows: lower it.")

    def notes(self) -> list[str]:
        """What the model card says beside the fields, one sentence each."""
        return []

    @property
    def learning_rate(self) -> float:
        """``lr``, or the rate that suits what the training starts from."""
        if self.lr is not None:
            return self.lr
        if self.model_name is None:
            return 2e-3
        return 3e-4 if self.dsn else 1e-4


@dataclass
class DistillationOptions(TrainingOptions):
    """The teacher and what is learnt from it; the fields of ``TrainingOptions`` describe the student.

    Raises ValueError, which names the field, for values that cannot be used.
    """

    command: ClassVar[str] = "distill"

    teacher: str | None = field(default=None, metadata={
        "help": "sequence classifier of the task, a folder or a hub id; an encoder without a head is fine-tuned first"})
    teacher_dir: str | None = field(default=None, metadata={
        "help": "folder for a fine-tuned teacher and for the logits of its texts, both of which later runs use again "
                "(default: teacher in output_dir)"})
    teacher_epochs: int = field(default=2, metadata={"help": "fine-tuning: passes over the training rows"})
    teacher_lr: float = field(default=3e-5, metadata={"help": "fine-tuning: highest learning rate"})
    teacher_batch_size: int = field(default=32, metadata={"help": "fine-tuning: training rows per step"})
    teacher_bf16: bool = field(default=False, metadata={
        "help": "fine-tune the teacher, and label texts with it, with matrix products in bfloat16, for processors that "
                "have them (AMX)"})
    teacher_seed: int = field(default=0, metadata={"help": "fine-tuning: seed"})
    student: str = field(default="dsn", metadata={"help": "kind of model that learns"})
    num_augmented: int = field(default=180_000, metadata={
        "help": "number of texts made from parts of the training rows, for the teacher to label"})
    temperature: float = field(default=2.0, metadata={
        "help": "number by which the logits of both models are divided"})
    teacher_share: float = field(default=0.5, metadata={"help": "share of the teacher in the loss"})
    ema: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is None:
            raise ValueError("teacher is not given: name the sequence classifier to learn from.")
        if self.benchmark != "glue" or len(find_task(self.task).texts) != 1 or not find_task(self.task).labels:
            raise ValueError(f"task is {self.task!r}, expected one whose rows are single texts with classes: sst2 or "
                             "cola.")
        _expect_choice("student", self.student, STUDENTS)
        for name in ("teacher_epochs", "teacher_lr", "teacher_batch_size", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0.")
        if self.num_augmented < 0:
            raise ValueError(f"num_augmented is {self.num_augmented}, expected 0 or more.")
        if not 0 <= self.teacher_share <= 1:
            raise ValueError(f"teacher_share is {self.teacher_share}, expected 0 to 1.")

    def notes(self) -> list[str]:
        return [f"Distilled from `{self.teacher}`, which labelled the training rows and {self.num_augmented:,} texts "
                "made from their parts."]


@dataclass
class SweepOptions(TrainingOptions):
    """How many trainings to try, in which space; the fields of ``TrainingOptions`` apply to each of them.

    parameters: what ``read_space`` makes of ``space``. Raises ValueError, which names the field, for values that
    cannot be used.
    """

    command: ClassVar[str] = "sweep"

    trials: int = field(default=20, metadata={
        "help": "number of trainings, including those of earlier runs into output_dir"})
    space: str = field(default=str(SWEEP_FILE), metadata={
        "help": "file of parameters to vary, in the form of a sweep of Weights & Biases"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}, expected 1 or more.")
        self.parameters = read_space(self.space)


def read_space(path: str) -> dict[str, dict[str, Any]]:
    """The parameters of a sweep file by name: each has ``value``, ``values``, or ``min`` and ``max`` with a
    ``distribution``.

    Raises ValueError for a file that cannot be read, and, naming the parameter, for one that is no field of
    ``TrainingOptions`` or has another form.
    """
    import yaml

    try:
        parameters = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["parameters"]
    except OSError as error:
        raise ValueError(f"space {path} cannot be read ({error.strerror}): name a sweep file.") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"space {path} is not a sweep file with parameters: see {SWEEP_FILE}.") from error
    names = {option.name for option in fields(TrainingOptions)}
    for name, entry in parameters.items():
        if name not in names:
            raise ValueError(f"space {path} has the parameter {name!r}, which a training does not have: leave it out.")
        kind = entry.get("distribution", "uniform")
        is_range = {"min", "max"} <= entry.keys() and kind in ("uniform", "log_uniform_values", "int_uniform")
        if not (is_range or entry.get("values") or "value" in entry):
            raise ValueError(f"space {path} has the parameter {name!r} in an unknown form, expected values, or min and "
                             "max with the distribution uniform, log_uniform_values or int_uniform.")
    return parameters


def changed_fields(options: TrainingOptions) -> dict[str, Any]:
    """The options that differ from their defaults."""
    defaults = {option.name: option.default_factory() if callable(option.default_factory) else option.default
                for option in fields(options)}
    return {name: value for name, value in asdict(options).items() if value != defaults[name]}


def command_line(options: TrainingOptions) -> list[str]:
    """The command that gives these options: what differs from the defaults, and benchmark, task and epochs."""
    words = ["dendritic-bert", options.command]
    changed = changed_fields(options)
    for name, value in asdict(options).items():
        if name not in changed and name not in ("benchmark", "task", "epochs"):
            continue
        words.append(f"--{name}")
        if value is not True:
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return words


def _expect_choice(name: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")
