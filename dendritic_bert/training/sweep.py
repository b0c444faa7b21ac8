"""A search over hyperparameters on this machine, with Optuna: in the space of a Weights & Biases sweep file or, for
rows of one's own, around the values that fit the rows.

    dendritic-bert sweep --task sst2 --dsn --data_dir glue --trials 30 --output_dir sweep

Every trial is a training, judged by its mean score over the seeds. From the sixth on, one whose best dev score is below
the median of the others' after a quarter, half or three quarters of the training ends there. The study is kept in a
file, so that a search that was interrupted, or that is to try more, continues. With other rows or options, whose scores
could not be compared, it does not.
"""

from __future__ import annotations

import csv
import math
import shlex
import shutil
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ..atomic_write import atomic_path
from ..datasets.benchmark import Benchmark
from ..file_lock import locked
from .command_line import command_line
from .defaults import space_around_rule
from .initialization import choose_start
from .markdown import markdown_table
from .options import TrainingOptions
from .output_folders import expect_no_other_files, expect_writable, expecting_room
from .sweep_options import SweepOptions
from .trainer import open_benchmark, require_extra, settings_that_matter, train

if TYPE_CHECKING:
    import optuna

FIRST_TRIALS = 5  # which all run to their end
TRIAL_FOLDER = ".unfinished-trial"  # in output_dir, where one trial after another works; no name that a user would give
STUDY, TABLE, REPORT, PICTURE = "study.db", "sweep.csv", "sweep.md", "parallel_coordinates.png"


def sweep(options: SweepOptions) -> dict[str, Any]:
    """Search until there are ``options.trials`` trials; write sweep.csv, sweep.md and parallel_coordinates.png, each
    whole or not at all.

    A training whose loss is not finite counts as a failed trial. One that was interrupted counts as none. Returns task,
    best (the parameters of the best trial, with those that the space fixes), value (its score), trials (their number)
    and output_dir. Raises as ``train`` does, BlockingIOError if another search goes on in ``output_dir``,
    FileExistsError if it holds a search of other rows or options or of an older version, or without a search files of
    these names, and RuntimeError if every trial failed.
    """
    require_extra("optuna", "matplotlib")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    output = Path(options.output_dir)
    if not (output / STUDY).exists():
        expect_no_other_files(output, (TABLE, REPORT, PICTURE), f"{STUDY} of a search")
    expect_writable(output, "output_dir")
    output.mkdir(parents=True, exist_ok=True)
    with expecting_room(output, "output_dir"), locked(output / "sweep.lock", f"output_dir {output}"):
        return _search(options, output)


def _search(options: SweepOptions, output: Path) -> dict[str, Any]:
    benchmark = open_benchmark(options)  # once for all trials
    if benchmark.report is not None:
        print(benchmark.report, file=sys.stderr, flush=True)
    if options.space is None:
        options.parameters = space_around_rule(
            choose_start(options, benchmark.texts(), benchmark.settings), benchmark.num_train,
            benchmark.settings["num_labels"], benchmark.settings.get("problem_type"))
    study = _open_study(options, benchmark, output)
    while (number := len(_finished_trials(study))) < options.trials:
        print(f"trial {number + 1} of {options.trials}", file=sys.stderr, flush=True)
        study.optimize(lambda trial: _train_trial(trial, options, benchmark, output / TRIAL_FOLDER), n_trials=1)
    if not _scored_trials(study):
        raise RuntimeError(f"none of {options.trials} trials has a score, as every loss became infinite or NaN: narrow "
                           "the space.")
    _write_results(study, options, output)
    return {"task": options.task, "best": _parameters_of(study.best_trial, options), "value": study.best_value,
            "trials": len(_finished_trials(study)), "output_dir": str(output)}


def _open_study(options: SweepOptions, benchmark: Benchmark, output: Path) -> optuna.Study:
    """The study in ``output``, which may have trials; raises FileExistsError if it is one of other rows or options."""
    import optuna

    storage = f"sqlite:///{output / STUDY}"
    # More trials may follow; of the space, not the file's name matters.
    settings = settings_that_matter(options, benchmark) | {"trials": None, "space": options.parameters}
    for other in optuna.get_all_study_summaries(storage, include_best_trial=False):
        kept = other.user_attrs.get("settings", {})  # which versions up to 0.1.0 did not keep
        if other.n_trials and kept != settings:
            differing = ", ".join(name for name in settings if kept.get(name) != settings[name])
            what = f"other rows or options ({differing})" if kept else "an older version"
            raise FileExistsError(f"output_dir {output} holds a search of {what}: name another folder, or delete this "
                                  "one.")
    study = optuna.create_study(storage=storage, study_name=options.task, direction="maximize", load_if_exists=True,
                                pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS))
    study.set_user_attr("settings", settings)
    # By the seed alone, a search that goes on would draw what it drew at first.
    study.sampler = optuna.samplers.TPESampler(seed=options.seeds[0] + len(study.trials))
    return study


