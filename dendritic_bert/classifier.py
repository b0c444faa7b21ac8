"""Text in, label out: lists, streams, and files of any size."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from .outputs import open_output
from .records import FORMATTERS, INPUT_FORMATS, OUTPUT_FORMATS, PathOrStream, RecordReader, choose_format, open_input
from .tokenization import PackedBatch, PackedTokenizer, check_texts

Item = TypeVar("Item")
Result = TypeVar("Result")
# Threads take turns at what Python itself does in a batch; with 1024 texts in each they hand over four times as often,
# and 13 % of a single thread's time goes into the calls.
BATCH_SIZE = 4096
ENCODER_ROWS = 128  # rows that a model with BERT's encoder takes at a time: each is padded to the longest of them
# Fields of a configuration that say where a checkpoint came from.
INCIDENTAL = {"_name_or_path", "transformers_version", "architectures", "dtype"}


class Prediction(NamedTuple):
    """The best label of B texts: B names, ``[B]`` float32 scores, and how many texts were cut to the model's length."""

    labels: list[str]
    scores: np.ndarray
    num_truncated: int


class FileReport(NamedTuple):
    """What ``classify_file`` did, with what an interrupted run had done before.

    num_records: texts classified. num_resumed: those of them that an earlier run had done. num_truncated: texts cut to
    the model's length. num_replaced: bytes that were not UTF-8 and became U+FFFD.
    """

    num_records: int
    num_resumed: int
    num_truncated: int
    num_replaced: int


