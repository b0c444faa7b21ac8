"""Trains every model again and writes the tables and pictures of bench/results/accuracy, and the README's table.

    python bench/accuracy/reproduce.py --data_dir glue --squad_dir squad --bert bert-tiny --teacher minilm

There are four parts, each a CSV file, a table in Markdown and pictures: ``tasks`` (every task once), ``sst2`` (three
models under four heads), ``distillation`` and ``windows``. What is trained is kept in ``work_dir``, from which an
interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import plots
import transformers
import windows
from experiments import Experiment, Summary, digest, in_parallel, run_experiments, summarise
from result_files import Row, made_by
from transformers import HfArgumentParser

from dendritic_bert.datasets.glue_tasks import TASKS
from dendritic_bert.growth.perforatedai_rule import SAVE_NAME
from dendritic_bert.training import TrainingOptions, train
from dendritic_bert.training.command_line import command_line
from dendritic_bert.training.distillation import TeacherLabelledGlue, distill
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.markdown import markdown_table
from dendritic_bert.training.options import FRESH_SIZES
from dendritic_bert.training.teacher import teacher_options

NUM_DENDRITES = 2  # of each output of the dendritic heads
HEADS = ("linear", "MLP", "dendritic", "grown")
BERT_TINY_PARAMETERS = 4_386_178  # with a linear head
# (parameters, accuracy) as announced for DendriticBERT, a submission to the PyTorch Dendritic Optimization Hackathon.
CLAIMS = {"BERT-tiny": ("4,386,178", "88.7"), "DSN by removal": ("-", "-"), "DSN, 16 dimensions": ("0.49 M", "89.5")}
PARTS = ("tasks", "sst2", "distillation", "windows")


@dataclass
class ReproduceOptions:
    """The parts to make and their inputs; each field is the flag of the same name.

    Raises ValueError, which names the field, for values that cannot be used.
    """

    data_dir: str = field(metadata={"help": "folder of the GLUE download"})
    bert: str = field(metadata={"help": "BERT-tiny: a folder or a hub id"})
    squad_dir: str | None = field(default=None, metadata={
        "help": "folder of SQuAD or XQuAD; without it SQuAD is left out"})
    teacher: str | None = field(default=None, metadata={
        "help": "encoder that becomes the teacher, a folder or a hub id; without it distillation is left out"})
    text_dir: str | None = field(default=None, metadata={
        "help": "folder of natural texts with a teacher's margins; without it windows are left out"})
    output: str = field(default="bench/results/accuracy", metadata={
        "help": "folder for tables, CSV files and pictures"})
    parts: list[str] = field(default_factory=lambda: list(PARTS), metadata={
        "help": f"parts to make, of {', '.join(PARTS)} (default: all)"})
    seeds: int = field(default=5, metadata={"help": "number of trainings of each model under each head"})
    fraction: float = field(default=1.0, metadata={"help": "share of the training rows; less than 1 makes a trial run"})
    jobs: int = field(default=1, metadata={
        "help": "trainings at a time; if more than one, each runs in a process of one thread"})
    teacher_bf16: bool = field(default=False, metadata={
        "help": "matrix products of the teacher in bfloat16, which saves hours on processors that have them (AMX)"})
    work_dir: str = field(default="build/reproduce", metadata={
        "help": "folder for the teacher, its logits and the finished trainings, all of which later runs use again"})
    readme: str | None = field(default=None, metadata={
        "help": "file in which the table of sst2 replaces the text between <!-- results --> and <!-- /results -->"})

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise ValueError(f"parts is {' '.join(self.parts) or 'empty'}, expected some of {', '.join(PARTS)}.")
        needed = {"distillation": ("teacher", "an encoder"), "windows": ("text_dir", "a folder")}
        are_all = self.parts == list(PARTS)
        for part, (name, what) in needed.items():
            if part in self.parts and getattr(self, name) is None:
                if not are_all:
                    raise ValueError(f"{name} is not given, which the part {part} needs: name {what}.")
                self.parts = [other for other in self.parts if other != part]
        for name in ("seeds", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}, expected more than 0 and at most 1.")


def reproduce(options: ReproduceOptions) -> list[str]:
    """Make the parts that ``options`` name and return the paths of the files written.

    Raises as ``train`` does, and ValueError if ``readme`` has no place for the table.
    """
    output = Path(options.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"output {output} cannot be written ({error.strerror}): name a folder that can.") from error
    if options.readme is not None:
        _split_at_marks(Path(options.readme))  # before hours of training
    makers = {"tasks": make_tasks, "sst2": make_sst2, "distillation": make_distillation, "windows": make_windows}
    written: list[Path] = []
    for part in options.parts:
        written += makers[part](options, output)
    return [str(path) for path in written]


def _train_all(part: str, experiments: list[Experiment], seeds: int, options: ReproduceOptions) -> list[Row]:
    """The rows of a part's experiments, one per experiment and seed; its CSV file is copied to ``output``."""
    path = Path(options.work_dir) / f"{part}.csv"
    rows = run_experiments(experiments, range(seeds), path, options.jobs)
    shutil.copy(path, options.output)
    return rows


