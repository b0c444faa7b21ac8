"""One seed of a training: the Hugging Face ``Trainer`` with its arguments, its progress and its trackers."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from ..datasets.benchmark import Benchmark
from ..datasets.rows import EncodedRows, RowDataset
from ..growth.training import total_epochs, train_and_grow
from ..inference.threads import torch_threads
from .ema import AveragedWeights
from .initialization import goes_on_from_a_regression
from .options import TrainingOptions
from .standardised_head import PooledScale, standardise_steps, standardised_head
from .standardised_targets import (
    TargetScale,
    measure_targets,
    squared_error,
    standardise_target_steps,
    start_at_targets,
)
from .word_regression import can_be_folded, fold_word_regression
from .workspace import Workspace

EVALUATION_BATCH = 256
HEADS = ("classifier", "qa_outputs")  # of the model classes; PerforatedAI puts modules of its own into them
LARGEST_ON_ONE_THREAD = 2_000_000  # numbers of a word table; that of the package's encoder has 1.5 M and added words
LOGGING_STEPS = 50  # within this many steps, a loss that is not finite ends the run
# Between two checkpoints, each with the scores of the dev rows before it. On 100 rows an epoch takes a tenth of this,
# and 40 checkpoints and scores took two of ten seconds of a training.
CHECKPOINT_SECONDS = 1.0
# "mtime may not be reliable" is logged when two checkpoints are saved within a second; they are then sorted by step.
logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)


def fit(
    model: Any, train_set: RowDataset, dev_rows: dict[str, EncodedRows], benchmark: Benchmark,
    loss: Callable[..., torch.Tensor] | None, options: TrainingOptions, seed: int, workspace: Workspace,
    held_out: EncodedRows | None = None, quiet: bool = False, callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train ``model`` in place, from the last checkpoint of ``seed`` if there is one.

    ``held_out`` are the rows that decide when a dendrite grows; None if none is to grow. ``quiet`` is without progress,
    scores of the dev rows, and checkpoints. ``callbacks`` are called behind those of the training itself.

    Raises RuntimeError if a loss, or a weight at the end, is not finite.
    """
    split = next(iter(dev_rows))
    standardised: Any = nullcontext()
    starts_fitted = options.init == "encoder" and not options.dendrites  # PerforatedAI puts modules into a growing head
    class_weight = None if options.class_weights == "none" else options.class_weights
    if starts_fitted:
        standardised = standardised_head(model, train_set.rows, benchmark.collate, class_weight)
    targets = None
    if loss is None and model.config.problem_type == "regression":
        targets = measure_targets(train_set.rows.labels)
        loss = partial(squared_error, scale=targets)
    with (torch_threads(_num_threads(model, options)), _trackers(options, seed), standardised as scale,
          closing(_Progress(seed, benchmark.main_metric, train_set, quiet)) as progress):
        if targets is not None and not goes_on_from_a_regression(options, model.config.num_labels):
            start_at_targets(model, targets)
        trainer = _Trainer(
            model, _training_arguments(model.config, options, seed, workspace, len(train_set), quiet),
            data_collator=benchmark.collate, train_dataset=train_set, eval_dataset=RowDataset(dev_rows[split]),
            compute_loss_func=loss,
            compute_metrics=lambda prediction: benchmark.scores(prediction.predictions, split),
            callbacks=[progress, *_checkpoint_callbacks(options), *callbacks],
        )
        trainer.head_lr_factor, trainer.scale = options.head_lr_factor or 1.0, scale
        trainer.targets = None if options.dendrites else targets  # whose steps are of a last layer that is our own
        trainer.remove_callback(PrinterCallback)  # it prints every log to standard output, which is for results
        if held_out is None:
            trainer.train(resume_from_checkpoint=workspace.last_checkpoint(seed))
        else:
            train_and_grow(trainer, model, options, held_out, workspace.last_checkpoint(seed))
    for name, parameter in model.named_parameters():  # what the last step does is in no loss
        if not parameter.isfinite().all():
            raise RuntimeError(f"{name} holds NaN or infinite numbers after the last step, with a highest lr of "
                               f"{options.learning_rate:g}: lower lr.")
    if options.word_share and starts_fitted and can_be_folded(model, train_set.rows):
        fold_word_regression(model, train_set.rows, options.word_share, class_weight)
    elif options.word_share:
        warnings.warn(f"word_share is {options.word_share:g}, but the model is no gated bag of words under one linear "
                      "layer with rows of every class, so that no regression on words was folded in: pass 0.",
                      stacklevel=2)


def _num_threads(model: Any, options: TrainingOptions) -> int:
    """One for a bag of words of a small table, whose steps are so short that threads wait for each other: a training on
    5,400 news took 19 s with one and with two, and beside another program 21 s with one and 60 with two; from the table
    of BERT-tiny, 3.9 M numbers, it took 14.7 and 12.5 (AMD EPYC, Zen 4). Pretraining multiplies larger matrices."""
    is_bag = model.config.dsn and not model.config.window_layers and options.command != "pretrain"
    is_small = model.get_input_embeddings().weight.numel() <= LARGEST_ON_ONE_THREAD
    return 1 if is_bag and is_small else torch.get_num_threads()


def _checkpoint_callbacks(options: TrainingOptions) -> list[TrainerCallback]:
    """Those that decide whether an epoch ends with a checkpoint come before those that write to it."""
    callbacks: list[TrainerCallback] = []
    if options.early_stopping:
        callbacks.append(EarlyStoppingCallback(options.patience))
    elif not options.dendrites and options.report_to == "none":  # growth and trackers need every epoch, too
        callbacks.append(_FewerCheckpoints())
    if options.ema:
        callbacks.append(AveragedWeights(options.ema))
    return callbacks


