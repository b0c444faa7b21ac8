"""Files that the runtime reads: the records and results of the package, and what it refuses."""

import gzip
import io
import json
import struct

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from runtime_models import MAX_LENGTH, TEXTS, trained_on
from small_classifier import WORDS

from dendritic_bert import TextClassifier

RECORDS = [text for text in TEXTS if "\ud800" not in text] * 200  # several batches
TABLE = pa.table({"number": range(len(RECORDS)), "review": RECORDS})
LINES = ['a "charming" journey', "", "dull\tand bleak", "caf\u00e9, \U0001f600", *WORDS] * 300


def csv_bytes(delimiter: str) -> bytes:
    cells = [line.replace('"', '""') if delimiter == "," else line.replace("\t", " ") for line in LINES]
    quote = '"' if delimiter == "," else ""
    rows = [f"{number}{delimiter}{quote}{cell}{quote}" for number, cell in enumerate(cells)]
    return "\r\n".join([f"number{delimiter}review", *rows, ""]).encode()


def write_table(write, table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    write(table, sink)
    return sink.getvalue().to_pybytes()


def write_arrow(table: pa.Table, sink) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, 500)


def write_arrow_stream(table: pa.Table, sink) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, 500)


TAGS = pa.table({"tags": [["good", "film"], ["bad"]], "review": ["x", "y"]})
BAD_DICTIONARY = pa.DictionaryArray.from_arrays(
    pa.array([0, 1, 1]), pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"]).buffers()))
INPUTS = {
    "lines.txt": lambda: b"\xef\xbb\xbf" + "\n".join(LINES).encode() + b"\nlast \xff\r\n",
    "mark_alone.txt": lambda: b"\xef\xbb\xbf",
    "multi-line.csv": lambda: csv_bytes(",") + b'7,"two\nlines"\n\n8,\n',
    "plain.tsv": lambda: csv_bytes("\t"),
    "not_utf8.csv": lambda: b"number,review\n1,caf\xe9\n2,b\xe4\xb8 \xff\xfe\n",
    "lines.jsonl.gz": lambda: gzip.compress("".join(
        json.dumps({"review": line, "number": 1}, ensure_ascii=bool(number % 2)) + "\n\n"
        for number, line in enumerate([*LINES, "lone \ud800"])).encode("utf-8", "replace")),
    "lines.csv.zst": lambda: pa.compress(csv_bytes(","), "zstd", asbytes=True),
    "not_utf8.arrow": lambda: write_table(write_arrow, pa.table({"review": pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"caf\xe9 \xff", b"ok\xff!", b"b\xe4\xb8"]).buffers())})),
    "not_utf8_dictionary.arrow": lambda: write_table(write_arrow_stream, pa.table({"review": BAD_DICTIONARY})),
    "utf16.csv": lambda: csv_bytes(",").decode().encode("utf-16"),
    "utf32.txt": lambda: ("\ufeff" + "\n".join(LINES)).encode("utf-32-be"),
    "named.csv": lambda: b"\xef\xbb\xbfsep=;\r\n" + csv_bytes(",").replace(b",", b";", 1).replace(b',"', b';"'),
    "frames.txt.zst": lambda: 2 * (b"\x50\x2a\x4d\x18\x04\0\0\0size" + pa.compress(b"a film\n", "zstd", asbytes=True)),
    "padded.txt.gz": lambda: gzip.compress(b"a film\n") + gzip.compress(b"dull\n") + bytes(20),  # as tapes pad it
    "table.parquet": lambda: write_table(pa.parquet.write_table, TABLE),
    "large.arrow": lambda: write_table(write_arrow, TABLE.cast(
        pa.schema([("number", pa.int64()), ("review", pa.large_string())]))),
    "dictionary.arrow": lambda: write_table(write_arrow_stream, TABLE.set_column(
        1, "review", TABLE["review"].dictionary_encode())),
}


@pytest.fixture(scope="module")
def ours():
    classifier = TextClassifier.from_pretrained("tiny")
    classifier.max_length = MAX_LENGTH
    return classifier


def read_output(path):
    return pa.table(feather.read_table(path) if path.suffix == ".arrow" else pq.read_table(path))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.tsv.gz", "out.parquet", "out.arrow"])
def test_files_are_the_packages(runtime, classify_file, ours, tmp_path, name, output):
    input, found, expected = tmp_path / name, tmp_path / output, tmp_path / f"expected_{output}"
    input.write_bytes(INPUTS[name]())
    column = None if ".txt" in name else "review"
    count = classify_file(runtime.TextClassifier(), input, found, column, threads=2)
    assert count == ours.classify_file(input, expected, column=column, progress=False).num_records
    if output.endswith(("parquet", "arrow")):
        assert read_output(found).to_pydict() == read_output(expected).to_pydict()
    elif output.endswith(".gz"):
        assert gzip.decompress(found.read_bytes()) == gzip.decompress(expected.read_bytes())
    else:
        assert found.read_bytes() == expected.read_bytes()


