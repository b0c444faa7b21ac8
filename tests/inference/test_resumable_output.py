"""An interrupted classify_file, taken up again, ends in the same bytes as one that was not."""

import csv
import io
import itertools
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from small_classifier import WORDS, hugging_face_tokenizer, small_model

from dendritic_bert.inference import file_classification, resumable_output
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.threads import limit_threads

BATCH_SIZE = 16
BAD_UTF8 = b"\xff"


def make_classifier(**config) -> TextClassifier:
    return TextClassifier(small_model(**config), hugging_face_tokenizer())


@pytest.fixture(scope="module")
def classifier():
    return make_classifier()


def write_input(path: Path, num_records: int) -> Path:
    """Records of one to three lines, with truncated texts and bytes that are not UTF-8 among them."""
    rng = random.Random(0)
    with open(path, "wb") as file:
        file.write(b"id,text\r\n")
        for i in range(num_records):
            words = " ".join(rng.choices(WORDS, k=rng.choice([1, 3, 10, 60])))
            text = words.replace("the", "\n", 1).encode() + BAD_UTF8 * (i % 50 == 7)
            file.write(b'%d,"%s"\r\n' % (i, text))
    return path


def write_lines(path: Path, num_records: int) -> Path:
    """The texts of ``write_input``, a line each."""
    return _write_again(path, num_records, lambda row: " ".join(row["text"].split()))


def write_objects(path: Path, num_records: int) -> Path:
    """The records of ``write_input`` as JSON Lines."""
    return _write_again(path, num_records, json.dumps)


def _write_again(path: Path, num_records: int, line_of: Callable[[dict[str, str]], str]) -> Path:
    text = write_input(path.with_suffix(".csv"), num_records).read_text("utf-8", "replace")
    path.write_text("".join(f"{line_of(row)}\n" for row in csv.DictReader(io.StringIO(text, newline=""))))
    path.with_suffix(".csv").unlink()
    return path


def write_table(path: Path, num_records: int) -> Path:
    """The records of ``write_input`` as Parquet, in row groups that are no whole number of batches."""
    text = write_input(path.with_suffix(".csv"), num_records).read_text("utf-8", "replace")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    pa.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=1100)
    path.with_suffix(".csv").unlink()
    return path


def stop_after(monkeypatch, classifier, num_batches: int) -> None:
    """Let classify_file fail at a batch, as an interrupt from the keyboard would."""
    logits = classifier.logits
    left = iter(range(num_batches))

    def interrupted(texts):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return logits(texts)

    monkeypatch.setattr(classifier, "logits", interrupted)


def interrupt(classifier, input: Path, output: Path, num_batches: int = 3, **options) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_after(monkeypatch, classifier, num_batches)
        with pytest.raises(KeyboardInterrupt):
            classifier.classify_file(input, output, batch_size=BATCH_SIZE, threads=1, **options)


def classify(classifier, input: Path, output: Path, **options):
    return classifier.classify_file(input, output, **{"batch_size": BATCH_SIZE, "threads": 1, **options})


def last_of(journal: str | Path) -> dict:
    """The last line of a journal: how far the run has come."""
    return json.loads(Path(journal).read_text().splitlines()[-1])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("format", ["json", "csv", "tsv", "parquet", "arrow", "json.gz", "csv.zst"])
@pytest.mark.parametrize("num_batches", [1, 3, 5])
def test_an_interrupted_run_is_taken_up(classifier, tmp_path, monkeypatch, format, num_batches):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / f"out.{format}"
    whole = classify(classifier, input, tmp_path / f"whole.{format}")
    assert whole.num_truncated > 10
    assert whole.num_replaced == 2
    interrupt(classifier, input, output, num_batches)
    assert not output.exists()
    calls = []
    logits = classifier.logits
    monkeypatch.setattr(classifier, "logits", lambda texts: calls.append(len(texts)) or logits(texts))
    report = classify(classifier, input, output)
    assert output.read_bytes() == (tmp_path / f"whole.{format}").read_bytes()
    assert report == whole._replace(num_resumed=BATCH_SIZE * num_batches)
    assert sum(calls) == 100 - BATCH_SIZE * num_batches
    assert names(tmp_path) == {"in.csv", f"out.{format}", f"whole.{format}"}


