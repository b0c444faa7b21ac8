"""Records of every format are those that pandas, pyarrow, csv and json wrote, from any inputs and from any place on."""

import csv
import gzip
import io
import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from dendritic_bert.inference import line_reader
from dendritic_bert.inference.readers import open_records
from dendritic_bert.inference.records import MalformedRecord, Position

TEXTS = ["a good film", "世界 😀 café", "", " blanks ", "\u2028 \x85", "back\\slash", '"', "a, b; c|d"] * 4
NUMBERS = list(range(len(TEXTS)))
ROWS = [{"n": n, "review": text} for n, text in zip(NUMBERS, TEXTS)]
TABLE = pa.Table.from_pylist(ROWS)


def as_csv(delimiter: str = ",", line_end: str = "\r\n") -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=line_end).writerows([ROWS[0], *map(dict.values, ROWS)])
    return file.getvalue().encode()


def as_table(write, *arguments, **options) -> bytes:
    file = pa.BufferOutputStream()
    write(*arguments, file, **options)
    return file.getvalue().to_pybytes()


def as_arrow_stream() -> bytes:
    file = pa.BufferOutputStream()
    with pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=7)
    return file.getvalue().to_pybytes()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0size"  # a frame without contents of its own: its mark, 4 bytes, and these
JSON_LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
FILES = {
    "in.csv": as_csv(),
    "in.tsv": "".join(f"{n}\t{text}\n" for n, text in [("n", "review"), *zip(NUMBERS, TEXTS)]).encode(),
    "in.jsonl": JSON_LINES,
    "in.csv.gz": gzip.compress(as_csv()[:100]) + gzip.compress(as_csv()[100:]),  # two members, as bgzip and cat make
    "in.jsonl.zst": zstd(JSON_LINES[:100]) + zstd(JSON_LINES[100:]),
    "in.csv.zst": SKIPPABLE + zstd(as_csv()[:100]) + SKIPPABLE + zstd(as_csv()[100:]),  # as pzstd makes
    "in.jsonl.gz": gzip.compress(("\ufeff" + JSON_LINES.decode()).encode("utf-16-le")),
    "in.parquet": as_table(pa.parquet.write_table, TABLE, row_group_size=10),
    "in.feather": as_table(pa.feather.write_feather, TABLE, chunksize=10),
    "in.arrow": as_arrow_stream(),
}
WITH_TYPES = {"in.parquet", "in.feather", "in.arrow", *(name for name in FILES if "jsonl" in name)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, data in FILES.items():
        Path(name).write_bytes(data)
    return tmp_path


class OnlyReads:
    """A binary stream with a single method, as a pipe may be."""

    def __init__(self, data: bytes):
        self.read = io.BytesIO(data).read


def rows_of(records, batch_size: int = 5) -> list[tuple]:
    """The records with their places."""
    return [(batch.place(row), *cells) for batch in records.batches(batch_size, ["n"], ["review"])
            for row, cells in enumerate(zip(batch.columns["n"], batch.columns["review"]))]


@pytest.mark.parametrize("batch_size", [1, 7, 10, 1000])
@pytest.mark.parametrize("way", ["path", "stream", "pipe"])
@pytest.mark.parametrize("name", FILES)
def test_every_format(folder, name, way, batch_size):
    input = {"path": name, "stream": io.BytesIO(FILES[name]), "pipe": OnlyReads(FILES[name])}[way]
    format = {"feather": "arrow"}.get(name.split(".")[1], name.split(".")[1])
    with open_records(input, None if way == "path" else format) as records:
        assert records.names == ["n", "review"]
        rows = rows_of(records, batch_size)
    assert way != "stream" or not input.closed
    assert [row[1] for row in rows] == (NUMBERS if name in WITH_TYPES else list(map(str, NUMBERS)))
    assert [row[2] for row in rows] == TEXTS
    is_table, header = name in ("in.parquet", "in.feather", "in.arrow"), name.startswith(("in.csv", "in.tsv"))
    called = name if way == "path" else "input"
    assert rows[4][0] == f"{called}, {'row' if is_table else 'line'} {5 + header}"


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_how_much_of_a_compressed_input_was_read(tmp_path, compress):
    """Bytes of the files as they are, which a progress bar counts up to their size: in the middle and at the end."""
    texts = np.random.default_rng(0).integers(0, 1 << 62, (2, 30_000)).astype(str).tolist()
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, lines in zip(paths, texts):
        path.write_bytes(compress("\n".join(lines).encode()))
    sizes = [path.stat().st_size for path in paths]
    with open_records([*map(str, paths)], "text") as records:
        assert records.size == sum(sizes)
        assert records.bytes_before(Position()) == 0
        done = [(batch.position, records.bytes_before(batch.position)) for batch in records.batches(1000, ["text"])]
        read = [count for _, count in done]
        assert read == sorted(read)
        assert 0 < read[0] < sizes[0] / 2
        assert sizes[0] < read[40] < sum(sizes)
        assert read[-1] == sum(sizes)
    with open_records([*map(str, paths)], "text") as records:
        assert records.go_to(done[40][0])
        assert sizes[0] < records.bytes_before(done[40][0]) <= read[41]


def test_what_pandas_wrote(folder):
    """In the formats that it has; of CSV it reads back what was kept as text."""
    frame = pd.DataFrame(ROWS)
    frame.to_csv("pandas.csv", index=False)
    frame.to_json("pandas.jsonl", orient="records", lines=True)
    frame.to_parquet("pandas.parquet")
    for name in ("pandas.csv", "pandas.jsonl", "pandas.parquet"):
        assert [text for _, _, text in rows_of(open_records(name))] == TEXTS


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter(folder, delimiter):
    Path("other.csv").write_bytes(as_csv(delimiter))
    assert [text for _, _, text in rows_of(open_records("other.csv", delimiter=delimiter))] == TEXTS
    with pytest.raises(ValueError, match=rf"column is 'review', which other.csv does not have: its header .*pass "
                                         rf"delimiter={re.escape(repr(delimiter))} \(--delimiter"):
        open_records("other.csv").check(["review"])
    for shown in (repr(delimiter).strip("'"), "tab" if delimiter == "\t" else delimiter):
        assert [text for _, _, text in rows_of(open_records("other.csv", delimiter=shown))] == TEXTS


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "marked"])
def test_a_delimiter_that_the_file_names(folder, delimiter, mark):
    """As Excel reads it: in a line before the names, whatever the delimiter that was passed."""
    Path("named.csv").write_bytes(mark + f"sep={delimiter}\r\n".encode() + as_csv(delimiter))
    Path("plain.csv").write_bytes(as_csv(delimiter))
    for passed in {",", delimiter}:
        with open_records("named.csv", delimiter=passed) as records:
            assert records.names == ["n", "review"]
            batches = list(records.batches(7, ["n"], ["review"]))
            assert records.go_to(batches[1].position)
            rest = list(records.batches(100, ["n"], ["review"]))
        rows = [(*cells, batch.lines[row]) for batch in batches
                for row, cells in enumerate(zip(batch.columns["n"], batch.columns["review"]))]
        plain = [(*cells, batch.lines[row] + 1) for batch in open_records("plain.csv", delimiter=delimiter).batches(
            100, ["n"], ["review"]) for row, cells in enumerate(zip(batch.columns["n"], batch.columns["review"]))]
        assert rows == plain
        assert list(rest[0].columns["review"]) == TEXTS[14:]
        assert rest[-1].position == batches[-1].position


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", None])
def test_what_is_no_delimiter(folder, delimiter):
    with pytest.raises(ValueError, match=r"delimiter is .*, pass the one character"):
        open_records("in.csv", delimiter=delimiter)