def _training_arguments(
    config: Any, options: TrainingOptions, seed: int, workspace: Workspace, num_rows: int, quiet: bool
) -> TrainingArguments:
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps_per_epoch = math.ceil(num_rows / options.batch_size)
    arguments = TrainingArguments(
        output_dir=str(workspace.checkpoints(seed)), save_strategy="no" if quiet else "epoch", save_total_limit=1,
        eval_strategy="no" if quiet else "epoch",
        report_to=options.report_to, run_name=f"{options.task}-seed-{seed}", num_train_epochs=total_epochs(options),
        per_device_train_batch_size=max(1, options.batch_size // num_processes),
        per_device_eval_batch_size=EVALUATION_BATCH, learning_rate=options.learning_rate,
        weight_decay=options.weight_decay, lr_scheduler_type="linear", warmup_steps=options.warmup, seed=seed,
        remove_unused_columns=False,
        logging_steps=min(LOGGING_STEPS, steps_per_epoch), logging_nan_inf_filter=False, disable_tqdm=True,
        dataloader_pin_memory=False, bf16=options.bf16,
        # Every loss here is a mean over its batch, which the Trainer would multiply by the number of processes.
        average_tokens_across_devices=False,
        # Without a GPU the Trainer must be told: else it refuses bf16, and several processes would train separately.
        use_cpu=not torch.cuda.is_available(),
    )
    if options.early_stopping:
        arguments.load_best_model_at_end, arguments.restore_callback_states_from_checkpoint = True, True
        arguments.metric_for_best_model, arguments.greater_is_better = "eval_loss", False
    if (not config.dsn or config.window_layers) and num_processes == 1:
        # An encoder and windows pay for padding, which is three tokens in four of a random batch of SST-2. In several
        # processes the sampler would draw from generators in several states.
        arguments.train_sampling_strategy = "group_by_length"
    return arguments


class _Trainer(Trainer):
    """The stock Trainer, but its evaluation keeps the order of the rows even if training groups them by length, and the
    head may have a learning rate of its own and see its rows and its targets standardised."""

    head_lr_factor = 1.0
    scale: PooledScale | None = None
    targets: TargetScale | None = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        is_new = self.optimizer is None
        if self.optimizer is None and self.head_lr_factor != 1:
            trained: Any = self.model if model is None else model
            optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, trained)
            decaying = set(self.get_decay_parameter_names(trained))
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    key = (name.partition(".")[0] in HEADS, name in decaying)
                    groups.setdefault(key, []).append(parameter)
            rate = self.args.learning_rate
            self.optimizer = optimizer_class([
                {"params": parameters, "lr": rate * self.head_lr_factor if is_head else rate,
                 "weight_decay": self.args.weight_decay if decays else 0.0}
                for (is_head, decays), parameters in groups.items()], **arguments)
        optimizer = super().create_optimizer(model)
        if is_new and self.scale is not None:
            standardise_steps(optimizer, self.model if model is None else model, self.scale)
        if is_new and self.targets is not None:
            standardise_target_steps(optimizer, self.model if model is None else model, self.targets)
        return optimizer

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        # With a generator of its own it draws nothing from torch's, so that the training is the same without it.
        return self.accelerator.prepare(DataLoader(rows, self.args.eval_batch_size, collate_fn=self.data_collator,
                                                   generator=torch.Generator()))


@contextmanager
def without_shard_bars() -> Iterator[None]:
    """No bars of transformers and the hub's client: every checkpoint would show one, for a millisecond."""
    was_enabled = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            enable_progress_bar()


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


class _FewerCheckpoints(TrainerCallback):
    """No scores and no checkpoint at the end of an epoch within ``CHECKPOINT_SECONDS`` of the last ones, but for those
    of the last epoch. Several processes, which could disagree on the time, have them after every epoch."""

    def __init__(self) -> None:
        self.saved = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        is_soon = time.perf_counter() - self.saved < CHECKPOINT_SECONDS
        if is_soon and state.global_step < state.max_steps and args.world_size == 1:
            control.should_evaluate = control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.perf_counter()


class _Progress(TrainerCallback):
    """Prints a line per epoch to standard error, under which a terminal sees a bar with the time that is left; draws
    the words to drop, and ends a run whose loss is not finite."""

    def __init__(self, seed: int, metric: str, train_set: RowDataset, quiet: bool):
        self.seed, self.metric, self.train_set, self.quiet = seed, metric, train_set, quiet
        self.started, self.loss = time.perf_counter(), math.nan
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and sys.stderr is not None and not self.quiet:
            self.bar = tqdm(desc=f"seed {self.seed}", total=state.max_steps, initial=state.global_step, unit="step",
                            leave=False, dynamic_ncols=True, file=sys.stderr, disable=None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def close(self) -> None:
        """Take the bar off the terminal, also after an interruption."""
        if self.bar is not None:
            self.bar.close()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.train_set.set_epoch(round(state.epoch or 0))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for name in {"loss", "eval_loss"} & logs.keys():
            if not math.isfinite(logs[name]):
                raise RuntimeError(f"{name} is {logs[name]} at step {state.global_step} of {state.max_steps}, with a "
                                   f"highest lr of {args.learning_rate:g}: lower lr.")
        self.loss = logs.get("loss", self.loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self.bar is not None:
            self.bar.write(f"seed {self.seed}, epoch {state.epoch:g} of {state.num_train_epochs:g}: loss "
                           f"{self.loss:.4f}, dev {self.metric} {metrics[f'eval_{self.metric}']:.4f}, "
                           f"{time.perf_counter() - self.started:.0f} s", file=sys.stderr)