def test_what_the_journal_does_not_vouch_for_is_cut_off(classifier, tmp_path):
    """A run killed between two journals leaves lines in the partial, the last of them torn."""
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    classify(classifier, input, tmp_path / "whole")
    interrupt(classifier, input, output)
    with open(f"{output}.partial", "ab") as file:
        file.write(b'{"text": "of a later batch", "label": "LABEL_0", "score": 0.5}\n' * 1000 + b'{"text": "torn')
    classify(classifier, input, output)
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv.gz"])
def test_a_run_that_ends_within_a_long_record(classifier, tmp_path, monkeypatch, name):
    """Lines of a long text are written in parts, of which the journal knows nothing."""
    monkeypatch.setattr(file_classification, "BATCH_BYTES", 1 << 20)
    input, whole = tmp_path / "in.txt", tmp_path / f"whole_{name}"
    input.write_text(f"fox\n{'fox ' * (1 << 20)}\ndog\n{'dog ' * (1 << 20)}\n")
    classifier.classify_file(input, whole, batch_size=1)
    parts = iter(range(100))

    def write_part(self, rows):
        if next(parts) == 10:
            raise KeyboardInterrupt
        write(self, rows)

    write = resumable_output.ResumableOutput.write_part
    monkeypatch.setattr(resumable_output.ResumableOutput, "write_part", write_part)
    with pytest.raises(KeyboardInterrupt):
        classifier.classify_file(input, tmp_path / name, batch_size=1)
    done = last_of(tmp_path / f"{name}.partial.json")["position"]
    assert (tmp_path / f"{name}.partial").stat().st_size > done["output_bytes"] + (1 << 20)
    assert classifier.classify_file(input, tmp_path / name, batch_size=1).num_resumed == done["records"] == 3
    assert (tmp_path / name).read_bytes() == whole.read_bytes()


def test_a_run_that_was_killed_after_the_rename(classifier, tmp_path):
    """Of the three files the journal goes last."""
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    classify(classifier, input, tmp_path / "whole")
    interrupt(classifier, input, output)
    Path(f"{output}.partial").unlink()
    assert classify(classifier, input, output).num_resumed == 0
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_run_that_was_killed_before_its_first_batch(classifier, tmp_path):
    """Of the three files the journal comes first."""
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    interrupt(classifier, input, output)
    journal = Path(f"{output}.partial.json")
    journal.write_text(journal.read_text().splitlines()[0] + "\n")
    assert classify(classifier, input, output).num_resumed == 0


def test_a_run_that_was_killed_before_the_first_line_of_its_journal(classifier, tmp_path):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    Path(f"{output}.partial.json").touch()
    assert classify(classifier, input, output).num_records == 100
    assert names(tmp_path) == {"in.csv", "out"}


@pytest.mark.parametrize("torn", ["{", '{"position": {"records": 64', '{"position": {}}\n', "\0" * 100])
def test_a_torn_line_of_the_journal_is_written_over(classifier, tmp_path, torn):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    interrupt(classifier, input, output)
    journal = Path(f"{output}.partial.json")
    journal.write_text(journal.read_text() + torn)
    interrupt(classifier, input, output, num_batches=1)
    assert last_of(journal)["position"]["records"] == 4 * BATCH_SIZE
    assert classify(classifier, input, output).num_resumed == 4 * BATCH_SIZE


def test_resume_can_be_refused(classifier, tmp_path):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    interrupt(classifier, input, output)
    assert classify(classifier, input, output, resume=False).num_resumed == 0
    interrupt(classifier, input, output)
    assert classify(classifier, input, output, resume=True).num_resumed == 3 * BATCH_SIZE


