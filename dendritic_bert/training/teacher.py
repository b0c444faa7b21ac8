"""The teacher of a distillation: a sequence classifier, fine-tuned first where it has no head, and its logits."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from ..atomic_write import atomic_path
from ..embedded_model import find_model
from ..file_lock import locked
from ..inference.columns import warn_of_other_kind
from ..model.files import CONFIG, fingerprint
from .data_options import DataOptions, expect_other_folder
from .distillation_options import DistillationOptions
from .inference_workers import infer_texts, round_weights
from .kept_logits import KeptLogits
from .options import TrainingOptions
from .output_folders import expect_writable, expecting_room
from .trainer import train
from .workspace import FOLDER as UNFINISHED
from .workspace import expect_usable

RECORD = "fine_tuned.json"  # beside a fine-tuned teacher: what it was made of
FINE_TUNING = ("teacher_epochs", "teacher_lr", "teacher_batch_size", "teacher_bf16", "teacher_seed", "max_length")
KEPT_BATCHES = 128  # logits of so many batches are appended at once: a minute's work of a large teacher


def teacher_folder(teacher_dir: str | None, output_dir: str) -> Path:
    """The folder for what is kept of a teacher. Raises OSError if it cannot be written, and as ``open_workspace`` does
    for ``output_dir``: before the teacher works for long, and leaves something there."""
    expect_usable(output_dir)
    folder = Path(teacher_dir or Path(output_dir) / "teacher")
    expect_writable(folder, "teacher_dir")
    return folder


def prepare_teacher(options: DistillationOptions, folder: Path, rows: str = "") -> str:
    """The name or folder of a sequence classifier: the teacher of ``options``, or, if that has no classification head,
    the one that is fine-tuned from it into ``folder`` by the first call and found there by later ones.

    ``rows`` is a digest of the training rows. Raises OSError if the teacher cannot be loaded, ValueError if it has no
    head and there are no labels to train one, or if ``folder`` holds a teacher that was fine-tuned otherwise, or is the
    one that the student is written to.
    """
    name = find_model(options.teacher)
    if is_classifier(teacher_config(name)):
        return name
    if options.text_file:
        raise ValueError(f"teacher {name} has no classifier, and text_file has no labels to train one on: pass a "
                         "sequence classifier.")
    expect_other_folder("teacher_dir", folder, options.output_dir)
    asked = {"encoder": fingerprint(name), "rows": rows} | {option: getattr(options, option) for option in FINE_TUNING}
    if not _is_fine_tuned(folder, asked):
        print(f"teacher {name} has no classifier: it is fine-tuned into {folder}", file=sys.stderr, flush=True)
        train(teacher_options(options, str(folder)))
        with atomic_path(folder / RECORD) as path:
            path.write_text(json.dumps(asked, indent=1), encoding="utf-8")
    return str(folder)


def _is_fine_tuned(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether ``folder`` holds the teacher that is made of what is asked for. An interrupted training leaves a model,
    too, which is no teacher yet."""
    if not (folder / CONFIG).exists() or (folder / UNFINISHED).exists():
        return False
    record = folder / RECORD
    found = json.loads(record.read_bytes()) if record.exists() else {}
    if found == asked:
        return True
    differing = ", ".join(name for name in asked if found.get(name) != asked[name])
    reason = f"was fine-tuned otherwise (what differs: {differing})" if found else "does not say what it was made of"
    raise ValueError(f"teacher_dir {folder} holds a model that {reason}: name another teacher_dir, or pass that folder "
                     "as teacher to take the model as it is.")


def teacher_config(name: str) -> Any:
    """The configuration of a model in a folder or on the hub; raises OSError if it cannot be loaded."""
    with loading_teacher(name):
        return AutoConfig.from_pretrained(name)