def test_the_column_is_found(runtime, classify_file, tmp_path):
    for name, content in {"a.csv": b"text,b\nx,1\n", "b.csv": b"review\nx\n", "c.jsonl": b'{"text": "x"}\n',
                          "d.parquet": INPUTS["table.parquet"](), "e.tsv": b"review\nx\n",
                          "f.jsonl": b'\n{"id": 1, "review": "x"}\n{"id": "2", "review": "y"}\n',
                          "g.jsonl": b'{"text": "x", "review": "y"}\n',
                          "h.parquet": write_table(pq.write_table, TAGS)}.items():
        (tmp_path / name).write_bytes(content)
        output = io.BytesIO()
        assert classify_file(runtime.TextClassifier(), tmp_path / name, output) > 0
        assert json.loads(output.getvalue().splitlines()[0])["text"] in ("x", RECORDS[0])


def test_a_column_whose_name_has_a_delimiter_can_be_given(runtime, classify_file, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a;b\nx;y\n")
    classify_file(runtime.TextClassifier(), tmp_path / "a.csv", output := io.BytesIO(), "a;b")
    assert json.loads(output.getvalue())["text"] == "x;y"


def test_a_column_of_parquet_with_the_name_of_a_path(runtime, classify_file, tmp_path):
    pq.write_table(pa.table({"a": [{"b": "y"}], "a.b": ["x"]}), tmp_path / "a.parquet")
    classify_file(runtime.TextClassifier(), tmp_path / "a.parquet", output := io.BytesIO(), "a.b")
    assert json.loads(output.getvalue())["text"] == "x"


def test_a_batch_of_long_lines_has_few(runtime, classify_file, tmp_path, monkeypatch):
    """About BLOCK_BYTES; the results are those of any other batches."""
    from dendritic_bert_runtime import lines

    monkeypatch.setattr(lines, "BLOCK_BYTES", 20)
    (tmp_path / "a.txt").write_text("a film\n" * 5 + "b" * 30 + "\n" * 2)
    sizes, predict = [], runtime.TextClassifier.predict_array

    def counted(self, texts, threads):
        sizes.append(len(texts))
        return predict(self, texts, threads)

    monkeypatch.setattr(runtime.TextClassifier, "predict_array", counted)
    assert classify_file(runtime.TextClassifier(), tmp_path / "a.txt", io.BytesIO()) == 7
    assert sizes == [4, 2, 1]


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", b"text,title\n1,x\n"), ("a.tsv", b"title\ttext\nx\t1\n"), ("a.csv", b"text,more\nx,1\n"),
    ("a.jsonl", b'{"text": "1", "title": "x"}\n'), ("a.jsonl", b'{"text": "x"}\n')])
def test_the_column_of_the_training_is_found(runtime, classify_file, tmp_path, name, content):
    """Where the input has it; else that of any model."""
    classifier, output = trained_on(runtime, tmp_path, text_column="title"), io.BytesIO()
    assert classifier.text_columns == ["title"]
    (tmp_path / name).write_bytes(content)
    classify_file(classifier, tmp_path / name, output)
    assert json.loads(output.getvalue().splitlines()[0])["text"] == "x"


@pytest.mark.filterwarnings("ignore:.* was trained on pairs")
def test_a_model_of_pairs_reads_no_single_texts(runtime, classify_file, tmp_path):
    classifier = trained_on(runtime, tmp_path, text_column="question", text_pair_column="answer")
    (tmp_path / "a.csv").write_bytes(b"question,answer\nx,y\n")
    with pytest.raises(ValueError, match="trained on pairs, of the columns 'question' and 'answer', and single texts"):
        classify_file(classifier, tmp_path / "a.csv", io.BytesIO())
    with pytest.warns(UserWarning, match="single texts are classified: use dendritic-bert, which takes pairs"):
        assert classify_file(classifier, tmp_path / "a.csv", io.BytesIO(), "question") == 1
    for classify in (classifier, classifier.predict_array):
        with pytest.warns(UserWarning, match="on pairs, of the columns 'question' and 'answer', but single") as warned:
            classify(["x"])
        assert warned[0].filename == __file__


