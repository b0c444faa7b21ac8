"""Training and evaluation on the tasks of GLUE and on SQuAD, through the Hugging Face ``Trainer``.

    benchmark (rows) -> tokenizer and model (initialization) -> fit, for each seed -> scores -> model card

Progress goes to standard error; the results are returned, and stand in the model card beside the weights. An
interrupted training continues from its last epoch to the same result (see ``workspace``).
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from ..datasets.benchmark import Benchmark
from ..datasets.glue import Glue
from ..datasets.rows import EncodedRows, RowDataset
from ..datasets.squad import Squad
from ..growth.training import hold_out_rows, move_graphs, total_epochs, train_and_grow
from ..inference.tokenizer_files import load_tokenizer
from .ema import AveragedWeights
from .initialization import build_model, live_parameters, make_tokenizer
from .model_card import write_model_card
from .options import TRACKERS, TrainingOptions
from .workspace import Workspace, open_workspace

EVALUATION_BATCH = 256
LOGGING_STEPS = 50  # within this many steps, a loss that is not finite ends the run
# "mtime may not be reliable" is logged when two checkpoints are saved within a second; they are then sorted by step.
logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)


def train(
    options: TrainingOptions,
    benchmark: Benchmark | None = None,
    build: Callable[..., Any] = build_model,
    loss: Callable[..., torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Train once with each seed and write the first seed's model, its tokenizer and a model card to ``output_dir``.

    The scores are those after the last epoch, on the whole dev set, with the weights as they are written. If an earlier
    run with the same options was interrupted, this one continues it.

    Args:
        options: what to train, on what, and how.
        benchmark: the rows; by default those that ``options`` name.
        build: makes the model from the arguments of ``build_model``.
        loss: (the model's output, the batch's labels, number of items) -> a scalar; by default the model's own.

    Returns:
        task, source, num_train, num_dev, num_truncated; runs, one dict per seed (seed, seconds, and the metrics of the
        task as ``evaluate`` gives them); metric, the one of which mean and sd are given; majority, the share of the
        most frequent label in the dev set; live_parameters (embeddings, encoder, head, all); seconds; output_dir.

    Raises:
        ValueError, FileNotFoundError: the data are not there or cannot be read as the task's (see ``glue.read_rows``).
        OSError: ``output_dir`` cannot be written, which is found before the training starts, or is full.
        RuntimeError: the loss is not finite.
        ImportError: a package of the extra ``train`` is missing.
    """
    require_extra("accelerate", "sklearn", TRACKERS[options.report_to])
    started = time.perf_counter()
    benchmark = benchmark or open_benchmark(options)
    with open_workspace(options.output_dir, _settings_that_matter(options)) as workspace:
        tokenizer = make_tokenizer(options, benchmark.texts())
        train_rows, dev_rows = benchmark.encode(tokenizer, options.max_length)
        assert train_rows is not None
        train_rows, held_out = hold_out_rows(train_rows, options)
        model: Any = None
        for seed in options.seeds[len(workspace.runs):]:
            run_started = time.perf_counter()
            set_seed(seed)
            model = build(benchmark.model_class, options, benchmark.settings, len(tokenizer))
            model.get_input_embeddings().weight.requires_grad_(not options.freeze_word_embeddings)
            train_set = RowDataset(train_rows, options.word_dropout, tokenizer.all_special_ids, seed)
            fit(model, train_set, dev_rows, benchmark, loss, options, seed, workspace, held_out)
            model.eval().to("cpu", getattr(torch, options.save_dtype))
            scores = score(model, dev_rows, benchmark)
            if seed == options.seeds[0] and workspace.is_main:
                model.save_pretrained(workspace.folder)
                move_graphs(workspace.checkpoints(seed), workspace.folder)
            grown = {"num_dendrites": model.config.num_dendrites} if options.dendrites else {}
            seconds = round(time.perf_counter() - run_started, 1)
            workspace.finish_run({"seed": seed, **grown, **scores, "seconds": seconds})
        if model is None:  # the interrupted run had trained every seed
            model = benchmark.model_class.from_pretrained(workspace.folder)
        values = [run[benchmark.main_metric] for run in workspace.runs]
        results = {
            "task": options.task, "source": benchmark.source, "num_train": benchmark.num_train,
            "num_dev": benchmark.num_dev, "num_truncated": train_rows.num_truncated, "runs": workspace.runs,
            "metric": benchmark.main_metric, "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None, "majority": benchmark.majority,
            "live_parameters": live_parameters(model), "seconds": round(time.perf_counter() - started, 1),
            "output_dir": str(options.output_dir),
        }
        if workspace.is_main:
            tokenizer.model_max_length = model.config.max_position_embeddings
            tokenizer.save_pretrained(workspace.folder)
            write_model_card(workspace.folder / "README.md", options, results, model.config)
    return results


