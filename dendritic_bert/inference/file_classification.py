"""Labels or embeddings of files and streams of any size: read, compute and write, in order and in constant memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..model.files import MODEL_FILES
from .columns import KeptColumns, choose_text_columns
from .file_formats import OUTPUT_FORMATS, TABLE_FORMATS, choose_format
from .formatters import Column, Labels, Write, open_formatter
from .readers import Records, open_records
from .records import BATCH_BYTES, MalformedRecord, Position, RecordBatch
from .scores import Answers, NonFiniteScores
from .streams import PathOrStream
from .threads import check_positive, map_in_order, thread_count
from .writers import file_id, open_output

if TYPE_CHECKING:
    from .text_encoder import Embeddings
    from .text_logits import TextLogits


class FileReport(NamedTuple):
    """What ``classify_file`` did, including the work of an interrupted run that it continued.

    num_records: texts classified. num_resumed: how many of them the interrupted run had classified. num_truncated:
    texts that were cut to the model's length. num_replaced: bytes that were not UTF-8 and became U+FFFD. num_malformed:
    records that were skipped or written as null, as ``on_error`` says. first_malformed: where the first of them is, and
    what is wrong with it. column, text_pair_column: the columns that held the texts.
    """

    num_records: int
    num_resumed: int
    num_truncated: int
    num_replaced: int
    num_malformed: int = 0
    first_malformed: str = ""
    column: str = "text"
    text_pair_column: str | None = None


def classify_file(
    classifier: TextLogits,
    input: PathOrStream | Sequence[PathOrStream],
    output: PathOrStream | None,
    *,
    input_format: str | None,
    column: str | None,
    text_pair_column: str | None,
    answers: Answers | Embeddings,
    keep_columns: str | Sequence[str] | None,
    delimiter: str,
    format: str | None,
    on_error: str,
    batch_size: int,
    threads: int | None,
    progress: bool | None,
    resume: bool,
) -> FileReport:
    """What ``TextClassifier.classify_file`` and ``TextEncoder.encode_file`` do, with their arguments and errors.

    ``answers`` make the columns of a result and their values from logits.
    """
    threads = thread_count(threads)
    check_positive("batch_size", batch_size)
    format = choose_format("format", format, output, OUTPUT_FORMATS)
    nested = format == "json"

    def classify(batch: RecordBatch | Exception) -> tuple[Callable[[Write], bytes], int]:
        """What makes the lines or rows of a batch, and how many of its texts were cut."""
        if isinstance(batch, MalformedRecord) and records.format in TABLE_FORMATS and records.can_resume:
            raise MalformedRecord(f"{str(batch)[:-1]}; a table that is mended starts over, with resume=False "
                                  "(--restart).")
        if isinstance(batch, Exception):
            raise batch
        known = texts = [batch.texts(name) for name in text_columns]
        is_known = None
        if any(map(_has_null, texts)):
            lists = [batch.columns[name] for name in text_columns]
            is_known = np.array([None not in cells for cells in zip(*lists)])
            known = [list(compress(column, is_known)) for column in lists]
        try:
            logits, num_truncated = classifier.logits(*known)
        except NonFiniteScores as error:
            record = batch.position.records - len(known[0]) + error.row + 1
            raise NonFiniteScores(error.row, f"record {record} of {records.name}", error.why) from None
        values = answers.values(logits, nested)
        if is_known is not None:
            values = [_with_nulls(column, is_known) for column in values]
        cells = [*kept.cells(batch), *texts, *values]
        if _is_large(batch):
            return partial(formatter.rows, cells), num_truncated  # when they are written, part by part
        rows = formatter.rows(cells)
        return lambda write: rows, num_truncated

    with ExitStack() as stack:
        records = stack.enter_context(open_records(input, input_format, on_error, delimiter))
        is_of_tsv = (records.format, records.delimiter) == ("tsv", "\t")
        if delimiter != "," and "csv" not in records.format and not is_of_tsv:
            raise ValueError(f"delimiter is {delimiter!r}, but {records.name} is read as {records.format}, which has "
                             "none to choose: leave it out, or pass input_format='csv' (--input-format csv).")
        text_columns = choose_text_columns(records, column, text_pair_column,
                                           classifier.config.training_columns)
        text, text_pair_column = text_columns[0], text_columns[1] if len(text_columns) > 1 else None
        records.check([], text_columns)
        text_results = [Column(name, "text") for name in ("text", "text_pair")[:len(text_columns)]]
        results = [*text_results, *(Column(*column) for column in answers.columns(nested))]
        kept = KeptColumns(records, keep_columns, text_columns, [result.name for result in results], format)
        formatter = open_formatter(format, [*kept.columns, *results])
        run = {"model": classifier.fingerprint(), "input_format": records.format, "column": text, "format": format,
               "on_error": on_error, "delimiter": None if delimiter == "," else delimiter,
               "keep_columns": kept.names or None, "text_pair_column": text_pair_column, **answers.options,
               **kept.written_types()}
        inputs = _files_to_keep(classifier, records)
        sink = open_output(output, format, inputs, run, resume and records.can_resume, threads > 1, stack)
        if sink.done is not None and not records.go_to(sink.done):
            raise sink.mismatch("input")
        start = position = sink.done or Position()
        sink.begin(start, formatter.header)
        bytes_done = records.bytes_before(start)
        bar = stack.enter_context(tqdm(
            desc=records.name, total=records.size, initial=bytes_done, unit="B", unit_scale=True,
            file=sys.stderr, disable=_no_bar(progress)))
        batches = _error_last(records.batches(batch_size, kept.names, text_columns))
        # Whoever classifies one text at a time wants each answered before the next is there.
        work = stack.enter_context(closing(map_in_order(classify, batches, threads if batch_size > 1 else 1,
                                                        is_large=_is_large)))
        for batch, (rows, num_truncated) in work:
            classifier.count_truncated(num_truncated)
            behind = batch.position._replace(num_truncated=position.num_truncated + num_truncated)  # type: ignore[union-attr]
            sink.write(rows(sink.write_part), behind)
            bytes_before, bytes_done = bytes_done, records.bytes_before(behind)
            bar.update(bytes_done - bytes_before)
            position = behind
            del batch, rows  # before the next ones are in memory
    return FileReport(position.records, start.records, position.num_truncated, position.num_replaced,
                      position.num_malformed, position.first_malformed, text, text_pair_column)


def _has_null(texts: Any) -> bool:
    return bool(texts.null_count) if hasattr(texts, "null_count") else None in texts


def _with_nulls(values: Any, is_known: np.ndarray) -> Any:
    """The cells of the records whose texts are known, with null for the others."""
    if isinstance(values, Labels):
        return values._replace(numbers=_spread(values.numbers, is_known, -1))
    if isinstance(values, np.ndarray):
        return _spread(values, is_known, np.nan)
    left = iter(values)
    return [next(left) if known else None for known in is_known]


def _spread(values: np.ndarray, is_known: np.ndarray, null: float) -> np.ndarray:
    all_values = np.full(len(is_known), null, values.dtype)
    all_values[is_known] = values
    return all_values


def _files_to_keep(classifier: TextLogits, records: Records) -> dict[tuple[int, int], str]:
    """The files that an output must not replace: the input, and those from which the model was loaded."""
    folder = classifier.config.name_or_path
    paths = [path for name in MODEL_FILES if folder and (path := Path(folder, name)).exists()]
    files = {file_id(path.stat()): f"{path}, a file of the model" for path in paths}
    files |= dict.fromkeys(map(file_id, records.statuses), "the input")
    return {key: name for key, name in files.items() if key is not None}


def _is_large(batch: RecordBatch | Exception) -> bool:
    """Whether a batch has a text so long that memory is not to hold several such batches."""
    return isinstance(batch, RecordBatch) and sum(
        getattr(array, "nbytes", 0) for array in batch.arrays.values()) > 2 * BATCH_BYTES


def _error_last(batches: Iterator[RecordBatch]) -> Iterator[RecordBatch | Exception]:
    """The batches, followed by the error that ends them: raised at once, it would overtake batches in work."""
    try:
        yield from batches
    except Exception as error:
        yield error


def _no_bar(progress: bool | None) -> bool | None:
    """The argument ``disable`` of tqdm; there is no bar if standard error is closed."""
    return True if sys.stderr is None else None if progress is None else not progress


