"""Classification of texts: lists, streams, and files of any size."""

from __future__ import annotations

import hashlib
import operator
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from .. import embedded_model
from ..model.files import MODEL_FILES
from .file_formats import INPUT_FORMATS, OUTPUT_FORMATS, choose_format
from .readers import Position, RecordReader
from .scores import label_names, score_function
from .streams import Input, PathOrStream, open_input
from .texts import check_texts
from .threads import map_in_order, without_lost_threads
from .tokenization import PackedBatch, PackedTokenizer
from .writers import FORMATTERS, file_id, open_output

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = tuple[list[str | None], Position]  # texts of a file, None for a malformed record, and the position after them
# The part of a batch that Python itself does runs on one thread at a time. With 1024 texts in a batch the threads would
# take turns four times as often, and a single thread would spend 13 % of its time on calls.
BATCH_SIZE = 4096
ENCODER_ROWS = 128  # rows that BERT's encoder takes at a time, each padded to the longest of them
# Fields of a configuration that say where a checkpoint came from, not what it computes.
INCIDENTAL = {"_name_or_path", "transformers_version", "architectures", "dtype"}
_COUNTING = threading.Lock()  # guards num_truncated when calls overlap


class Prediction(NamedTuple):
    """The best label of B texts: B names, ``[B]`` float32 scores, and how many texts were cut to the model's length."""

    labels: list[str]
    scores: np.ndarray
    num_truncated: int


class FileReport(NamedTuple):
    """What ``classify_file`` did, including the work of an interrupted run that it continued.

    num_records: texts classified. num_resumed: how many of them the interrupted run had classified. num_truncated:
    texts that were cut to the model's length. num_replaced: bytes that were not UTF-8 and became U+FFFD. num_malformed:
    records that were skipped or written as null, as ``on_error`` says. first_malformed: where the first of them is, and
    what is wrong with it.
    """

    num_records: int
    num_resumed: int
    num_truncated: int
    num_replaced: int
    num_malformed: int = 0
    first_malformed: str = ""


class NonFiniteScores(ValueError):
    """The model gives logits that are NaN or infinite.

    row: the first text of the batch with such logits. text: what the message calls it. why: what is wrong with the
    model.
    """

    def __init__(self, row: int, text: str, why: str):
        super().__init__(row, text, why)  # so that it can be pickled
        self.row, self.text, self.why = row, text, why

    def __str__(self) -> str:
        return (f"the model gives {self.text} a score that is NaN or infinite, because {self.why}: train it again or "
                "load another checkpoint.")