def evaluate(model_path: str, task: str, data_dir: str | None = None, split: str = "dev") -> dict[str, Any]:
    """Score a model on the whole of a task's ``split``.

    Args:
        model_path: folder or hub id of a model of this package.
        task: a task of GLUE, or "squad".
        data_dir: the folder of the data; None asks the hub.
        split: "train", "dev" (every dev split), or one of the task's ``dev_splits``.

    Returns the task's metrics, standard_error if accuracy is one of them, num_examples, and num_truncated (texts that
    were cut to the model's position table, or to the tokenizer's ``model_max_length`` if that is shorter). Raises
    ValueError for a model of another task, and as ``glue.read_rows`` does.
    """
    require_extra("sklearn")
    benchmark: Benchmark = (Squad(data_dir, with_train=False, split=split) if task == "squad" else
                            Glue(task, data_dir, with_train=False, splits=None if split == "dev" else (split,)))
    model = benchmark.model_class.from_pretrained(model_path).eval()
    saved_class = (model.config.architectures or [""])[0]
    if saved_class != benchmark.model_class.__name__ and saved_class.startswith("DendriticBert"):
        raise ValueError(f"{model_path} is a {saved_class}, task {task!r} needs a {benchmark.model_class.__name__}: "
                         "pass a model trained on it.")
    if model.config.num_labels != benchmark.settings["num_labels"]:
        raise ValueError(f"{model_path} has {model.config.num_labels} labels, task {task!r} has "
                         f"{benchmark.settings['num_labels']}: pass a model trained on it.")
    tokenizer = load_tokenizer(model_path)
    max_length = int(min(model.config.max_position_embeddings, benchmark.longest, tokenizer.model_max_length))
    _, rows = benchmark.encode(tokenizer, max_length)
    return {"task": task, **score(model, rows, benchmark), "num_examples": benchmark.num_dev,
            "num_truncated": sum(encoded.num_truncated for encoded in rows.values())}


def open_benchmark(options: TrainingOptions) -> Benchmark:
    """The benchmark with the rows that ``options`` name; raises as ``train`` does."""
    if options.benchmark == "squad":
        return Squad(options.data_dir, options.hold_out, fraction=options.fraction)
    return Glue(options.task, options.data_dir, options.hold_out, fraction=options.fraction)


def require_extra(*modules: str | None) -> None:
    """Raise ImportError, which says how to get it, if a module of the extra ``train`` is missing."""
    for module in modules:
        if module is not None and importlib.util.find_spec(module) is None:
            package = {"sklearn": "scikit-learn"}.get(module, module)
            raise ImportError(f"{package} is not installed: pip install 'dendritic-bert[train]'.")


def _settings_that_matter(options: TrainingOptions) -> dict[str, Any]:
    """The options that must be the same when an interrupted training is continued."""
    free = {"output_dir", "report_to", "wandb_project"}
    return {name: value for name, value in asdict(options).items() if name not in free}


# ---- one seed --------------------------------------------------------------------------------------------------------


def fit(
    model: Any, train_set: RowDataset, dev_rows: dict[str, EncodedRows], benchmark: Benchmark,
    loss: Callable[..., torch.Tensor] | None, options: TrainingOptions, seed: int, workspace: Workspace,
    held_out: EncodedRows | None = None,
) -> None:
    """Train ``model`` in place, from the last checkpoint of ``seed`` if there is one.

    ``held_out`` are the rows that decide when a dendrite grows; None if none is to grow.
    """
    split = next(iter(dev_rows))
    with _trackers(options, seed):
        trainer = _Trainer(
            model, _training_arguments(options, seed, workspace, len(train_set)), data_collator=benchmark.collate,
            train_dataset=train_set, eval_dataset=RowDataset(dev_rows[split]), compute_loss_func=loss,
            compute_metrics=lambda prediction: benchmark.scores(prediction.predictions, split),
            callbacks=[_Progress(seed, benchmark.main_metric, train_set),
                       *([AveragedWeights(options.ema)] if options.ema else [])],
        )
        trainer.remove_callback(PrinterCallback)  # it prints every log to standard output, which is for results
        if held_out is None:
            trainer.train(resume_from_checkpoint=workspace.last_checkpoint(seed))
        else:
            train_and_grow(trainer, model, options, held_out, workspace.last_checkpoint(seed))


