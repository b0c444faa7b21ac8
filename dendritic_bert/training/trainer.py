"""Training and evaluation on rows of one's own, on the tasks of GLUE and on SQuAD.

    benchmark (rows) -> tokenizer and model (initialization) -> fit, for each seed -> scores -> model card

Progress goes to standard error; the results are returned, and stand in the model card beside the weights. An
interrupted training continues from its last epoch to the same result (see ``workspace``).
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, set_seed

from ..datasets.benchmark import Benchmark
from ..datasets.glue import Glue
from ..datasets.held_out import HOLD_OUT
from ..datasets.own_rows import OwnRows
from ..datasets.rows import EncodedRows, RowDataset
from ..datasets.squad import Squad
from ..growth.training import hold_out_rows, move_graphs
from ..inference.tokenizer_files import load_tokenizer
from ..model.configuration import DendriticBertConfig
from ..model.files import CARD, fingerprint
from .data_options import DataOptions
from .defaults import fit_to_rows
from .dev_logits import infer_splits, score_splits
from .evaluation import scores
from .evaluation_report import write_evaluation
from .fit import fit, without_shard_bars
from .initialization import (
    WITHOUT_POSITIONS,
    build_model,
    choose_start,
    given_labels,
    known_labels,
    live_parameters,
    longest_row,
    longest_row_to_be,
    make_tokenizer,
    saved_config,
    start_added_words,
)
from .interruption import keep_last_epoch
from .losses import Loss, balanced_weights, make_loss
from .model_card import write_model_card
from .options import TRACKERS, TrainingOptions
from .output_folders import expect_writable, expecting_room
from .own_results import answer_rows, describe_training
from .workspace import open_workspace


@without_shard_bars()
def train(
    options: TrainingOptions,
    benchmark: Benchmark | None = None,
    build: Callable[..., Any] = build_model,
    loss: Callable[..., torch.Tensor] | None = None,
    describe: Callable[..., None] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train once with each seed and write the first seed's model, its tokenizer and a model card to ``output_dir``.

    The scores are those after the last epoch, on the whole dev set, with the weights as they are written. If an earlier
    run with the same options was interrupted, this one continues it.

    Args:
        options: what to train, on what, and how.
        benchmark: the rows; by default those that ``options`` name.
        build: makes the model from the arguments of ``build_model``.
        loss: (the model's output, the batch's labels, number of items) -> a scalar; by default the model's own.
        describe: writes the card of a finished model, from options, benchmark, encoded dev rows, folder and results; by
            default the one for the kind of benchmark.
        callbacks: more of transformers' callbacks for the training with each seed.

    Returns:
        task, start (what training started from, in words), source, num_train, num_dev, num_truncated; runs, one dict
        per seed (seed, seconds, and the metrics of the task as ``evaluate`` gives them); metric, the one of which mean
        and sd are given; majority, the share of the most frequent label in the dev set; live_parameters (embeddings,
        windows, encoder, head, all); seconds; output_dir; the findings of the benchmark; and for own rows temperature,
        and baseline, what ``tfidf_baseline`` gives.

    Raises:
        ValueError, FileNotFoundError: the data are not there or cannot be read as the task's (see ``glue.read_rows``).
        OSError: ``output_dir`` cannot be written, which is found before the training starts, or is full.
        RuntimeError: the loss is not finite.
        ImportError: a package of the extra ``train`` is missing.
    """
    require_extra("accelerate", "sklearn", TRACKERS[options.report_to],
                  "matplotlib" if options.benchmark == "own" else None)
    started = time.perf_counter()
    if (saved := saved_config(options.checkpoint)) is not None:
        options = replace(options, dsn=saved.dsn)
    says_what_it_reads = benchmark is None
    benchmark = benchmark or open_benchmark(options)
    options = choose_start(options, benchmark.texts(), benchmark.settings)
    options = fit_to_rows(options, benchmark.num_taught, benchmark.settings["num_labels"],
                          benchmark.settings.get("problem_type"))
    loss = loss or _make_loss(options, benchmark)
    with open_workspace(options.output_dir, settings_that_matter(options, benchmark)) as workspace:
        tokenizer = make_tokenizer(options, benchmark.texts())
        train_rows, dev_rows = _encode(benchmark, tokenizer, options)
        if says_what_it_reads and workspace.is_main and benchmark.report is not None:
            print(benchmark.report, *_cut_rows(train_rows, options), f"start: {options.start}", sep="\n",
                  file=sys.stderr, flush=True)
        train_rows, held_out = hold_out_rows(train_rows, options)
        model: Any = None
        for seed in options.seeds[len(workspace.runs):]:
            run_started = time.perf_counter()
            set_seed(seed)
            model = build(benchmark.model_class, options, benchmark.settings, len(tokenizer))
            if options.init == "encoder":
                start_added_words(model, tokenizer)
            model.get_input_embeddings().weight.requires_grad_(not options.freeze_word_embeddings)
            train_set = RowDataset(train_rows, options.word_dropout, tokenizer.all_special_ids, seed)
            try:
                fit(model, train_set, dev_rows, benchmark, loss, options, seed, workspace, held_out,
                    callbacks=callbacks)
            except KeyboardInterrupt:
                if not options.dendrites:  # whose checkpoints are PerforatedAI's
                    keep_last_epoch(workspace, Path(options.output_dir), benchmark, tokenizer, seed)
                raise
            model.eval().to("cpu", getattr(torch, options.save_dtype))
            found = score_splits(infer_splits(model, dev_rows, benchmark), benchmark)
            if seed == options.seeds[0] and workspace.is_main:
                benchmark.save(model, workspace.folder)
                move_graphs(workspace.checkpoints(seed), workspace.folder)
            grown = {"num_dendrites": model.config.num_dendrites} if options.dendrites else {}
            seconds = round(time.perf_counter() - run_started, 1)
            workspace.finish_run({"seed": seed, **grown, **found, "seconds": seconds})
        if workspace.is_main or model is None:  # at hand is the last seed's, which may have grown otherwise, or none
            model = benchmark.load(workspace.folder)
        values = [run[benchmark.main_metric] for run in workspace.runs]
        results = {
            "task": options.task, "start": options.start, "source": benchmark.source, "num_train": benchmark.num_train,
            "num_dev": benchmark.num_dev, "num_truncated": train_rows.num_truncated, "runs": workspace.runs,
            "metric": benchmark.main_metric, "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None, "majority": benchmark.majority,
            "live_parameters": live_parameters(model), "seconds": round(time.perf_counter() - started, 1),
            "output_dir": str(options.output_dir), **(benchmark.findings or {}),
        }
        if workspace.is_main:
            tokenizer.model_max_length = longest_row(model.config)
            for folder in benchmark.folders(workspace.folder):
                tokenizer.save_pretrained(folder)
            if describe is None and isinstance(benchmark, OwnRows):
                describe = describe_training
            if describe is not None:
                describe(options, benchmark, dev_rows, workspace.folder, results)
            else:
                write_model_card(workspace.folder / CARD, options, results, model.config)
    return results