def _train_trial(trial: optuna.Trial, options: SweepOptions, benchmark: Benchmark, folder: Path) -> float:
    import optuna

    chosen = {name: _suggest(trial, name, entry) for name, entry in options.parameters.items()}
    # Growth has no length that is known.
    callbacks = [] if options.dendrites else [_EndsEarly(trial, benchmark.main_metric)]
    try:
        results = train(_training_options(options, **chosen, output_dir=str(folder), baseline=False), benchmark,
                        callbacks=callbacks)
    except RuntimeError as error:
        trial.set_user_attr("failure", str(error))
        raise optuna.TrialPruned(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trial.set_user_attr("parameters", results["live_parameters"]["all"])
    trial.set_user_attr("sd", results["sd"])
    return results["mean"]


class _EndsEarly(TrainerCallback):
    """Reports the first dev score of each quarter of a trial with one seed after another, and ends the trial where the
    pruner of its study says so. Several processes, which would have to end together, train to the end."""

    def __init__(self, trial: optuna.Trial, metric: str):
        self.trial, self.metric, self.seed, self.quarter = trial, metric, -1, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seed, self.quarter = self.seed + 1, 0

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        quarter = 4 * state.global_step // state.max_steps
        if self.quarter < quarter < 4 and args.world_size == 1:
            self.quarter = quarter
            self.trial.report(metrics[f"eval_{self.metric}"], 4 * self.seed + quarter)
            if self.trial.should_prune():
                import optuna

                raise optuna.TrialPruned


def _training_options(options: SweepOptions, **changes: Any) -> TrainingOptions:
    """The options of a single training."""
    return TrainingOptions(**{option.name: getattr(options, option.name) for option in fields(TrainingOptions)}
                           | changes)


def _suggest(trial: optuna.Trial, name: str, entry: dict[str, Any]) -> Any:
    if "value" in entry:
        return entry["value"]
    if "values" in entry:
        return trial.suggest_categorical(name, entry["values"])
    if entry.get("distribution") == "int_uniform":
        return trial.suggest_int(name, entry["min"], entry["max"])
    return trial.suggest_float(name, entry["min"], entry["max"],
                               log=entry.get("distribution") == "log_uniform_values")


def _parameters_of(trial: Any, options: SweepOptions) -> dict[str, Any]:
    """The parameters of a trial, with those that the space fixes, which the study does not know."""
    return {name: entry["value"] if "value" in entry else trial.params[name]
            for name, entry in options.parameters.items()}


def _finished_trials(study: optuna.Study) -> list[Any]:
    """Those with a score, those whose loss was not finite and those that were ended early, but none that an error or a
    kill interrupted."""
    import optuna

    return study.get_trials(states=[optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED])


def _scored_trials(study: optuna.Study) -> list[Any]:
    import optuna

    return study.get_trials(states=[optuna.trial.TrialState.COMPLETE])  # one that was ended has its last score


def _write_results(study: optuna.Study, options: SweepOptions, output: Path) -> None:
    trials = sorted(_scored_trials(study), key=lambda trial: -trial.value)
    finished = _finished_trials(study)
    failed = sum("failure" in trial.user_attrs for trial in finished)
    ended = len(finished) - len(trials) - failed
    chosen = [_parameters_of(trial, options) for trial in trials]
    names = list(options.parameters)
    lines = [[str(trial.number), *map(_short, values.values()), f"{trial.user_attrs['parameters']:,}",
              f"{100 * trial.value:.2f}",
              "-" if trial.user_attrs["sd"] is None else f"{100 * trial.user_attrs['sd']:.2f}"]
             for trial, values in zip(trials, chosen)]
    with atomic_path(output / TABLE) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["trial", *names, "parameters", "mean", "sd"],
             *([trial.number, *values.values(), trial.user_attrs["parameters"], trial.value, trial.user_attrs["sd"]]
               for trial, values in zip(trials, chosen))])
    text = "\n".join([
        f"# A search over {len(finished)} trainings on {options.task}\n",
        f"The mean dev score over {len(options.seeds)} seeds, in percent, the best first; "
        f"{failed} trainings failed, and {ended} were ended early, behind the others. The best of many trials scores "
        "higher here than it does elsewhere: train it again with other seeds before you rely on its score.\n",
        markdown_table(["trial", *(name.replace("_", " ") for name in names), "parameters", "score", "sd"], lines),
        "```", shlex.join(command_line(_training_options(options, **chosen[0]))), "```\n",
        f"![the parameters of every trial, coloured by its score]({PICTURE})\n",
    ])
    with atomic_path(output / REPORT) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    with atomic_path(output / PICTURE) as unfinished:
        _draw(study, unfinished)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _draw(study: optuna.Study, path: Path) -> None:
    import matplotlib
    import optuna

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's on an experimental function and on an axis with a single value
        matplotlib.use("agg")  # needs no display
        from matplotlib import pyplot

        optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name="score")
        figure = pyplot.gcf()
        figure.set_size_inches(10, 5)
        figure.savefig(path, dpi=120, bbox_inches="tight", format="png")
        pyplot.close(figure)
