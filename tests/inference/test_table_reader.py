"""Tables of pyarrow: types of columns, null and what is too long, strings that are not UTF-8, memory."""

import datetime
import decimal
import io
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from dendritic_bert.inference import table_reader
from dendritic_bert.inference.readers import open_records
from dendritic_bert.inference.records import MalformedRecord

TEXTS = ["a", "世", "", "d"]


def parquet(table: pa.Table, **options) -> io.BytesIO:
    file = pa.BufferOutputStream()
    pa.parquet.write_table(table, file, **options)
    return io.BytesIO(file.getvalue().to_pybytes())


def arrow(table: pa.Table) -> io.BytesIO:
    file = pa.BufferOutputStream()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return io.BytesIO(file.getvalue().to_pybytes())


WRITERS = {"parquet": parquet, "arrow": arrow}
each_format = pytest.mark.parametrize("format", WRITERS)


def read(table: pa.Table, format: str, columns=(), text_columns=(), on_error="stop", batch_size=1000) -> list:
    records = open_records(WRITERS[format](table), format, on_error)
    return list(records.batches(batch_size, columns, text_columns))


@each_format
@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.string_view(),
                                  pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_types_of_text(format, type):
    table = pa.table({"t": pa.array(TEXTS).cast(type) if not pa.types.is_dictionary(type)
                      else pa.array(TEXTS).dictionary_encode().cast(type)})
    batch, = read(table, format, text_columns=["t"])
    assert batch.columns == {"t": TEXTS}


@each_format
def test_values_of_other_types(format):
    """As Python has them; what has more digits than Python's types is text, and what has fewer gets none."""
    nanoseconds = pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))
    table = pa.table({"i": [2**62], "f": [0.1], "b": [True], "list": [["x", None]], "struct": [{"a.b": {"c": 1}}],
                      "when": nanoseconds, "day": [datetime.date(2024, 2, 29)], "money": [decimal.Decimal("1.10")],
                      "bytes": [b"\xff"], "null": pa.nulls(1), "a.b": ["dotted"],
                      "single": pa.array([0.1], pa.float32())})
    batch, = read(table, format, table.column_names)
    assert batch.columns == {
        "i": [2**62], "f": [0.1], "b": [True], "list": [["x", None]], "struct": [{"a.b": {"c": 1}}],
        "when": ["2023-11-14 22:13:20.000000001"], "day": ["2024-02-29"], "money": ["1.10"], "bytes": [b"\xff"],
        "null": [None], "a.b": ["dotted"], "single": [0.1]}
    assert read(table, format, ["a.b"])[0].columns == {"a.b": ["dotted"]}  # beside columns that nobody asked for