@without_shard_bars()
def evaluate(
    model_path: str, task: str | None = None, data_dir: str | None = None, split: str = "dev", *,
    dev_file: Sequence[str] | str = (), output_dir: str | None = None, **own_rows: Any,
) -> dict[str, Any]:
    """Score a model on the whole of a task's ``split``, or on rows of one's own.

    Args:
        model_path: folder or hub id of a model of this package.
        task: a task of GLUE, or "squad".
        data_dir: the folder of the data; None asks the hub.
        split: "train", "dev" (every dev split), or one of the task's ``dev_splits``.
        dev_file: files of rows of one's own, in place of a task.
        output_dir: folder for the report on own rows, with its pictures and the rows that are wrong; None writes none.
        own_rows: text_column, text_pair_column, label_column, label_separator, input_format, delimiter and on_error,
            as in ``TrainingOptions``. Columns and separator that are not given are those of the model's training, where
            the rows have them. Which columns were taken is said on standard error.

    Returns the metrics, standard_error if accuracy is one of them, num_examples, and num_truncated (texts that were cut
    to the model's position table, or to the tokenizer's ``model_max_length`` if that is shorter), and, if there are
    any, num_skipped, the own rows that ``on_error`` "skip" has left out, and num_replaced, their bytes that were not
    UTF-8. Raises ValueError for a model of another task or a label that it does not know, and as ``glue.read_rows`` or
    ``OwnRows.open`` does.
    """
    require_extra("sklearn")
    if output_dir is not None:
        expect_writable(Path(output_dir), "output_dir")
    benchmark: Benchmark
    if dev_file:
        benchmark = _open_rows_of(model_path, dev_file, own_rows)
        task = "own rows"
    elif task is None:
        raise ValueError("task and dev_file are not given: name the task, or the file of your rows.")
    elif task == "squad":
        benchmark = Squad(data_dir, with_train=False, split=split)
    else:
        benchmark = Glue(task, data_dir, with_train=False, splits=None if split == "dev" else (split,))
    model = benchmark.model_class.from_pretrained(model_path).eval()
    saved_class = (model.config.architectures or [""])[0]
    if saved_class != benchmark.model_class.__name__ and saved_class.startswith("DendriticBert"):
        raise ValueError(f"{model_path} is a {saved_class}, task {task!r} needs a {benchmark.model_class.__name__}: "
                         "pass a model trained on it.")
    if model.config.num_labels != benchmark.settings["num_labels"]:
        raise ValueError(f"{model_path} has {model.config.num_labels} labels, task {task!r} has "
                         f"{benchmark.settings['num_labels']}: pass a model trained on it.")
    tokenizer = load_tokenizer(model_path)
    max_length = int(min(longest_row(model.config), benchmark.longest, tokenizer.model_max_length))
    _, rows = benchmark.encode(tokenizer, max_length)
    if isinstance(benchmark, OwnRows):
        found = _evaluate_own_rows(model, benchmark, rows, output_dir)
    else:
        found = {"task": task, **score_splits(infer_splits(model, rows, benchmark), benchmark)}
    return {**found, "num_examples": benchmark.num_dev,
            "num_truncated": sum(encoded.num_truncated for encoded in rows.values())}


