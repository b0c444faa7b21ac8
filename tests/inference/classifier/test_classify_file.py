"""classify_file: formats in and out, what is not well-formed, streams, memory; resuming is in test_resume.py."""

import csv
import errno
import io
import json
import sys
import threading
import tracemalloc
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from small_classifier import WORDS, hugging_face_tokenizer, small_model

from dendritic_bert.inference import line_reader
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.file_classification import FileReport

# What a reader or a writer of these formats may trip over; no line ends, which a text file cannot hold.
ONE_LINERS = ["", "the quick brown fox", " leading and trailing blanks ", 'a "quoted" word', '"', "comma, comma",
              "tab\there", "back\\slash", "\x01", "#",
              "世界 😀 caf\u00e9", "\u2028 \u0085 \x0b \x0c \x1c are no line ends", *WORDS]
ANY_TEXTS = [*ONE_LINERS, "two\nlines", "two\r\nlines", "lone\rCR", "\n", '"\n"']


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier(small_model(id2label={0: 'good, "very"', 1: "bad"}), hugging_face_tokenizer())


def read_csv(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def read_tsv(data: bytes) -> list[list[str]]:
    return [line.split("\t") for line in data.decode().removesuffix("\n").split("\n")]


def read_json(data: bytes) -> list[list[str]]:
    objects = [json.loads(line) for line in data.decode().removesuffix("\n").split("\n")]
    assert all(list(record) == ["text", "label", "score"] for record in objects)
    return [["text", "label", "score"], *([*record.values()] for record in objects)]


READERS = {"json": read_json, "csv": read_csv, "tsv": read_tsv}


def as_text(texts: list[str]) -> bytes:
    return "".join(text + "\n" for text in texts).encode()


def as_csv(texts: list[str]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["id", "text", "more"], *([i, text, "x\ny"] for i, text in enumerate(texts))])
    return file.getvalue().encode()


def as_tsv(texts: list[str]) -> bytes:
    return "".join(f"{number}\t{text}\n" for number, text in [("id", "text"), *enumerate(texts)]).encode()


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()


WRITERS = {"text": as_text, "csv": as_csv, "tsv": as_tsv, "jsonl": as_jsonl}


def classify_bytes(classifier, data: bytes, **options) -> tuple[list[list[str]], FileReport]:
    """Rows of the output without its header."""
    output = io.BytesIO()
    report = classifier.classify_file(io.BytesIO(data), output, **options)
    header, *rows = READERS[options.get("format", "json")](output.getvalue())
    assert header == ["text", "label", "score"]
    return rows, report


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("input_format", WRITERS)
def test_formats(classifier, tmp_path, input_format, format):
    texts = ANY_TEXTS if input_format in ("csv", "jsonl") else ONE_LINERS
    if input_format == "tsv":
        texts = [text.replace("\t", " ") for text in texts]
    (tmp_path / f"in.{input_format}").write_bytes(WRITERS[input_format](texts))
    report = classifier.classify_file(tmp_path / f"in.{input_format}", str(tmp_path / f"out.{format}"), batch_size=7)
    assert report == FileReport(num_records=len(texts), num_resumed=0, num_truncated=0, num_replaced=0)
    header, *rows = READERS[format]((tmp_path / f"out.{format}").read_bytes())
    expected = classifier(texts)
    if format == "tsv":
        texts = [text.replace("\t", " ").replace("\n", " ").replace("\r", " ") for text in texts]
    assert header == ["text", "label", "score"]
    assert [row[0] for row in rows] == texts
    assert [row[1] for row in rows] == [result["label"] for result in expected]
    assert [f"{float(row[2]):.6f}" for row in rows] == [f"{result['score']:.6f}" for result in expected]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in.{input_format}", f"out.{format}"]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 10_000])