@each_format
def test_numbers_in_float32_keep_their_value(format):
    """The shortest spelling of each number, null, NaN and what is not finite among them."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 5000, np.uint32)
    numbers = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, 1, 1e-45, 3.4028235e38, np.inf, -np.inf])])
    numbers = numbers[~np.isnan(numbers)]
    table = pa.table({"n": pa.concat_arrays([pa.array(numbers), pa.array([None, np.nan], pa.float32())])})
    values = [value for batch in read(table, format, ["n"]) for value in batch.columns["n"]]
    assert values[:-2] == [float(str(number)) for number in numbers]
    assert np.array_equal(np.float32(values[:-2]).view(np.uint32), numbers.view(np.uint32))
    assert values[-2] is None
    assert np.isnan(values[-1])


@each_format
def test_a_name_that_is_also_a_path(format):
    """In Parquet the column "a.b" and the field b of the column "a" have one path."""
    table = pa.table({"a": [{"b": 1, "c": {"d": [2]}}], "map": pa.array([[("k", 3)]], pa.map_(pa.string(), pa.int8())),
                      "a.b": ["dotted"], "plain": ["x"], "plain.text": ["y"]})
    for names, expected in ((["a.b"], ["dotted"]), (["a"], [{"b": 1, "c": {"d": [2]}}]), (["map"], [[("k", 3)]]),
                            (["plain.text"], ["y"]), (["plain"], ["x"])):
        assert read(table, format, names)[0].columns == {names[0]: expected}


@each_format
@pytest.mark.parametrize(("column", "kind"), [("n", "no strings"), ("tags", "nested values")])
def test_a_column_that_holds_no_texts(format, column, kind):
    table = pa.table({"n": [1], "tags": [["a"]], "t": ["x"]})
    with pytest.raises(ValueError, match=f"column '{column}' of input holds {kind} .*, name a column of strings: t"):
        read(table, format, text_columns=[column])
    assert read(table, format, text_columns=["t"])[0].columns == {"t": ["x"]}


@each_format
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_null_and_what_is_too_long(format, monkeypatch, batch_size):
    monkeypatch.setattr(table_reader, "MAX_LINE_BYTES", 10)
    table = pa.table({"n": range(6), "t": ["a", None, "b", "x" * 11, "", "end"]})
    with pytest.raises(MalformedRecord, match=r"^input, row 2: column 't' is null, fill it in or leave the row out"):
        read(table, format, ["n"], ["t"], batch_size=batch_size)
    for on_error, numbers, texts in (("skip", [0, 2, 4, 5], ["a", "b", "", "end"]),
                                     ("null", list(range(6)), ["a", None, "b", None, "", "end"])):
        batches = read(table, format, ["n"], ["t"], on_error, batch_size)
        assert [cell for batch in batches for cell in batch.columns["n"]] == numbers
        assert [cell for batch in batches for cell in batch.columns["t"]] == texts
        assert [batch.place(row) for batch in batches for row in range(len(batch.lines))] == [
            f"input, row {number + 1}" for number in numbers]
        position = batches[-1].position
        assert (position.records, position.num_malformed, position.lines) == (4, 2, 6)
        assert position.first_malformed.startswith("input, row 2: ")


def test_a_null_inside_of_a_dictionary():
    """Which Arrow has and Parquet has not; no index of the column says so."""
    table = pa.table({"t": pa.array(["a", None, "b"]).dictionary_encode(null_encoding="encode")})
    with pytest.raises(MalformedRecord, match=r"^input, row 2: column 't' is null, fill it in or leave the row out"):
        read(table, "arrow", [], ["t"])
    for on_error, texts in (("skip", ["a", "b"]), ("null", ["a", None, "b"])):
        batch, = read(table, "arrow", [], ["t"], on_error)
        assert batch.columns == {"t": texts}
        assert batch.arrays["t"].to_pylist() == texts
        assert (batch.position.records, batch.position.num_malformed) == (2, 1)


VIEW = pa.string_view()
KEPT = [["x", None], None, ["a text of twenty-four b", ""], []]


@pytest.mark.parametrize("kept", [
    pa.array(TEXTS, VIEW), pa.array([b"\xff", None, b"", b"d"], pa.binary_view()),
    pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1]), pa.array(["a", None], VIEW)),
    pa.compute.run_end_encode(pa.array([7, 7, None, 7])), pa.compute.run_end_encode(pa.array(["a", None, None, "b"])),
    pa.array(KEPT, pa.list_(VIEW)), pa.array(KEPT, pa.large_list(VIEW)),
    pa.array([["x"], None, ["y"], [""]], pa.list_(VIEW, 1)),
    pa.array([{"a": {"b": "x"}}, None, {}, {"a": None}], pa.struct({"a": pa.struct({"b": VIEW})})),
    pa.array([[("k", "v")], None, [], [("k", None)]], pa.map_(VIEW, VIEW))], ids=lambda kept: str(kept.type))
@pytest.mark.parametrize("batch_size", [2, 10])
def test_views_and_run_ends(kept, batch_size):
    """As Polars writes strings: pyarrow can neither take some of their rows, nor put a null in."""
    texts = ["a", None, "a text of twenty-four b", ""]
    for text in (pa.array(texts, VIEW), pa.compute.run_end_encode(pa.array(texts))):
        for on_error, rows in (("skip", [0, 2, 3]), ("null", [0, 1, 2, 3])):
            batches = read(pa.table({"t": text, "kept": kept}), "arrow", ["kept"], ["t"], on_error, batch_size)
            for name, expected in (("t", texts), ("kept", kept.to_pylist())):
                assert [cell for batch in batches for cell in batch.columns[name]] == [expected[row] for row in rows]
                arrays = pa.chunked_array([batch.arrays[name] for batch in batches])
                assert arrays.type == table_reader.plain_type(kept.type if name == "kept" else text.type)
                assert arrays.take(pa.array(range(len(rows)))).to_pylist() == [expected[row] for row in rows]


def test_views_of_many_bytes_are_not_read_row_by_row():
    """The buffers of views are those of the whole table, however few rows are cut from it."""
    table = pa.table({"t": pa.array(["x" * 1000] * 8000, VIEW)})
    assert len(read(table, "arrow", [], ["t"])) == 8


@pytest.mark.parametrize("text_columns", [["t"], []])
@pytest.mark.parametrize(("row_group_size", "rows"), [(1, "row 3"), (2, "rows 3 to 4")])
def test_a_cell_that_is_too_long_is_not_decoded(monkeypatch, row_group_size, rows, text_columns):
    """What a row group holds says that one of its cells must be too long, whatever it is compressed to."""
    monkeypatch.setattr(table_reader, "MAX_LINE_BYTES", 1 << 20)
    table = pa.table({"t": ["a", "b", "x" * (4 << 20), "c"], "n": range(4)})
    records = open_records(parquet(table, row_group_size=row_group_size), "parquet")
    batches = records.batches(1, ["t"], text_columns)
    assert [next(batches).columns["t"], next(batches).columns["t"]] == [["a"], ["b"]]
    before = pa.total_allocated_bytes()
    with pytest.raises(MalformedRecord, match=rf"^input, {rows}: column 't' holds 4 MiB, so that a cell is longer"):
        next(batches)
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert [cell for batch in open_records(parquet(table, row_group_size=row_group_size), "parquet").batches(10, ["n"])
            for cell in batch.columns["n"]] == [0, 1, 2, 3]


@each_format
def test_strings_that_are_not_utf8(format):
    """Neither format's writer checks that they are."""
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9 \xff", b"ok"], pa.binary()).buffers())
    batch, = read(pa.table({"t": bad}), format, text_columns=["t"])
    assert batch.columns == {"t": ["caf\ufffd \ufffd", "ok"]}
    assert batch.position.num_replaced == 2
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), bad)
    with pytest.raises(ValueError, match=r"^input holds strings that are not UTF-8 in a column of list<.*: leave the"):
        read(pa.table({"n": nested}), format, ["n"])