def _open_rows_of(model_path: str, dev_file: Sequence[str] | str, own_rows: dict[str, Any]) -> OwnRows:
    """Rows whose labels are those that a model knows."""
    config = saved_config(model_path)
    if config is None:
        raise ValueError(f"{model_path} is not a model of this package: pass one that `dendritic-bert train` has "
                         "written.")
    rows = OwnRows.open(None, dev_file, known_labels=known_labels(config), problem_type=config.problem_type,
                        trained=config.training_columns, **own_rows)
    trained = config.training_columns or {}
    text = trained.get("text_column", rows.columns.text)
    is_said = ("text_pair_column" in trained) != (rows.columns.text_pair is not None)  # that these are no pairs, or are
    note = "" if is_said or text in rows.columns.texts else f"; the model was trained on the column {text!r}"
    print(f"columns: {rows.columns}{note}", file=sys.stderr, flush=True)
    return rows


def _evaluate_own_rows(model: Any, benchmark: OwnRows, rows: dict[str, EncodedRows], output_dir: str | None
                       ) -> dict[str, Any]:
    evaluation = answer_rows(model, benchmark, rows)
    if output_dir is None:
        found = scores(evaluation.logits, evaluation.labels, evaluation.problem_type, evaluation.temperature)
    else:
        with expecting_room(Path(output_dir), "output_dir"):
            found = write_evaluation(Path(output_dir), evaluation, benchmark.rows("dev"), benchmark.places("dev"))
    counts = {name: getattr(benchmark.dev[0], name) for name in ("num_skipped", "num_replaced")}
    return {"source": benchmark.source, **found, **{name: count for name, count in counts.items() if count}}


def open_benchmark(options: TrainingOptions) -> Benchmark:
    """The benchmark with the rows that ``options`` name; raises as ``train`` does."""
    if options.benchmark == "own":
        return open_own_rows(options, saved=saved_config(options.checkpoint))
    if options.benchmark == "squad":
        return Squad(options.data_dir, options.hold_out, fraction=options.fraction)
    return Glue(options.task, options.data_dir, options.hold_out, fraction=options.fraction)