# ---- several inputs --------------------------------------------------------------------------------------------------


def test_several_inputs_of_any_format(folder):
    """One after another, patterns in the order of their names, and a column by its name wherever it stands."""
    for number in (10, 9, 1):
        Path(f"part-{number:02}.csv").write_text(f"review,n\npart {number},{number}\n")
    Path("[odd].csv").write_text("review,n\nodd,0\n")
    records = open_records(["part-*.csv", "in.parquet", io.BytesIO(b'{"review": "stream"}\n'), "[odd].csv"][:2])
    assert [text for _, _, text in rows_of(records)] == ["part 1", "part 9", "part 10", *TEXTS]
    assert rows_of(records)[2][0] == "part-10.csv, line 2"  # and a second time
    assert [text for _, _, text in rows_of(open_records(["[odd].csv", Path("part-01.csv")]))] == ["odd", "part 1"]


@pytest.mark.parametrize(("inputs", "error", "message"), [
    ("none-*.csv", FileNotFoundError, r"input none-\*\.csv is a pattern that no file matches"),
    (["in.csv", "missing.csv"], FileNotFoundError, "input missing.csv does not exist"),
    ([], ValueError, "input is an empty list"),
    (["in.csv", "in.xlsx"], ValueError, "input in.xlsx has the suffix of Excel"),
])
def test_an_input_that_cannot_be_read(folder, inputs, error, message):
    with pytest.raises(error, match=message):
        open_records(inputs)


