"""What is no text is refused with the remedy, whatever it is called; UTF-16 and UTF-32 are read behind a mark."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet
import pytest
from small_classifier import hugging_face_tokenizer, small_model

from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.file_formats import (
    INPUT_FORMATS,
    OUTPUT_FORMATS,
    choose_format,
    refuse_foreign_bytes,
)

TEXTS = ["a good film", "世界 😀 café", "", "and bleak"]
TABLE = pa.table({"text": TEXTS * 100})
CSV = b"text\na good film\n" * 50


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier(small_model(), hugging_face_tokenizer())


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/workbook.xml", CSV)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("in.csv"), io.BytesIO())


def write_arrow_stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as file:
        file.write_table(TABLE)


def write_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table texts (text)")


# What writes such a file is the format's own library, not a copy of the first bytes looked for.
FOREIGN = {
    "gzip": lambda path: path.write_bytes(gzip.compress(gzip.compress(CSV))),  # once is read
    "xz": lambda path: path.write_bytes(lzma.compress(CSV)),
    "bzip2": lambda path: path.write_bytes(bz2.compress(CSV)),
    "zstd": lambda path: path.write_bytes(gzip.compress(pa.compress(CSV, codec="zstd", asbytes=True))),
    "lz4": lambda path: path.write_bytes(pa.compress(CSV, codec="lz4", asbytes=True)),
    "zip": write_zip,
    "tar": write_tar,
    "Parquet": lambda path: pa.parquet.write_table(TABLE, path),
    "Arrow": lambda path: pa.feather.write_feather(TABLE, path),
    "Arrow stream": write_arrow_stream,
    "ORC": lambda path: pa.orc.write_table(TABLE, path),
    "SQLite": write_sqlite,
    "NumPy": lambda path: np.save(path.open("wb"), np.array(TEXTS)),
    "pickle": lambda path: path.write_bytes(pickle.dumps(TEXTS)),
}


@pytest.mark.parametrize("way", ["path", "path without suffix", "stream", "pipe"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_bytes_that_are_no_text_are_refused(classifier, tmp_path, kind, way):
    path = tmp_path / ("in" if way == "path without suffix" else "in.csv")
    FOREIGN[kind](path)
    input = {"stream": io.BytesIO(path.read_bytes()), "pipe": OnlyReads(path.read_bytes())}.get(way, path)
    with pytest.raises(ValueError, match=f"{'input' if input is not path else path} is not text but "
                                         f"{kind.removesuffix(' stream')}, by its first bytes: .*\\w") as error:
        classifier.classify_file(input, tmp_path / "out.csv", input_format="csv")
    assert "\n" not in str(error.value)
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


class OnlyReads:
    """A binary stream with a single method."""

    def __init__(self, data: bytes):
        self.file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.file.read(size)


@pytest.mark.parametrize("text", [
    "PAR1 is a mark", "ORC", "Obj of desire", "%PDF-1.4 is a version", "BZh9", "GIF89a", "PK", "ARROW1", "MZ", "7z",
    "Rar!", "(µ/ý", "P*M", "_*M\x17", "a \x1b[1mbold\x1b[0m word", "\x0c", "a\0b"])
def test_texts_that_begin_like_something_else(classifier, text):
    output = io.BytesIO()
    classifier.classify_file(io.BytesIO(f"{text}\nmore\n".encode()), output)
    assert [json.loads(line)["text"] for line in output.getvalue().splitlines()] == [text, "more"]


def test_no_single_byte_is_foreign():
    """Latin-1 has letters at nearly all of them; a text may begin with any."""
    for byte in range(256):
        refuse_foreign_bytes(bytes([byte]) + b" few words and a line end\n", "input")


@pytest.mark.parametrize("name", ["a.orc", "a.csv.xz", "a.xlsx", "A.XLSX", "a.xlsx.gz", "a.zip", "a.tgz"])
def test_suffixes_of_other_kinds_of_file(name):
    with pytest.raises(ValueError, match=rf"input {name} has the suffix of .*, which is not read: \w+.*input_format"):
        choose_format("input_format", None, name, INPUT_FORMATS)
    assert choose_format("input_format", "csv", name, INPUT_FORMATS) == "csv"  # then its first bytes decide
    for wanted in (None, "csv"):
        with pytest.raises(ValueError, match=rf"output {name} has the suffix of .*, which is not written: choose one"):
            choose_format("format", wanted, name, OUTPUT_FORMATS)


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.arrow.zst"])
def test_a_table_is_not_compressed_once_more(name):
    for put, argument, formats in (("input", "input_format", INPUT_FORMATS), ("output", "format", OUTPUT_FORMATS)):
        with pytest.raises(ValueError, match=f"{put} {name} is .* that is compressed once more: leave out"):
            choose_format(argument, None, name, formats)


@pytest.mark.parametrize("name", ["a.docs", "a.csv.bak", "a.2026", "reviews.jsonl.partial"])
def test_unknown_suffixes(name):
    for argument, formats in (("input_format", INPUT_FORMATS), ("format", OUTPUT_FORMATS)):
        with pytest.raises(ValueError, match=rf"put {name} has an unknown suffix \(\.\w+\): pass {argument}, one of"):
            choose_format(argument, None, name, formats)
        for wanted in formats:
            assert choose_format(argument, wanted, name, formats) == wanted


@pytest.mark.parametrize(("name", "input_format", "format"), [
    ("a.txt", "text", "json"), ("a", "text", "json"), (".hidden", "text", "json"), ("A.CSV", "csv", "csv"),
    ("a.tab", "tsv", "tsv"), ("a.ndjson", "jsonl", "json"), ("a.gz.csv", "csv", "csv"), ("-", "text", "json"),
    ("/dev/fd/63", "text", "json"), ("a.csv.gz", "csv", "csv"), ("a.JSONL.ZST", "jsonl", "json"),
    ("a.gz", "text", "json"), ("a.pq", "parquet", "parquet"), ("a.feather", "arrow", "arrow")])
def test_known_suffixes(name, input_format, format):
    assert choose_format("input_format", None, name, INPUT_FORMATS) == input_format
    assert choose_format("format", None, name, OUTPUT_FORMATS) == format


# ---- encodings -------------------------------------------------------------------------------------------------------

CONTENTS = {"in.txt": "\n".join(TEXTS) + "\n",
            "in.csv": "id,text\r\n" + "".join(f'{i},"{t}"\r\n' for i, t in enumerate(TEXTS)),
            "in.tsv": "text\tid\n" + "".join(f"{t}\t{i}\n" for i, t in enumerate(TEXTS)),
            "in.jsonl": "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS)}


@pytest.mark.parametrize("way", ["path", "stream", "pipe"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_byte_order_mark_names_the_encoding(classifier, tmp_path, name, encoding, way):
    data = CONTENTS[name].encode(encoding) if encoding == "utf-8-sig" else ("\ufeff" + CONTENTS[name]).encode(encoding)
    (tmp_path / name).write_bytes(data)
    input = {"stream": io.BytesIO(data), "pipe": OnlyReads(data), "path": tmp_path / name}[way]
    output = io.BytesIO()
    report = classifier.classify_file(input, output, batch_size=2,
                                      input_format=choose_format("input_format", None, name, INPUT_FORMATS))
    assert [json.loads(line)["text"] for line in output.getvalue().splitlines()] == TEXTS
    assert report.num_replaced == 0


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_what_cannot_be_decoded_is_counted(classifier, encoding):
    """A lone surrogate, and a file that ends in the middle of a character."""
    data = ("\ufeffgood \ud800 film\n\ufffd fine\nend").encode(encoding, "surrogatepass")[:-1]
    output = io.BytesIO()
    report = classifier.classify_file(io.BytesIO(data), output)
    assert [json.loads(line)["text"] for line in output.getvalue().splitlines()] == [
        "good \ufffd film", "\ufffd fine", "en\ufffd"]
    assert report.num_replaced == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_without_a_mark_it_is_refused(classifier, encoding):
    with pytest.raises(ValueError, match=r"input is not text in UTF-8, \d+ of its first \d+ bytes are 0: where it is"):
        classifier.classify_file(io.BytesIO(CONTENTS["in.csv"].encode(encoding)), io.BytesIO(), input_format="csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_interrupted_run_on_utf16_is_taken_up(classifier, tmp_path, monkeypatch, encoding):
    input, output = tmp_path / "in.csv", tmp_path / "out.csv"
    input.write_text("text\n" + "".join(f"film 世 {i}\n" for i in range(20_000)), encoding=encoding)
    classifier.classify_file(input, tmp_path / "whole.csv")
    logits, left = classifier.logits, iter(range(3))
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "logits", lambda texts: logits(texts) if next(left, None) is not None else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            classifier.classify_file(input, output, batch_size=4000, threads=1)
    assert classifier.classify_file(input, output).num_resumed == 12_000
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
