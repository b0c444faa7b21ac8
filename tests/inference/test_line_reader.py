"""What is not of its format: an error with its line, or passed over, counted and reported, as ``on_error`` asks."""

import csv
import io
import json
import re
import tracemalloc

import pytest
from small_classifier import hugging_face_tokenizer, small_model

from dendritic_bert.inference import line_reader
from dendritic_bert.inference.classifier import TextClassifier


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier(small_model(), hugging_face_tokenizer())


# input format, the input, its texts with None for every malformed record, and the line of the first of those
CASES = {
    "an unquoted comma": ("csv", "id,text\n1,good\n2,Good start, but bad\n3,fine\n", ["good", None, "fine"], 3),
    "an unquoted comma behind the text": ("csv", "text,id\nGood start, but bad,1\nfine,2\n", [None, "fine"], 2),
    "an unquoted line end": ("csv", "id,text,n\n1,Good\nstart,5\n2,fine,6\n", [None, None, "fine"], 2),
    "fewer columns behind the text": ("csv", "text,id\ngood\nfine,1\n", [None, "fine"], 2),
    "a stray tab": ("tsv", "id\ttext\n1\tGood start\tbut bad\n2\tfine\n", [None, "fine"], 2),
    "a tab too few": ("tsv", "id\ttext\n1\n2\tfine\n", [None, "fine"], 2),
    "text behind a quote": ("csv", 'text\n"a"b\nfine\n', [None, "fine"], 2),
    "a quote that is closed by the next record's": ("csv", 'id,text\n1,"Good start\n2,"fine"\n3,end\n',
                                                    [None, "fine", "end"], 3),
    "a quote that is never closed": ("csv", 'text\ngood\n"open\nfine\n\nend\n', ["good", None, "fine", "end"], 6),
    "blank lines before it": ("csv", 'text\n\n\n"open\nfine\n', [None, "fine"], 5),
    "null": ("jsonl", '{"text": "a"}\n{"text": null}\n{"text": "b"}\n', ["a", None, "b"], 2),
    "missing": ("jsonl", '{"id": 1}\n\n{"text": "b"}\n', [None, "b"], 1),
    "a number": ("jsonl", '{"text": 3}\n{"text": "b"}\n', [None, "b"], 1),
    "no JSON": ("jsonl", 'x\n{"text": "b"\n{"text": "c"}', [None, None, "c"], 1),
    "a list": ("jsonl", '["a"]\n{"text": "b"}\n', [None, "b"], 1),
    "a long line": ("text", "a\n" + "x" * 3000 + "\nb\n", ["a", None, "b"], 2),
    "a long line at the end": ("text", "a\n" + "x" * 3000, ["a", None], 2),
    "a long field": ("csv", 'text\na\n"' + "x" * 3000 + '"\nb\n', ["a", None, "b"], 3),
    "a long field of many lines": ("csv", 'text\na\n"x\n' + "y\n" * 600 + "end\n", ["a", None, *"y" * 600, "end"], 503),
    "a long object": ("jsonl", '{"text": "' + "x" * 3000 + '"}\n{"text": "b"}\n', [None, "b"], 1),
    "nothing else": ("jsonl", "x\ny\n", [None, None], 1),
}
each_case = pytest.mark.parametrize(("input_format", "data", "texts", "line"), CASES.values(), ids=CASES)


@pytest.fixture
def short_lines(monkeypatch):
    """A line may have 1,000 bytes here, a field of CSV too."""
    limit = csv.field_size_limit()
    monkeypatch.setattr(line_reader, "MAX_LINE_BYTES", 1000)
    csv.field_size_limit(1000)
    yield
    csv.field_size_limit(limit)


@each_case
def test_it_stops_the_run(classifier, short_lines, input_format, data, texts, line):
    with pytest.raises(ValueError, match=rf"^input, line {line}: .*\.$"):
        classifier.classify_file(io.BytesIO(data.encode()), io.BytesIO(), input_format=input_format)


@each_case
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_it_is_skipped(classifier, short_lines, input_format, data, texts, line, batch_size):
    output, known = io.BytesIO(), [text for text in texts if text is not None]
    report = classifier.classify_file(io.BytesIO(data.encode()), output, input_format=input_format, on_error="skip",
                                      batch_size=batch_size)
    assert [json.loads(record)["text"] for record in output.getvalue().splitlines()] == known
    assert (report.num_records, report.num_malformed) == (len(known), texts.count(None))
    assert report.first_malformed.startswith(f"input, line {line}: ")


NULLS = {"json": b'{"text": null, "label": null, "score": null}', "csv": b",,", "tsv": b"\t\t"}


@each_case
@pytest.mark.parametrize("format", NULLS)
def test_it_is_written_as_null(classifier, short_lines, input_format, data, texts, line, format):
    """In its place; every other record is as without it."""
    known = [text for text in texts if text is not None]
    output, alone = io.BytesIO(), io.BytesIO()
    report = classifier.classify_file(io.BytesIO(data.encode()), output, input_format=input_format, on_error="null",
                                      format=format, batch_size=3)
    classifier.classify_file(io.BytesIO("".join(f"{text}\n" for text in known).encode()), alone, format=format)
    *header, lines = ([], alone.getvalue().splitlines()) if format == "json" else (
        alone.getvalue().splitlines()[:1], alone.getvalue().splitlines()[1:])
    expected = iter(lines)
    assert output.getvalue().splitlines() == [
        *header[0], *(NULLS[format] if text is None else next(expected) for text in texts)]
    assert (report.num_records, report.num_malformed) == (len(known), texts.count(None))