def test_batches_and_threads_do_not_show(classifier, threads, batch_size):
    texts = [f"{word} {i}" for i in range(5) for word in WORDS]
    expected, _ = classify_bytes(classifier, as_text(texts))
    assert classify_bytes(classifier, as_text(texts), threads=threads, batch_size=batch_size)[0] == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_text_is_answered_before_the_next_is_read(classifier, threads):
    """As whoever types a text, or serves one through a pipe, wants it."""
    output = io.BytesIO()

    class Asking(io.RawIOBase):
        asked = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            assert output.getvalue().count(b"\n") == self.asked
            if self.asked == 5:
                return 0
            self.asked += 1
            buffer[:4] = b"fox\n"
            return 4

    report = classifier.classify_file(Asking(), output, batch_size=1, threads=threads)
    assert report.num_records == output.getvalue().count(b"\n") == 5


@pytest.mark.parametrize(("input_format", "data", "texts"), [
    ("text", b"a\r\nb\r\nlast", ["a", "b", "last"]),
    ("text", b"\xef\xbb\xbfa\n\nb\n", ["a", "", "b"]),
    ("text", b"", []),
    ("text", b"\xef\xbb\xbf", []),
    ("text", b"\xef\xbb\xbf\n", [""]),
    ("text", b"\xff\xfe", []),
    ("csv", b'\xef\xbb\xbf"text",id\r\n"a\r\nb",1\r\n\r\nc,2', ["a\r\nb", "c"]),
    ("csv", b"text\n", []),
    ("tsv", b'id\ttext\r\n1\t"unbalanced\r\n\r\n2\tb\r\n', ['"unbalanced', "b"]),
    ("jsonl", b'\xef\xbb\xbf{"text": "a"}\n\n  \n{"text": "b", "id": [1]}', ["a", "b"]),
    ("jsonl", b"\xef\xbb\xbf", []),
])
def test_corners_of_the_formats(classifier, input_format, data, texts):
    output = io.BytesIO()
    report = classifier.classify_file(io.BytesIO(data), output, input_format=input_format, batch_size=1)
    assert [json.loads(line)["text"] for line in output.getvalue().splitlines()] == texts
    assert report.num_records == len(texts)


def test_the_column_can_be_chosen(classifier):
    rows, _ = classify_bytes(classifier, b"sentence,text\na,b\n", input_format="csv", column="sentence")
    assert [row[0] for row in rows] == ["a"]
    rows, _ = classify_bytes(classifier, b'{"text": 1, "sentence": "a"}\n', input_format="jsonl", column="sentence")
    assert [row[0] for row in rows] == ["a"]


@pytest.mark.parametrize(("input_format", "header", "before", "after"), [
    ("text", b"", b"", b"\n"), ("csv", b"text\n", b'"', b'"\n'), ("tsv", b"text\n", b"", b"\n"),
    ("jsonl", b"", b'{"text": "', b'"}\n')])
def test_bytes_that_are_not_utf8_are_replaced_and_counted(classifier, input_format, header, before, after):
    data = header + before + b"caf\xe9 \xff\xfe" + after + before + "\ufffd 世".encode() + after
    rows, report = classify_bytes(classifier, data, input_format=input_format)
    assert [row[0] for row in rows] == ["caf\ufffd \ufffd\ufffd", "\ufffd 世"]
    assert report.num_replaced == 3  # the one that was there before is none of ours


def test_lone_surrogates_of_json(classifier):
    data = rb'{"text": "\ud83d\ude00 \ud800 \uDFFF"}' + b"\n"
    rows, report = classify_bytes(classifier, data, input_format="jsonl")
    assert rows[0][0] == "😀 \ufffd \ufffd"
    assert report.num_replaced == 2


def test_bytes_of_a_header_that_are_not_utf8_are_counted(classifier, tmp_path):
    """Of a stream, whose header was read before it was its turn, as of a file."""
    data = b"text,\xff\nabc,1\n"
    (tmp_path / "in.csv").write_bytes(data)
    for input in (tmp_path / "in.csv", io.BytesIO(data)):
        report = classifier.classify_file([input, tmp_path / "in.csv"], io.BytesIO(), input_format="csv")
        assert report.num_replaced == 2