def test_a_column_that_a_later_input_lacks(folder):
    Path("other.csv").write_text("n,text\n1,a\n")
    with pytest.raises(ValueError, match=r"column is 'review', which other\.csv does not have: .* are n, text, rename "
                                         r"the one that is meant, or name another column that every file has\.$"):
        open_records(["in.csv", "other.csv"]).check(["review"])


def test_a_stream_is_read_once(folder):
    records = open_records(io.BytesIO(FILES["in.csv"]), "csv")
    records.check(["review"])
    assert len(rows_of(records)) == len(ROWS)
    with pytest.raises(ValueError, match="input is a stream and was read already: pass a file"):
        rows_of(records)


# ---- from any place on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[name] for name in FILES] + [["in.csv", "in.parquet", "in.jsonl.zst"]],
                         ids="+".join)
def test_reading_goes_on_from_every_batch(folder, names):
    records = open_records(names)
    batches = list(records.batches(6, [], ["review"]))
    whole = [text for batch in batches for text in batch.columns["review"]]
    assert whole == TEXTS * len(names)
    for batch in batches:
        assert records.go_to(batch.position)
        rest = list(records.batches(11, [], ["review"]))
        assert [text for later in rest for text in later.columns["review"]] == whole[batch.position.records:]
        last = rest[-1].position if rest else batch.position
        assert last == batches[-1].position


@pytest.mark.parametrize("change", ["in.csv", "in.parquet"])
def test_a_change_of_what_was_read_is_noticed(folder, change):
    records = open_records(["in.csv", "in.parquet", "in.jsonl"])
    position = list(records.batches(1000, [], ["review"]))[4].position  # a row group each of the table
    assert (position.input, position.records) == (1, 2 * len(TEXTS))
    data = bytearray(FILES[change])
    data[-5] ^= 1
    if change == "in.csv":
        Path(change).write_bytes(data)
    else:
        pa.parquet.write_table(TABLE.slice(1), change)
    assert not open_records(["in.csv", "in.parquet", "in.jsonl"]).go_to(position)
    assert not open_records(["in.csv"]).go_to(position)


# ---- compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in.csv.gz", "in.jsonl.zst"])
def test_a_compressed_input_that_is_cut_off(folder, name):
    Path(name).write_bytes(FILES[name][:-20])
    with pytest.raises(ValueError, match=rf"{name} is not whole, its (gzip|zstd) cannot be decompressed \(.*fetch it"):
        rows_of(open_records(name))


def test_bytes_that_are_compressed_twice_or_not_at_all(folder):
    """The suffix says the format, the first bytes the compression."""
    Path("twice.csv.gz").write_bytes(gzip.compress(FILES["in.csv.gz"]))
    with pytest.raises(ValueError, match=r"twice\.csv\.gz is not text but gzip, by its first bytes: .* it once"):
        open_records("twice.csv.gz")
    for name, data in (("plain.csv.gz", FILES["in.csv"]), ("packed.csv", FILES["in.csv.gz"])):
        Path(name).write_bytes(data)
        assert [text for _, _, text in rows_of(open_records(name))] == TEXTS
    with pytest.raises(ValueError, match=r"in\.parquet\.gz is parquet that is compressed once more: leave out \.gz"):
        open_records("in.parquet.gz")


# ---- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "strings"), [
    ("in.csv", ["review"]), ("in.parquet", ["review"]), ("in.jsonl", ["review"]), ("in.tsv", ["review"])])
def test_columns_of_strings(folder, name, strings):
    assert open_records(name).string_columns() == strings


