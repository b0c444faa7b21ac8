"""Classification of texts: lists, streams, and files of any size."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import embedded_model
from ..model.dsn_checkpoint import DsnCheckpoint
from .file_classification import FileReport, classify_file
from .scores import NonFiniteScores, Prediction, label_names, score_function
from .streams import PathOrStream
from .texts import check_texts
from .threads import check_positive, map_in_order, thread_count, without_lost_threads
from .tokenization import PackedBatch, PackedTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..model.configuration import DendriticBertConfig

# The part of a batch that Python itself does runs on one thread at a time. With 1024 texts in a batch the threads would
# take turns four times as often, and a single thread would spend 13 % of its time on calls.
BATCH_SIZE = 4096
ENCODER_ROWS = 128  # rows that BERT's encoder takes at a time, each padded to the longest of them
# Fields of a configuration that say where a checkpoint came from, not what it computes.
INCIDENTAL = {"_name_or_path", "transformers_version", "architectures", "dtype"}
_LOCK = threading.Lock()  # guards num_truncated, and the making of the model, when calls overlap


class TextClassifier:
    """Classifies texts as transformers' text-classification pipeline does, from packed ids and in one kernel.

    ``model`` is a ``DendriticBertForSequenceClassification``, or the ``DsnCheckpoint`` of one, of which the attribute
    ``model`` makes the model when it is first asked for. ``tokenizer`` is anything that ``PackedTokenizer`` takes.
    ``max_length`` is the size of the model's position table, or the tokenizer's ``model_max_length`` if that is less.
    Longer texts are cut on the tokenizer's ``truncation_side``; ``num_truncated`` counts them over the life of the
    classifier.

    Calls may overlap, and do not change torch's number of threads. A classifier can be pickled and copied; the copy
    counts from 0.

    Raises ValueError if the tokenizer has ids for which the model has no embedding, or if the ``id2label`` of the
    configuration does not name every label.
    """

    def __init__(self, model: PreTrainedModel | DsnCheckpoint, tokenizer: Any):
        self._source: Any = model if isinstance(model, DsnCheckpoint) else model.eval()
        self.tokenizer = tokenizer if isinstance(tokenizer, PackedTokenizer) else PackedTokenizer(tokenizer)
        config = model.config
        vocab_size = self.tokenizer.backend.get_vocab_size()
        if vocab_size > config.vocab_size:
            raise ValueError(f"the tokenizer has {vocab_size} ids, the model embeds {config.vocab_size}: they do not "
                             "belong together, pass the tokenizer that the model was trained with.")
        self.max_length = int(min(config.max_position_embeddings, self.tokenizer.model_max_length))
        self.labels = label_names(config.id2label, self._source.num_labels)
        self.num_truncated = 0
        self._scores = score_function(config.problem_type, len(self.labels))

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None) -> TextClassifier:
        """Load the model and the tokenizer of a folder or a hub id; None is the model that comes with the package."""
        name = embedded_model.EMBEDDED_MODEL if name_or_path is None else str(name_or_path)
        model: Any = DsnCheckpoint.find(name)
        if model is None:
            from ..model.modeling import DendriticBertForSequenceClassification

            model = DendriticBertForSequenceClassification.from_pretrained(name)
        return cls(model, PackedTokenizer.from_pretrained(name))

    @property
    def model(self) -> Any:
        """The model. A checkpoint's is made now, and from now on the classifier calls it."""
        with _LOCK:
            if isinstance(self._source, DsnCheckpoint):
                self._source = self._source.to_model()
            return self._source

    @property
    def config(self) -> DendriticBertConfig:
        """The configuration of the model."""
        return self._source.config

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"num_truncated": 0}

    def __call__(
        self, texts: str | Iterable[str], batch_size: int = BATCH_SIZE, threads: int | None = None
    ) -> list[dict[str, Any]]:
        """Classify one text or many: always a list, in order, with one ``{"label": str, "score": float}`` per text.

        Label and score are those of the pipeline: the largest value of the softmax; of the sigmoid if the problem is
        multi-label or there is one label; of the logits in regression. ``texts`` is a str, or what ``check_texts``
        takes. ``threads`` is torch's own number by default. Raises TypeError for a text that is not a str, and
        ValueError for ``batch_size`` or ``threads`` below 1 and for a score that is NaN or infinite, naming the text.
        """
        texts = check_texts([texts] if isinstance(texts, str) else texts)
        threads = thread_count(threads)
        check_positive("batch_size", batch_size)
        batches = [texts[start:start + batch_size] for start in range(0, len(texts), batch_size)]
        results: list[dict[str, Any]] = []
        try:
            for _, prediction in map_in_order(self.predict, batches, threads, len(batches)):
                self.count_truncated(prediction.num_truncated)
                results += [{"label": label, "score": score}
                            for label, score in zip(prediction.labels, prediction.scores.tolist())]
        except NonFiniteScores as error:
            row = len(results) + error.row
            raise NonFiniteScores(row, f"texts[{row}]", error.why) from None
        return results

    @torch.no_grad()
    def predict(self, texts: list[str]) -> Prediction:
        """The best label of each text, in one batch on the calling thread; ``num_truncated`` stays as it is."""
        batch = self.tokenizer(texts, self.max_length)
        logits = without_lost_threads(self._logits, batch).float().cpu().numpy()
        if not np.isfinite(logits).all():
            row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise NonFiniteScores(row, f"texts[{row}]", self._why_not_finite())
        scores = self._scores(logits)
        best = scores.argmax(axis=1)
        labels = self.labels
        return Prediction([labels[label] for label in best.tolist()], scores[np.arange(len(best)), best],
                          batch.num_truncated)

    def count_truncated(self, number: int) -> None:
        """Add to ``num_truncated``; calls may overlap."""
        with _LOCK:
            self.num_truncated += number

    def _why_not_finite(self) -> str:
        bad = next((name for name, values in self._source.state_dict().items() if not values.isfinite().all()), None)
        return "its weights are too large" if bad is None else f"its {bad} holds NaN or infinite values"

    def _logits(self, batch: PackedBatch) -> torch.Tensor:
        """The logits ``[B, C]`` of a batch."""
        source, types = self._source, self.tokenizer.token_type_ids(batch)
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
        types = self.tokenizer.token_type_ids(batch)
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

    def classify_file(
        self,
        input: PathOrStream,
        output: PathOrStream | None = None,
        *,
        input_format: str | None = None,
        column: str = "text",
        format: str | None = None,
        on_error: str = "stop",
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        progress: bool | None = None,
        resume: bool = True,
    ) -> FileReport:
        """Classify every record of a file of any size, in order, in constant memory.

        Each record gives one line with its text, label and score (six decimals), as JSON Lines, CSV (the text is always
        quoted) or TSV (nothing is quoted; a tab or line end in a text becomes a space).

        An output file appears under its name when it is complete, with the mode and owner of the file that it replaces.
        If a run is interrupted, or stops at a malformed record that is then mended, the same call continues it, and the
        file is the same to the byte as without the interruption. Until then the lines are in OUTPUT.partial, beside
        OUTPUT.partial.json. If this program did not write the files of these names, they stay, and the call fails.

        Args:
            input: a path, "-" for standard input, or a stream. A text stream is read as text, from its position on.
                Bytes are UTF-8, or UTF-16 or UTF-32 with a byte order mark.
            output: a path, "-" or None for standard output, or a stream. Output to a stream is not resumed.
            input_format: "text" (one text per line), "csv", "tsv" or "jsonl"; None is what the suffix says, and "text"
                without a suffix.
            column: the column, or the key of each JSON object, that holds the text.
            format: "json", "csv" or "tsv"; None is what the suffix says, and "json" without a suffix.
            on_error: what to do at a malformed record: "stop" ends the run, "skip" leaves the record out, and "null"
                writes a record without text, label and score for it. The report counts them.
            batch_size: how many texts are classified at a time.
            threads: the number of worker threads; None is torch's own number.
            progress: whether to show a bar on standard error; None shows one if that is a terminal.
            resume: False starts over, whatever an earlier run has left.

        Raises:
            OSError: the input cannot be read, or the output cannot be written or would replace a file that this program
                did not write. This is found out before any work.
            ValueError: an unknown format or suffix; bytes that are not text; a column that does not exist; an output
                that is the input or a file of the model; a malformed record (with its line); a score that is NaN or
                infinite (with its record); an output that was begun with another input, model or options.
        """
        return classify_file(self, input, output, input_format=input_format, column=column, format=format,
                             on_error=on_error, batch_size=batch_size, threads=threads, progress=progress,
                             resume=resume)

    def fingerprint(self) -> str:
        """A digest of parameters, configuration and tokenizer, but not of where they are stored or what saved them."""
        tokenizer = self.tokenizer
        digest = hashlib.sha256(tokenizer.backend.to_str().encode())
        settings = (tokenizer.backend.encode_special_tokens, tokenizer.truncation_side, self.max_length)
        digest.update(repr(settings).encode())
        config = self.config.to_dict().items()
        digest.update(repr(sorted((name, str(value)) for name, value in config if name not in INCIDENTAL)).encode())
        for name, tensor in sorted(self._source.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
