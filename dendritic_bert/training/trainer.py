"""Training and evaluation on the tasks of GLUE and on SQuAD, through the Hugging Face ``Trainer``.

    benchmark (rows) -> beginnings (tokenizer, model) -> fit (a seed) -> scores -> model card

Progress goes to standard error; the results are returned, and stand in the model card beside the weights. A training
that was interrupted goes on from its last epoch, to the same result (``checkpoints``).
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
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from ..datasets.glue import Benchmark, Glue
from ..datasets.glue_tasks import TASKS, find_task
from ..datasets.rows import EncodedRows, RowDataset
from ..datasets.squad import Squad
from ..growth.training import check_growing, hold_out_rows, keep_graphs, total_epochs, train_and_grow
from ..inference.tokenizer_files import load_tokenizer
from .ema import AveragedWeights
from .initialization import FRESH_SIZES, build_model, live_parameters, make_tokenizer
from .model_card import write_model_card
from .workspace import Workspace, open_workspace

SAVE_DTYPES = ("float32", "float16", "bfloat16")
TRACKERS = {"none": None, "wandb": "wandb", "tensorboard": "tensorboard"}  # and the package each one needs
BY_BENCHMARK: Any = None  # the value of an option that stands in DEFAULTS where nothing else is asked for
DEFAULTS: dict[str, dict[str, Any]] = {
    "glue": {"task": "sst2", "batch_size": 256, "max_length": 128, "word_dropout": 0.2},
    "squad": {"task": "squad", "batch_size": 32, "max_length": 384, "word_dropout": 0.0},
}
EVALUATION_BATCH = 256
LOGGING_STEPS = 50  # how soon a loss that is no number ends the run
# "mtime may not be reliable": in every training that saves two checkpoints within a second; it then sorts by step.
logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)


@dataclass
class TrainingOptions:
    """What to train, on what and how; each field is the command line's flag of the same name.

    Raises ValueError, naming the field, for values that cannot be trained with.
    """

    command: ClassVar[str] = "train"

    model_name: str | None = field(default=None, metadata={
        "help": "BERT checkpoint to begin with, a folder or a hub id; without it the model begins at random, with a "
                "vocabulary trained on the training texts"})
    tokenizer_name: str | None = field(default=None, metadata={
        "help": "tokenizer of a model that begins at random, a folder or a hub id; without it a vocabulary is trained"})
    benchmark: Literal["glue", "squad"] = field(default="glue", metadata={"help": "family of tasks"})
    task: str = field(default=BY_BENCHMARK, metadata={
        "help": f"task of the benchmark: {', '.join(TASKS)} (default: sst2), or squad"})
    hold_out: float | None = field(default=None, metadata={
        "help": "score on this share of the dev set and train on the rest of it: for a task without training rows"})
    dsn: bool = field(default=False, metadata={
        "help": "no encoder, the embeddings pooled under the head; without it BERT's encoder is kept"})
    data_dir: str | None = field(default=None, metadata={
        "help": "folder of the GLUE download, or of the task in it; without it the hub is asked"})
    fraction: float = field(default=1.0, metadata={"help": "train on this share of the training rows, at random"})
    output_dir: str = field(default="outputs", metadata={
        "help": "folder for weights, tokenizer and model card; files of their names are replaced"})
    epochs: int = field(default=3, metadata={"help": "passes over the training rows"})
    batch_size: int = field(default=BY_BENCHMARK, metadata={
        "help": "training rows a step (default: 256, for squad 32)"})
    lr: float | None = field(default=None, metadata={
        "help": "highest learning rate, from which it falls linearly to 0 (default: 2e-3 from random numbers, 3e-4 for "
                "a DSN of a checkpoint, 1e-4 with its encoder)"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={
        "help": "train once for each and report all; the weights kept are the first one's"})
    word_dropout: float = field(default=BY_BENCHMARK, metadata={
        "help": "probability with which a token is masked out in training (default: 0.2, for squad 0)"})
    warmup: float = field(default=0.0, metadata={"help": "share of the steps in which the learning rate rises from 0"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay"})
    ema: float = field(default=0.0, metadata={
        "help": "keep an average of the weights, of which a step leaves this share; 0 keeps the last weights"})
    freeze_word_embeddings: bool = field(default=False, metadata={"help": "leave the table of words as it is"})
    vocab_size: int | None = field(default=None, metadata={
        "help": f"most entries of a new vocabulary (default: {FRESH_SIZES['vocab_size']})"})
    hidden_size: int | None = field(default=None, metadata={
        "help": f"width of new embeddings (default: {FRESH_SIZES['hidden_size']})"})
    max_position_embeddings: int | None = field(default=None, metadata={
        "help": f"length of a new position table (default: {FRESH_SIZES['max_position_embeddings']})"})
    max_length: int = field(default=BY_BENCHMARK, metadata={
        "help": "tokens after which a text is cut (default: 128), or of a window of a passage (default: 384)"})
    pooling: Literal["mean_masked", "mean_all", "sum_all"] = field(default="mean_masked", metadata={
        "help": "how token vectors become one; the last two count padding, for checkpoints trained that way"})
    encoder_pooling: Literal["cls", "mean"] = field(default="cls", metadata={
        "help": "with its encoder: BERT's pooler, or the mean of its tokens, as in models of sentence-transformers"})
    num_dendrites: int = field(default=0, metadata={"help": "dendrites for each output of the head's layers"})
    dendrite_activation: Literal["sigmoid", "tanh", "relu", "gelu"] = field(default="sigmoid", metadata={
        "help": "their activation function"})
    head_hidden: int | None = field(default=None, metadata={
        "help": "width of a hidden layer in the head (default: none, the head is one layer)"})
    dendrites: int = field(default=0, metadata={
        "help": "grow up to so many dendrites for each output, where the loss on held-out training rows stalls; epochs "
                "is then the most of a stage, between one dendrite and the next"})
    dendrite_schedule: Literal["perforatedai", "plain"] = field(default="perforatedai", metadata={
        "help": "who decides on growth: PerforatedAI's tracker, or its rule without it"})
    patience: int = field(default=10, metadata={"help": "epochs without a better loss after which a dendrite grows"})
    dendrite_tries: int = field(default=2, metadata={
        "help": "dendrites in a row that may fail to improve the loss before growing ends"})
    validation_share: float = field(default=0.1, metadata={
        "help": "share of the training rows that decides on growth, and is not trained on"})
    hidden_dropout_prob: float | None = field(default=None, metadata={
        "help": "dropout on every token's vector (default: the checkpoint's, else 0)"})
    classifier_dropout: float | None = field(default=None, metadata={
        "help": "dropout on the pooled vector (default: the checkpoint's, else hidden_dropout_prob)"})
    bf16: bool = field(default=False, metadata={
        "help": "train with matrix products in bfloat16, several times faster where the processor has them (AMX)"})
    save_dtype: Literal["float32", "float16", "bfloat16"] = field(default="float32", metadata={
        "help": "dtype of the weights that are written, and evaluated"})
    report_to: Literal["none", "wandb", "tensorboard"] = field(default="none", metadata={
        "help": "where loss and scores go while it trains; files of it go to output_dir"})
    wandb_project: str = field(default="dendritic-bert", metadata={"help": "project of report_to wandb"})

    def __post_init__(self) -> None:
        if self.benchmark not in DEFAULTS:
            raise ValueError(f"benchmark is {self.benchmark!r}, expected one of {', '.join(DEFAULTS)}.")
        for name, value in DEFAULTS[self.benchmark].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.benchmark == "squad" and self.task != "squad":
            raise ValueError(f"task is {self.task!r}, the benchmark squad is one task: leave it out.")
        if self.benchmark == "glue":
            find_task(self.task)
        sizes = {name: getattr(self, name) for name in FRESH_SIZES}
        positive = {name: getattr(self, name) for name in ("epochs", "batch_size", "lr", "head_hidden")}
        for name, value in {**positive, **sizes}.items():
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
        check_growing(self)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}, expected one or more, all different.")
        if self.save_dtype not in SAVE_DTYPES:
            raise ValueError(f"save_dtype is {self.save_dtype!r}, expected one of {', '.join(SAVE_DTYPES)}.")
        if self.report_to not in TRACKERS:
            raise ValueError(f"report_to is {self.report_to!r}, expected one of {', '.join(TRACKERS)}.")
        own = {"tokenizer_name": self.tokenizer_name, **sizes}
        given = [name for name, value in own.items() if value is not None]
        if self.model_name is not None and given:
            raise ValueError(f"{given[0]} is {own[given[0]]}, but model_name brings its own: pass one of the two.")
        if self.model_name is None and not self.dsn:
            raise ValueError("dsn is False and model_name is not given, so there is no encoder: pass one of the two.")
        positions = self.max_position_embeddings or FRESH_SIZES["max_position_embeddings"]
        if self.tokenizer_name is not None and self.vocab_size is not None:
            raise ValueError(f"vocab_size is {self.vocab_size}, but tokenizer_name brings its own: pass one "
                             "of the two.")
        if self.model_name is None and self.max_length > positions:
            raise ValueError(f"max_length is {self.max_length}, the position table ends at {positions}: lower it.")

    def notes(self) -> list[str]:
        """What a model card has to say beside the fields, a sentence each."""
        return []

    @property
    def learning_rate(self) -> float:
        """``lr``, or what suits the beginning."""
        if self.lr is not None:
            return self.lr
        if self.model_name is None:
            return 2e-3
        return 3e-4 if self.dsn else 1e-4


@dataclass
class Recipe:
    """What a training may do in another way: where its rows come from, what is made of them, by which loss.

    build: (model class, options, the task's settings, vocabulary size) -> a model. loss: the model's output and the
    batch's labels -> a scalar; None is the model's own.
    """

    benchmark: Benchmark
    build: Callable[[Any, Any, dict[str, Any], int], Any] = build_model
    loss: Callable[..., torch.Tensor] | None = None


def train(options: TrainingOptions, recipe: Recipe | None = None) -> dict[str, Any]:
    """Train once for each seed and write the first seed's model, its tokenizer and a model card to ``output_dir``.

    Scores are those of the last epoch, on the whole dev set, with the weights as they are written. Where an earlier run
    with the same options was interrupted, it goes on from there.

    Returns:
        task, source, num_train, num_dev, num_truncated; runs, a dict for each seed (seed, seconds, and the task's
        metrics as ``evaluate`` gives them); metric, the one that mean and sd are of; majority, the share of the dev
        set's most frequent label; live_parameters (embeddings, encoder, head, all); seconds; output_dir.

    Raises:
        ValueError, FileNotFoundError: data that is not there or cannot be read as the task's (see ``data.read_rows``).
        OSError: ``output_dir`` cannot be written, which is known before the training begins, or has no more room.
        RuntimeError: the loss is no longer a number.
    """
    require_extra("accelerate", "sklearn", TRACKERS[options.report_to])
    started = time.perf_counter()
    recipe = recipe or Recipe(open_benchmark(options))
    benchmark = recipe.benchmark
    with open_workspace(options.output_dir, _same_training(options)) as workspace:
        tokenizer = make_tokenizer(options, benchmark.texts())
        train_rows, dev_rows = benchmark.encode(tokenizer, options.max_length)
        assert train_rows is not None
        train_rows, held_out = hold_out_rows(train_rows, options)
        model: Any = None
        for seed in options.seeds[len(workspace.runs):]:
            run_started = time.perf_counter()
            set_seed(seed)
            model = recipe.build(benchmark.model_class, options, benchmark.settings, len(tokenizer))
            model.get_input_embeddings().weight.requires_grad_(not options.freeze_word_embeddings)
            train_set = RowDataset(train_rows, options.word_dropout, tokenizer.all_special_ids, seed)
            fit(model, train_set, dev_rows, recipe, options, seed, workspace, held_out)
            model.eval().to("cpu", getattr(torch, options.save_dtype))
            scores = score(model, dev_rows, benchmark)
            if seed == options.seeds[0] and workspace.is_main:
                model.save_pretrained(workspace.folder)
                keep_graphs(workspace.checkpoints(seed), workspace.folder)
            grown = {"num_dendrites": model.config.num_dendrites} if options.dendrites else {}
            taken = round(time.perf_counter() - run_started, 1)
            workspace.finish_run({"seed": seed, **grown, **scores, "seconds": taken})
        if model is None:  # all seeds had been trained when the run was interrupted
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
    """Score a model on the whole of a task's ``split``: "train", "dev" (all there are) or one of its ``dev_splits``;
    ``task`` is one of GLUE's or "squad".

    Returns the task's metrics, ``standard_error`` where accuracy is one of them, num_examples, and num_truncated (texts
    cut to the model's position table, or to the tokenizer's ``model_max_length`` where that is less). Raises ValueError
    for a model of another task, else as ``read_rows`` does.
    """
    require_extra("sklearn")
    benchmark: Benchmark = (Squad(data_dir, with_train=False, split=split) if task == "squad" else
                            Glue(task, data_dir, with_train=False, splits=None if split == "dev" else (split,)))
    model = benchmark.model_class.from_pretrained(model_path).eval()
    made_as = (model.config.architectures or [""])[0]
    if made_as != benchmark.model_class.__name__ and made_as.startswith("DendriticBert"):
        raise ValueError(f"{model_path} is a {made_as}, task {task!r} needs a {benchmark.model_class.__name__}: pass a "
                         "model trained on it.")
    if model.config.num_labels != benchmark.settings["num_labels"]:
        raise ValueError(f"{model_path} has {model.config.num_labels} labels, task {task!r} has "
                         f"{benchmark.settings['num_labels']}: pass a model trained on it.")
    tokenizer = load_tokenizer(model_path)
    max_length = int(min(model.config.max_position_embeddings, benchmark.longest, tokenizer.model_max_length))
    _, rows = benchmark.encode(tokenizer, max_length)
    return {"task": task, **score(model, rows, benchmark), "num_examples": benchmark.num_dev,
            "num_truncated": sum(encoded.num_truncated for encoded in rows.values())}


def open_benchmark(options: TrainingOptions) -> Benchmark:
    """The rows that ``options`` name; raises as ``train`` does."""
    if options.benchmark == "squad":
        return Squad(options.data_dir, options.hold_out, fraction=options.fraction)
    return Glue(options.task, options.data_dir, options.hold_out, fraction=options.fraction)


def require_extra(*modules: str | None) -> None:
    """Raise ImportError, saying how to get it, where a module of the extra ``train`` is missing."""
    for module in modules:
        if module is not None and importlib.util.find_spec(module) is None:
            package = {"sklearn": "scikit-learn"}.get(module, module)
            raise ImportError(f"{package} is not installed: pip install 'dendritic-bert[train]'.")


def _same_training(options: TrainingOptions) -> dict[str, Any]:
    """What must not change between a training and its resumption."""
    free = {"output_dir", "report_to", "wandb_project"}
    return {name: value for name, value in asdict(options).items() if name not in free}


# ---- the training ----------------------------------------------------------------------------------------------------


def fit(
    model: Any, train_set: RowDataset, dev_rows: dict[str, EncodedRows], recipe: Recipe, options: TrainingOptions,
    seed: int, workspace: Workspace, held_out: EncodedRows | None = None,
) -> None:
    """Train ``model`` in place, from the last checkpoint of that seed where there is one."""
    benchmark = recipe.benchmark
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps_per_epoch = math.ceil(len(train_set) / options.batch_size)
    arguments = TrainingArguments(
        output_dir=str(workspace.checkpoints(seed)), save_strategy="epoch", save_total_limit=1, eval_strategy="epoch",
        report_to=options.report_to, run_name=f"{options.task}-seed-{seed}", num_train_epochs=total_epochs(options),
        per_device_train_batch_size=max(1, options.batch_size // num_processes),
        per_device_eval_batch_size=EVALUATION_BATCH, learning_rate=options.learning_rate,
        weight_decay=options.weight_decay, lr_scheduler_type="linear", warmup_steps=options.warmup, seed=seed,
        remove_unused_columns=False,
        logging_steps=min(LOGGING_STEPS, steps_per_epoch), logging_nan_inf_filter=False, disable_tqdm=True,
        dataloader_pin_memory=False, bf16=options.bf16,
        use_cpu=not torch.cuda.is_available(),  # unless told, bf16 is refused there and processes train alone
    )
    if not options.dsn and num_processes == 1:
        # An encoder pays for padding, three tokens in four of a random batch of SST-2. The sampler draws from torch's
        # own generator, which in several processes is in several states.
        arguments.train_sampling_strategy = "group_by_length"
    split = next(iter(dev_rows))
    with _tracking(options, seed):
        trainer = _Trainer(
            model, arguments, data_collator=benchmark.collate, train_dataset=train_set,
            eval_dataset=RowDataset(dev_rows[split]), compute_loss_func=recipe.loss,
            compute_metrics=lambda prediction: benchmark.scores(prediction.predictions, split),
            callbacks=[_Progress(seed, benchmark.main_metric, train_set),
                       *([AveragedWeights(options.ema)] if options.ema else [])],
        )
        trainer.remove_callback(PrinterCallback)  # prints every log to standard output, which is for results
        if held_out is None:
            trainer.train(resume_from_checkpoint=workspace.last_checkpoint(seed))
        else:
            train_and_grow(trainer, model, options, held_out, workspace.last_checkpoint(seed))


class _Trainer(Trainer):
    """The stock one, whose evaluation keeps the order of the rows also where training groups them by length."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        return self.accelerator.prepare(DataLoader(rows, self.args.eval_batch_size, collate_fn=self.data_collator))


@contextmanager
def _tracking(options: TrainingOptions, seed: int) -> Iterator[None]:
    """The trackers' own settings are environment variables; one run of theirs for each seed."""
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
    """A line an epoch on standard error, new dropped words, and an end to a run whose loss is no longer a number."""

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


# ---- the scores ------------------------------------------------------------------------------------------------------


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
