"""Classification of files and streams of any size: read, classify and write, in order and in constant memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from ..model.files import MODEL_FILES
from .file_formats import INPUT_FORMATS, OUTPUT_FORMATS, choose_format
from .readers import Position, RecordReader
from .scores import NonFiniteScores
from .streams import Input, PathOrStream, open_input
from .threads import check_positive, map_in_order, thread_count
from .writers import FORMATTERS, file_id, open_output

if TYPE_CHECKING:
    from .classifier import TextClassifier

Batch = tuple[list[str | None], Position]  # texts of a file, None for a malformed record, and the position after them


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


def classify_file(
    classifier: TextClassifier,
    input: PathOrStream,
    output: PathOrStream | None,
    *,
    input_format: str | None,
    column: str,
    format: str | None,
    on_error: str,
    batch_size: int,
    threads: int | None,
    progress: bool | None,
    resume: bool,
) -> FileReport:
    """What ``TextClassifier.classify_file`` does, with its arguments and errors."""
    threads = thread_count(threads)
    check_positive("batch_size", batch_size)
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
            prediction = classifier.predict(texts)
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
        run = {"model": classifier.fingerprint(), "input_format": input_format, "column": column, "format": format,
               "on_error": on_error}
        sink = open_output(output, _files_to_keep(classifier, source), run, resume and source.is_file, stack)
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
            classifier.count_truncated(num_truncated)
            behind = behind._replace(num_truncated=position.num_truncated + num_truncated)
            sink.write(lines, behind)
            bar.update(behind.input_bytes - position.input_bytes)
            position = behind
    return FileReport(position.records, start.records, position.num_truncated, position.num_replaced,
                      position.num_malformed, position.first_malformed)


def _files_to_keep(classifier: TextClassifier, source: Input) -> dict[tuple[int, int], str]:
    """The files that an output must not replace: the input, and those from which the model was loaded."""
    folder = classifier.config.name_or_path
    paths = [path for name in MODEL_FILES if folder and (path := Path(folder, name)).exists()]
    files = {file_id(path.stat()): f"{path}, a file of the model" for path in paths}
    return {key: name for key, name in {**files, file_id(source.status): "the input"}.items() if key is not None}


def _error_last(batches: Iterator[Batch]) -> Iterator[Batch | Exception]:
    """The batches, followed by the error that ends them: raised at once, it would overtake batches in work."""
    try:
        yield from batches
    except Exception as error:
        yield error


def _no_bar(progress: bool | None) -> bool | None:
    """The argument ``disable`` of tqdm; there is no bar if standard error is closed."""
    return True if sys.stderr is None else None if progress is None else not progress


