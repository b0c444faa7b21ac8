"""Streams of every make: text streams are text, from where they are and in their encoding; bytes are UTF-8."""

import codecs
import contextlib
import io
import json
import os
import socket
import sys
import tempfile
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_classifier import hugging_face_tokenizer, small_model

from dendritic_bert.inference.classifier import TextClassifier

LINES = [f"line {i} café 世" for i in range(5000)]  # more than a text stream reads ahead at once


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier(small_model(), hugging_face_tokenizer())


def texts_in(classifier, input, **options) -> list[str]:
    output = io.BytesIO()
    classifier.classify_file(input, output, **options)
    return [json.loads(line)["text"] for line in output.getvalue().splitlines()]


# ---- in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
@pytest.mark.parametrize("taken", [0, 1, 3, 4000])
def test_a_text_stream_is_read_from_where_it_is(classifier, tmp_path, taken, encoding):
    path = tmp_path / "in.txt"
    path.write_text("\n".join(LINES), encoding=encoding)
    for read in (next, lambda stream: stream.readline()):
        with open(path, encoding=encoding) as stream:
            for _ in range(taken):
                read(stream)
            assert texts_in(classifier, stream) == LINES[taken:]


def text_streams(path):
    """Every text stream of the standard library that stands on a file in Latin-1."""
    yield open(path, encoding="latin-1", newline="")  # noqa: SIM115
    yield codecs.open(path, encoding="latin-1")  # noqa: SIM115
    yield codecs.getreader("latin-1")(open(path, "rb"))  # noqa: SIM115
    yield io.TextIOWrapper(io.BytesIO(path.read_bytes()), "latin-1")
    yield io.StringIO(path.read_bytes().decode("latin-1"))
    temporary = tempfile.NamedTemporaryFile("w+", encoding="latin-1")  # noqa: SIM115
    temporary.write(path.read_text("latin-1"))
    temporary.seek(0)
    yield temporary
    spooled = tempfile.SpooledTemporaryFile(mode="w+", encoding="latin-1")  # noqa: SIM115
    spooled.write(path.read_text("latin-1"))
    spooled.seek(0)
    yield spooled


@pytest.mark.filterwarnings("ignore:codecs.open")
def test_the_encoding_of_a_text_stream(classifier, tmp_path):
    lines = ["café très bon", "no \x85 line end", "", "end"]
    path = tmp_path / "in.txt"
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")
    for stream in text_streams(path):
        with contextlib.closing(stream):
            assert texts_in(classifier, stream) == lines, type(stream)


def test_surrogates_in_a_text_stream(classifier):
    """A pair of them is a character; a lone one, or a byte that surrogateescape kept, is replaced and counted."""
    output = io.BytesIO()
    report = classifier.classify_file(io.StringIO("\ud83d\ude00 \ud800\ncaf\udce9\n"), output)
    assert [json.loads(line)["text"] for line in output.getvalue().splitlines()] == ["😀 \ufffd", "caf\ufffd"]
    assert report.num_replaced == 2


def test_a_text_stream_that_cannot_be_decoded(classifier):
    stream = io.TextIOWrapper(io.BytesIO(b"fine\ncaf\xe9\n"), "utf-8")
    with pytest.raises(ValueError, match=r"input is not in its encoding, utf-8 .*: open it with the one that it has"):
        texts_in(classifier, stream)


class Source:
    """A stream with the methods of its own alone: those that are given."""

    def __init__(self, data, *names):
        self.file = io.StringIO(data) if isinstance(data, str) else io.BytesIO(data)
        for name in names:
            setattr(self, name, getattr(self.file, name))


@pytest.mark.parametrize("names", [["read"], ["readline"], ["read", "readline"], ["read1"], ["read", "seek", "tell"]])
@pytest.mark.parametrize("data", ["café\nbon\n", "café\nbon\n".encode()])
def test_a_stream_of_few_methods(classifier, names, data):
    if isinstance(data, str) and names == ["read1"]:
        names = ["read"]  # text streams have none
    source = Source(data, *names)
    if names == ["read1"]:
        source.read = source.read1
    assert texts_in(classifier, source) == ["café", "bon"]


