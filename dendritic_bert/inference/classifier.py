"""Text in, label out: lists, streams, and files of any size."""

from __future__ import annotations

import hashlib
import operator
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from .. import embedded_model
from ..model.files import MODEL_FILES
from .file_formats import INPUT_FORMATS, OUTPUT_FORMATS, choose_format
from .readers import Position, RecordReader
from .streams import Input, PathOrStream, open_input
from .texts import check_texts, without_surrogates
from .threads import limit_threads, without_lost_threads
from .tokenization import PackedBatch, PackedTokenizer
from .writers import FORMATTERS, file_id, open_output

Item = TypeVar("Item")
Result = TypeVar("Result")
Batch = tuple[list[str | None], Position]  # of a file: its texts, None for a malformed record, and what is behind it
# Threads take turns at what Python itself does in a batch; with 1024 texts in each they hand over four times as often,
# and 13 % of a single thread's time goes into the calls.
BATCH_SIZE = 4096
ENCODER_ROWS = 128  # rows that a model with BERT's encoder takes at a time: each is padded to the longest of them
# Fields of a configuration that say where a checkpoint came from.
INCIDENTAL = {"_name_or_path", "transformers_version", "architectures", "dtype"}
_COUNTING = threading.Lock()  # of num_truncated, where calls overlap


class Prediction(NamedTuple):
    """The best label of B texts: B names, ``[B]`` float32 scores, and how many texts were cut to the model's length."""

    labels: list[str]
    scores: np.ndarray
    num_truncated: int


class FileReport(NamedTuple):
    """What ``classify_file`` did, with what an interrupted run had done before.

    num_records: texts classified. num_resumed: those of them that an earlier run had done. num_truncated: texts cut to
    the model's length. num_replaced: bytes that were not UTF-8 and became U+FFFD. num_malformed: records that were
    skipped or written as null, as ``on_error`` asks; first_malformed: where the first of them is and what is wrong.
    """

    num_records: int
    num_resumed: int
    num_truncated: int
    num_replaced: int
    num_malformed: int = 0
    first_malformed: str = ""


class NonFiniteScores(ValueError):
    """A model whose logits are no numbers. row: the first text of the batch that has such. text: what it is called.
    why: what is wrong with the model."""

    def __init__(self, row: int, text: str, why: str):
        super().__init__(row, text, why)  # by which it is pickled
        self.row, self.text, self.why = row, text, why

    def __str__(self) -> str:
        return (f"the model gives {self.text} a score that is no number, since {self.why}: train it anew or load "
                "another checkpoint.")