UNNAMED = ("if the header lacks a name for the first column, as R's write.table leaves it out, write the file with "
           "col.names=NA or row.names=FALSE; else ")
COMMA, SHORT = "quote a text that holds a comma or a line end", "add the fields that are missing, be they empty, or "


@pytest.mark.parametrize(("input_format", "data", "message"), [
    ("csv", '"text","n"\n"1","good",3\n"2","bad",4\n', f"line 2: 3 columns for the header's 2, {UNNAMED}{COMMA}."),
    ("csv", "text,n\ngood,3\ngood, but,3\n", f"line 3: 3 columns for the header's 2, {COMMA}."),
    ("csv", "text,n\ngood, but, then,3\n", f"line 2: 4 columns for the header's 2, {COMMA}."),
    ("csv", "text,n,m\ngood,3\n", f"line 2: 2 columns for the header's 3, {SHORT}quote a text that holds a line end."),
    ("csv", "n,text\n3\n", f"line 2: column 'text' is missing, 1 columns for the header's 2, {SHORT}quote a text that "
                           "holds a line end."),
    ("tsv", "text\tn\n1\tgood\t3\n", f"line 2: 3 columns for the header's 2, {UNNAMED}take tabs and line ends out of "
                                      "the texts."),
    ("tsv", "text\tn\ngood\n", f"line 2: 1 columns for the header's 2, {SHORT}take line ends out of the texts."),
])
def test_a_record_of_another_width(classifier, input_format, data, message):
    with pytest.raises(ValueError, match=f"^input, {re.escape(message)}$"):
        classifier.classify_file(io.BytesIO(data.encode()), io.BytesIO(), input_format=input_format)


@pytest.mark.parametrize("on_error", ["skip", "null"])
@pytest.mark.parametrize("num_batches", [1, 2, 4])
def test_a_resumed_run_counts_them_all(classifier, tmp_path, monkeypatch, on_error, num_batches):
    input, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    input.write_text("".join(json.dumps({"text": f"film {i}" if i % 7 else None}) + "\n" for i in range(100)))
    options = {"on_error": on_error, "batch_size": 10, "threads": 1}
    whole = classifier.classify_file(input, tmp_path / "whole.jsonl", **options)
    assert (whole.num_records, whole.num_malformed) == (85, 15)
    logits, left = classifier.logits, iter(range(num_batches))
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "logits", lambda texts: logits(texts) if next(left, None) is not None else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            classifier.classify_file(input, output, **options)
    report = classifier.classify_file(input, output, **options)
    assert report.num_resumed > 0
    assert report._replace(num_resumed=0) == whole
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_header_is_never_passed_over(classifier):
    for data, message in ((b'"text\na\n', "not valid CSV"), (b"text,text\na,b\n", "which input has 2 times"),
                          (b"id,n\na,b\n", "input has no column 'text'")):
        with pytest.raises(ValueError, match=message):
            classifier.classify_file(io.BytesIO(data), io.BytesIO(), input_format="csv", on_error="skip")


@pytest.mark.parametrize(("options", "unknown"), [({"column": "txt"}, "txt"), ({"keep_columns": ["idd", "id"]}, "idd")])
def test_a_key_that_no_object_has(classifier, options, unknown):
    """Objects may lack a key, so that one which none has is warned of, once."""
    output = io.BytesIO()
    with pytest.warns(UserWarning, match=rf"^none of the first objects of input has the key '{unknown}'; their keys "
                                         r"are 'id', 'text'\.$") as warned:
        classifier.classify_file(io.BytesIO(b'{"id": 1, "text": "a"}\n' * 3), output, input_format="jsonl",
                                 on_error="null", **options)
    assert len(warned) == 1
    assert len(output.getvalue().splitlines()) == 3


def test_an_unknown_choice(classifier):
    with pytest.raises(ValueError, match="on_error is 'ignore', known are stop, skip, null"):
        classifier.classify_file(io.BytesIO(b"a\n"), io.BytesIO(), on_error="ignore")


class Endless(io.RawIOBase):
    """``size`` bytes of malformed lines, or of one, which are nowhere in memory."""

    def __init__(self, size: int, line: bytes):
        self.left, self.line = size, line

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.left, len(self.line))
        buffer[:count] = self.line[:count]
        self.left -= count
        return count


@pytest.mark.parametrize("line", [b"no JSON, " * 10 + b"\n", b"x" * 1000, b"\n" * 100],
                         ids=["malformed", "without an end", "blank"])
def test_memory_stays_constant(classifier, monkeypatch, line):
    """A file of nothing but malformed lines, one line without an end, and nothing but line ends."""
    monkeypatch.setattr(line_reader, "BATCH_BYTES", 1 << 14)
    monkeypatch.setattr(line_reader, "MAX_LINE_BYTES", 1 << 14)
    tracemalloc.start()
    try:
        report = classifier.classify_file(io.BufferedReader(Endless(1 << 21, line)), io.BytesIO(),
                                          input_format="jsonl", on_error="skip", threads=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.num_records == 0
    assert peak < 1 << 21