@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_binary_stream_is_read_from_where_it_is_and_left_open(classifier, tmp_path, buffering):
    (tmp_path / "in.txt").write_text("header\nfilm\n")
    with open(tmp_path / "in.txt", "rb", buffering=buffering) as stream:
        stream.readline()
        assert texts_in(classifier, stream) == ["film"]
        assert not stream.closed


@pytest.mark.parametrize("options", [{"mode": "rb"}, {"mode": "rb", "buffering": 0}, {"mode": "r", "encoding": "utf-8"},
                                     {"mode": "rb", "input_format": "parquet"}], ids=str)
def test_a_pipe_that_does_not_wait_is_read_to_its_end(classifier, options):
    """What is not there yet is not the end, neither before the first byte nor later."""
    input_format = options.pop("input_format", "text")
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["film", "bleak"]}), table)
    data = table.getvalue() if input_format == "parquet" else b"film\nbleak\n"
    descriptor, writable = os.pipe()
    os.set_blocking(descriptor, False)

    def write_slowly():
        with open(writable, "wb", buffering=0) as pipe:
            for part in (data[:7], data[7:]):
                time.sleep(0.1)
                pipe.write(part)

    writer = threading.Thread(target=write_slowly)
    with open(descriptor, **options) as stream:
        writer.start()
        assert texts_in(classifier, stream, input_format=input_format) == ["film", "bleak"]
    writer.join()


def test_the_timeout_of_a_socket_stays(classifier):
    """Under TLS it has none where the system waits."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(20)
        writer.sendall(b"film\n")
        writer.close()
        with reader.makefile("rb") as stream:
            assert texts_in(classifier, stream) == ["film"]
        assert not os.get_blocking(reader.fileno())


@pytest.mark.parametrize("input", [None, 3, b"in.txt", [3], object()])
def test_what_is_no_stream(classifier, input):
    with pytest.raises(TypeError, match=r"input is a .*, pass a path or a stream that can be read"):
        classifier.classify_file(input, io.BytesIO())


# ---- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_a_text_stream_is_written_as_text(classifier, tmp_path, encoding, format):
    """Behind what is pending in it, in its encoding; the same characters as into a file."""
    classifier.classify_file(io.StringIO("世界\ncafé\n"), tmp_path / "whole", format=format)
    with open(tmp_path / "out", "w", encoding=encoding) as file:
        file.write("# header\n")
        classifier.classify_file(io.StringIO("世界\ncafé\n"), file, format=format)
        file.write("# footer\n")
    expected = "# header\n" + (tmp_path / "whole").read_text("utf-8") + "# footer\n"
    assert (tmp_path / "out").read_text(encoding) == expected


def test_a_text_stream_that_lacks_a_character(classifier):
    file = io.TextIOWrapper(io.BytesIO(), "latin-1")
    with pytest.raises(ValueError, match=r"output is a stream in latin-1, which has no '\\u4e16': open it with"):
        classifier.classify_file(io.StringIO("世界\n"), file)


class JupyterStream(io.TextIOBase):
    """The shape of ipykernel's: no buffer, no encoding."""

    def __init__(self):
        self.parts = []

    def write(self, text):
        self.parts.append(text)
        return len(text)

    def getvalue(self):
        return "".join(self.parts)


class OnlyWrites:
    def __init__(self):
        self.parts = []

    def write(self, text: str):
        if not isinstance(text, str):
            raise TypeError("expected str")
        self.parts.append(text)

    def getvalue(self):
        return "".join(self.parts)


@pytest.mark.parametrize("make", [io.StringIO, JupyterStream])
def test_standard_output_without_a_buffer(classifier, monkeypatch, make):
    stream = make()
    with contextlib.redirect_stdout(stream):
        print("before")
        classifier.classify_file(io.StringIO("good\n"))
    assert stream.getvalue().startswith('before\n{"text": "good", ')