def test_lone_surrogates_in_a_value_of_json_are_counted(classifier):
    data, output = rb'{"text": "fox", "m": {"\ud800": ["\udfff", "\ufffd"]}}' + b"\n", io.BytesIO()
    report = classifier.classify_file(io.BytesIO(data), output, input_format="jsonl", keep_columns="m")
    assert json.loads(output.getvalue())["m"] == {"\ufffd": ["\ufffd", "\ufffd"]}
    assert report.num_replaced == 2


@pytest.mark.parametrize(("name", "read"), [
    ("out.jsonl", partial(pd.read_json, lines=True)), ("out.csv", pd.read_csv), ("out.tsv", pd.read_table),
    ("out.parquet", pd.read_parquet), ("out.arrow", pd.read_feather)])
def test_lone_surrogates_in_a_key_of_json(classifier, tmp_path, name, read):
    """Replaced and counted where the column is written."""
    data = rb'{"text": "fox", "m\ud800": 1}' + b"\n"
    report = classifier.classify_file(io.BytesIO(data), tmp_path / name, input_format="jsonl", keep_columns="all")
    assert report.num_replaced == 1
    assert list(read(tmp_path / name).columns) == ["m\ufffd", "text", "label", "score"]
    assert classify_bytes(classifier, data, input_format="jsonl")[1].num_replaced == 0


def test_truncated_texts_are_counted(classifier):
    before = classifier.num_truncated
    _, report = classify_bytes(classifier, as_text(["fox " * 100, "fox", "dog " * 100]), batch_size=1)
    assert report.num_truncated == 2
    assert classifier.num_truncated == before + 2


@pytest.mark.parametrize(("input_format", "data", "message"), [
    ("csv", b"id,sentence\n1,a\n", r"input has no column 'text': pass column \(--column\), one of id, sentence\."),
    ("tsv", b"id\tsentence\n1\ta\n", "one of id, sentence"),
    ("csv", b"", "column is 'text', which input does not have: the file has no header line"),
    ("csv", b"id,text\n1,a\n2\n", "input, line 3: column 'text' is missing, 1 columns for the header's 2"),
    ("csv", b'text\na\n"b\nc\n', "input, line 4: not valid CSV"),
    ("jsonl", b'{"text": "a"}\n\n{"text": "b"\n', "input, line 3: not valid JSON"),
    ("jsonl", b"[" * 100_000 + b"\n", "line 1: not readable as JSON"),
    ("jsonl", b'{"text": ' + b"1" * 5000 + b"}\n", "line 1: not readable as JSON"),
    ("jsonl", b'["a"]\n', "input, line 1: a JSON list, every line must be one object"),
    ("jsonl", b'{"text": "a"}\n{"sentence": "a"}\n', "line 2: column 'text' is None, not a string; .* has sentence"),
    ("jsonl", b'{"text": 3}\n', "line 1: column 'text' is 3, not a string"),
    ("jsonl", b"{}\n", "line 1: column 'text' is None, not a string; the object has no columns"),
    ("text", b"a\n" + b"x" * (1 << 20) + b"\n", "line 2: longer than 1 MiB, split it"),
])
@pytest.mark.parametrize("batch_size", [1, 100])
def test_malformed_input_is_named_by_its_line(classifier, monkeypatch, input_format, data, message, batch_size):
    monkeypatch.setattr(line_reader, "MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(ValueError, match=message) as error:
        classifier.classify_file(io.BytesIO(data), io.BytesIO(), input_format=input_format, batch_size=batch_size)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"input_format": "xml"}, "input_format is 'xml', known are text, csv, tsv, jsonl, parquet, arrow"),
    ({"format": "xml"}, "format is 'xml', known are json, csv, tsv, parquet, arrow"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"threads": 0}, "threads is 0"),
])
def test_bad_options(classifier, options, message):
    with pytest.raises(ValueError, match=message):
        classifier.classify_file(io.BytesIO(b"a\n"), io.BytesIO(), **options)