@contextmanager
def loading_teacher(name: str) -> Iterator[None]:
    """Raise OSError, which names the teacher, where transformers cannot load it; its own messages are paragraphs."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise OSError(f"teacher {name} cannot be loaded ({type(error).__name__}): pass a folder or a hub id of a "
                      "transformers model.") from error


def is_classifier(config: Any) -> bool:
    """Whether a model has a head for sequence classification."""
    return any(architecture.endswith("ForSequenceClassification") for architecture in config.architectures or [])


def teacher_options(options: DistillationOptions, output_dir: str) -> TrainingOptions:
    """How a teacher is fine-tuned: its encoder, the mean over its tokens, and a linear head.

    On SST-2 the averaged weights reach 89.6 over two seeds, those of the last step 89.2. A learning rate of 6e-5
    without averaging reaches 89.3; three epochs at 1e-4 with 64 rows per step and frozen word embeddings reach 89.1
    (one seed). On rows of one's own ``train`` says for how long and how fast, and without averaging: the average of few
    steps is what they began with.
    """
    rows = {option.name: getattr(options, option.name) for option in fields(DataOptions)}
    return TrainingOptions(
        **rows, model_name=options.teacher, output_dir=output_dir, epochs=options.teacher_epochs, lr=options.teacher_lr,
        batch_size=options.teacher_batch_size, warmup=0.06, ema=0.0 if options.benchmark == "own" else 0.999,
        word_dropout=0.0, encoder_pooling="mean", max_length=options.max_length, bf16=options.teacher_bf16,
        seeds=[options.teacher_seed], baseline=False)


def label_texts(
    name: str, texts: Sequence[str], num_labels: int, max_length: int, folder: Path, bf16: bool = False,
    names: list[str] | None = None,
) -> np.ndarray:
    """The logits ``[n, C]`` float32 of the sequence classifier ``name`` for ``texts``.

    They are kept in ``folder``, where later calls with the same weights find them, those of an interrupted call too.
    The columns follow ``names``, those of the classes, or, where none are given, the outputs. Raises ValueError if the
    classifier does not give a text one of several classes, if their number is not ``num_labels``, or their names are
    not ``names``, and BlockingIOError if another process keeps logits there. Texts are cut to ``max_length`` tokens, or
    to the fewer that it reads. Warns where the classifier was trained on pairs.
    """
    config = teacher_config(name)
    warn_of_other_kind(getattr(config, "training_columns", None), False, "labelled", "pass a teacher of single texts")
    if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
        raise ValueError(f"teacher {name} has {config.num_labels} labels and the problem_type {config.problem_type}: "
                         "pass a classifier that gives a text one of several classes.")
    if config.num_labels != num_labels:
        raise ValueError(f"teacher {name} has {config.num_labels} labels, the task has {num_labels}: pass a "
                         "model trained on it.")
    columns = _columns_of(config, names, name)
    tokenizer = AutoTokenizer.from_pretrained(name)
    max_length = int(min(max_length, tokenizer.model_max_length, _positions_of_classifier(config)))
    key = f"{fingerprint(name)} {num_labels} {max_length} {bf16}".encode()
    path = folder / f"logits-{hashlib.sha256(key).hexdigest()[:16]}.kept"
    folder.mkdir(parents=True, exist_ok=True)
    kept = KeptLogits(path, num_labels)
    if kept.missing(texts):  # else several trainings may read them at the same time
        with expecting_room(folder, "teacher_dir"), locked(path.with_suffix(".lock"), f"teacher_dir {folder}"):
            kept = KeptLogits(path, num_labels)  # to which another training may have added
            if missing := kept.missing(texts):
                _label(name, tokenizer, missing, max_length, bf16, kept)
    return kept.of(texts)[:, columns]


def _positions_of_classifier(config: Any) -> float:
    with torch.device("meta"):  # the modules without their weights
        return num_positions(AutoModelForSequenceClassification.from_config(config))


def num_positions(model: Any) -> float:
    """The most tokens for which a model of transformers has positions; infinity where it has no table of them.

    RoBERTa and the models made after it count from the row behind the one for padding, which their tables name.
    """
    num_rows = getattr(model.config, "max_position_embeddings", None)
    if not num_rows or num_rows < 0:
        return math.inf
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    paddings = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    return num_rows - max((padding + 1 for padding in paddings), default=0)


def _label(name: str, tokenizer: Any, texts: list[str], max_length: int, bf16: bool, kept: KeptLogits) -> None:
    """Label distinct texts."""
    model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32).eval()
    if bf16:
        round_weights(model)
    found: list[tuple[list[int], np.ndarray]] = []

    def logits(rows: Any) -> np.ndarray:
        return model(**rows).logits.float().numpy()

    def keep() -> None:
        if found:
            kept.append([texts[index] for batch, _ in found for index in batch],
                        np.concatenate([logits for _, logits in found]))
            found.clear()

    with tqdm(desc="teacher", total=len(texts), unit="text", leave=False, file=sys.stderr, disable=None) as bar:
        for labelled in infer_texts(logits, tokenizer, texts, max_length, bf16):
            found.append(labelled)
            bar.update(len(labelled[0]))
            if len(found) == KEPT_BATCHES:
                keep()
        keep()


def _columns_of(config: Any, names: list[str] | None, teacher: str) -> list[int]:
    """The output of a classifier for each of ``names``; without names all in order."""
    if names is None:
        return list(range(config.num_labels))
    theirs = [str(label) for _, label in sorted(config.id2label.items())]
    if unknown := sorted(set(names) - set(theirs)):
        raise ValueError(f"teacher {teacher} does not know the label {unknown[0]!r}: pass a model trained on these "
                         "labels, or one without a classifier, which is trained first.")
    return [theirs.index(name) for name in names]
