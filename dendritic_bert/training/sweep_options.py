"""What a search over hyperparameters can be told, and the checks of it. Nothing here imports torch or transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from .options import OWN_FORM, TrainingOptions

SWEEP_FILE = Path(__file__).with_name("sweep.yaml")


@dataclass
class SweepOptions(TrainingOptions):
    """How many trainings to try, in which space; the fields of ``TrainingOptions`` apply to each of them.

    parameters: what ``read_space`` makes of ``space``; none for own rows without ``space``, where ``sweep`` searches
    ``defaults.space_around_rule``. Raises ValueError, which names the field, for values that cannot be used.
    """

    command: ClassVar[str] = "sweep"

    trials: int = field(default=20, metadata={
        "help": "number of trainings, including those of earlier runs into output_dir"})
    space: str | None = field(default=None, metadata={
        "help": "file of parameters to vary, in the form of a sweep of Weights & Biases (default: those of the "
                f"dendrites, {SWEEP_FILE.name}; for own rows values around those that fit the rows)"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}, expected 1 or more.")

    def _choose_start(self) -> None:
        """As for a training; what a space varies counts as given."""
        if self.space is None and self.benchmark != "own":
            self.space = str(SWEEP_FILE)
        self.parameters = {} if self.space is None else read_space(self.space)
        if self.init is None and self.model_name is None and self.parameters.keys() & set(OWN_FORM):
            self.init = "random"
        super()._choose_start()


def read_space(path: str) -> dict[str, dict[str, Any]]:
    """The parameters of a sweep file by name: each has ``value``, ``values``, or ``min`` and ``max`` with a
    ``distribution``, which between whole numbers is int_uniform, and else uniform, where none is given.

    Raises ValueError for a file that cannot be read, and, naming the parameter, for one that is no field of
    ``TrainingOptions`` or has another form.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Takes 1e-4 for a number, as YAML 1.2 does, and not for a string."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
                                 list("-+.0123456789"))
    try:
        parameters = {**yaml.load(Path(path).read_text(encoding="utf-8"), Loader)["parameters"]}
    except OSError as error:
        raise ValueError(f"space {path} cannot be read ({error.strerror}): name a sweep file.") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"space {path} is not a sweep file with parameters: see {SWEEP_FILE}.") from error
    names = {option.name for option in fields(TrainingOptions)}
    for name, entry in parameters.items():
        if name not in names:
            raise ValueError(f"space {path} has the parameter {name!r}, which a training does not have: leave it out.")
        form = entry if isinstance(entry, dict) else {}
        bounds, values = (form.get("min"), form.get("max")), form.get("values")
        if all(isinstance(bound, int) for bound in bounds):
            form.setdefault("distribution", "int_uniform")
        is_range = (all(isinstance(bound, (int, float)) for bound in bounds) and form.get("distribution", "uniform") in
                    ("uniform", "log_uniform_values", "int_uniform"))
        if not (is_range or (isinstance(values, list) and values) or "value" in form):
            raise ValueError(f"space {path} has the parameter {name!r} in an unknown form, expected values, or min and "
                             "max with the distribution uniform, log_uniform_values or int_uniform.")
    return parameters