class TextClassifier:
    """Classifies texts as transformers' text-classification pipeline does, from packed ids and in one kernel.

    ``model`` is a ``DendriticBertForSequenceClassification``, ``tokenizer`` what ``PackedTokenizer`` takes. Texts
    longer than ``max_length``, the model's position table or the tokenizer's ``model_max_length`` where that is less,
    are cut on the tokenizer's ``truncation_side``; ``num_truncated`` counts them over the classifier's life.

    Calls may overlap, and leave torch's number of threads alone. A classifier can be pickled and copied; the copy
    counts from 0.

    Raises ValueError where the tokenizer has ids that the model has no embedding for, or the configuration's
    ``id2label`` does not name every label.
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
        self.labels = _label_names(config.id2label, num_labels)
        self.num_truncated = 0
        self._scores = _score_function(config.problem_type, len(self.labels))
        self._words: Any = model.get_input_embeddings()  # on the model's device, found sooner than by model.device

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None) -> TextClassifier:
        """Load model and tokenizer of a folder or a hub id; None is the model that comes with the package."""
        from ..model.modeling import DendriticBertForSequenceClassification

        name = embedded_model.EMBEDDED_MODEL if name_or_path is None else str(name_or_path)
        return cls(DendriticBertForSequenceClassification.from_pretrained(name), PackedTokenizer.from_pretrained(name))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"num_truncated": 0}

    def __call__(
        self, texts: str | Iterable[str], batch_size: int = BATCH_SIZE, threads: int | None = None
    ) -> list[dict[str, Any]]:
        """Classify one text or many: one ``{"label": str, "score": float}`` a text, in order, always in a list.

        Score and label follow the pipeline: the largest of softmax, or of sigmoid where the problem is multi-label or
        there is one label, or of the logits in regression. ``texts`` is what ``check_texts`` takes, or a str.
        ``threads`` defaults to torch's own number. Raises TypeError for a text that is no str, ValueError for
        ``batch_size`` or ``threads`` below 1, and for a score that is no number, naming the text.
        """
        texts = check_texts([texts] if isinstance(texts, str) else texts)
        threads = _thread_count(threads)
        _check_positive("batch_size", batch_size)
        batches = [texts[start:start + batch_size] for start in range(0, len(texts), batch_size)]
        results: list[dict[str, Any]] = []
        try:
            for _, prediction in _in_order(self.predict, batches, threads, len(batches)):
                self._count_truncated(prediction.num_truncated)
                results += [{"label": label, "score": score}
                            for label, score in zip(prediction.labels, prediction.scores.tolist())]
        except NonFiniteScores as error:
            row = len(results) + error.row
            raise NonFiniteScores(row, f"texts[{row}]", error.why) from None
        return results

    @torch.no_grad()
    def predict(self, texts: list[str]) -> Prediction:
        """The best label of each text, all in one batch on the calling thread; counts nothing."""
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
        """``[B, C]``."""
        if not self.model.config.dsn:
            return self._encoder_logits(batch)
        device, types = self._words.weight.device, self.tokenizer.token_type_ids(batch)
        return self.model(input_ids=torch.from_numpy(batch.input_ids).to(device),
                          cu_seqlens=torch.from_numpy(batch.cu_seqlens).to(device),
                          token_type_ids=None if types is None else torch.from_numpy(types).to(device),
                          return_dict=False)[0]

    def _encoder_logits(self, batch: PackedBatch) -> torch.Tensor:
        """The same of a model with BERT's encoder (``dsn=False``), which takes no packed rows: here they are padded."""
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

        Each record gives one line with its text, label and score (six decimals): JSON Lines, CSV (the text always
        quoted) or TSV (nothing quoted; a tab or line end in a text becomes a space).

        An output file appears under its name when it is whole, with the mode and owner of the one it replaces. A run
        that was interrupted, or that ended at a malformed record which was then mended, is taken up by the same call,
        and the file is the same to the byte as without the interruption. Until then its lines are in OUTPUT.partial
        beside OUTPUT.partial.json; files of these names that are not of this program are left alone and refused.

        Args:
            input: a path, "-" for standard input, or a stream. Text streams are read as text from where they are;
                bytes are UTF-8, or UTF-16 or UTF-32 behind a byte order mark.
            output: a path, "-" or None for standard output, or a stream. Streams are not resumed.
            input_format: "text" (a text a line), "csv", "tsv" or "jsonl"; None goes by the suffix, "text" without one.
            column: which column, or key of each JSON object, holds the text.
            format: "json", "csv" or "tsv"; None goes by the suffix, "json" without one.
            on_error: what a malformed record does: "stop" ends the run, "skip" leaves it out, "null" writes a record
                without text, label and score in its place. The report counts them.
            batch_size: texts at a time.
            threads: worker threads; None is torch's own number.
            progress: a bar on standard error; None shows one where that is a terminal.
            resume: False starts over whatever an earlier run has left.

        Raises:
            OSError: input that cannot be read, output that cannot be written or would take the place of a file that
                is not of this program; found out before any work.
            ValueError: an unknown format or suffix, bytes that are no text, a column that is not there, an output that
                is the input; a malformed record (with its line), a score that is no number (with its record); an
                output begun with another input, model or options.
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
            work = stack.enter_context(closing(_in_order(classify, batches, threads, reads_ahead=batch_size > 1)))
            for (_, behind), (lines, num_truncated) in work:  # type: ignore[misc]
                self._count_truncated(num_truncated)
                behind = behind._replace(num_truncated=position.num_truncated + num_truncated)
                sink.write(lines, behind)
                bar.update(behind.input_bytes - position.input_bytes)
                position = behind
        return FileReport(position.records, start.records, position.num_truncated, position.num_replaced,
                          position.num_malformed, position.first_malformed)

    def _files_to_keep(self, source: Input) -> dict[tuple[int, int], str]:
        """Files that no output may take the place of: the input and those that the model was loaded from."""
        folder = self.model.name_or_path
        paths = [path for name in MODEL_FILES if folder and (path := Path(folder, name)).exists()]
        files = {file_id(path.stat()): f"{path}, a file of the model" for path in paths}
        return {key: name for key, name in {**files, file_id(source.status): "the input"}.items() if key is not None}

    def fingerprint(self) -> str:
        """A digest of parameters, configuration and tokenizer; not of where they are stored or were saved by."""
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


