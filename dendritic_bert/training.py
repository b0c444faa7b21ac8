"""Training and evaluation on GLUE tasks, through the Hugging Face ``Trainer``.

Two beginnings: the embeddings of a BERT checkpoint with its tokenizer, or random numbers and a WordPiece vocabulary
trained on the task's own texts. Progress goes to standard error; the results are returned, and stand in the model card
beside the weights.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import string
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers.trainers import WordPieceTrainer
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, BertTokenizer, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from .configuration import DendriticBertConfig
from .data import TASKS, EncodedRows, RowDataset, Rows, Task, encode_rows, find_task, pad_rows, read_rows
from .model_card import write_model_card
from .modeling import DendriticBertForSequenceClassification
from .tokenization import PackedTokenizer

SAVE_DTYPES = ("float32", "float16", "bfloat16")
# What a fresh model has where nothing else is asked for; from a checkpoint these are the checkpoint's.
FRESH_SIZES = {"vocab_size": 30000, "hidden_size": 16, "max_position_embeddings": 512}
MIN_FREQUENCY = 2  # of a word piece in the training texts
EVALUATION_BATCH = 256
LOGGING_STEPS = 50  # how soon a loss that is no number ends the run


@dataclass
class TrainingOptions:
    """What to train, on what and how; each field is the command line's flag of the same name.

    Raises ValueError, naming the field, for values that cannot be trained with.
    """

    model_name: str | None = field(default=None, metadata={
        "help": "BERT checkpoint to begin with, a folder or a hub id; without it the model begins at random, with a "
                "vocabulary trained on the training texts"})
    benchmark: str = field(default="glue", metadata={"help": "family of tasks"})
    task: str = field(default="sst2", metadata={"help": f"task of the benchmark: {', '.join(TASKS)}"})
    dsn: bool = field(default=False, metadata={
        "help": "no encoder, the embeddings pooled under the head; without it BERT's encoder is kept"})
    data_dir: str | None = field(default=None, metadata={
        "help": "folder of the GLUE download, or of the task in it; without it the hub is asked"})
    output_dir: str = field(default="outputs", metadata={
        "help": "folder for weights, tokenizer and model card; files of their names are replaced"})
    epochs: int = field(default=3, metadata={"help": "passes over the training rows"})
    batch_size: int = field(default=256, metadata={"help": "training rows a step"})
    lr: float | None = field(default=None, metadata={
        "help": "highest learning rate, from which it falls linearly to 0 (default: 2e-3 from random numbers, 3e-4 for "
                "a DSN of a checkpoint, 1e-4 with its encoder)"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={
        "help": "train once for each and report all; the weights kept are the first one's"})
    word_dropout: float = field(default=0.2, metadata={
        "help": "probability with which a token is masked out of the pool in training"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay"})
    vocab_size: int | None = field(default=None, metadata={
        "help": f"most entries of a new vocabulary (default: {FRESH_SIZES['vocab_size']})"})
    hidden_size: int | None = field(default=None, metadata={
        "help": f"width of new embeddings (default: {FRESH_SIZES['hidden_size']})"})
    max_position_embeddings: int | None = field(default=None, metadata={
        "help": f"length of a new position table (default: {FRESH_SIZES['max_position_embeddings']})"})
    max_length: int = field(default=128, metadata={"help": "tokens after which a text is cut"})
    pooling: Literal["mean_masked", "mean_all", "sum_all"] = field(default="mean_masked", metadata={
        "help": "how token vectors become one; the last two count padding, for checkpoints trained that way"})
    num_dendrites: int = field(default=0, metadata={"help": "dendrites for each label"})
    hidden_dropout_prob: float | None = field(default=None, metadata={
        "help": "dropout on every token's vector (default: the checkpoint's, else 0)"})
    classifier_dropout: float | None = field(default=None, metadata={
        "help": "dropout on the pooled vector (default: the checkpoint's, else hidden_dropout_prob)"})
    save_dtype: Literal["float32", "float16", "bfloat16"] = field(default="float32", metadata={
        "help": "dtype of the weights that are written, and evaluated"})
    report_to: str = field(default="none", metadata={"help": "where the Trainer reports: none, wandb, ..."})

    def __post_init__(self) -> None:
        if self.benchmark != "glue":
            raise ValueError(f"benchmark is {self.benchmark!r}, expected 'glue'.")
        find_task(self.task)
        sizes = {name: getattr(self, name) for name in FRESH_SIZES}
        for name, value in {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, **sizes}.items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, expected more than 0.")
        for name in ("word_dropout", "hidden_dropout_prob", "classifier_dropout"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more and less than 1.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}, expected one or more, all different.")
        if self.save_dtype not in SAVE_DTYPES:
            raise ValueError(f"save_dtype is {self.save_dtype!r}, expected one of {', '.join(SAVE_DTYPES)}.")
        given = [name for name, value in sizes.items() if value is not None]
        if self.model_name is not None and given:
            raise ValueError(f"{given[0]} is {sizes[given[0]]}, but model_name brings its own: pass one of the two.")
        if self.model_name is None and not self.dsn:
            raise ValueError("dsn is False and model_name is not given, so there is no encoder: pass one of the two.")
        positions = self.max_position_embeddings or FRESH_SIZES["max_position_embeddings"]
        if self.model_name is None and self.max_length > positions:
            raise ValueError(f"max_length is {self.max_length}, the position table ends at {positions}: lower it.")

    @property
    def learning_rate(self) -> float:
        """``lr``, or what suits the beginning."""
        if self.lr is not None:
            return self.lr
        if self.model_name is None:
            return 2e-3
        return 3e-4 if self.dsn else 1e-4


def train(options: TrainingOptions) -> dict[str, Any]:
    """Train once for each seed and write the first seed's model, its tokenizer and a model card to ``output_dir``.

    Scores are those of the last epoch, on the whole dev set, with the weights as they are written.

    Returns:
        task, source, num_train, num_dev, num_truncated; runs, a dict for each seed (seed, seconds, and the task's
        metrics as ``evaluate`` gives them); mean and sd of the first metric; majority, the share of the dev set's most
        frequent label; live_parameters (embeddings, encoder, head, all); seconds; output_dir.

    Raises:
        ValueError, FileNotFoundError: data that is not there or cannot be read as the task's (see ``data.read_rows``).
        OSError: ``output_dir`` cannot be written; known before the training begins.
        RuntimeError: the loss is no longer a number.
    """
    _require_train_extra()
    started = time.perf_counter()
    task = find_task(options.task)
    train_rows, dev_rows = (read_rows(options.task, split, options.data_dir) for split in ("train", "dev"))
    with _staged_folder(options.output_dir) as folder:
        tokenizer: Any = (_load_tokenizer(options.model_name) if options.model_name is not None
                          else _train_tokenizer(train_rows, options.vocab_size or FRESH_SIZES["vocab_size"]))
        packed = PackedTokenizer(tokenizer)
        train_ids, dev_ids = (encode_rows(rows, packed, options.max_length) for rows in (train_rows, dev_rows))
        runs: list[dict[str, Any]] = []
        for seed in options.seeds:
            run_started = time.perf_counter()
            set_seed(seed)
            model: Any = _build_model(options, task, len(tokenizer))
            train_set = RowDataset(train_ids, options.word_dropout, tokenizer.all_special_ids, seed)
            _fit(model, train_set, RowDataset(dev_ids), options, seed, str(folder))
            model.eval().to("cpu", getattr(torch, options.save_dtype))
            runs.append({"seed": seed, **_evaluate_rows(model, dev_ids, task),
                         "seconds": round(time.perf_counter() - run_started, 1)})
            if len(runs) == 1:
                model.save_pretrained(folder)
        tokenizer.model_max_length = model.config.max_position_embeddings
        tokenizer.save_pretrained(folder)
        values = [run[task.metrics[0]] for run in runs]
        results = {
            "task": options.task, "source": train_rows.source, "num_train": len(train_rows.labels),
            "num_dev": len(dev_rows.labels), "num_truncated": train_ids.num_truncated, "runs": runs,
            "mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "majority": float(np.bincount(dev_rows.labels).max() / len(dev_rows.labels)) if task.labels else None,
            "live_parameters": _live_parameters(model), "seconds": round(time.perf_counter() - started, 1),
            "output_dir": str(options.output_dir),
        }
        write_model_card(folder / "README.md", options, results, model.config)
    return results


def evaluate(model_path: str, task: str, data_dir: str | None = None, split: str = "dev") -> dict[str, Any]:
    """Score a model on the whole of a task's ``split``.

    Returns the task's metrics, ``standard_error`` where accuracy is one of them, num_examples, and num_truncated (texts
    cut to the model's position table). Raises ValueError for a model with another number of labels, else as
    ``read_rows`` does.
    """
    _require_train_extra()
    rows, known_task = read_rows(task, split, data_dir), find_task(task)
    model = DendriticBertForSequenceClassification.from_pretrained(model_path)
    if model.config.num_labels != known_task.num_labels:
        raise ValueError(f"{model_path} has {model.config.num_labels} labels, task {task!r} has "
                         f"{known_task.num_labels}: pass a model trained on it.")
    encoded = encode_rows(rows, PackedTokenizer.from_pretrained(model_path), model.config.max_position_embeddings)
    scores = _evaluate_rows(model.eval(), encoded, known_task)
    return {"task": task, **scores, "num_examples": len(rows.labels), "num_truncated": encoded.num_truncated}


def _require_train_extra() -> None:
    for module, package in {"accelerate": "accelerate", "sklearn": "scikit-learn"}.items():
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"{package} is not installed: pip install 'dendritic-bert[train]'.")


@contextmanager
def _staged_folder(output_dir: str) -> Iterator[Path]:
    """A folder inside ``output_dir`` whose files move up when the block ends well, and vanish when it does not."""
    output, is_new = Path(output_dir), not Path(output_dir).exists()
    staging = output / f".unfinished-{os.getpid()}"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise OSError(f"output_dir {output} cannot be written ({error.strerror}): name a folder that can.") from error
    try:
        yield staging
        for path in sorted(staging.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, output / path.name)  # the configuration last: without it the folder is no model yet
    except BaseException:
        shutil.rmtree(output if is_new else staging)
        raise
    staging.rmdir()


# ---- what is trained -------------------------------------------------------------------------------------------------


def _load_tokenizer(model_name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(model_name)
    except (OSError, ValueError) as error:  # each takes a paragraph
        raise OSError(f"the tokenizer of model_name {model_name} cannot be loaded ({type(error).__name__}): pass a "
                      "folder that holds its tokenizer.json or vocab.txt, or a hub id.") from error


def _train_tokenizer(rows: Rows, vocab_size: int) -> BertTokenizer:
    """BERT's lower-casing tokenizer with a WordPiece vocabulary of the rows' texts, the same at every call."""
    texts = [text for column in rows.columns for text in column]
    backend = BertTokenizer().backend_tokenizer
    seen = set().union(*map(backend.normalizer.normalize_str, texts)) - set(string.whitespace)
    # Every printable character of ASCII is known, even one that no training text holds.
    alphabet = sorted(seen | set(string.printable) - set(string.ascii_uppercase) - set(string.whitespace))
    # The trainer numbers "##x" in the order of a hash table, which breaks its ties: numbered here, they stay.
    first = [*BertTokenizer().get_vocab(), *alphabet, *(f"##{character}" for character in alphabet)]
    if vocab_size < len(first):
        raise ValueError(f"vocab_size is {vocab_size}, the characters of the texts alone take {len(first)}: raise it.")
    backend.train_from_iterator(texts, WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=MIN_FREQUENCY, special_tokens=first, show_progress=False))
    return BertTokenizer(vocab=backend.get_vocab())


def _build_model(options: TrainingOptions, task: Task, vocab_size: int) -> DendriticBertForSequenceClassification:
    settings: dict[str, Any] = {
        "pooling": options.pooling, "num_dendrites": options.num_dendrites, "num_labels": task.num_labels,
        "problem_type": "single_label_classification" if task.labels else "regression",
    }
    if task.labels:
        settings["id2label"] = dict(enumerate(task.labels))
        settings["label2id"] = {label: i for i, label in enumerate(task.labels)}
    for name in ("hidden_dropout_prob", "classifier_dropout"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    if options.model_name is not None:
        return DendriticBertForSequenceClassification.from_pretrained(
            options.model_name, dsn=options.dsn, dtype=torch.float32, **settings)
    sizes = {name: getattr(options, name) or default for name, default in FRESH_SIZES.items()}
    config = DendriticBertConfig(**{"hidden_dropout_prob": 0.0, "num_hidden_layers": 0, "num_attention_heads": 1,
                                    **settings, **sizes, "vocab_size": vocab_size})
    model = DendriticBertForSequenceClassification(config)
    # Words begin small (0.02) around one large common vector: LayerNorm would blow a word that is hardly ever seen up
    # to full length in a random direction, whereas here it stays neutral until it has been trained. Worth 1.5 points
    # on SST-2, and what leaves no reason for dropout. The head begins as nn.Linear does.
    torch.nn.init.normal_(model.bert.embeddings.token_type_embeddings.weight)
    model.classifier.reset_parameters()
    return model


def _live_parameters(model: DendriticBertForSequenceClassification) -> dict[str, int]:
    """Parameters that can change the output, by part."""
    embeddings = sum(parameter.numel() for parameter in model.bert.embeddings.parameters())
    encoder = sum(parameter.numel() for parameter in model.bert.parameters()) - embeddings
    head = model.classifier.num_live_parameters()
    return {"embeddings": embeddings, "encoder": encoder, "head": head, "all": embeddings + encoder + head}


# ---- the training ----------------------------------------------------------------------------------------------------


def _fit(
    model: DendriticBertForSequenceClassification, train_set: RowDataset, dev_set: RowDataset,
    options: TrainingOptions, seed: int, output_dir: str,
) -> None:
    """Train ``model`` in place."""
    task, steps_per_epoch = find_task(options.task), math.ceil(len(train_set) / options.batch_size)
    arguments = TrainingArguments(
        output_dir=output_dir, save_strategy="no", eval_strategy="epoch", report_to=options.report_to,
        num_train_epochs=options.epochs, per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=EVALUATION_BATCH, learning_rate=options.learning_rate,
        weight_decay=options.weight_decay, lr_scheduler_type="linear", seed=seed, remove_unused_columns=False,
        logging_steps=min(LOGGING_STEPS, steps_per_epoch), logging_nan_inf_filter=False, disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model, arguments, data_collator=pad_rows, train_dataset=train_set, eval_dataset=dev_set,
        compute_metrics=lambda prediction: _scores(prediction.predictions, prediction.label_ids, task),
        callbacks=[_Progress(seed, task)],
    )
    trainer.remove_callback(PrinterCallback)  # prints every log to standard output, which is for results
    trainer.train()


class _Progress(TrainerCallback):
    """A line an epoch on standard error, and an end to a run whose loss is no longer a number."""

    def __init__(self, seed: int, task: Task):
        self.seed, self.metric = seed, task.metrics[0]
        self.started, self.loss = time.perf_counter(), math.nan

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for name in {"loss", "eval_loss"} & logs.keys():
            if not math.isfinite(logs[name]):
                raise RuntimeError(f"{name} is {logs[name]} at step {state.global_step} of {state.max_steps}, with a "
                                   f"highest lr of {args.learning_rate:g}: lower lr.")
        self.loss = logs.get("loss", self.loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        print(f"seed {self.seed}, epoch {state.epoch:g} of {state.num_train_epochs:g}: loss {self.loss:.4f}, dev "
              f"{self.metric} {metrics[f'eval_{self.metric}']:.4f}, {time.perf_counter() - self.started:.0f} s",
              file=sys.stderr, flush=True)


# ---- the scores ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _evaluate_rows(model: DendriticBertForSequenceClassification, rows: EncodedRows, task: Task) -> dict[str, float]:
    batches = DataLoader(RowDataset(rows), EVALUATION_BATCH, collate_fn=pad_rows)
    logits = [model(**{name: values for name, values in batch.items() if name != "labels"}).logits for batch in batches]
    return _scores(torch.cat(logits).float().numpy(), rows.labels, task)


def _scores(logits: Any, labels: Any, task: Task) -> dict[str, float]:
    """The task's metrics of logits ``[n, C]``, and the standard error of an accuracy: sqrt(a (1 - a) / n)."""
    from scipy import stats
    from sklearn import metrics

    functions: dict[str, Callable[..., Any]] = {
        "accuracy": metrics.accuracy_score, "f1": metrics.f1_score, "matthews_correlation": metrics.matthews_corrcoef,
        "pearson": lambda *series: stats.pearsonr(*series).statistic,
        "spearman": lambda *series: stats.spearmanr(*series).statistic,
    }
    predictions = logits.argmax(axis=1) if task.labels else logits[:, 0]
    scores = {name: float(functions[name](labels, predictions)) for name in task.metrics}
    if "accuracy" in scores:
        scores["standard_error"] = math.sqrt(scores["accuracy"] * (1 - scores["accuracy"]) / len(labels))
    return scores