class TextClassifier:
    """Classifies texts as transformers' text-classification pipeline does, from packed ids and in one kernel.

    ``model`` is a ``DendriticBertForSequenceClassification``, ``tokenizer`` what ``PackedTokenizer`` takes. Texts
    longer than the model's position table lose their end; ``num_truncated`` counts them over the classifier's life.
    Raises ValueError where the tokenizer has ids that the model has no embedding for.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any):
        self.model = model.eval()
        self.tokenizer = tokenizer if isinstance(tokenizer, PackedTokenizer) else PackedTokenizer(tokenizer)
        config = model.config
        vocab_size = self.tokenizer.backend.get_vocab_size()
        if vocab_size > config.vocab_size:
            raise ValueError(f"the tokenizer has {vocab_size} ids, the model embeds {config.vocab_size}: they do not "
                             "belong together, pass the tokenizer that the model was trained with.")
        self.max_length: int = config.max_position_embeddings
        id2label: Any = config.id2label
        self.labels: list[str] = [id2label[label] for label in range(len(id2label))]
        self.num_truncated = 0
        self._scores = _score_function(config.problem_type, len(self.labels))
        self._words: Any = model.get_input_embeddings()  # on the model's device, found sooner than by model.device

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None) -> TextClassifier:
        """Load model and tokenizer of a folder or a hub id; None is the model that comes with the package."""
        from . import EMBEDDED_MODEL
        from .modeling import DendriticBertForSequenceClassification

        name = EMBEDDED_MODEL if name_or_path is None else str(name_or_path)
        return cls(DendriticBertForSequenceClassification.from_pretrained(name), PackedTokenizer.from_pretrained(name))

    def __call__(
        self, texts: str | Iterable[str], batch_size: int = BATCH_SIZE, threads: int | None = None
    ) -> list[dict[str, Any]]:
        """Classify one text or many: one ``{"label": str, "score": float}`` a text, in order, always in a list.

        Score and label follow the pipeline: the largest of softmax, or of sigmoid where the problem is multi-label or
        there is one label, or of the logits in regression. ``threads`` defaults to torch's own number. Raises TypeError
        for a text that is no str, ValueError for ``batch_size`` or ``threads`` below 1.
        """
        texts = [texts] if isinstance(texts, str) else check_texts(texts)
        threads = _thread_count(threads)
        _check_positive("batch_size", batch_size)
        batches = [texts[start:start + batch_size] for start in range(0, len(texts), batch_size)]
        results: list[dict[str, Any]] = []
        for _, prediction in _in_order(self.predict, batches, threads, len(batches)):
            self.num_truncated += prediction.num_truncated
            results += [{"label": label, "score": score}
                        for label, score in zip(prediction.labels, prediction.scores.tolist())]
        return results

    @torch.no_grad()
    def predict(self, texts: list[str]) -> Prediction:
        """The best label of each text, all in one batch on the calling thread; counts nothing."""
        batch = self.tokenizer(texts, self.max_length)
        scores = self._scores(self._logits(batch).float().cpu().numpy())
        best = scores.argmax(axis=1)
        labels = self.labels
        return Prediction([labels[label] for label in best.tolist()], scores[np.arange(len(best)), best],
                          batch.num_truncated)

    def _logits(self, batch: PackedBatch) -> torch.Tensor:
        """``[B, C]``."""
        if not self.model.config.dsn:
            return self._encoder_logits(batch)
        device = self._words.weight.device
        return self.model(input_ids=torch.from_numpy(batch.input_ids).to(device),
                          cu_seqlens=torch.from_numpy(batch.cu_seqlens).to(device), return_dict=False)[0]

    def _encoder_logits(self, batch: PackedBatch) -> torch.Tensor:
        """The same of a model with BERT's encoder (``dsn=False``), which takes no packed rows: here they are padded."""
        device, logits = self._words.weight.device, []
        for first in range(0, len(batch.cu_seqlens) - 1, ENCODER_ROWS):
            bounds = batch.cu_seqlens[first:first + ENCODER_ROWS + 1]
            lengths = np.diff(bounds)
            mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
            input_ids = np.zeros(mask.shape, np.int64)
            input_ids[mask] = batch.input_ids[bounds[0]:bounds[-1]]
            logits.append(self.model(input_ids=torch.from_numpy(input_ids).to(device),
                                     attention_mask=torch.from_numpy(mask.astype(np.int64)).to(device)).logits)
        return torch.cat(logits)

    def classify_file(
        self,
        input: PathOrStream,
        output: PathOrStream | None = None,
        *,
        input_format: str | None = None,
        column: str = "text",
        format: str | None = None,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        progress: bool | None = None,
        resume: bool = True,
    ) -> FileReport:
        """Classify every record of a file of any size, in order, in constant memory.

        Each record gives one line with its text, label and score (six decimals): JSON Lines, CSV (the text always
        quoted) or TSV (nothing quoted; a tab or line end in a text becomes a space).

        An output file appears under its name when it is whole. A run that was interrupted, by whatever, is taken up by
        the same call again, and the file is the same to the byte as without the interruption.

        Args:
            input: a path, "-" for standard input, or a binary stream.
            output: a path, "-" or None for standard output, or a binary stream. Streams are not resumed.
            input_format: "text" (a text a line), "csv", "tsv" or "jsonl"; None goes by the suffix, else "text".
            column: which column, or key of each JSON object, holds the text.
            format: "json", "csv" or "tsv"; None goes by the suffix, else "json".
            batch_size: texts at a time.
            threads: worker threads; None is torch's own number.
            progress: a bar on standard error; None shows one where that is a terminal.
            resume: False starts over whatever an earlier run has left.

        Raises:
            OSError: input that cannot be read, output that cannot be written; found out before any work.
            ValueError: an unknown format, a column that is not there, a malformed line (with its number), or an output
                begun with another input, model or options.
        """
        threads = _thread_count(threads)
        _check_positive("batch_size", batch_size)
        input_format = choose_format("input_format", input_format, input, INPUT_FORMATS)
        format = choose_format("format", format, output, OUTPUT_FORMATS)
        header, to_lines = FORMATTERS[format]
        with ExitStack() as stack:
            source, name, size = open_input(input, stack)
            reader = RecordReader(source, name, input_format, column)
            run = {"model": self.fingerprint(), "input": size, "input_format": input_format, "column": column,
                   "format": format}
            sink = open_output(output, input, run, resume and size is not None, stack)
            if sink.done is not None and not reader.go_to(sink.done):
                raise sink.mismatch("input")
            start = position = sink.done or reader.position()
            sink.begin(start, header.encode())
            bar = stack.enter_context(tqdm(
                desc=name, total=size, initial=start.input_bytes, unit="B", unit_scale=True, file=sys.stderr,
                disable=None if progress is None else not progress))
            batches = reader.batches(batch_size)
            work = stack.enter_context(closing(_in_order(lambda batch: self.predict(batch[0]), batches, threads)))
            for (texts, behind), prediction in work:
                self.num_truncated += prediction.num_truncated
                behind = behind._replace(num_truncated=position.num_truncated + prediction.num_truncated)
                sink.write(to_lines(texts, prediction.labels, prediction.scores.tolist()).encode(), behind)
                bar.update(behind.input_bytes - position.input_bytes)
                position = behind
        return FileReport(position.records, start.records, position.num_truncated, position.num_replaced)

    def fingerprint(self) -> str:
        """A digest of parameters, configuration and tokenizer; not of where they are stored or were saved by."""
        digest = hashlib.sha256(self.tokenizer.backend.to_str().encode())
        config = self.model.config.to_dict().items()
        digest.update(repr(sorted((name, str(value)) for name, value in config if name not in INCIDENTAL)).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def _score_function(problem_type: str | None, num_labels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Logits ``[B, C]`` to scores, by the rules of transformers' TextClassificationPipeline.postprocess."""
    if problem_type == "regression":
        return lambda logits: logits
    if problem_type == "multi_label_classification" or num_labels == 1:
        return lambda logits: 1.0 / (1.0 + np.exp(-logits))
    return _softmax


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}, it must be at least 1.")


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return torch.get_num_threads()
    _check_positive("threads", threads)
    return threads


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, num_items: int | None = None
) -> Generator[tuple[Item, Result]]:
    """Each item with its result, in order. Whole batches go to worker threads, which then run torch on one thread each:
    tokenizer and kernel both release the GIL. One item alone runs here, with all threads inside the kernel."""
    if threads == 1 or num_items == 1:
        with _torch_threads(threads):
            for item in items:
                yield item, function(item)
        return
    with _torch_threads(1), ThreadPoolExecutor(threads) as pool:
        running: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            running.append((item, pool.submit(function, item)))
            if len(running) > threads:  # one batch waits for the next free worker, no more stand in memory
                done, future = running.popleft()
                yield done, future.result()
        for done, future in running:
            yield done, future.result()
