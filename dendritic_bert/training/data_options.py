"""What a training can be told about its rows: a task of GLUE, SQuAD, or files of one's own.

Each field is the flag of the same name on the command line, with ``metadata["help"]`` as its help text. Nothing here
imports torch or transformers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..datasets.glue_tasks import TASKS, find_task
from ..datasets.held_out import HOLD_OUT

BY_DATA: Any = None  # stands for the value in BENCHMARK_DEFAULTS, or for own rows the one that fit_to_rows gives
BENCHMARK_DEFAULTS: dict[str, dict[str, Any]] = {
    "glue": {"task": "sst2", "batch_size": 256, "max_length": 128, "word_dropout": 0.2, "epochs": 3,
             "weight_decay": 0.01},
    "squad": {"task": "squad", "batch_size": 32, "max_length": 384, "word_dropout": 0.0, "epochs": 3,
              "weight_decay": 0.01},
    "own": {"max_length": 512},
}
LARGEST_SEED = 2**32 - 1
OWN_ROWS = ("dev_file", "text_column", "text_pair_column", "label_column", "label_separator", "problem_type",
            "input_format", "delimiter", "dataset_config")  # options that mean something for own rows alone


@dataclass
class DataOptions:
    """The rows to train on and to score on. Raises ValueError, which names the field, for values that cannot be used,
    and so for one that is not in the ``Literal`` of its field, in a class derived from this one, too.
    """

    train_file: list[str] = field(default_factory=list, metadata={
        "help": "rows of your own to train on: one or more CSV, TSV, JSONL, parquet or Arrow files, plain or "
                "compressed, or patterns such as 'reviews-*.csv'"})
    dev_file: list[str] = field(default_factory=list, metadata={
        "help": f"rows of your own to score on (default: a tenth of the training rows, {HOLD_OUT:g}, drawn class by "
                "class)"})
    dataset_name: str | None = field(default=None, metadata={
        "help": "rows of a data set of the Hugging Face hub, or of a folder, which the library datasets reads"})
    dataset_config: str | None = field(default=None, metadata={"help": "configuration of dataset_name"})
    text_column: str | None = field(default=None, metadata={
        "help": "column of the texts (default: found by its name and content, and said)"})
    text_pair_column: str | None = field(default=None, metadata={
        "help": "column of the second texts, for rows of two"})
    label_column: str | None = field(default=None, metadata={
        "help": "column of the labels (default: found by its name and content, and said)"})
    label_separator: str | None = field(default=None, metadata={
        "help": "what stands between the labels of a row that has several, such as ';'"})
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = field(
        default=None, metadata={"help": "what the labels are (default: found from them, and said)"})
    input_format: str | None = field(default=None, metadata={
        "help": "format of the files (default: by the ends of their names)"})
    delimiter: str | None = field(default=None, metadata={
        "help": "what stands between the fields of a CSV file, such as ';' or tab (default: a comma)"})
    on_error: Literal["stop", "skip"] = field(default="stop", metadata={
        "help": "what to do with a record that cannot be read"})
    benchmark: Literal["glue", "squad", "own"] = field(default="glue", metadata={
        "help": "family of tasks; own stands for rows of your own, and is meant wherever there is a train_file"})
    task: str = field(default=BY_DATA, metadata={
        "help": f"task of the benchmark: {', '.join(TASKS)} (default: sst2), or squad; for own rows a name of your "
                "choice"})
    hold_out: float | None = field(default=None, metadata={
        "help": f"own rows: share of the training rows to score on (default: {HOLD_OUT:g}), in place of the dev split "
                "that a dataset_name may have; a benchmark: train on the dev set but for this share, and score on the "
                "share, for a task without training rows"})
    data_dir: str | None = field(default=None, metadata={
        "help": "folder of the GLUE download, or the task's folder in it; without it the data come from the hub"})
    fraction: float = field(default=1.0, metadata={"help": "share of the training rows to train on, drawn at random"})

    def __post_init__(self) -> None:
        self._list_files("train_file", "dev_file")
        for name, choices in _choices(type(self)).items():
            value = getattr(self, name)
            if value not in (*choices, getattr(type(self), name)):  # the default, which may be None
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")
        self._choose_benchmark()
        self._fill(BENCHMARK_DEFAULTS[self.benchmark])
        if self.benchmark == "squad" and self.task != "squad":
            raise ValueError(f"task is {self.task!r}, but the benchmark squad has one task only: leave it out.")
        if self.benchmark == "glue":
            find_task(self.task)
        if self.task is None:
            self.task = self.dataset_name or (task_of(self.train_file[0]) if self.train_file else "own rows")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}, expected more than 0 and at most 1.")
        if self.hold_out is not None and not 0 < self.hold_out < 1:
            raise ValueError(f"hold_out is {self.hold_out}, expected more than 0 and less than 1.")

    def _list_files(self, *names: str) -> None:
        """Make lists of strings of fields of files, of which one may be given by itself."""
        for name in names:
            files = getattr(self, name)
            setattr(self, name, list(map(str, [files] if isinstance(files, (str, Path)) else files or ())))

    def _fill(self, values: dict[str, Any]) -> None:
        """Set the fields that were left out, which are None, to ``values``."""
        for name, value in values.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    def _choose_benchmark(self) -> None:
        if self.train_file and self.dataset_name:
            raise ValueError(f"train_file is {self.train_file[0]} and dataset_name is {self.dataset_name}: pass one of "
                             "the two.")
        if self.train_file or self.dataset_name:
            name = "train_file" if self.train_file else "dataset_name"
            if self.benchmark == "squad":
                raise ValueError(f"{name} is given, but the benchmark is squad: leave one of the two out.")
            self.benchmark = "own"
        if self.benchmark == "own":
            if self.data_dir is not None:
                raise ValueError(f"data_dir is {self.data_dir}, but the rows are your own: leave it out.")
            if self.dataset_name and self.dev_file:
                raise ValueError(f"dataset_name is {self.dataset_name} and dev_file is {self.dev_file[0]}: leave "
                                 "dev_file out, as the dev rows are those of the data set, or a share of its training "
                                 "rows with hold_out.")
            if self.dev_file and self.hold_out is not None:
                raise ValueError(f"dev_file is {self.dev_file[0]} and hold_out is {self.hold_out}: pass one of the "
                                 "two.")
            return
        for name in OWN_ROWS:
            if getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name)}, but train_file is not given: name the file of your "
                                 "training rows.")


def _choices(options_class: type[DataOptions]) -> dict[str, tuple[str, ...]]:
    """The values that ``Literal`` gives a field, by the field's name."""
    found = {}
    for name, hint in get_type_hints(options_class).items():
        for part in (hint, *get_args(hint)):  # the second of ``Literal[...] | None``
            if get_origin(part) is Literal:
                found[name] = get_args(part)
    return found


def task_of(file: str) -> str:
    """The task that is named after a file: its name up to the first point."""
    return Path(file).name.partition(".")[0]


def expect_other_folder(name: str, folder: str | Path, output_dir: str) -> None:
    """Raise ValueError, which names the option, for a ``folder`` of a teacher that is ``output_dir``."""
    if os.path.realpath(folder) == os.path.realpath(output_dir):
        raise ValueError(f"{name} and output_dir are both {output_dir}, where the result would replace the teacher: "
                         "name another output_dir.")


def expect_seed(name: str, seed: int) -> None:
    """Raise ValueError, which names the option, for a seed that numpy's generators do not take."""
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"{name} is {seed}, expected a number from 0 to {LARGEST_SEED}.")