class TextClassifier:
    """Classifies texts as transformers' text-classification pipeline does, from packed ids and in one kernel.

    ``model`` is a ``DendriticBertForSequenceClassification``; ``tokenizer`` is anything that ``PackedTokenizer`` takes.
    ``max_length`` is the size of the model's position table, or the tokenizer's ``model_max_length`` if that is less.
    Longer texts are cut on the tokenizer's ``truncation_side``; ``num_truncated`` counts them over the life of the
    classifier.

    Calls may overlap, and do not change torch's number of threads. A classifier can be pickled and copied; the copy
    counts from 0.

    Raises ValueError if the tokenizer has ids for which the model has no embedding, or if the ``id2label`` of the
    configuration does not name every label.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any):
        self.model = model.eval()
        self.tokenizer = tokenizer if isinstance(tokenizer, PackedTokenizer) else PackedTokenizer(tokenizer)
        config = model.config
        vocab_size = self.tokenizer.backend.get_vocab_size()
        if vocab_size > config.vocab_size:
            raise ValueError(f"the tokenizer has {vocab_size} ids, the model embeds {config.vocab_size}: they do not "
                             "belong together, pass the tokenizer that the model was trained with.")
        self.max_length = int(min(config.max_position_embeddings, self.tokenizer.model_max_length))
        num_labels: Any = model.num_labels
        self.labels = label_names(config.id2label, num_labels)
        self.num_truncated = 0
        self._scores = score_function(config.problem_type, len(self.labels))
        self._words: Any = model.get_input_embeddings()  # says the model's device, faster than model.device

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None) -> TextClassifier:
        """Load the model and the tokenizer of a folder or a hub id; None is the model that comes with the package."""
        from ..model.modeling import DendriticBertForSequenceClassification

        name = embedded_model.EMBEDDED_MODEL if name_or_path is None else str(name_or_path)
        return cls(DendriticBertForSequenceClassification.from_pretrained(name), PackedTokenizer.from_pretrained(name))

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
        threads = _thread_count(threads)
        _check_positive("batch_size", batch_size)
        batches = [texts[start:start + batch_size] for start in range(0, len(texts), batch_size)]
        results: list[dict[str, Any]] = []
        try:
            for _, prediction in map_in_order(self.predict, batches, threads, len(batches)):
                self._count_truncated(prediction.num_truncated)
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

    def _count_truncated(self, number: int) -> None:
        with _COUNTING:
            self.num_truncated += number

    def _why_not_finite(self) -> str:
        bad = next((name for name, values in self.model.state_dict().items() if not values.isfinite().all()), None)
        return "its weights are too large" if bad is None else f"its {bad} holds NaN or infinite values"

    def _logits(self, batch: PackedBatch) -> torch.Tensor:
        """The logits ``[B, C]`` of a batch."""
        if not self.model.config.dsn:
            return self._encoder_logits(batch)
        device, types = self._words.weight.device, self.tokenizer.token_type_ids(batch)
        return self.model(input_ids=torch.from_numpy(batch.input_ids).to(device),
                          cu_seqlens=torch.from_numpy(batch.cu_seqlens).to(device),
                          token_type_ids=None if types is None else torch.from_numpy(types).to(device),
                          return_dict=False)[0]

    def _encoder_logits(self, batch: PackedBatch) -> torch.Tensor:
        """The logits of a model with BERT's encoder (``dsn=False``), which needs padded rows."""
        device, logits = self._words.weight.device, []
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
            logits.append(self.model(**{name: torch.from_numpy(row).to(device) for name, row in rows.items()}).logits)
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
        threads = _thread_count(threads)
        _check_positive("batch_size", batch_size)
        input_format = choose_format("input_format", input_format, input, INPUT_FORMATS)
        format = choose_format("format", format, output, OUTPUT_FORMATS)
        header, null_line, to_lines = FORMATTERS[format]

        def classify(batch: Batch | Exception) -> tuple[str, int]:
            """The lines of a batch, and how many of its texts were cut."""
            if isinstance(batch, Exception):
                raise batch
            rows, behind = batch
            texts = [text for text in rows if text is not None]
            nulls = [place for place, text in enumerate(rows) if text is None] if len(texts) < len(rows) else []
            if not texts:
                return null_line * len(rows), 0
            try:
                prediction = self.predict(texts)
            except NonFiniteScores as error:
                record = behind.records - len(texts) + error.row + 1
                raise NonFiniteScores(error.row, f"record {record} of {source.name}", error.why) from None
            lines = to_lines(texts, prediction.labels, prediction.scores.tolist())
            for place in nulls:
                lines.insert(place, null_line)
            return "".join(lines), prediction.num_truncated

        with ExitStack() as stack:
            source = open_input(input, stack)
            reader = RecordReader(source.stream, source.name, input_format, column, on_error)
            run = {"model": self.fingerprint(), "input_format": input_format, "column": column, "format": format,
                   "on_error": on_error}
            sink = open_output(output, self._files_to_keep(source), run, resume and source.is_file, stack)
            if sink.done is not None and not reader.go_to(sink.done):
                raise sink.mismatch("input")
            start = position = sink.done or reader.position()
            sink.begin(start, header)
            bar = stack.enter_context(tqdm(
                desc=source.name, total=source.size, initial=start.input_bytes, unit="B", unit_scale=True,
                file=sys.stderr, disable=_no_bar(progress)))
            batches = _error_last(reader.batches(batch_size))
            # Whoever classifies one text at a time wants each answered before the next is there.
            work = stack.enter_context(closing(map_in_order(classify, batches, threads, reads_ahead=batch_size > 1)))
            for (_, behind), (lines, num_truncated) in work:  # type: ignore[misc]
                self._count_truncated(num_truncated)
                behind = behind._replace(num_truncated=position.num_truncated + num_truncated)
                sink.write(lines, behind)
                bar.update(behind.input_bytes - position.input_bytes)
                position = behind
        return FileReport(position.records, start.records, position.num_truncated, position.num_replaced,
                          position.num_malformed, position.first_malformed)

    def _files_to_keep(self, source: Input) -> dict[tuple[int, int], str]:
        """The files that an output must not replace: the input, and those from which the model was loaded."""
        folder = self.model.name_or_path
        paths = [path for name in MODEL_FILES if folder and (path := Path(folder, name)).exists()]
        files = {file_id(path.stat()): f"{path}, a file of the model" for path in paths}
        return {key: name for key, name in {**files, file_id(source.status): "the input"}.items() if key is not None}

    def fingerprint(self) -> str:
        """A digest of parameters, configuration and tokenizer, but not of where they are stored or what saved them."""
        tokenizer = self.tokenizer
        digest = hashlib.sha256(tokenizer.backend.to_str().encode())
        settings = (tokenizer.backend.encode_special_tokens, tokenizer.truncation_side, self.max_length)
        digest.update(repr(settings).encode())
        config = self.model.config.to_dict().items()
        digest.update(repr(sorted((name, str(value)) for name, value in config if name not in INCIDENTAL)).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def _error_last(batches: Iterator[Batch]) -> Iterator[Batch | Exception]:
    """The batches, followed by the error that ends them: raised at once, it would overtake batches in work."""
    try:
        yield from batches
    except Exception as error:
        yield error


def _no_bar(progress: bool | None) -> bool | None:
    """The argument ``disable`` of tqdm; there is no bar if standard error is closed."""
    return True if sys.stderr is None else None if progress is None else not progress


def _check_positive(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, it must be a whole number.") from None
    if number < 1:
        raise ValueError(f"{name} is {number}, it must be at least 1.")
    return number


def _thread_count(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else _check_positive("threads", threads)