def _label_names(id2label: Any, num_labels: int) -> list[str]:
    """The names of labels 0 to ``num_labels`` - 1; numbers may stand for keys, as JSON writes them, and for names."""
    pairs = list(id2label.items() if isinstance(id2label, Mapping) else enumerate(id2label or ()))
    names = {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in pairs}
    if len(pairs) != num_labels or names.keys() != set(range(num_labels)):
        keys = ", ".join(repr(key) for key, _ in pairs)
        raise ValueError(f"id2label has the keys {keys:.60}, the model {num_labels} labels: name each from 0 to "
                         f"{num_labels - 1} in its configuration.")
    for label, name in names.items():
        if not isinstance(name, (str, Number)):
            raise ValueError(f"id2label[{label}] is {name!r:.60}, expected a str: name the label in the model's "
                             "configuration.")
    return [without_surrogates(str.__str__(name)) if isinstance(name, str) else str(name)
            for _, name in sorted(names.items())]


def _score_function(problem_type: str | None, num_labels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Logits ``[B, C]`` to scores, by the rules of transformers' TextClassificationPipeline.postprocess."""
    if problem_type == "regression":
        return _identity
    return _sigmoid if problem_type == "multi_label_classification" or num_labels == 1 else _softmax


def _identity(logits: np.ndarray) -> np.ndarray:
    return logits


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits))


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def _error_last(batches: Iterator[Batch]) -> Iterator[Batch | Exception]:
    """The batches, and in its place what ends them: raised at once it would overtake those that are worked on."""
    try:
        yield from batches
    except Exception as error:
        yield error


def _no_bar(progress: bool | None) -> bool | None:
    """tqdm's ``disable``; without a standard error there is no bar."""
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


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, num_items: int | None = None,
    reads_ahead: bool = True,
) -> Generator[tuple[Item, Result]]:
    """Yield each item with its result, in order.

    Worker threads take whole batches and run torch on one thread each, since tokenizer and kernel both release the GIL.
    A single item gets all threads inside the kernel. Torch's number of threads, as the caller has set it, stays as it
    is; if it is the number to run with, the calling thread does the work. ``reads_ahead`` False asks a single worker
    for each result before the next item is read.
    """
    is_alone = threads == 1 or num_items == 1
    if is_alone and threads == torch.get_num_threads():
        for item in items:
            yield item, function(item)
        return
    workers, torch_threads = (1, threads) if is_alone else (threads, 1)
    most_running = workers if reads_ahead or not is_alone else 0  # beside the item that waits for the next free worker
    with ThreadPoolExecutor(workers, initializer=limit_threads, initargs=(torch_threads,)) as pool:
        running: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            running.append((item, pool.submit(function, item)))
            if len(running) > most_running:
                done, future = running.popleft()
                yield done, future.result()
        for done, future in running:
            yield done, future.result()
