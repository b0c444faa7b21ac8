"""Texts to embeddings, for search and clustering."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedded_model import EMBEDDED_ENCODER, find_model
from ..model.packed_encoder import form_of, is_encoder
from .file_classification import FileReport, classify_file
from .streams import PathOrStream
from .text_logits import BATCH_SIZE, TextLogits
from .texts import check_texts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from typing_extensions import Self

    from ..model.dsn_checkpoint import DsnCheckpoint


class TextEncoder(TextLogits):
    """Gives texts the embeddings that a pretrained encoder has learned from a teacher, in one kernel from packed ids.

    An embedding is the projection of the pooled row, which the kernel computes as it computes logits. ``model`` and
    ``tokenizer``, overlapping calls and copies are those of ``TextLogits``; the head of the model is the projection.
    ``dimension`` is D, the length of an embedding. A text without words, such as "", has the embedding of its special
    tokens; if the tokenizer adds none, that of an empty row, which is the bias of the projection.

    Raises ValueError if the model is a classifier.
    """

    embedded = EMBEDDED_ENCODER

    def __init__(self, model: PreTrainedModel | DsnCheckpoint, tokenizer: Any):
        super().__init__(model, tokenizer)
        if not is_encoder(self.config):
            raise ValueError(f"the model classifies ({self.config.num_labels} labels, problem_type "
                             f"{self.config.problem_type!r}): pass an encoder, as dendritic-bert pretrain writes one.")
        self.dimension = int(self._source.num_labels)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        *,
        windows: bool = True,
    ) -> Self:
        """Load an encoder; None is the one that comes with the package.

        ``windows`` says which of the two models of a folder with both is meant: the windowed model, or with False the
        gated bag of words, which is faster and less exact. The other arguments and the errors are those of
        ``TextClassifier.from_pretrained``.
        """
        form = form_of(find_model(name_or_path, cls.embedded), windows, revision=revision)
        return cls._load(name_or_path, device, revision, **form)

    def encode(
        self, texts: Iterable[str], batch_size: int = BATCH_SIZE, threads: int | None = None, *, normalize: bool = True
    ) -> np.ndarray:
        """The embeddings ``[B, D]`` float32 of B texts.

        Args:
            texts: what ``check_texts`` takes: a list, a Series of pandas, an array of numpy or Arrow, ...
            batch_size: how many texts are encoded at a time.
            threads: the number of worker threads; None is torch's own number. The embeddings are the same to the bit
                for any number of threads.
            normalize: divide every embedding by its Euclidean length, so that the product of two is their cosine. One
                of length 0 stays.

        Raises TypeError for a text that is not a str, and ValueError for an argument out of its range and for an
        embedding with NaN or infinite numbers, naming the text.
        """
        texts = self._engine.in_place(self, texts) or check_texts(texts)
        embeddings = np.empty((len(texts), self.dimension), np.float32)
        function = normalized if normalize else np.asarray
        for start, batch in self._map_logits(function, texts, None, batch_size, threads):
            embeddings[start:start + len(batch)] = batch
        return embeddings

    def encode_file(
        self,
        input: PathOrStream | Sequence[PathOrStream],
        output: PathOrStream | None = None,
        *,
        normalize: bool = True,
        input_format: str | None = None,
        column: str | None = None,
        keep_columns: str | Sequence[str] | None = None,
        delimiter: str = ",",
        format: str | None = None,
        on_error: str = "stop",
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        progress: bool | None = None,
        resume: bool = True,
    ) -> FileReport:
        """Encode every record of one file or several, of any size, in order, in constant memory.

        Each record gives its text and its ``embedding``, D numbers of six decimals: an array in JSON, JSON of one in
        CSV and TSV, and a list of float32 in Parquet and Arrow. ``normalize`` is that of ``encode``; the other
        arguments, the report, the errors, and what becomes of an interrupted run are those of
        ``TextClassifier.classify_file``.
        """
        return classify_file(self, input, output, input_format=input_format, column=column, text_pair_column=None,
                             answers=Embeddings(self.dimension, normalize), keep_columns=keep_columns,
                             delimiter=delimiter, format=format, on_error=on_error, batch_size=batch_size,
                             threads=threads, progress=progress, resume=resume)

    def __repr__(self) -> str:
        config = self.config
        form = f"{config.window_layers} layers of {config.window_dendrites} dendrites on windows, " * bool(
            config.window_layers)
        return f"TextEncoder({form}{self.dimension} numbers a text)"


class Embeddings:
    """What a file says of an embedding, as ``scores.Answers`` has it of labels."""

    def __init__(self, dimension: int, normalize: bool):
        self.dimension, self.normalize = dimension, normalize
        self.options = {"normalize": normalize}

    def columns(self, nested: bool) -> list[tuple[Any, ...]]:
        """The one column of a file. ``nested`` is for a format whose values may be arrays of JSON."""
        if nested:
            return [("embedding", "value")]
        import pyarrow as pa

        return [("embedding", "value", pa.list_(pa.float32(), self.dimension))]

    def values(self, logits: np.ndarray, nested: bool) -> list[list[Any]]:
        """The B embeddings of the column, each a list of numbers with six decimals."""
        embeddings = normalized(logits) if self.normalize else logits
        return [np.round(embeddings.astype(np.float64), 6).tolist()]


def normalized(embeddings: np.ndarray) -> np.ndarray:
    """Rows ``[B, D]`` divided by their Euclidean lengths."""
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float32))
    return embeddings / np.where(lengths > 0, lengths, 1)[:, None]
