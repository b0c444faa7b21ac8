"""The command that gives the options of a training, for cards and for results."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from .data_options import BENCHMARK_DEFAULTS
from .distillation_options import TEACHING_OF_BENCHMARKS
from .options import FORMS, WINDOWS, TrainingOptions


def changed_fields(options: TrainingOptions) -> dict[str, Any]:
    """The options that differ from their defaults, and those whose default depends on the benchmark."""
    defaults = {option.name: option.default_factory() if callable(option.default_factory) else option.default
                for option in fields(options)}
    if options.benchmark != "own":  # every benchmark has these, so that they are not worth a mention
        defaults |= {name: BENCHMARK_DEFAULTS[options.benchmark][name] for name in ("epochs", "weight_decay")}
        defaults |= {name: value for name, value in TEACHING_OF_BENCHMARKS.items() if name in defaults}
    if options.model_name is None:
        defaults["init"] = "encoder" if options.benchmark == "own" else "random"
    if options.init != "encoder" and not options.has_windows:
        defaults |= dict.fromkeys(WINDOWS, 0)
    if options.init == "random":
        defaults |= FORMS[options.has_windows]
    return {name: value for name, value in asdict(options).items() if value != defaults[name]}


def command_line(options: TrainingOptions) -> list[str]:
    """The command that gives these options: what differs from the defaults, and benchmark, task and epochs. No word
    stands for None, which is always a default."""
    words = ["dendritic-bert", options.command]
    changed = changed_fields(options)
    for name, value in asdict(options).items():
        if value is None or (name not in changed and name not in ("benchmark", "task", "epochs")):
            continue
        words.append(f"--no_{name}" if value is False else f"--{name}")
        if not isinstance(value, bool):
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return words