NOT_OF_PYTHON = {
    "list of dates": pa.array([[10**8]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
    "date": pa.array([10**8], pa.int32()).cast(pa.date32()),
    "time": pa.array([2**62], pa.timestamp("s")),
    "time of day": pa.Array.from_buffers(pa.time32("s"), 1, [None, pa.py_buffer(b"\xff\xff\xff\x7f")]),
    "zone": pa.array([1], pa.timestamp("us", "Mars/X")),
    "zones": pa.array([[1]], pa.list_(pa.timestamp("us", "Mars/X"))),
    "two fields of a name": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
}


@pytest.mark.parametrize("values", NOT_OF_PYTHON.values(), ids=NOT_OF_PYTHON)
def test_values_that_python_does_not_have(values):
    """They are an error where they are written in lines; in a table they stay what they are."""
    batch, = read(pa.table({"t": ["a"], "kept": values}), "arrow", ["kept"], ["t"])
    assert batch.arrays["kept"].equals(values)
    with pytest.raises(ValueError, match=r"^input holds values of .* in column 'kept' that have no text or JSON \(.+"
                                         r"\): cast the column to strings, or leave it out of keep_columns \(--keep"):
        batch.columns["kept"]


@pytest.mark.parametrize("offsets", [[0, 1 << 28, 2, 3], [0, 3, 1, 3], [0, -5, 1, 3], [0, 1, 2, 1 << 28]], ids=str)
def test_offsets_that_lead_elsewhere(offsets):
    """Of a stream of Arrow, which nothing else checks: none of them is followed."""
    sound = pa.array(["a", "b", "c"])
    with io.BytesIO() as file:
        with pa.ipc.new_stream(file, pa.schema({"t": pa.string()})) as writer:
            writer.write_batch(pa.record_batch({"t": sound}))
        data = file.getvalue()
    place = data.index(np.arange(4, dtype=np.int32).tobytes())
    broken = data[:place] + np.array(offsets, np.int32).tobytes() + data[place + 16:]
    with pytest.raises(ValueError, match=r"^input is damaged behind row [02] \(.*\): fetch it again\.$"):
        list(open_records(io.BytesIO(broken), "arrow").batches(10, [], ["t"]))


BAD_DICTIONARY = pa.DictionaryArray.from_arrays(
    pa.array([0, 1, 1], pa.int32()), pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"b"]).buffers()))


@pytest.mark.parametrize(("array", "sound", "broken"), [
    (pa.array([[11], [12], [13, 14]], pa.list_(pa.int32())), (0, 1, 2, 4), (0, 1, 2, 1 << 30)),
    (pa.array([[11], [12], [13, 14]], pa.list_(pa.int32())), (0, 1, 2, 4), (0, 1 << 20, 2, 4)),
    (pa.array([["abc"], ["d", "efghij"]]), (0, 3, 4, 10), (0, 3, 1 << 30, 10)),
    (pa.array([["abc"], ["d"], ["efghij", "k"]]), (0, 1, 2, 4), (0, 1, 1 << 28, 4)),
    (pa.array([b"abc", b"d", b"efghij"]), (0, 3, 4, 10), (0, 3, 1 << 30, 10)),
    (pa.array([{"a": "abc"}, {"a": "d"}, {"a": "efghij"}]), (0, 3, 4, 10), (0, -9, 4, 10)),
    (pa.DictionaryArray.from_arrays(pa.array([0, 1, 1], pa.int32()), pa.array([5, 6])), (0, 1, 1), (0, 1, 1 << 30)),
    (BAD_DICTIONARY, (0, 1, 1), (0, 1, 1 << 30)),
], ids=["a list's end", "a list's offset", "a list's strings", "a list's strings' offset", "bytes",
        "a struct's strings", "a dictionary", "a dictionary that is not UTF-8"])
