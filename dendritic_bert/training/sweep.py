"""A search over hyperparameters on this machine, with Optuna, in the space that a sweep of Weights & Biases describes.

    dendritic-bert sweep --task sst2 --dsn --data_dir glue --trials 30 --output_dir sweep

Every trial is a training by ``training.train``, judged by its mean over the seeds. The study stands in a file, so that
a search that was interrupted, or is to go further, goes on.
"""

from __future__ import annotations

import csv
import math
import shlex
import shutil
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from .model_card import command_line, markdown_table
from .trainer import TrainingOptions, require_extra, train

if TYPE_CHECKING:
    import optuna

SPACE = Path(__file__).with_name("sweep.yaml")


@dataclass
class SweepOptions(TrainingOptions):
    """What to search, and how long; the fields of ``TrainingOptions`` are those of every trial.

    Raises ValueError, naming the field, for values that cannot be used.
    """

    command: ClassVar[str] = "sweep"

    trials: int = field(default=20, metadata={"help": "trainings, those of earlier runs into output_dir among them"})
    space: str = field(default=str(SPACE), metadata={"help": "sweep file of Weights & Biases with the parameters"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}, expected 1 or more.")
        self.parameters = read_space(self.space)


def read_space(path: str) -> dict[str, dict[str, Any]]:
    """The parameters of a sweep file, by name: ``values``, or ``min`` and ``max`` with a ``distribution``.

    Raises ValueError, naming the parameter, for one that is no field of ``TrainingOptions`` or of another kind.
    """
    try:
        parameters = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["parameters"]
    except OSError as error:
        raise ValueError(f"space {path} cannot be read ({error.strerror}): name a sweep file.") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"space {path} is no sweep file with parameters: see {SPACE}.") from error
    names = {option.name for option in fields(TrainingOptions)}
    for name, entry in parameters.items():
        if name not in names:
            raise ValueError(f"space {path} has the parameter {name!r}, which training has not: leave it out.")
        kind = entry.get("distribution", "uniform")
        is_range = {"min", "max"} <= entry.keys() and kind in ("uniform", "log_uniform_values", "int_uniform")
        if not (is_range or entry.get("values") or "value" in entry):
            raise ValueError(f"space {path} has the parameter {name!r} of an unknown kind, expected values, or min and "
                             "max with the distribution uniform, log_uniform_values or int_uniform.")
    return parameters


def sweep(options: SweepOptions) -> dict[str, Any]:
    """Search until there are ``options.trials`` trials; write sweep.csv, sweep.md and parallel_coordinates.png.

    A training whose loss is no longer a number counts as a failed trial. Returns the best trial's parameters and
    value, the number of trials, and output_dir. Raises as ``training.train`` does, and RuntimeError where every trial
    failed.
    """
    require_extra("optuna", "matplotlib")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    output = Path(options.output_dir)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"output_dir {output} cannot be written ({error.strerror}): name a folder that can.") from error
    study = optuna.create_study(storage=f"sqlite:///{output / 'study.db'}", study_name=options.task,
                                direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seeds[0]),
                                load_if_exists=True)
    while (number := sum(trial.state.is_finished() for trial in study.trials)) < options.trials:
        print(f"trial {number + 1} of {options.trials}", file=sys.stderr, flush=True)
        study.optimize(lambda trial: _train_trial(trial, options, output / "trial"), n_trials=1)
    if not _finished(study):
        raise RuntimeError(f"no trial of {options.trials} came to an end: narrow the space, its loss is no number.")
    _write_results(study, options, output)
    return {"task": options.task, "best": study.best_params, "value": study.best_value,
            "trials": len(study.trials), "output_dir": str(output)}


def _train_trial(trial: optuna.Trial, options: SweepOptions, folder: Path) -> float:
    import optuna

    chosen = {name: _suggest(trial, name, entry) for name, entry in options.parameters.items()}
    settings = {option.name: getattr(options, option.name) for option in fields(TrainingOptions)}
    try:
        results = train(TrainingOptions(**settings | chosen | {"output_dir": str(folder)}))
    except RuntimeError as error:
        raise optuna.TrialPruned(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trial.set_user_attr("parameters", results["live_parameters"]["all"])
    trial.set_user_attr("sd", results["sd"])
    return results["mean"]


def _suggest(trial: optuna.Trial, name: str, entry: dict[str, Any]) -> Any:
    if "value" in entry:
        return entry["value"]
    if "values" in entry:
        return trial.suggest_categorical(name, entry["values"])
    if entry.get("distribution") == "int_uniform":
        return trial.suggest_int(name, entry["min"], entry["max"])
    return trial.suggest_float(name, entry["min"], entry["max"],
                               log=entry.get("distribution") == "log_uniform_values")


def _finished(study: optuna.Study) -> list[Any]:
    return [trial for trial in study.trials if trial.value is not None]


def _write_results(study: optuna.Study, options: SweepOptions, output: Path) -> None:
    trials = sorted(_finished(study), key=lambda trial: -trial.value)
    names = list(options.parameters)
    lines = [[str(trial.number), *(_short(trial.params.get(name, "")) for name in names),
              f"{trial.user_attrs['parameters']:,}", f"{100 * trial.value:.2f}",
              "-" if trial.user_attrs["sd"] is None else f"{100 * trial.user_attrs['sd']:.2f}"] for trial in trials]
    with open(output / "sweep.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["trial", *names, "parameters", "mean", "sd"],
             *([trial.number, *(trial.params.get(name, "") for name in names), trial.user_attrs["parameters"],
                trial.value, trial.user_attrs["sd"]] for trial in trials)])
    best = replace(_plain(options), **trials[0].params)
    (output / "sweep.md").write_text("\n".join([
        f"# A search over {len(study.trials)} trainings on {options.task}\n",
        f"The mean dev score over {len(options.seeds)} seeds in percent, the best first; "
        f"{len(study.trials) - len(trials)} trainings failed. The best of many is better here than elsewhere: "
        "train it again with other seeds before its score is believed.\n",
        markdown_table(["trial", *(name.replace("_", " ") for name in names), "parameters", "score", "sd"], lines),
        "```", shlex.join(command_line(best)), "```\n",
        "![the parameters of every trial, its score as the colour](parallel_coordinates.png)\n",
    ]), encoding="utf-8")
    _draw(study, output / "parallel_coordinates.png")


def _plain(options: SweepOptions) -> TrainingOptions:
    return TrainingOptions(**{option.name: getattr(options, option.name) for option in fields(TrainingOptions)})


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _draw(study: optuna.Study, path: Path) -> None:
    import warnings

    import matplotlib
    import optuna

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and axes of a parameter with one value
        matplotlib.use("agg")  # no display
        from matplotlib import pyplot

        optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name="score")
        figure = pyplot.gcf()
        figure.set_size_inches(10, 5)
        figure.savefig(path, dpi=120, bbox_inches="tight")
        pyplot.close(figure)