def test_starting_over_forgets_the_old_position_first(classifier, tmp_path, monkeypatch):
    """Else a run killed before it has saved one would leave one that vouches for another partial."""
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    interrupt(classifier, input, output)
    journal, logits, seen = Path(f"{output}.partial.json"), classifier.logits, []
    assert "position" in last_of(journal)
    monkeypatch.setattr(classifier, "logits", lambda texts: seen.append(set(last_of(journal))) or logits(texts))
    classify(classifier, input, output, resume=False)
    assert seen == [{"journal", "run"}] * 7


def test_an_earlier_output_stays_until_the_new_one_is_whole(classifier, tmp_path):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    output.write_bytes(b"old")
    interrupt(classifier, input, output)
    assert output.read_bytes() == b"old"
    classify(classifier, input, output)
    assert output.read_bytes().count(b"\n") == 100


def test_a_run_that_did_nothing_leaves_nothing(classifier, tmp_path):
    input = write_input(tmp_path / "in.csv", 100)
    interrupt(classifier, input, tmp_path / "out", num_batches=0)
    assert names(tmp_path) == {"in.csv"}


@pytest.mark.parametrize(("change", "what"), [
    ("model", "model"), ("column", "column"), ("format", "format"), ("contents", "input"), ("shorter", "input"),
    ("input_format", "input_format"), ("on_error", "on_error"), ("dtype of the tables", "model"),
])
def test_another_run_is_refused(classifier, tmp_path, change, what):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    interrupt(classifier, input, output)
    left = {path: path.read_bytes() for path in tmp_path.iterdir() if path != input}
    other = make_classifier(seed=1) if change == "model" else classifier
    if change == "dtype of the tables":
        other = TextClassifier(small_model().prepare(torch.int8), hugging_face_tokenizer())
    options = {"column": {"column": "id"}, "format": {"format": "csv"}, "input_format": {"input_format": "text"},
               "on_error": {"on_error": "null"}}
    data = input.read_bytes()
    if change == "shorter":
        input.write_bytes(data[:data.rindex(b'"\r\n', 0, len(data) // 3) + 3])
    if change == "contents":
        input.write_bytes(data.replace(b"fox", b"dog", 1))
    with pytest.raises(ValueError, match=f"begun with another {what}: finish that run as it was begun, or start over "
                                         r"with resume=False \(or by deleting .*out\.partial and its journal\)"):
        classify(other, input, output, **options.get(change, {}))
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path != input} == left
    assert classify(other, input, output, resume=False, **options.get(change, {})).num_resumed == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("place", [0, 1, 47, 48, 99])
def test_a_mended_record_is_gone_on_from(classifier, tmp_path, place, threads):
    """Whatever was read before a malformed record is kept, the rest of its batch included."""
    lines = [json.dumps({"text": " ".join(WORDS[:1 + i % 9])}) for i in range(100)]
    input, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    input.write_text("\n".join(lines) + "\n")
    classify(classifier, input, tmp_path / "whole.jsonl")
    input.write_text("\n".join([*lines[:place], '{"text": null}', *lines[place + 1:]]) + "\n")
    with pytest.raises(ValueError, match=f"line {place + 1}: column 'text' is None"):
        classify(classifier, input, output, threads=threads)
    input.write_text("\n".join(lines) + "\n")
    assert classify(classifier, input, output, threads=threads).num_resumed == place
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_mended_table_starts_over(classifier, tmp_path, suffix):
    """It is written as a whole, so that nothing of it can be known to be as it was."""
    input, output = tmp_path / f"in.{suffix}", tmp_path / "out.jsonl"
    write = pa.parquet.write_table if suffix == "parquet" else pa.feather.write_feather
    write(pa.table({"text": ["fox"] * 50 + [None]}), input)
    with pytest.raises(ValueError, match="row 51: column 'text' is null, fill it in or leave the row out; a table that "
                                         r"is mended starts over, with resume=False \(--restart\)\.$"):
        classify(classifier, input, output)
    write(pa.table({"text": ["fox"] * 50 + ["dog"]}), input)
    with pytest.raises(ValueError, match="begun with another input"):
        classify(classifier, input, output)
    assert classify(classifier, input, output, resume=False).num_records == 51


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_later_table_with_another_type_of_a_kept_column(classifier, tmp_path, suffix):
    """It was not read before the run ended, so that its bytes may be others; the rows that are there have a type."""
    first, second, output = tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / f"out.{suffix}"
    pa.parquet.write_table(pa.table({"x": [1, 2], "text": ["fox", "dog"]}), first)
    for numbers in ([3, 4], ["three", "four"]):
        pa.parquet.write_table(pa.table({"x": [3, 4], "text": pa.array([None, "fox"])}), second)
        with pytest.raises(ValueError, match="row 1: column 'text' is null"):
            classify(classifier, [first, second], output, keep_columns="x")
        pa.parquet.write_table(pa.table({"x": numbers, "text": ["dog", "fox"]}), second)
        if numbers == [3, 4]:
            assert classify(classifier, [first, second], output, keep_columns="x").num_resumed == 2
    with pytest.raises(ValueError, match="was begun with another type of 'x': finish that run as it was begun, or sta"):
        classify(classifier, [first, second], output, keep_columns="x")
    assert classify(classifier, [first, second], output, keep_columns="x", resume=False).num_records == 4


def test_what_was_replaced_in_a_header_is_counted_once(classifier, tmp_path):
    input = write_input(tmp_path / "in.csv", 100)
    input.write_bytes(input.read_bytes().replace(b"id,", b"id\xff,", 1))
    interrupt(classifier, input, tmp_path / "out")
    report = classify(classifier, input, tmp_path / "out")
    assert (report.num_resumed, report.num_replaced) == (3 * BATCH_SIZE, 3)


def test_an_input_may_grow(classifier, tmp_path):
    """The bytes that were read are the same: the rest, whatever it is, is still to do."""
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    interrupt(classifier, input, output)
    input.write_bytes(input.read_bytes() + b'100,"one more"\r\n')
    classify(classifier, input, tmp_path / "whole")
    assert classify(classifier, input, output).num_resumed == 3 * BATCH_SIZE
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()


def test_batch_size_and_threads_may_change(classifier, tmp_path):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    classify(classifier, input, tmp_path / "whole")
    interrupt(classifier, input, output)
    classify(classifier, input, output, batch_size=7, threads=2)
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()


def test_malformed_lines_keep_their_number_in_a_resumed_run(classifier, tmp_path):
    input, output = tmp_path / "in.jsonl", tmp_path / "out"
    input.write_text('{"text": "fox"}\n\n' * 50 + "{\n")
    interrupt(classifier, input, output, num_batches=2)
    with pytest.raises(ValueError, match=r"in\.jsonl, line 101: not valid JSON"):
        classify(classifier, input, output)
    assert last_of(f"{output}.partial.json")["position"]["records"] == 50


def test_streams_start_over(classifier, tmp_path):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    with open(input, "rb") as stream:
        interrupt(classifier, stream, output, input_format="csv")
    with open(input, "rb") as stream:
        assert classify(classifier, stream, output, input_format="csv").num_resumed == 0
    assert output.read_bytes().count(b"\n") == 100


@pytest.mark.skipif(resumable_output.fcntl is None, reason="no flock on this system")
def test_two_runs_into_one_output(classifier, tmp_path, monkeypatch):
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    logits = classifier.logits

    def second_run(texts):
        monkeypatch.setattr(classifier, "logits", logits)
        with pytest.raises(BlockingIOError, match=r"output .*out is being written by another process"):
            classify(classifier, input, output)
        return logits(texts)

    monkeypatch.setattr(classifier, "logits", second_run)
    classify(classifier, input, output)
    assert output.read_bytes().count(b"\n") == 100


@pytest.mark.skipif(resumable_output.fcntl is None, reason="no flock on this system")
@pytest.mark.parametrize("ends", [False, True])
def test_two_runs_that_begin_together(classifier, tmp_path, monkeypatch, ends):
    """One makes the journal, and the other locks it first: that one runs, and what it leaves behind is not removed."""
    input, output = write_input(tmp_path / "in.csv", 100), tmp_path / "out"
    lock = resumable_output.ResumableOutput._lock

    def second_run_first(self):
        monkeypatch.setattr(resumable_output.ResumableOutput, "_lock", lock)
        if ends:
            interrupt(classifier, input, output)
        else:
            second = stack.enter_context(resumable_output.ResumableOutput(output, {}, resume=True))
            assert second.done is None
        lock(self)

    monkeypatch.setattr(resumable_output.ResumableOutput, "_lock", second_run_first)
    with ExitStack() as stack:
        if ends:
            assert classify(classifier, input, output).num_resumed == 3 * BATCH_SIZE
        else:
            with pytest.raises(BlockingIOError, match=r"output .*out is being written by another process"):
                classify(classifier, input, output)


def _doomed_run(folder: Path, input: Path, output: Path, journal_seconds: float, threads: int, seed: int) -> None:
    """Classify, and die at a random moment, up to 25 batches after the journal has said how far this run has come."""
    limit_threads(1)  # OpenMP's threads stayed in the parent process
    rng = random.Random(seed)
    classifier = TextClassifier.from_pretrained(folder)
    logits, calls, doomed_call = classifier.logits, itertools.count(1), rng.randint(1, 25)
    journal = Path(f"{output}.partial.json")
    lines_before = journal.read_bytes().count(b"\n") if journal.exists() else 1

    def slow_logits(texts):
        if journal.read_bytes().count(b"\n") > lines_before and next(calls) == doomed_call:
            threading.Timer(rng.uniform(0, 0.02), os.kill, (os.getpid(), signal.SIGKILL)).start()
        time.sleep(0.002)  # so that neither the end nor the death comes before a journal
        return logits(texts)

    classifier.logits = slow_logits
    resumable_output.JOURNAL_SECONDS = journal_seconds
    classify(classifier, input, output, threads=threads, progress=False)


# `make kills` kills a run of each format a hundred times.
KILLS = int(os.environ.get("DENDRITIC_BERT_KILLS", "5"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(("write", "input_name", "output_name", "journal_seconds", "threads"), [
    (write_input, "in.csv", "out.csv", 0.0, 1), (write_lines, "in.txt", "out.jsonl", 0.01, 2),
    (write_objects, "in.jsonl", "out.csv.gz", 0.01, 2), (write_input, "in.csv", "out.tsv", 0.0, 2),
    (write_objects, "in.jsonl", "out.json.zst", 0.01, 1), (write_table, "in.parquet", "out.parquet", 0.01, 2),
    (write_lines, "in.txt", "out.arrow", 0.01, 2)])
def test_kill_at_any_moment(classifier, tmp_path, write, input_name, output_name, journal_seconds, threads):
    """Processes end by SIGKILL, each somewhere behind the one before; then one finishes the file."""
    input, output, folder = write(tmp_path / input_name, 1500 * KILLS), tmp_path / output_name, tmp_path / "model"
    classifier.model.save_pretrained(folder)
    hugging_face_tokenizer().save_pretrained(folder)
    survivor = TextClassifier.from_pretrained(folder)
    whole = classify(survivor, input, tmp_path / f"whole_{output_name}")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # pytest shows it where the test fails
    context = multiprocessing.get_context("fork")  # its children have everything imported already
    done = [0]
    for kill in range(KILLS):
        process = context.Process(target=_doomed_run,
                                  args=(folder, input, output, journal_seconds, threads, seed + kill))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not output.exists()
        done.append(last_of(f"{output}.partial.json")["position"]["records"])
    assert done == sorted(set(done)), "every run must get further than the one before"
    assert classify(survivor, input, output) == whole._replace(num_resumed=done[-1])
    assert output.read_bytes() == (tmp_path / f"whole_{output_name}").read_bytes()
    assert names(tmp_path) == {input_name, "model", output_name, f"whole_{output_name}"}