def open_own_rows(options: DataOptions, saved: DendriticBertConfig | None = None, kind: Any = OwnRows) -> Any:
    """The rows of ``train_file`` and ``dev_file``, or of ``dataset_name``, as a ``kind`` of ``OwnRows``.

    The labels of ``saved``, the model that training goes on from, come first. What it was trained on is read as then;
    another ``label_column`` holds other labels, perhaps of another kind. Raises as ``train`` does.
    """
    settings = {name: getattr(options, name) for name in ("text_column", "text_pair_column", "label_column",
                                                          "label_separator", "problem_type", "fraction", "on_error")}
    settings["known_labels"] = given_labels(saved)
    if saved is not None and saved.training_columns:
        settings["trained"] = trained = dict(saved.training_columns)
        if options.label_column in (None, trained.get("label_column")):
            settings["problem_type"] = options.problem_type or saved.problem_type
        elif "label_column" in trained:
            settings["known_labels"] = []
        if settings["problem_type"] != "multi_label_classification":
            trained.pop("label_separator", None)
    if options.dataset_name is not None:
        return kind.from_hub(options.dataset_name, options.dataset_config, hold_out=options.hold_out, **settings)
    if not options.train_file:
        raise ValueError("train_file is not given: name the file of your training rows.")
    return kind.open(options.train_file, options.dev_file or None, input_format=options.input_format,
                     delimiter=options.delimiter or ",", hold_out=options.hold_out or HOLD_OUT, **settings)


def require_extra(*modules: str | None) -> None:
    """Raise ImportError, which says how to get it, if a module of the extra ``train`` is missing."""
    for module in modules:
        if module is not None and importlib.util.find_spec(module) is None:
            package = {"sklearn": "scikit-learn"}.get(module, module)
            raise ImportError(f"{package} is not installed: pip install 'dendritic-bert[train]'.")


def _encode(benchmark: Benchmark, tokenizer: Any, options: TrainingOptions
            ) -> tuple[EncodedRows, dict[str, EncodedRows]]:
    """The training rows, cut to ``max_length``, and the dev rows; own dev rows as ``evaluate`` will read them."""
    if isinstance(benchmark, OwnRows):
        train_rows, dev_rows = benchmark.encode(tokenizer, options.max_length, longest_row_to_be(options))
    else:
        train_rows, dev_rows = benchmark.encode(tokenizer, options.max_length)
    assert train_rows is not None
    return train_rows, dev_rows


def _cut_rows(rows: EncodedRows, options: TrainingOptions) -> list[str]:
    """What is said of training rows that are cut, one line if there are any."""
    if not rows.num_truncated:
        return []
    scored = "; dev rows are read whole" if longest_row_to_be(options) == WITHOUT_POSITIONS else ""
    return [f"warning: {rows.num_truncated:,} of {len(rows.labels):,} training rows are longer than max_length, "
            f"{options.max_length:,} tokens, and are cut there{scored}"]


def settings_that_matter(options: TrainingOptions, benchmark: Benchmark) -> dict[str, Any]:
    """The options, and what is known of the rows and of the model that training starts from, that must be the same when
    an interrupted training, or a search, is continued. A path says nothing of what lies there now."""
    free = {"output_dir", "report_to", "wandb_project", "baseline", "calibrate"}  # the last two follow the training
    settings = {name: value for name, value in asdict(options).items() if name not in free}
    return settings | {"num_train": benchmark.num_train, "num_dev": benchmark.num_dev,
                       "digest": benchmark.digest,
                       "start_weights": options.checkpoint and fingerprint(options.checkpoint)}


def _make_loss(options: TrainingOptions, benchmark: Benchmark) -> Loss | None:
    weights = None
    problem_type = benchmark.settings.get("problem_type")
    if options.class_weights == "balanced":
        if benchmark.class_counts is None or not len(benchmark.class_counts):
            raise ValueError(f"class_weights is balanced, but the rows of {options.task} have no classes that are "
                             "counted: leave it out.")
        weights = balanced_weights(benchmark.class_counts, benchmark.num_train, problem_type)
    return make_loss(problem_type, options.label_smoothing or 0.0, weights)
