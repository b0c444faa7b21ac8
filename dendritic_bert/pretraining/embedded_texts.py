"""Texts with a teacher's embeddings as a benchmark: an encoder is judged by its cosine to the teacher on texts that it
was not trained on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.benchmark import Benchmark
from ..datasets.packed_files import pack_rows
from ..datasets.rows import EncodedRows, Rows, encode_rows
from ..inference.tokenization import PackedTokenizer
from ..model.files import BAG_FOLDER
from ..model.modeling import DendriticBertForSequenceClassification
from ..training.output_folders import expecting_room
from ..training.teacher import teacher_folder
from .joint_encoder import JointEncoder
from .kept_embeddings import embed_texts
from .options import PretrainingOptions
from .principal_axes import keep_on_axes, on_axes, principal_axes, spread_sample
from .sentence_encoder import SentenceEncoder
from .texts import Texts

BATCH_TEXTS = 4096  # tokenized at once


class EmbeddedTexts(Benchmark):
    """The texts of ``text_file``, of which ``num_held_out`` are held out, with the teacher's embeddings.

    teacher: the sentence encoder. embeddings: ``[n, D]`` float16, a memory map, those of the held-out texts first; with
    ``embedding_size`` D of their principal axes, of length 1 again.
    words: set by ``encode``, the words of the vocabulary as texts for the teacher, "" for special tokens.

    Raises as ``pretrain`` does.
    """

    main_metric = "cosine"

    def __init__(self, options: PretrainingOptions) -> None:
        self.model_class: Any = JointEncoder if options.joint else DendriticBertForSequenceClassification
        self._folder = teacher_folder(options.teacher_dir, options.output_dir)
        self.teacher = SentenceEncoder(str(options.teacher), options.teacher_pooling, options.teacher_max_length,
                                       options.teacher_bf16)
        if self.teacher.max_length < options.teacher_max_length:
            print(f"teacher {self.teacher.name} reads the first {self.teacher.max_length} tokens of a text, fewer than "
                  f"teacher_max_length, {options.teacher_max_length}", file=sys.stderr, flush=True)
        self.source = ", ".join(Path(file).name for file in options.text_file)
        self._texts = Texts(options.text_file, options.text_column, options.num_held_out)
        self.num_train, self.num_dev = self._texts.num_train, self._texts.num_held_out
        self.digest = f"{self.teacher.digest} {self._texts.digest}"
        size = options.embedding_size or self.teacher.dimension
        if size > self.teacher.dimension:
            raise ValueError(f"embedding_size is {size}, but the embeddings of teacher {self.teacher.name} have "
                             f"{self.teacher.dimension:,} numbers: pass at most so many.")
        self.settings = {"num_labels": size, "problem_type": "regression"}
        self.embeddings = embed_texts(self.teacher, self._texts, self._folder)
        self._axes: np.ndarray | None = None
        if options.embedding_size is not None:
            self._axes = principal_axes(spread_sample(self.embeddings), size)
            with expecting_room(self._folder, "teacher_dir"):
                self.embeddings = keep_on_axes(self.embeddings, self._axes, self._folder)
        self.words: list[str] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """The teacher's embeddings of other texts, as ``embeddings`` has those of its own, but in float32."""
        embeddings = self.teacher.encode(texts)
        return embeddings if self._axes is None else on_axes(embeddings, self._axes)

    def save(self, model: Any, folder: Path) -> None:
        """Two joint encoders become models of their own at once: so no file of both is left that the one or the other
        would have to replace."""
        if isinstance(model, JointEncoder):
            model.save_apart(*self.folders(folder))
        else:
            super().save(model, folder)

    def load(self, folder: Path) -> Any:
        return DendriticBertForSequenceClassification.from_pretrained(folder)

    def folders(self, folder: Path) -> list[Path]:
        return [folder, folder / BAG_FOLDER] if self.model_class is JointEncoder else [folder]

    def texts(self) -> Iterable[str]:
        return self._texts

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        """Raises OSError if the folder of the embeddings has no room for the ids."""
        print(f"{self.num_train:,} texts to train on, {self.num_dev:,} held out; vocabulary of {len(tokenizer):,}",
              file=sys.stderr, flush=True)
        self.words = words_of(tokenizer)
        packed = PackedTokenizer(tokenizer)

        def rows(texts: Iterable[str], embeddings: np.ndarray) -> EncodedRows:
            return pack_rows(_batches(texts, packed, max_length), embeddings, len(tokenizer), self._folder)

        held = self.num_dev
        train = rows(islice(self._texts, held, None), self.embeddings[held:])
        return train, {"dev": rows(self._texts.held_out, self.embeddings[:held])}

    def scores(self, logits: Any, split: str = "dev") -> dict[str, float]:
        """cosine: the mean over the held-out texts of the cosine between embedding and teacher's embedding; of a joint
        model also cosine_without_windows."""
        theirs = self.embeddings[:self.num_dev].astype(np.float64)
        models = np.split(np.asarray(logits, np.float64), np.shape(logits)[1] // theirs.shape[1], axis=1)
        return {name: _mean_cosine(ours, theirs) for name, ours in zip(("cosine", "cosine_without_windows"), models)}


def _mean_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-30)).mean())


def words_of(tokenizer: Any) -> list[str]:
    """What each id of a vocabulary stands for, without the sign that it goes on a word; "" for special tokens."""
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return ["" if id in special else tokenizer.convert_tokens_to_string([token]).removeprefix("##").strip()
            for id, token in enumerate(tokens)]


def _batches(texts: Iterable[str], tokenizer: PackedTokenizer, max_length: int) -> Iterator[EncodedRows]:
    rest = iter(texts)
    while batch := list(islice(rest, BATCH_TEXTS)):
        yield encode_rows(Rows((batch,), np.empty(len(batch)), ""), tokenizer, max_length)