def mlp_size(hidden_size: int, num_labels: int = 2, num_dendrites: int = NUM_DENDRITES) -> int:
    """Width of the hidden layer for which the number of an MLP's parameters is closest to that of a dendritic head."""
    dendritic = ((1 + num_dendrites) * num_labels * (hidden_size + 1)
                 + num_dendrites * (num_dendrites + 1) // 2 * num_labels)
    return max(1, round((dendritic - num_labels) / (hidden_size + 1 + num_labels)))


# ---- every task, once ------------------------------------------------------------------------------------------------


def task_experiments(options: ReproduceOptions) -> list[Experiment]:
    """A small DSN and BERT-tiny on each task that ``data_dir`` holds; without training rows, on four fifths of dev."""
    experiments = []
    for name, task in TASKS.items():
        folder = Path(options.data_dir) / task.folder
        if not (folder / f"{task.dev_splits[0]}.tsv").is_file():
            continue
        hold_out = None if (folder / "train.tsv").is_file() else 0.2
        common = {"task": name, "data_dir": options.data_dir, "hold_out": hold_out, "fraction": options.fraction}
        pair = _dsn_and_bert(name, common, options.bert)
        experiments += pair[:1] if name == "sst2" else pair  # BERT-tiny on SST-2 is in the part sst2
    if options.squad_dir is not None:
        folder = Path(options.squad_dir)
        hold_out = None if (folder / "train-v1.1.json").is_file() else 0.2
        common = {"benchmark": "squad", "data_dir": options.squad_dir, "hold_out": hold_out,
                  "fraction": options.fraction}
        experiments += _dsn_and_bert("squad", common, options.bert)
    return experiments


def _dsn_and_bert(task: str, common: dict[str, Any], bert: str) -> list[Experiment]:
    # These have at most a tenth of SST-2's rows: three epochs of large batches would be about a hundred steps.
    longer: dict[str, Any] = {} if task == "sst2" else {"batch_size": 32, "epochs": 10}
    small = TrainingOptions(dsn=True, num_dendrites=NUM_DENDRITES, **common, **longer)
    large = TrainingOptions(model_name=bert, num_dendrites=NUM_DENDRITES, **common | {"batch_size": 32,
                                                                                      "word_dropout": 0.0})
    return [Experiment({"task": task, "model": "DSN, 16 dimensions"}, small),
            Experiment({"task": task, "model": "BERT-tiny"}, large)]


def make_tasks(options: ReproduceOptions, output: Path) -> list[Path]:
    """Write ``tasks.csv`` and ``tasks.md``: one seed, all metrics."""
    rows = _train_all("tasks", task_experiments(options), 1, options)
    known = {metric for task in TASKS.values() for metric in task.metrics} | {"f1", "exact_match"}
    lines = []
    for row in rows:
        scores = sorted(((name, value) for name, value in row.items()
                         if re.sub("_(mis)?matched$", "", name) in known and value),
                        key=lambda score: score[0] != row["metric"])
        lines.append([row["task"], row["model"],
                      ", ".join(f"{name.replace('_', ' ')} {100 * float(value):.1f}" for name, value in scores),
                      f"{100 * float(row['majority']):.1f}" if row["majority"] else "-",
                      f"{int(row['num_train']):,}", f"{int(row['num_dev']):,}", f"{int(row['parameters_all']):,}"])
    missing = [name for name in TASKS if name not in {row["task"] for row in rows}]
    text = "\n".join([
        "# Every task, once\n",
        *_warning(options),
        "Scores after the last epoch on the whole dev set, in percent, for one seed. The Dendritic Semantic Network "
        "(DSN) is trained for 10 epochs (SST-2: 3), BERT-tiny for 3. \"Most frequent\" is the accuracy of a model that "
        "always answers with the most frequent label of the dev set.\n",
        markdown_table(["task", "model", "scores", "most frequent", "rows trained on", "rows scored on", "parameters"],
                       lines, num_text_columns=3),
        "For tasks whose training rows were not available (QNLI, SQuAD), the models are trained on four fifths of the "
        "dev set and scored on the rest, so that these scores cannot be compared with published ones.\n",
        "A DSN pools the vectors of single tokens. It cannot see how two texts relate (RTE, QNLI, WNLI, MRPC, QQP, "
        "MNLI, STS-B) or in which order words stand (CoLA), and it cannot compare a question with a passage (SQuAD): "
        "it is not a model for these tasks.\n",
        *([f"Not run, as the data were not available: {', '.join(missing)}.\n"] if missing else []),
        made_by("reproduce"),
    ])
    return [output / "tasks.csv", _write(output / "tasks.md", text)]


# ---- three models under four heads -----------------------------------------------------------------------------------


def sst2_experiments(options: ReproduceOptions, growth_graph: Path) -> list[Experiment]:
    """BERT-tiny, the DSN that is left when its encoder is removed, and a DSN of 0.49 M parameters, each under the same
    heads: one layer, two layers, dendrites from the start, and, for a DSN, dendrites that PerforatedAI grows."""
    common: dict[str, Any] = {"task": "sst2", "data_dir": options.data_dir, "fraction": options.fraction}
    hidden_size = transformers.AutoConfig.from_pretrained(options.bert).hidden_size
    models: dict[str, tuple[int, dict[str, Any]]] = {
        "BERT-tiny": (hidden_size, {"model_name": options.bert, "batch_size": 64, "word_dropout": 0.0}),
        "DSN by removal": (hidden_size, {"model_name": options.bert, "dsn": True}),
        # BERT's 30,522 word pieces in 16 dimensions. With 80 positions, of which SST-2 needs 66, it stays below 0.49 M.
        "DSN, 16 dimensions": (16, {"tokenizer_name": options.bert, "dsn": True, "hidden_size": 16, "max_length": 80,
                                    "max_position_embeddings": 80}),
    }
    experiments = []
    for model, (size, settings) in models.items():
        heads: dict[str, dict[str, Any]] = {"linear": {}, "MLP": {"head_hidden": mlp_size(size)},
                                            "dendritic": {"num_dendrites": NUM_DENDRITES},
                                            "grown": {"dendrites": NUM_DENDRITES, "patience": 1, "dendrite_tries": 1}}
        run = partial(_train_and_keep_graph, path=growth_graph) if size == FRESH_SIZES["hidden_size"] else train
        # Growing dendrites on BERT-tiny would take an hour more, as each stage is a whole training.
        experiments += [Experiment({"model": model, "head": head}, TrainingOptions(**common | settings | heads[head]),
                                   run if head == "grown" else train)
                        for head in HEADS if head != "grown" or "dsn" in settings]
    return experiments


def _train_and_keep_graph(options: TrainingOptions, path: Path) -> dict[str, Any]:
    """Train, and copy the graph that PerforatedAI draws of the growth with the first seed to ``path``."""
    results = train(options)
    drawn = Path(options.output_dir) / SAVE_NAME / f"{SAVE_NAME}.png"
    if options.seeds == [0] and drawn.exists():
        shutil.copyfile(drawn, path)
    return results


def make_sst2(options: ReproduceOptions, output: Path) -> list[Path]:
    """Write ``sst2.csv``, ``sst2.md`` and its pictures, and put the table into ``options.readme``."""
    growth_graph = Path(options.work_dir) / "growth.png"
    rows = _train_all("sst2", sst2_experiments(options, growth_graph), options.seeds, options)
    summaries = summarise(rows, ["model", "head"])
    pictures = [
        plots.architecture(output / "architecture.png"),
        plots.parameter_reduction(summaries, output / "parameters.png"),
        plots.error_reduction(summaries, output / "error_reduction.png"),
        plots.accuracy_against_parameters(summaries, output / "accuracy.png"),
        *([Path(shutil.copy(growth_graph, output))] if growth_graph.exists() else []),
    ]
    table = sst2_table(summaries, rows)
    text = "\n".join([
        "# SST-2: BERT-tiny without its encoder, and what a head adds\n", *_warning(options), table,
        *(f"![{path.stem.replace('_', ' ')}]({path.name})\n" for path in pictures), made_by("reproduce"),
    ])
    if options.readme is not None:
        _replace_block(Path(options.readme), table)
    return [output / "sst2.csv", _write(output / "sst2.md", text), *pictures]


def sst2_table(summaries: list[Summary], rows: list[Row]) -> str:
    """The table of models and heads beside the figures claimed for DendriticBERT, and why they differ."""
    first = {summary.columns["model"]: summary for summary in reversed(summaries)}
    lines = []
    for summary in summaries:
        model, head = summary.columns["model"], summary.columns["head"]
        claim = CLAIMS[model] if head == "linear" else ("", "")
        lines.append([model, head, summary.percent(), f"{summary.parameters():,}",
                      f"{summary.parameters('embeddings'):,}", f"{summary.parameters('encoder'):,}",
                      f"{summary.parameters('head'):,}", f"{summary.seconds():.0f}", *claim])
    removal, small = first.get("DSN by removal"), first.get("DSN, 16 dimensions")
    shares = {name: 100 * (summary.parameters() / BERT_TINY_PARAMETERS - 1)
              for name, summary in (("removal", removal), ("small", small)) if summary is not None}
    return "\n".join([
        f"Dev accuracy on SST-2 in percent, mean ± standard deviation over {summaries[0].num_seeds} seeds, always "
        "after the last epoch (no epoch is chosen); live parameters; seconds per training. DSN is the Dendritic "
        "Semantic Network.\n",
        markdown_table(["model", "head", "accuracy", "parameters", "embeddings", "encoder and pooler", "head",
                        "seconds", "claimed parameters", "claimed accuracy"], lines, num_text_columns=2),
        f"One standard error of an accuracy on {int(rows[0]['num_dev']):,} sentences is "
        f"{100 * float(rows[0]['standard_error']):.1f} points. The MLP and the dendritic head of a model are of equal "
        f"size. The dendritic head has {NUM_DENDRITES} dendrites per output from the start; the grown head gets up to "
        "as many from PerforatedAI's tracker, one whenever the loss on a tenth of the training rows stalls. Its stages "
        "take up to nine epochs in all, and the held-out phrases are parts of sentences that are trained on: their "
        "loss still falls when the accuracy on the dev set falls as well.\n",
        "The claims are those of DendriticBERT, a submission to the PyTorch Dendritic Optimization Hackathon. Removing "
        "the encoder leaves the embeddings, which are nearly all of BERT-tiny: the change is "
        f"{shares.get('removal', 0):+.1f} %, not -88.9 %. To get down to 0.49 M parameters the embeddings need 16 "
        f"dimensions instead of 128 ({shares.get('small', 0):+.1f} %), and that is a model trained from random "
        "numbers, not BERT-tiny with a part removed. The accuracies of 88.7 % and 89.5 % were never measured: the "
        "published accuracy of BERT-tiny is 83.2 % (test), and no source shows 89.5 % for averaged word vectors of any "
        "size.\n",
    ])


# ---- distillation ----------------------------------------------------------------------------------------------------

NUM_AUGMENTED = 180_000
TEACHER_SEEDS = (0, 1)
RESULTS_FILE = "results.json"
# Each adds to the one before.
INGREDIENTS = ("labels alone", "+ the teacher's probabilities", "+ augmented text", "+ averaged weights")


def student_options(options: ReproduceOptions, teacher: str, **changes: Any) -> DistillationOptions:
    """The whole recipe, of all ingredients, but for ``changes``."""
    settings: dict[str, Any] = {
        "task": "sst2", "dsn": True, "data_dir": options.data_dir, "fraction": options.fraction,
        "teacher": teacher, "teacher_dir": str(Path(options.work_dir) / "labels"),
        "num_augmented": round(NUM_AUGMENTED * options.fraction), "teacher_bf16": options.teacher_bf16,
    }
    return DistillationOptions(**settings | changes)


def distillation_experiments(options: ReproduceOptions, teacher: str) -> list[Experiment]:
    """The recipe, one ingredient after the other, each under three heads, of which the last two are of equal size."""
    alone: dict[str, Any] = {"task": "sst2", "dsn": True, "data_dir": options.data_dir, "fraction": options.fraction}
    heads: dict[str, dict[str, Any]] = {"linear": {}, "MLP": {"head_hidden": mlp_size(FRESH_SIZES["hidden_size"])},
                                        "dendritic": {"num_dendrites": NUM_DENDRITES}}
    left_out: tuple[dict[str, Any], ...] = ({"num_augmented": 0, "ema": 0.0}, {"ema": 0.0}, {})
    experiments = [Experiment({"recipe": INGREDIENTS[0], "head": head}, TrainingOptions(**alone | settings))
                   for head, settings in heads.items()]
    for recipe, changes in zip(INGREDIENTS[1:], left_out):
        experiments += [Experiment({"recipe": recipe, "head": head},
                                   student_options(options, teacher, **changes | settings), distill)
                        for head, settings in heads.items()]
    return experiments


def make_teacher(options: ReproduceOptions) -> tuple[str, list[dict[str, Any]]]:
    """The folder of the first seed's teacher and the results of every teacher; missing ones are fine-tuned."""
    example = student_options(options, str(options.teacher))
    name = f"teacher-{digest(teacher_options(example, ''))}"
    folders = {Path(options.work_dir) / f"{name}-{seed}": seed for seed in TEACHER_SEEDS}
    calls = [(replace(teacher_options(example, str(folder)), seeds=[seed]),) for folder, seed in folders.items()
             if not (folder / RESULTS_FILE).exists()]
    for results in in_parallel(train, calls, options.jobs):
        _write(Path(results["output_dir"]) / RESULTS_FILE, json.dumps(results, indent=2))
    return str(next(iter(folders))), [json.loads((folder / RESULTS_FILE).read_bytes()) for folder in folders]


def make_distillation(options: ReproduceOptions, output: Path) -> list[Path]:
    """Write ``distillation.csv`` and ``distillation.md``."""
    teacher, taught = make_teacher(options)
    experiments = distillation_experiments(options, teacher)
    TeacherLabelledGlue(student_options(options, teacher))  # labels the texts, on all cores, before the students do
    rows = _train_all("distillation", experiments, options.seeds, options)
    summaries = summarise(rows, ["recipe", "head"])
    lines, before = [], dict[str, Summary]()
    for summary in summaries:
        base = before.get(summary.columns["head"])
        gain = "" if base is None else f"{100 * (summary.mean - base.mean):+.1f}{_gain_error(summary, base)}"
        before[summary.columns["head"]] = summary
        lines.append([summary.columns["recipe"], summary.columns["head"], summary.percent(), gain,
                      f"{summary.parameters():,}", f"{summary.seconds():.0f}"])
    teacher_scores = [100 * results["mean"] for results in taught]
    best = max(range(len(summaries)), key=lambda place: summaries[place].mean)
    text = "\n".join([
        "# SST-2, learnt from a teacher\n",
        *_warning(options),
        "The teacher is an encoder whose mean over the tokens goes to a linear head, with "
        f"{taught[0]['live_parameters']['all']:,} parameters and a dev accuracy of "
        f"{', '.join(f'{score:.1f}' for score in teacher_scores)} (mean {np.mean(teacher_scores):.1f}), fine-tuned in "
        f"{np.mean([results['seconds'] for results in taught]):.0f} s; the first of them teaches.\n",
        "The students are Dendritic Semantic Networks (DSN). Their dev accuracy is in percent, mean ± standard "
        f"deviation over {options.seeds} seeds, always after the last epoch. Each ingredient is added to those above "
        "it; the MLP and the dendritic head are of equal size. A gain is over the same head without the ingredient, "
        "given with its standard error.\n",
        markdown_table(["recipe", "head", "accuracy", "gain", "parameters", "seconds"], lines, num_text_columns=2),
        "The best recipe is chosen by its mean on this dev set, not by a best epoch or seed: expect slightly less "
        "elsewhere. No augmented text shares a whole sentence, or six words in a row, with the dev set.\n",
        "The best recipe:\n", "```", shlex.join(command_line(experiments[best].options)), "```\n",
        made_by("reproduce"),
    ])
    return [output / "distillation.csv", _write(output / "distillation.md", text)]


def _gain_error(summary: Summary, base: Summary) -> str:
    """Standard error of the difference of two means, in percent; a single seed has none."""
    if summary.sd is None or base.sd is None:
        return ""
    return f" ± {100 * (summary.sd**2 / summary.num_seeds + base.sd**2 / base.num_seeds) ** 0.5:.1f}"


# ---- windows ---------------------------------------------------------------------------------------------------------


def make_windows(options: ReproduceOptions, output: Path) -> list[Path]:
    """Write ``windows.csv``, ``windows.md`` and a picture."""
    data = (options.data_dir, str(options.text_dir), options.fraction)
    path = Path(options.work_dir) / "windows.csv"
    rows = run_experiments(windows.first_experiments(*data), range(options.seeds), path, options.jobs)
    rows += run_experiments(windows.other_experiments(*data), range(1), path, options.jobs)
    shutil.copy(path, options.output)
    summaries = summarise(rows, ["kind", "change", "texts"])
    picture = plots.accuracy_of_texts([summary for summary in summaries if summary.columns["kind"] != "change"],
                                      output / "texts.png")
    text = "\n".join([
        "# SST-2: dendrites on windows, learnt from a teacher and natural text\n", *_warning(options),
        *windows.windows_tables(summaries), f"![accuracy against the number of texts]({picture.name})\n",
        "The recipe:\n", "```", shlex.join(command_line(windows.recipe_options("glue", "sst2_distill"))), "```\n",
        made_by("reproduce")])
    return [output / "windows.csv", _write(output / "windows.md", text), picture]


# ---- files -----------------------------------------------------------------------------------------------------------


def _warning(options: ReproduceOptions) -> list[str]:
    if options.fraction == 1:
        return []
    return [f"**Trained on {100 * options.fraction:g} % of the rows (--fraction): this is a trial run, and its figures "
            "mean nothing.**\n"]


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


BEGIN, END = "<!-- results -->", "<!-- /results -->"


def _split_at_marks(path: Path) -> tuple[str, str]:
    """The text before and after the table in a file. Raises ValueError if the file does not have the two marks."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"readme {path} has no {BEGIN} followed by {END}: put them where the table belongs.")
    return text[:text.index(BEGIN)], text[text.index(END) + len(END):]


def _replace_block(path: Path, table: str) -> None:
    before, after = _split_at_marks(path)
    path.write_text(f"{before}{BEGIN}\n{table}{END}{after}", encoding="utf-8")


# ---- the command line ------------------------------------------------------------------------------------------------


class _Parser(HfArgumentParser):
    """A flag for each field of ``ReproduceOptions``, with errors in one line."""

    def __init__(self) -> None:
        options_class: Any = ReproduceOptions  # which the annotation of HfArgumentParser does not allow
        super().__init__(options_class, description=__doc__, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        for action in self._actions:
            if action.default not in (None, False, argparse.SUPPRESS) and not isinstance(action.default, list):
                action.help = f"{action.help} (default: %(default)s)"

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, ``sys.argv[1:]`` by default, and print the paths of what was written.

    Returns the exit status: 0, 1 after an error, 130 after an interruption. A wrong command line exits with 2.
    """
    parser = _Parser()
    try:
        (options,) = parser.parse_args_into_dataclasses(argv)
    except ValueError as error:
        parser.error(str(error).rstrip("."))
    try:
        print(*reproduce(options), sep="\n")
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted (the same command continues)", file=sys.stderr)
        return 130
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"{parser.prog}: error: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