def test_paths_that_cannot_be_read_or_written(classifier, tmp_path, monkeypatch):
    """Found out before any work: no text is classified, no file appears."""
    monkeypatch.setattr(classifier, "logits", lambda texts: pytest.fail("work was done before the paths were tried"))
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\n")
    with pytest.raises(FileNotFoundError, match=r"input .*missing\.txt does not exist"):
        classifier.classify_file(tmp_path / "missing.txt", tmp_path / "out")
    with pytest.raises(IsADirectoryError, match=r"^input .* is a folder: pass its files, such as '.*/\*\.csv'\.$"):
        classifier.classify_file(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"output .*missing/out cannot be written"):
        classifier.classify_file(path, tmp_path / "missing" / "out")
    with pytest.raises(IsADirectoryError, match=r"output .* is a directory"):
        classifier.classify_file(path, tmp_path)
    with pytest.raises(ValueError, match=r"output .*in\.txt is the input"):
        classifier.classify_file(path, path)
    path.write_bytes(b"id,n\n1,2\n")
    with pytest.raises(ValueError, match="has no column 'text'"):
        classifier.classify_file(path, tmp_path / "out", input_format="csv")
    assert [left.name for left in tmp_path.iterdir()] == ["in.txt"]


def test_what_was_printed_before_comes_first(classifier, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    print("before")
    classifier.classify_file(io.BytesIO(b"a fox\n"))
    assert [line[:6] for line in written.getvalue().splitlines()] == [b"before", b'{"text']


def test_standard_streams(classifier, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the quick brown fox\nlazy\n")))
    expected, _ = classify_bytes(classifier, b"the quick brown fox\nlazy\n")
    assert classifier.classify_file("-", "-").num_records == 2
    assert read_json(capsysbinary.readouterr().out)[1:] == expected
    classifier.classify_file(io.BytesIO(b"the quick brown fox\nlazy\n"))
    assert read_json(capsysbinary.readouterr().out)[1:] == expected


def test_a_device_is_written_not_replaced(classifier, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"a\n")
    (tmp_path / "link").symlink_to("/dev/null")
    classifier.classify_file(tmp_path / "in.txt", tmp_path / "link")
    assert (tmp_path / "link").is_char_device()


def test_a_link_stays_a_link(classifier, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"a\n")
    (tmp_path / "real.csv").write_bytes(b"old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    classifier.classify_file(tmp_path / "in.txt", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert read_csv((tmp_path / "real.csv").read_bytes())[1][0] == "a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("format", READERS)
def test_a_score_that_is_no_number_is_an_error(tmp_path, format, value):
    """It names the record and the weight; what was written before it stays, and is valid."""
    diverged = TextClassifier(small_model(), hugging_face_tokenizer())
    bad_id = diverged.tokenizer(["bleak!"]).input_ids[1]
    with torch.no_grad():
        diverged.model.bert.embeddings.word_embeddings.weight[bad_id, 3] = value
    path, output = tmp_path / "in.txt", tmp_path / f"out.{format}"
    path.write_text("fox\n" * 5 + "a bleak! fox\n")
    with pytest.raises(ValueError, match=r"the model gives record 6 of .*in\.txt numbers that are NaN or infinite, "
                                         r"because its bert\.embeddings\.word_embeddings\.weight holds NaN or inf"):
        diverged.classify_file(path, output, batch_size=2, threads=2)
    written = (tmp_path / f"out.{format}.partial").read_bytes()
    assert [row[0] for row in READERS[format](written)[1:]] == ["fox"] * 4
    with pytest.raises(ValueError, match=r"the model gives texts\[3\] numbers that are NaN or infinite"):
        diverged(["fox", "fox", "fox", "bleak!"], batch_size=2)


def test_progress(classifier, capsys):
    for progress, shown in ((True, True), (False, False), (None, False)):  # None: standard error is no terminal here
        classifier.classify_file(io.BytesIO(b"a\n"), io.BytesIO(), progress=progress)
        assert ("B/s" in capsys.readouterr().err) == shown


def test_an_output_that_fails_stops_the_workers(classifier):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    before = threading.active_count(), torch.get_num_threads()
    with pytest.raises(OSError, match="No space left") as error:
        classifier.classify_file(io.BytesIO(as_text(ONE_LINERS)), Full(), batch_size=2, threads=3)
    assert error.value.__traceback__ is not None  # which keeps the frames alive, and what they hold
    assert (threading.active_count(), torch.get_num_threads()) == before


class Endless(io.RawIOBase):
    """About ``size`` bytes of one line again and again, which are nowhere in memory."""

    def __init__(self, size: int, line: bytes):
        self.left, self.block = size // len(line) * len(line), line

    def readable(self):
        return True

    def readinto(self, buffer):
        start = -self.left % len(self.block)
        count = min(len(buffer), self.left, len(self.block) - start)
        buffer[:count] = self.block[start:start + count]
        self.left -= count
        return count


class Counter(io.RawIOBase):
    """Forgets what is written."""

    written = 0

    def writable(self):
        return True

    def write(self, data):
        self.written += len(data)
        return len(data)


@pytest.mark.parametrize(("input_format", "line"), [
    ("text", b"fox " * 1000 + b"\n"), ("jsonl", b'{"text": "fox", "more": "' + b"x" * 4000 + b'"}\n')])
def test_memory_stays_constant(classifier, monkeypatch, input_format, line):
    """Long lines and a huge batch_size: what a batch may take in bytes is the bound that holds."""
    monkeypatch.setattr(line_reader, "BATCH_BYTES", 1 << 16)
    size, sink = 16 << 20, Counter()
    tracemalloc.start()
    try:
        report = classifier.classify_file(io.BufferedReader(Endless(size, line)), sink, input_format=input_format,
                                          batch_size=1 << 20, threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.num_records == size // len(line)
    assert sink.written > report.num_records
    assert peak < size / 4


# ---- columns, several inputs, tables ---------------------------------------------------------------------------------


def test_columns_are_carried_through(classifier, tmp_path):
    """From one format into every other, in the order asked for; the label that was there keeps a name of its own."""
    frame = pd.DataFrame({"id": range(len(ANY_TEXTS)), "review": ANY_TEXTS, "label": [None, *ANY_TEXTS[1:]]})
    frame.to_parquet(tmp_path / "in.parquet")
    for name in ("out.parquet", "out.feather", "out.jsonl.gz", "out.csv"):
        report = classifier.classify_file(tmp_path / "in.parquet", tmp_path / name, column="review",
                                          keep_columns=["label", "id"], batch_size=5)
        assert report == FileReport(len(ANY_TEXTS), 0, 0, 0, column="review")
    tables = [pd.read_parquet(tmp_path / "out.parquet"), pd.read_feather(tmp_path / "out.feather"),
              pd.read_json(tmp_path / "out.jsonl.gz", lines=True, dtype={"text": str, "input_label": str})]
    for table in tables:
        assert list(table) == ["input_label", "id", "text", "label", "score"]
        assert table["text"].tolist() == ANY_TEXTS
        assert table["id"].tolist() == frame["id"].tolist()
        assert table["input_label"].tolist()[1:] == ANY_TEXTS[1:]
        assert pd.isna(table["input_label"][0])
        assert table["label"].tolist() == tables[0]["label"].tolist()
        assert table["score"].tolist() == pytest.approx(tables[0]["score"].tolist(), abs=6e-7)
    rows = read_csv((tmp_path / "out.csv").read_bytes())
    assert rows[0] == ["input_label", "id", "text", "label", "score"]
    assert [row[2] for row in rows[1:]] == ANY_TEXTS
    assert [row[0] for row in rows[1:]] == ["", *ANY_TEXTS[1:]]


def test_several_inputs_into_one_output(classifier, tmp_path):
    """The column is found in each by its name; the same as from one input with the texts of all."""
    for number, text in enumerate(["fox", "dog"]):
        (tmp_path / f"in-{number}.csv").write_text(f"id,review\n{number},{text}\n7,\n")
    report = classifier.classify_file([str(tmp_path / "in-*.csv")], tmp_path / "out.csv")
    assert (report.num_records, report.column) == (4, "review")
    classifier.classify_file(io.BytesIO(b"fox\n\ndog\n\n"), tmp_path / "whole.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with pytest.raises(ValueError, match=r"output .*in-1\.csv is the input"):
        classifier.classify_file([str(tmp_path / "in-*.csv")], tmp_path / "in-1.csv")


def test_arrow_into_a_stream(classifier, tmp_path):
    output = io.BytesIO()
    classifier.classify_file(io.BytesIO(b"fox\ndog\n"), output, format="arrow")
    assert pa.ipc.open_stream(output.getvalue()).read_all()["text"].to_pylist() == ["fox", "dog"]
    for format, stream, message in (("parquet", io.BytesIO(), "takes no parquet: name a file, or pass format arrow"),
                                    ("arrow", io.StringIO(), "takes no arrow: .*a binary stream")):
        with pytest.raises(ValueError, match=message):
            classifier.classify_file(io.BytesIO(b"fox\n"), stream, format=format)
    (tmp_path / "null.gz").symlink_to("/dev/null")
    with pytest.raises(ValueError, match="cannot be compressed in place"):
        classifier.classify_file(io.BytesIO(b"fox\n"), tmp_path / "null.gz")


# ---- more than the best label ----------------------------------------------------------------------------------------

OPTIONS = [{"top_k": 2}, {"top_k": None, "function_to_apply": "none"}, {"threshold": 0.4}, {"abstain_below": 0.6},
           {"all_scores": True}, {"all_scores": True, "top_k": 1}]
PAIRS = [("the quick brown fox", ""), ("", "dog,"), ("Unflinchingly bleak!", 'a "quoted" word'), ("fox", "lazy dog")]


@pytest.fixture(scope="module")
def three_labels():
    return TextClassifier(small_model(num_labels=3, id2label={0: "bad", 1: "so-so", 2: "good"}),
                          hugging_face_tokenizer())


def shown(score):
    return f"{score:.6f}"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_in_json(three_labels, options):
    output = io.BytesIO()
    three_labels.classify_file(io.BytesIO(as_text(WORDS)), output, **options)
    records = [json.loads(line) for line in output.getvalue().splitlines()]
    expected = three_labels(WORDS, **{name: value for name, value in options.items() if name != "all_scores"})
    every = three_labels(WORDS, top_k=None)
    for text, record, answer, scores in zip(WORDS, records, expected, every, strict=True):
        assert record.pop("text") == text
        if options.get("all_scores"):
            assert {label: shown(score) for label, score in record.pop("scores").items()} == {
                said["label"]: shown(said["score"]) for said in scores}
        said = record["labels"] if isinstance(answer, list) else [record]
        answer = answer if isinstance(answer, list) else [answer]
        assert [(one["label"], shown(one["score"])) for one in said] == [
            (one["label"], shown(one["score"])) for one in answer]


@pytest.mark.parametrize("format", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_in_columns(three_labels, tmp_path, options, format):
    """As pandas reads them."""
    three_labels.classify_file(io.BytesIO(as_text(WORDS)), tmp_path / f"out.{format}", **options)
    table = (pd.read_parquet(tmp_path / "out.parquet") if format == "parquet" else pd.read_csv(
        tmp_path / f"out.{format}", sep="\t" if format == "tsv" else ",", keep_default_na=False, na_values=[""]))
    expected = three_labels(WORDS, **{name: value for name, value in options.items() if name != "all_scores"})
    every = three_labels.predict_array(WORDS)[1]
    assert table["text"].tolist() == WORDS
    columns = ["text"]
    if isinstance(expected[0], dict):
        expected, columns = [[answer] for answer in expected], [*columns, "label", "score"]
    else:
        most = min(options.get("top_k") or 3, 3)
        columns += [f"{kind}_{rank + 1}" for rank in range(most) for kind in ("label", "score")]
    num_pairs = len(columns) // 2
    if options.get("all_scores"):
        for number, label in enumerate(three_labels.labels):
            np.testing.assert_allclose(table[f"score_{label}"], every[:, number], atol=6e-7)
        columns += [f"score_{label}" for label in three_labels.labels]
    assert table.columns.tolist() == columns
    for rank in range(num_pairs):
        said = [row[rank] if rank < len(row) else {"label": None, "score": None} for row in expected]
        labels = table[columns[1 + 2 * rank]].astype(object)
        assert labels.where(labels.notna(), None).tolist() == [one["label"] for one in said]
        np.testing.assert_allclose(table[columns[2 + 2 * rank]].astype(float),
                                   [np.nan if one["score"] is None else one["score"] for one in said], atol=6e-7)


@pytest.mark.parametrize("format", READERS)
def test_pairs(three_labels, format):
    """With a record that has no second text, and a column beside them."""
    lines = [{"id": row, "first": first, "second": second} for row, (first, second) in enumerate(PAIRS)]
    lines.insert(2, {"id": "none", "first": "fox", "second": None})
    output = io.BytesIO()
    report = three_labels.classify_file(
        io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode()), output, input_format="jsonl",
        column="first", text_pair_column="second", keep_columns="all", on_error="null", format=format)
    assert (report.num_records, report.num_malformed) == (len(PAIRS), 1)
    expected = three_labels([{"text": first, "text_pair": second} for first, second in PAIRS])
    if format == "json":
        rows = [[*json.loads(line).values()] for line in output.getvalue().splitlines()]
        assert list(json.loads(output.getvalue().splitlines()[0])) == ["id", "text", "text_pair", "label", "score"]
    else:
        header, *rows = READERS[format](output.getvalue())
        assert header == ["id", "text", "text_pair", "label", "score"]
    null = rows.pop(2)
    assert null[3:] == ([None, None] if format == "json" else ["", ""])
    assert [tuple(row[1:3]) for row in rows] == PAIRS
    assert [(row[3], shown(float(row[4]))) for row in rows] == [
        (answer["label"], shown(answer["score"])) for answer in expected]


@pytest.mark.parametrize(("input_format", "given"), [("tsv", ";"), ("jsonl", "|"), ("text", "tab")])
def test_a_delimiter_of_what_has_none(classifier, input_format, given):
    with pytest.raises(ValueError, match=f"^delimiter is '{given}', but input is read as {input_format}, which has "
                                         r"none to choose: leave it out, or pass input_format='csv' \(--input-for"):
        classifier.classify_file(io.BytesIO(b"text\n"), io.BytesIO(), input_format=input_format, delimiter=given)
    assert classifier.classify_file(io.BytesIO(b"text\na\n"), io.BytesIO(), input_format="tsv",
                                    delimiter="tab").num_records == 1


def test_options_of_an_answer_are_checked_before_any_work(three_labels, tmp_path):
    with pytest.raises(ValueError, match="abstain_below is for the best label alone"):
        three_labels.classify_file("missing.txt", tmp_path / "out", abstain_below=0.5, threshold=0.5)
    (tmp_path / "in.csv").write_text("text,other\na,b\n")
    with pytest.raises(ValueError, match=r"column is 'second', which .* does not have"):
        three_labels.classify_file(tmp_path / "in.csv", tmp_path / "out", text_pair_column="second")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