def test_columns_of_strings_with_one_name(folder):
    """They are named as often as they are there; which is meant is for others to ask."""
    pa.parquet.write_table(pa.table([["a"], [1], ["b"]], ["x", "x", "review"]), "twice.parquet")
    assert open_records("twice.parquet").string_columns() == ["x", "x", "review"]


@pytest.mark.parametrize(("data", "expected"), [
    (b'{"id": 1, "a": null}\n\n{"a": "x"}\n[1]\n{"a"\n', True), (b'{"a": "x"}\n{"b": "x"}\n', False),
    (b'oops\n{"b": 1}\n', False), (b"", True)])
def test_whether_every_object_has_a_key(tmp_path, data, expected):
    """What is no object has none to lack."""
    (tmp_path / "in.jsonl").write_bytes(data)
    assert open_records(tmp_path / "in.jsonl").every_object_has("a") == expected


def test_values_of_json(folder):
    """As they are; null for a key that is missing; lone surrogates are replaced in what is nested, too."""
    lines = ['{"a": [1, {"b": "\\ud800"}], "t": "x"}', '{"t": "\\ud83d\\ude00"}', '{"a": true, "t": null}']
    with open_records(io.BytesIO("\n".join(lines).encode()), "jsonl", on_error="null") as records:
        assert records.names == ["a", "t"]
        batch, = records.batches(10, ["a"], ["t"])
    assert batch.columns == {"t": ["x", "😀", None], "a": [[1, {"b": "\ufffd"}], None, True]}
    assert (batch.position.records, batch.position.num_malformed) == (2, 1)


def test_a_null_is_malformed_only_where_a_text_must_be(folder):
    data = b'{"t": null, "n": null}\n'
    batch, = open_records(io.BytesIO(data), "jsonl").batches(10, ["t", "n"])
    assert batch.columns == {"t": [None], "n": [None]}
    with pytest.raises(MalformedRecord, match="input, line 1: column 't' is None, not a string"):
        list(open_records(io.BytesIO(data), "jsonl").batches(10, ["n"], ["t"]))


@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_a_line_that_was_compressed_to_nearly_nothing(folder, monkeypatch, compress):
    """16 MiB without a line end, in a few KiB: malformed, and never in memory as a whole."""
    for name in ("MAX_LINE_BYTES", "BATCH_BYTES"):
        monkeypatch.setattr(line_reader, name, 1 << 16)
    Path("long.txt.gz").write_bytes(compress(b"a\n" + bytes(16 << 20).replace(b"\0", b"x") + b"\nb\n"))
    tracemalloc.start()
    try:
        records = open_records("long.txt.gz", on_error="skip")
        batches = list(records.batches(10, [], ["text"]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [text for batch in batches for text in batch.columns["text"]] == ["a", "b"]
    assert batches[-1].position.first_malformed.startswith("long.txt.gz, line 2: longer than")
    assert peak < 2 << 20


@pytest.mark.parametrize("size", [1, 4000])  # all in the first block, or in several
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(("num_keyed", "names"), [(1, ["id"]), (3, ["id", "text"]), (300, ["id", "text", "label"]),
                                                  (None, None)])
def test_columns_are_the_keys_of_the_first_objects(tmp_path, size, is_stream, num_keyed, names):
    """They are looked at and read again as records. By default they are those of a stream's first one alone."""
    rows = [{"id": 0}, {"id": 1, "text": "a" * size}, *({"id": i, "text": "b" * size} for i in range(2, 200)),
            {"label": "x", "text": "c"}]
    data = b"\xef\xbb\xbf" + "\n\n".join(map(json.dumps, rows)).encode()
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    records = open_records(io.BytesIO(data) if is_stream else path, "jsonl", num_keyed=num_keyed)
    assert records.names == (names or (["id"] if is_stream else ["id", "text", "label"]))
    batches = list(records.batches(64, ["id", "label"]))
    assert [cell for batch in batches for cell in batch.columns["id"]] == [row.get("id") for row in rows]
    assert [line for batch in batches for line in batch.lines] == list(range(1, 2 * len(rows), 2))


def test_lines_that_are_no_objects_have_no_keys():
    records = open_records(io.BytesIO(b'[1]\n{"a": \n{"b": 1}\n'), "jsonl", num_keyed=10)
    assert records.names == ["b"]
