"""Texts to logits: what is the same for labels and for embeddings."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch

from ..embedded_model import expect_model_name, find_model
from ..model.dsn_checkpoint import DsnCheckpoint, table_dtype_of
from .engine_model import EngineModel, columns_of, in_slices
from .scores import NonFiniteScores
from .texts import check_texts
from .threads import check_positive, map_in_order, thread_count, without_lost_threads
from .tokenization import PackedBatch, PackedTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from typing_extensions import Self

    from ..model.configuration import DendriticBertConfig

# The part of a batch that Python itself does runs on one thread at a time. With 1024 texts in a batch the threads would
# take turns four times as often, and a single thread would spend 13 % of its time on calls.
BATCH_SIZE = 4096
ENCODER_ROWS = 128  # rows that BERT's encoder takes at a time, each padded to the longest of them
# Fields of a configuration that say where a checkpoint came from, not what it computes.
INCIDENTAL = {"_name_or_path", "transformers_version", "architectures", "dtype", "auto_map", "training_columns"}
Result = TypeVar("Result")
_LOCK = threading.Lock()  # guards num_truncated, and the making of the model, when calls overlap


class TextLogits:
    """A tokenizer, and a model that gives the logits of its packed ids in one kernel.

    ``model`` is a ``DendriticBertForSequenceClassification``, or the ``DsnCheckpoint`` of one, of which the attribute
    ``model`` makes the model when it is first asked for. ``tokenizer`` is anything that ``PackedTokenizer`` takes.
    ``max_length`` is the size of the model's position table, or the tokenizer's ``model_max_length`` if that is less;
    None where neither sets a limit. Longer texts are cut on the tokenizer's ``truncation_side``; ``num_truncated``
    counts them over the life of the object.

    Calls may overlap, and do not change torch's number of threads. The object can be pickled and copied; the copy
    counts from 0.

    Raises ValueError if the tokenizer has ids for which the model has no embedding.
    """

    embedded: ClassVar[str]  # the folder of the model that comes with the package

    def __init__(self, model: PreTrainedModel | DsnCheckpoint, tokenizer: Any):
        self._source: Any = model if isinstance(model, DsnCheckpoint) else _prepared(model.eval())
        self.tokenizer = tokenizer if isinstance(tokenizer, PackedTokenizer) else PackedTokenizer(tokenizer)
        config = model.config
        vocab_size = self.tokenizer.backend.get_vocab_size()
        if vocab_size > config.vocab_size:
            raise ValueError(f"the tokenizer has {vocab_size} ids, the model embeds {config.vocab_size}: they do not "
                             "belong together, pass the tokenizer that the model was trained with.")
        longest = min(config.longest_row, self.tokenizer.model_max_length)
        self.max_length = None if longest == math.inf else int(longest)
        self.num_truncated = 0
        self._engine = EngineModel()
        self._fingerprint: tuple[str, str] | None = None  # of a checkpoint: what it was taken of, and it

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
    ) -> Self:
        """Load the model and the tokenizer of a folder, a hub id, or one of ``SHIPPED_MODELS``, such as "tiny"; None is
        the model that comes with the package.

        ``device`` is where the model computes, such as "cuda"; None is the CPU. ``revision`` is the branch, tag or
        commit of a hub id; None is its main branch. Raises OSError if there is no such folder, id or revision, and
        ValueError if there is no such device.
        """
        return cls._load(name_or_path, device, revision)

    @classmethod
    def _load(cls, name_or_path: str | os.PathLike[str] | None, device: str | torch.device | None,
              revision: str | None, **changes: Any) -> Self:
        """``changes`` are fields of the configuration that override those of the checkpoint."""
        name = find_model(name_or_path, cls.embedded)
        expect_model_name(name)
        try:
            where = torch.empty(0, device=device or "cpu").device
        except Exception as error:  # torch raises RuntimeError, AssertionError and NotImplementedError, of many lines
            raise ValueError(f"device is {str(device)!r}, on which torch cannot compute here "
                             f"({str(error).strip().splitlines()[0].rstrip('.')}): pass another, or 'cpu'.") from error
        model: Any = DsnCheckpoint.find(name, **changes) if where.type == "cpu" and revision is None else None
        if model is None:
            from ..model.modeling import DendriticBertForSequenceClassification

            which = {} if revision is None else {"revision": revision}
            model = DendriticBertForSequenceClassification.from_pretrained(name, **which, **changes).to(where)
        return cls(model, PackedTokenizer.from_pretrained(name, revision=revision))

    @property
    def model(self) -> Any:
        """The model. A checkpoint's is made now, and from now on it is called."""
        with _LOCK:
            if isinstance(self._source, DsnCheckpoint):
                self._source, self._fingerprint = _prepared(self._source.to_model()), None
            return self._source

    @property
    def config(self) -> DendriticBertConfig:
        """The configuration of the model."""
        return self._source.config

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"num_truncated": 0, "_engine": EngineModel(), "_fingerprint": None}

    def logits(self, texts: Any, text_pairs: Any = None, *, threads: int = 1) -> tuple[np.ndarray, int]:
        """The logits ``[B, C]`` float32 of texts or pairs, and how many were cut.

        ``texts``, and the second texts ``text_pairs``, are what ``check_texts`` takes. A list of str, or an array of
        Arrow of type string or large_string without nulls, is read in place where the engine serves, on up to
        ``threads`` threads of its own; elsewhere the calling thread does the work. ``num_truncated`` stays as it is.
        Raises NonFiniteScores if a logit is NaN or infinite, and ValueError for pairs if the model has no embeddings of
        their token types.
        """
        found = self._engine.logits(self, texts, text_pairs, threads)
        if found is not None:
            logits, num_truncated, row = found
            self._expect_finite(row)
            return logits, num_truncated
        if text_pairs is None:
            batch = self.tokenizer(texts, self.max_length)
        else:
            batch = self.tokenizer.pairs(texts, text_pairs, self.max_length)
            types, num_types = batch.token_type_ids, self.config.type_vocab_size
            if types is not None and types.max(initial=0) >= num_types:
                raise ValueError(f"the tokenizer gives a pair token types up to {types.max()}, the model embeds "
                                 f"{num_types}: classify pairs with a model that was trained on pairs.")
        with torch.no_grad():
            logits = without_lost_threads(self._logits, batch).float().cpu().numpy()
        if not np.isfinite(logits).all():
            self._expect_finite(int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0]))
        return logits, batch.num_truncated

    def _expect_finite(self, row: int) -> None:
        """Raise NonFiniteScores for the text of this number, unless it is -1."""
        if row >= 0:
            raise NonFiniteScores(row, f"texts[{row}]", self._why_not_finite())

    @property
    def num_labels(self) -> int:
        """C, the number of logits of a text."""
        return int(self._source.num_labels)

    def label_names(self) -> list[str]:
        """What the logits are called."""
        return [str(number) for number in range(self.num_labels)]

    def count_truncated(self, number: int) -> None:
        """Add to ``num_truncated``; calls may overlap."""
        with _LOCK:
            self.num_truncated += number

    def _why_not_finite(self) -> str:
        bad = next((name for name, values in self._source.state_dict().items() if not values.isfinite().all()), None)
        return "its weights are too large" if bad is None else f"its {bad} holds NaN or infinite values"

    def _logits(self, batch: PackedBatch) -> torch.Tensor:
        """The logits ``[B, C]`` of a batch."""
        source, types = self._source, batch.token_type_ids
        input_ids, cu_seqlens = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.cu_seqlens)
        token_type_ids = None if types is None else torch.from_numpy(types)
        if isinstance(source, DsnCheckpoint):
            return source.logits(input_ids, cu_seqlens, token_type_ids)
        if not source.config.dsn:
            return self._encoder_logits(batch)
        device = source.get_input_embeddings().weight.device  # which is faster than source.device
        return source(input_ids=input_ids.to(device), cu_seqlens=cu_seqlens.to(device), return_dict=False,
                      token_type_ids=None if token_type_ids is None else token_type_ids.to(device))[0]

    def _encoder_logits(self, batch: PackedBatch) -> torch.Tensor:
        """The logits of a model with BERT's encoder (``dsn=False``), which needs padded rows."""
        device, logits = self._source.device, []
        types = batch.token_type_ids
        for first in range(0, len(batch.cu_seqlens) - 1, ENCODER_ROWS):
            bounds = batch.cu_seqlens[first:first + ENCODER_ROWS + 1]
            lengths = np.diff(bounds)
            mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
            rows = {"attention_mask": mask.astype(np.int64)}
            for name, values in (("input_ids", batch.input_ids), ("token_type_ids", types)):
                if values is not None:
                    rows[name] = np.zeros(mask.shape, np.int64)
                    rows[name][mask] = values[bounds[0]:bounds[-1]]
            logits.append(self._source(**{name: torch.from_numpy(row).to(device) for name, row in rows.items()}).logits)
        return torch.cat(logits)

    def _map_logits(
        self, function: Callable[[np.ndarray], Result], first: list[str], second: list[str] | None, batch_size: int,
        threads: int | None,
    ) -> Iterator[tuple[int, Result]]:
        """``function`` of the logits of each batch of texts, with the number of texts before it, in order."""
        threads = thread_count(threads)
        check_positive("batch_size", batch_size)
        if self._engine.current(self, pairs=second is not None) is not None:
            yield from self._map_engine_logits(function, first, second, threads)
            return

        def classify(start: int) -> tuple[Result, int]:
            batch = slice(start, start + batch_size)
            try:
                logits, num_truncated = self.logits(first[batch], None if second is None else second[batch])
            except NonFiniteScores as error:
                row = start + error.row
                raise NonFiniteScores(row, f"texts[{row}]", error.why) from None
            return function(logits), num_truncated

        starts = range(0, len(first), batch_size)
        for start, (result, num_truncated) in map_in_order(classify, starts, threads, len(starts)):
            self.count_truncated(num_truncated)
            yield start, result

    def _map_engine_logits(self, function: Callable[[np.ndarray], Result], texts: list[str], second: list[str] | None,
                           threads: int) -> Iterator[tuple[int, Result]]:
        """As ``_map_logits``, on the engine's threads, for which a batch is a slice of ``in_slices``."""
        for start, columns in in_slices(columns_of(texts, second)):
            try:
                logits, num_truncated = self.logits(*columns.values(), threads=threads)
            except NonFiniteScores as error:
                raise NonFiniteScores(start + error.row, f"texts[{start + error.row}]", error.why) from None
            except TypeError:
                check_texts(texts)  # whose error names the element of all the texts
                raise
            self.count_truncated(num_truncated)
            yield start, function(logits)

    def fingerprint(self) -> str:
        """A digest of parameters, configuration and tokenizer, and of the dtype of the tables, but not of where they
        are stored or what saved them."""
        tokenizer = self.tokenizer
        table_dtype = getattr(self._source, "_table_dtype", table_dtype_of(self.config))
        settings = repr((tokenizer.backend.encode_special_tokens, tokenizer.truncation_side, self.max_length,
                         table_dtype))
        config = repr(sorted((name, str(value)) for name, value in self.config.to_dict().items()
                             if name not in INCIDENTAL))
        if self._fingerprint is not None and self._fingerprint[0] == settings + config:
            return self._fingerprint[1]
        digest = hashlib.sha256(tokenizer.backend.to_str().encode())
        digest.update(settings.encode())
        digest.update(config.encode())
        for name, tensor in sorted(self._source.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        if isinstance(self._source, DsnCheckpoint):  # whose tensors do not change
            self._fingerprint = settings + config, digest.hexdigest()
        return digest.hexdigest()


def _prepared(model: Any) -> Any:
    """The model, which computes as its configuration says that a classifier does."""
    dtype = table_dtype_of(model.config)
    return model if dtype is None else model.prepare(dtype)
