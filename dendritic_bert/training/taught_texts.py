"""Texts without labels as a benchmark: a teacher labels them, and a student is judged by how often it agrees with it on
texts that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.benchmark import Benchmark, digest_of, label_fields
from ..datasets.held_out import HOLD_OUT
from ..datasets.natural_text import read_texts
from ..datasets.rows import EncodedRows, Rows, encode_rows
from ..inference.tokenization import PackedTokenizer
from ..model.configuration import DendriticBertConfig
from ..model.files import CARD
from ..model.modeling import DendriticBertForSequenceClassification
from .agreement_card import write_agreement_card
from .distillation_options import DistillationOptions
from .teacher import label_texts, prepare_teacher, teacher_config, teacher_folder


class TaughtTexts(Benchmark):
    """The texts of ``text_file``, a tenth of them (``hold_out``) held out at random, with the teacher's logits.

    class_counts and majority count the classes that the teacher gives. Raises as ``distill`` does.
    """

    model_class = DendriticBertForSequenceClassification
    main_metric = "agreement"

    def __init__(self, options: DistillationOptions) -> None:
        folder = teacher_folder(options.teacher_dir, options.output_dir)
        teacher = prepare_teacher(options, folder)
        config = teacher_config(teacher)
        texts = read_texts(options.text_file, options.text_column)
        order = np.random.default_rng(0).permutation(len(texts))
        num_held = max(1, round((options.hold_out or HOLD_OUT) * len(texts)))
        if len(texts) - num_held < 1:
            raise ValueError(f"text_file has {len(texts)} different texts, of which none would be left to train on: "
                             "name files of more.")
        self.source = ", ".join(Path(file).name for file in options.text_file)
        logits = label_texts(teacher, texts, config.num_labels, options.max_length, folder, options.teacher_bf16)
        classes = logits.argmax(axis=1)
        self.train, self.dev = (
            Rows(([texts[place] for place in places],), np.column_stack([logits, classes])[places].astype(np.float32),
                 self.source) for places in (np.sort(order[num_held:]), np.sort(order[:num_held])))
        self.num_train, self.num_dev = len(self.train.labels), len(self.dev.labels)
        self.class_counts = np.bincount(self.train.labels[:, -1].astype(np.int64), minlength=config.num_labels)
        self.majority = float(np.bincount(self._classes).max() / self.num_dev)
        names = [str(name) for _, name in sorted(config.id2label.items())]
        self.settings: dict[str, Any] = {
            "num_labels": config.num_labels, "problem_type": "single_label_classification", **label_fields(names)}
        self.digest = digest_of([*names, *texts], logits)
        if options.text_column:
            self.settings["training_columns"] = {"text_column": options.text_column}

    @property
    def _classes(self) -> np.ndarray:
        return self.dev.labels[:, -1].astype(np.int64)

    def texts(self) -> Iterable[str]:
        return self.train.columns[0]

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        packed = PackedTokenizer(tokenizer)
        dev = self.dev._replace(labels=self._classes)
        return encode_rows(self.train, packed, max_length), {"dev": encode_rows(dev, packed, max_length)}

    def scores(self, logits: Any, split: str = "dev") -> dict[str, float]:
        """agreement: how often the student gives the teacher's class; and its standard error."""
        agreement = float((np.asarray(logits).argmax(axis=1) == self._classes).mean())
        return {"agreement": agreement, "standard_error": (agreement * (1 - agreement) / self.num_dev) ** 0.5}


def describe_agreement(options: DistillationOptions, benchmark: TaughtTexts, _: dict[str, EncodedRows], folder: Path,
                       results: dict[str, Any]) -> None:
    """Write the card of the model in ``folder``."""
    config = DendriticBertConfig.from_pretrained(folder)
    write_agreement_card(folder / CARD, options, results, config)
