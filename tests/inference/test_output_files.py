"""A compressed file or a table is what its own library reads, and the same to the byte whatever the batches were."""

import gzip
import random

import pyarrow as pa
import pyarrow.parquet
import pytest

from dendritic_bert.inference import output_files
from dendritic_bert.inference.formatters import ArrowFormatter, Column

COLUMNS = [Column("flag", "value", pa.bool_()), Column("text", "text"), Column("score", "score"),
           Column("tags", "value", pa.list_(pa.string()))]
ROWS = [(None if n % 7 == 3 else n % 2 == 0, None if n % 11 == 5 else "word " * (n * n % 60), n / 8,
         None if n % 5 == 0 else ["x"] * (n % 3)) for n in range(500)]
LINES = b"".join(b"a line %d\n" % n for n in range(1000))


def finish(folder, name: str, format: str, data: bytes) -> bytes:
    source, target = folder / "source", folder / name
    source.write_bytes(data)
    with open(source, "rb") as rows, open(target, "w+b") as file:
        output_files.finish_of(target, format)(rows, file)
        assert not file.closed
    return target.read_bytes()


def stream_of(batches: list[int]) -> bytes:
    formatter, rest, data = ArrowFormatter(COLUMNS), list(ROWS), [b""]
    for size in batches:
        data.append(formatter.rows(list(zip(*rest[:size]))))
        del rest[:size]
    assert not rest
    return formatter.header + b"".join(data)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_the_same_rows_give_the_same_table(tmp_path, monkeypatch, format):
    """In row groups that end by the number of rows and by the bytes of their strings."""
    monkeypatch.setattr(output_files, "GROUP_ROWS", 52)
    monkeypatch.setattr(output_files, "GROUP_BYTES", 5000)
    whole = finish(tmp_path, "whole", format, stream_of([500]))
    rng = random.Random(0)
    for _ in range(3):
        sizes = [1]
        while sum(sizes) < 500:
            sizes.append(min(rng.choice([1, 3, 8, 64, 100]), 500 - sum(sizes)))
        assert finish(tmp_path, "again", format, stream_of(sizes)) == whole
    if format == "parquet":
        file = pa.parquet.ParquetFile(tmp_path / "whole")
        table = file.read()
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    else:
        file = pa.ipc.open_file(tmp_path / "whole")
        table = file.read_all()
        groups = [len(file.get_batch(index)) for index in range(file.num_record_batches)]
    assert [tuple(row.values()) for row in table.to_pylist()] == ROWS
    assert max(groups) == 52
    assert min(groups[:-1]) < 52


def test_a_table_without_rows(tmp_path):
    finish(tmp_path, "empty", "parquet", ArrowFormatter(COLUMNS).header)
    table = pa.parquet.read_table(tmp_path / "empty")
    assert (len(table), table.column_names) == (0, ["flag", "text", "score", "tags"])


def test_what_repeats_has_a_dictionary(tmp_path):
    columns = [Column("text", "text"), Column("label", "label"), Column("score", "score"),
               Column("nothing", "value", pa.null())]
    formatter = ArrowFormatter(columns)
    rows = [(f"text {n}", "no" if n % 3 else "yes", n / 3, None) for n in range(2000)]
    finish(tmp_path, "out", "parquet", formatter.header + formatter.rows(list(zip(*rows))))
    group = pa.parquet.ParquetFile(tmp_path / "out").metadata.row_group(0)
    assert [group.column(number).has_dictionary_page for number in range(3)] == [False, True, False]
    assert pa.parquet.read_table(tmp_path / "out").column("text").to_pylist() == [row[0] for row in rows]


def test_gzip_and_zstd(tmp_path):
    packed = finish(tmp_path, "out.csv.gz", "csv", LINES)
    assert gzip.decompress(packed) == LINES
    assert packed == finish(tmp_path, "another.csv.gz", "csv", LINES)  # neither a name nor a time stands in it
    finish(tmp_path, "out.json.zst", "json", LINES)
    with pa.input_stream(tmp_path / "out.json.zst", compression="zstd") as file:
        assert file.read() == LINES
    assert output_files.finish_of("out.csv", "csv") is None