def _training_arguments(
    options: TrainingOptions, seed: int, workspace: Workspace, num_rows: int
) -> TrainingArguments:
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps_per_epoch = math.ceil(num_rows / options.batch_size)
    arguments = TrainingArguments(
        output_dir=str(workspace.checkpoints(seed)), save_strategy="epoch", save_total_limit=1, eval_strategy="epoch",
        report_to=options.report_to, run_name=f"{options.task}-seed-{seed}", num_train_epochs=total_epochs(options),
        per_device_train_batch_size=max(1, options.batch_size // num_processes),
        per_device_eval_batch_size=EVALUATION_BATCH, learning_rate=options.learning_rate,
        weight_decay=options.weight_decay, lr_scheduler_type="linear", warmup_steps=options.warmup, seed=seed,
        remove_unused_columns=False,
        logging_steps=min(LOGGING_STEPS, steps_per_epoch), logging_nan_inf_filter=False, disable_tqdm=True,
        dataloader_pin_memory=False, bf16=options.bf16,
        # Without a GPU the Trainer must be told: else it refuses bf16, and several processes would train separately.
        use_cpu=not torch.cuda.is_available(),
    )
    if not options.dsn and num_processes == 1:
        # An encoder pays for padding, which is three tokens in four of a random batch of SST-2. In several processes
        # the sampler would draw from generators in several states.
        arguments.train_sampling_strategy = "group_by_length"
    return arguments


class _Trainer(Trainer):
    """The stock Trainer, but its evaluation keeps the order of the rows even if training groups them by length."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        return self.accelerator.prepare(DataLoader(rows, self.args.eval_batch_size, collate_fn=self.data_collator))


@contextmanager
def _trackers(options: TrainingOptions, seed: int) -> Iterator[None]:
    """Sets the environment variables that configure the trackers, and gives each seed a run of its own."""
    settings = {"WANDB_PROJECT": options.wandb_project, "WANDB_DIR": options.output_dir,
                "TENSORBOARD_LOGGING_DIR": f"{options.output_dir}/runs/seed-{seed}"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
        if options.report_to == "wandb":
            import wandb

            wandb.finish()


class _Progress(TrainerCallback):
    """Prints a line per epoch to standard error, draws the words to drop, and ends a run whose loss is not finite."""

    def __init__(self, seed: int, metric: str, train_set: RowDataset):
        self.seed, self.metric, self.train_set = seed, metric, train_set
        self.started, self.loss = time.perf_counter(), math.nan

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.train_set.set_epoch(round(state.epoch or 0))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for name in {"loss", "eval_loss"} & logs.keys():
            if not math.isfinite(logs[name]):
                raise RuntimeError(f"{name} is {logs[name]} at step {state.global_step} of {state.max_steps}, with a "
                                   f"highest lr of {args.learning_rate:g}: lower lr.")
        self.loss = logs.get("loss", self.loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if state.is_world_process_zero:
            print(f"seed {self.seed}, epoch {state.epoch:g} of {state.num_train_epochs:g}: loss {self.loss:.4f}, dev "
                  f"{self.metric} {metrics[f'eval_{self.metric}']:.4f}, {time.perf_counter() - self.started:.0f} s",
                  file=sys.stderr, flush=True)


@torch.no_grad()
def score(model: Any, dev_rows: dict[str, EncodedRows], benchmark: Benchmark) -> dict[str, float]:
    """The metrics of every dev split."""
    scores: dict[str, float] = {}
    for split, rows in dev_rows.items():
        logits: list[np.ndarray] = []
        for batch in DataLoader(RowDataset(rows), EVALUATION_BATCH, collate_fn=benchmark.collate):
            tokens = {name: values for name, values in batch.items() if name not in benchmark.label_names}
            logits.extend(benchmark.logits(model(**tokens)).numpy())
        scores |= benchmark.scores(logits, split)
    return scores