@pytest.mark.parametrize("batch_size", [1, 10])
def test_a_kept_column_that_leads_elsewhere(array, sound, broken, batch_size):
    """Of Arrow's files nothing checks offsets and indices: none of them is followed."""
    data = arrow(pa.table({"t": ["x"] * len(array), "kept": array})).getvalue()
    sound, broken = (np.array(numbers, np.int32).tobytes() for numbers in (sound, broken))
    assert data.count(sound) == 1
    with pytest.raises(ValueError, match=r"^input is damaged behind row 0 \(.*\): fetch it again\.$"):
        list(open_records(io.BytesIO(data.replace(sound, broken)), "arrow").batches(batch_size, ["kept"], ["t"]))


def test_a_view_that_leads_elsewhere():
    view = pa.array(["a text of twenty-four b"], pa.string_view())
    data = arrow(pa.table({"t": view})).getvalue()
    place = data.index(struct.pack("<i4s", 23, b"a te")) + 12
    broken = data[:place] + struct.pack("<i", 1 << 30) + data[place + 4:]
    with pytest.raises(ValueError, match=r"^input is damaged behind row 0 \(.*\): fetch it again\.$"):
        list(open_records(io.BytesIO(broken), "arrow").batches(10, [], ["t"]))


def test_the_end_of_a_parquet_file_that_is_damaged():
    """Which pyarrow says in an OSError."""
    data = bytearray(parquet(pa.table({"t": TEXTS})).getvalue())
    size, = struct.unpack("<i", data[-8:-4])
    data[-8 - size:12 - size] = b"\xff" * 20
    with pytest.raises(ValueError, match=r"^input cannot be read as Parquet \(.*\): pass the input_format that it has"):
        open_records(io.BytesIO(data), "parquet")


@pytest.mark.parametrize("data", [b"text\na\n", b"PAR1", b"", b"PAR1" + bytes(100)])
@each_format
def test_bytes_that_are_no_table(format, data):
    with pytest.raises(ValueError, match=rf"^input cannot be read as {format.title()} \(.*\): pass the .*\.$") as error:
        open_records(io.BytesIO(data), format)
    assert "\n" not in str(error.value)


def test_a_table_that_is_damaged():
    """What is before the damage is given out."""
    data = bytearray(parquet(pa.table({"t": [f"text {n}" for n in range(3000)]}), row_group_size=1000).getvalue())
    start = pa.parquet.ParquetFile(io.BytesIO(data)).metadata.row_group(2).column(0).dictionary_page_offset
    data[start:start + 1000] = b"\xff" * 1000
    batches, texts = open_records(io.BytesIO(data), "parquet").batches(1000, [], ["t"]), []
    with pytest.raises(ValueError, match=r"^input is damaged behind row 2000 \(.*\): fetch it again\.$"):
        texts.extend(text for batch in batches for text in batch.columns["t"])
    assert texts == [f"text {n}" for n in range(2000)]


def test_a_stream_of_text_is_no_table():
    with pytest.raises(TypeError, match="input is a stream of text, but a table is bytes: open it in binary mode"):
        open_records(io.StringIO("a"), "parquet")


@pytest.mark.parametrize("row_group_size", [50_000, 1_000])
def test_memory_stays_constant(tmp_path, row_group_size):
    """50 MB of texts, in one row group and in 50: what pyarrow holds at a time, and what Python gets, is bounded."""
    table = pa.table({"t": [f"{n} " * 150 for n in range(50_000)]})
    pa.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=row_group_size)
    size, before = table.nbytes, pa.total_allocated_bytes()
    held, rows = [], 0
    for batch in open_records(tmp_path / "in.parquet").batches(1 << 20, [], ["t"]):
        rows += len(batch.lines)
        held.append(pa.total_allocated_bytes() - before)
        assert sum(map(len, batch.columns["t"])) <= 2 * table_reader.BATCH_BYTES
    assert rows == 50_000
    assert max(held) < size / 3