def test_lines_of_text_have_no_columns(runtime, classify_file, tmp_path):
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(ValueError, match=r"column is 'b', but .*a\.txt is read as lines of text, which have none: le"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", io.BytesIO(), "b")
    assert classify_file(runtime.TextClassifier(), tmp_path / "a.txt", io.BytesIO(), "text") == 1


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", b"a,b\n1,2\n", r"a\.csv has no column 'text' of texts.*: a, b\. Pass --column"),
    ("a.csv", b"text,text\n1,2\n", "or two of them"),
    ("a.csv", b"review;id\ngood film;1\n", r"a\.csv has a header of one column, 'review;id', whose names ';' seems to "
                                          r"separate: save it with commas, or use dendritic-bert classify --input-fo"),
    ("a.tsv", b"review,id\ngood film,1\n", r"whose names ',' seems to separate: save it with tabs, or use"),
    ("a.csv", b"sep=;\ntext;b\nx;1\ny\n", r"line 4 of .*a\.csv ends a record of 1 fields, the header has 2: mend it"),
    ("a.csv", gzip.compress(b"text\nx\n", mtime=0), r"a\.csv is not text but gzip, by its first bytes: decompress"),
    ("a.txt.gz", gzip.compress(pa.compress(b"x\n", "zstd", asbytes=True), mtime=0), r"a\.txt\.gz is not text but zstd"),
    ("a.jsonl", '{"text": "x"}\n'.encode("utf-16-le"), r"a\.jsonl is not text in UTF-8, 14 of its first 28 bytes are"),
    ("a.jsonl", b'{"text": "a", "b": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", r"line 1 of .* is not JSON \(max"),
    ("a.csv", b"text,b\n1,2,3\n", r"line 2 of .*a\.csv ends a record of 3 fields, the header has 2: mend it"),
    ("a.csv", b'text,b\nx,1\n"open,1\ny,2\n', r"line 4 of .*a\.csv is not CSV \(unexpected end of data\): mend its q"),
    ("a.csv", b'text,b\n"x"y,1\n', r"line 2 of .*a\.csv is not CSV \("),
    ("a.tsv", b"text\tb\nx\n", r"line 2 of .*a\.tsv ends a record of 1 fields, the header has 2"),
    ("a.csv", b"", r"a\.csv has no column 'text' of texts.*: none\. Pass --column"),
    ("a.csv.gz", gzip.compress(b"text\n" + b"x\n" * 999, mtime=0)[:-9], r"cannot be read as csv \("),
    ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', r"line 2 of .*a\.jsonl has no text under 'text'"),
    ("a.jsonl", b'{"title": "x", "body": "y"}\n', r"line 1 of .*a\.jsonl has no text under 'text': .*pass --column"),
    ("a.jsonl", b'{"id": 1}\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'{"a": "x"}\n{"b": "x"}\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'{"id": "1"}\n{"id": "2", "text": "x"}\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'["x"]\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'{"text": "x"}\n\n{"text"\n', r"line 3 of .*a\.jsonl is not JSON"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999, mtime=0)[:-9], r"cannot be read as jsonl \("),
    ("a.txt.gz", gzip.compress(b"x\n", mtime=0)[:10] + b"\xff" * 20, r"a\.txt\.gz cannot be read as text \("),
    ("a.txt.gz", b"x\n", r"a\.txt\.gz cannot be read as text \("),
    ("a.parquet", b"PAR1", r"a\.parquet cannot be read as parquet \("),
    ("a.arrow", b"ARROW1", r"a\.arrow cannot be read as arrow \("),
    ("a.arrow", write_table(write_arrow, pa.table({"text": ["good", "badxyz"]})).replace(
        struct.pack("<3i", 0, 4, 10), struct.pack("<3i", 0, 4, 900_000_000)), r"cannot be read as arrow \(.*out of bo"),
    ("a.arrow", write_table(write_arrow, pa.table({"text": BAD_DICTIONARY})).replace(
        struct.pack("<3q", 0, 1, 1), struct.pack("<3q", 0, 1, 1 << 40)), r"cannot be read as arrow \(.*out of bounds"),
    ("a.xlsx", b"", r"suffix of input .*a\.xlsx is none of \.txt"),
    ("a.parquet.gz", b"", "where they hold lines"),
    ("a.parquet", write_table(pq.write_table, TAGS.select(["tags"])), r"no column 'text' of texts, .*: none\. Pass"),
    ("a.parquet", write_table(pq.write_table, pa.table({"text": ["x", None]})), r"record 2 of .* has no text"),
])
def test_what_cannot_be_read(runtime, classify_file, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        classify_file(runtime.TextClassifier(), tmp_path / name, tmp_path / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_lists_of_strings_are_no_texts(runtime, classify_file, tmp_path):
    pq.write_table(TAGS, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has no column 'tags' of texts, .*may hold texts: review\. Pass"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.parquet", io.BytesIO(), "tags")