@pytest.mark.parametrize("make", [io.StringIO, JupyterStream, OnlyWrites])
def test_a_stream_that_takes_str(classifier, make):
    stream = make()
    classifier.classify_file(io.StringIO("世\n"), stream)
    assert json.loads(stream.getvalue())["text"] == "世"


class SlowRaw(io.RawIOBase):
    """Takes seven bytes at a time, as a full pipe may."""

    def __init__(self):
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data[:7])
        return len(data[:7])


def test_a_raw_stream_that_takes_a_part_at_a_time(classifier):
    stream, whole = SlowRaw(), io.BytesIO()
    for output in (stream, whole):
        classifier.classify_file(io.StringIO("good\nbad\n"), output)
    assert stream.data == whole.getvalue()


def test_a_raw_stream_that_would_have_to_wait(classifier):
    stream = SlowRaw()
    stream.write = lambda data: None
    with pytest.raises(BlockingIOError, match="output takes no more at the moment: pass a stream that waits"):
        classifier.classify_file(io.StringIO("good\n"), stream)


@pytest.mark.parametrize("output", [3, b"out.txt", ["a"], object()])
def test_what_cannot_be_written(classifier, output):
    with pytest.raises(TypeError, match=r"output is a .*, pass a path or a stream that can be written"):
        classifier.classify_file(io.StringIO("a\n"), output)


# ---- standard streams ------------------------------------------------------------------------------------------------


def test_standard_input_that_a_program_has_replaced(classifier, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("café\n".encode("latin-1")), "latin-1"))
    assert texts_in(classifier, "-") == ["café"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("café\n"))
    assert texts_in(classifier, "-") == ["café"]


class Standard:
    """Standard streams as an interpreter starts with them: ``taken()`` is what was written."""

    def __init__(self, monkeypatch, data: bytes, encoding: str, errors: str = "strict"):
        self.written = io.BytesIO()
        for name, buffer in (("stdin", io.BufferedReader(io.BytesIO(data))), ("stdout", self.written)):
            stream = io.TextIOWrapper(buffer, encoding, errors)
            monkeypatch.setattr(sys, name, stream)
            monkeypatch.setattr(sys, f"__{name}__", stream)

    def lines(self, encoding: str) -> list[str]:
        sys.stdout.flush()
        return self.written.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("taken", [0, 1, 4000])
def test_standard_input_that_was_partly_read(classifier, monkeypatch, taken):
    """What a program has read ahead stands in the text stream, no more in the bytes beneath it."""
    Standard(monkeypatch, "\n".join(LINES).encode(), "utf-8")
    assert [sys.stdin.readline().rstrip("\n") for _ in range(taken)] == LINES[:taken]
    assert texts_in(classifier, "-") == LINES[taken:]


@pytest.mark.parametrize(("chosen", "encoding"), [("", "utf-8"), ("latin-1", "latin-1")])
def test_the_encoding_of_standard_streams(classifier, monkeypatch, chosen, encoding):
    """UTF-8 whatever the locale is, as in files; another where it was asked for."""
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    if chosen:
        monkeypatch.setenv("PYTHONIOENCODING", chosen)
    standard = Standard(monkeypatch, "café\n".encode(encoding), "latin-1")
    classifier.classify_file("-")
    assert json.loads(standard.lines(encoding)[0])["text"] == "café"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_bytes_of_standard_input_that_are_not_utf8(classifier, monkeypatch, errors):
    standard = Standard(monkeypatch, b"caf\xe9 \xff\n", "utf-8", errors)
    assert classifier.classify_file("-").num_replaced == 2
    assert json.loads(standard.lines("utf-8")[0])["text"] == "caf\ufffd \ufffd"


@pytest.mark.parametrize(("name", "call"), [
    ("input", lambda classifier: classifier.classify_file("-", io.BytesIO())),
    ("output", lambda classifier: classifier.classify_file(io.StringIO("a\n")))])
def test_a_standard_stream_that_is_closed(classifier, monkeypatch, name, call):
    monkeypatch.setattr(sys, {"input": "stdin", "output": "stdout"}[name], None)
    with pytest.raises(OSError, match=f"standard {name} is closed: pass "):
        call(classifier)
