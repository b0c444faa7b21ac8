"""Format and compression of a file by its suffix and first bytes; what is not read is refused, with a remedy."""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from pathlib import Path

INPUT_FORMATS = {"text": (".txt", ".text"), "csv": (".csv",), "tsv": (".tsv", ".tab"),
                 "jsonl": (".jsonl", ".ndjson", ".json"), "parquet": (".parquet", ".pq"),
                 "arrow": (".arrow", ".feather", ".ipc")}
OUTPUT_FORMATS = {"json": (".json", ".jsonl", ".ndjson", ".txt"), "csv": (".csv",), "tsv": (".tsv", ".tab"),
                  "parquet": INPUT_FORMATS["parquet"], "arrow": INPUT_FORMATS["arrow"]}
TABLE_FORMATS = ("parquet", "arrow")  # the others are lines of text, which may be compressed
COMPRESSIONS = {"gzip": (".gz",), "zstd": (".zst", ".zstd")}

HEAD_BYTES = 4096  # how many bytes of the start of an input are looked at
# The little-endian mark of UTF-32 begins with that of UTF-16, so it must come first.
BYTE_ORDER_MARKS = {BOM_UTF32_LE: "utf-32", BOM_UTF32_BE: "utf-32", BOM_UTF16_LE: "utf-16", BOM_UTF16_BE: "utf-16"}

_DECOMPRESS = "decompress it first, for example through a pipe"
_TWICE = "decompress it once, for example through a pipe"
_EXPORT = "export its table as CSV first"
# kind -> suffixes, pattern of the first bytes, what to do
_FOREIGN: dict[str, tuple[tuple[str, ...], bytes, str]] = {
    "gzip": ((".tgz",), rb"\x1f\x8b", _TWICE),
    "zstd": ((), rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", _TWICE),  # or a skippable frame, as pzstd has it
    "xz": ((".xz", ".lzma"), rb"\xfd7zXZ\x00", _DECOMPRESS),
    "bzip2": ((".bz2",), rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)", _DECOMPRESS),
    "lz4": ((".lz4",), rb"\x04\x22\x4d\x18", _DECOMPRESS),
    "compress": ((".z",), rb"\x1f\x9d", _DECOMPRESS),
    "brotli": ((".br",), rb"(?!)", _DECOMPRESS),  # its files begin with no bytes of their own
    "snappy": ((".snappy", ".sz"), rb"\xff\x06\x00\x00sNaPpY", _DECOMPRESS),
    "Excel": ((".xlsx", ".xlsm", ".xls", ".ods"), rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _EXPORT),
    "zip": ((".zip", ".docx", ".npz"), rb"PK(\x03\x04|\x05\x06|\x07\x08)", "unpack it, and export a table as CSV"),
    "7-Zip": ((".7z",), rb"7z\xbc\xaf\x27\x1c", _DECOMPRESS),
    "RAR": ((".rar",), rb"Rar!\x1a\x07", _DECOMPRESS),
    "tar": ((".tar",), rb"(?s).{257}ustar", "unpack it first"),
    "Parquet": ((), rb"PAR[1E]", "pass input_format='parquet' (--input-format parquet)"),
    "Arrow": ((), rb"ARROW1\x00|FEA1|\xff\xff\xff\xff.{3}\x00", "pass input_format='arrow' (--input-format arrow)"),
    "ORC": ((".orc",), rb"ORC", _EXPORT),
    "Avro": ((".avro",), rb"Obj\x01", _EXPORT),
    "SQLite": ((".sqlite", ".sqlite3", ".db"), rb"SQLite format 3\x00", _EXPORT),
    "HDF5": ((".h5", ".hdf5"), rb"\x89HDF\r\n\x1a\n", _EXPORT),
    "NumPy": ((".npy",), rb"\x93NUMPY", "save its strings as lines of text first"),
    "pickle": ((".pkl", ".pickle"), rb"\x80[\x02-\x05]", _EXPORT),
    "PDF": ((".pdf",), rb"%PDF-", "extract its text first"),
    "an image": ((".png", ".jpg", ".jpeg", ".gif"), rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a", "it has no text to read"),
    "a program": ((".exe", ".so"), rb"\x7fELF|MZ\x90\x00", "it has no text to read"),
}
# Bytes that text never holds: control characters other than tab, line ends, page ends, backspace and escape.
_CONTROL = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f]")


def choose_format(argument: str, wanted: str | None, path: object, formats: dict[str, tuple[str, ...]]) -> str:
    """``wanted``, or else the format of the suffix of ``path``, or the first of ``formats`` if there is no suffix.

    A suffix of a compression, as in ``reviews.csv.gz``, is passed over. Raises ValueError for a format or a suffix that
    is not among ``formats``, for an output whose suffix is that of another kind of file, whatever is wanted, and for a
    table that is to be compressed as a whole.
    """
    if wanted is not None and wanted not in formats:
        raise ValueError(f"{argument} is {wanted!r}, known are {', '.join(formats)}.")
    put = "output" if formats is OUTPUT_FORMATS else "input"
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
    compressed = compression_of(path) is not None
    suffix = Path(os.path.splitext(name)[0] if compressed else name).suffix.lower()
    kind = next((kind for kind, (suffixes, _, _) in _FOREIGN.items() if suffix in suffixes), None)
    if kind is not None and put == "output":
        raise ValueError(f"output {path} has the suffix of {kind}, which is not written: choose one of "
                         f"{_suffixes(formats)}, and convert the result.")
    known = wanted or next((format for format, suffixes in formats.items() if suffix in suffixes), None)
    if known in TABLE_FORMATS and compressed:
        raise ValueError(f"{put} {path} is {known} that is compressed once more: leave out {Path(name).suffix}, as the "
                         "format itself compresses.")
    if known is not None:
        return known
    if kind is not None:
        raise ValueError(f"input {path} has the suffix of {kind}, which is not read: {_FOREIGN[kind][2]}, or pass "
                         f"{argument} if it is text all the same.")
    if suffix:
        raise ValueError(f"{put} {path} has an unknown suffix ({suffix}): pass {argument}, one of "
                         f"{', '.join(formats)}.")
    return next(iter(formats))


def compression_of(path: object) -> str | None:
    """The compression that the suffix of ``path`` names, "gzip" or "zstd"; None for another suffix or no path."""
    suffix = Path(path).suffix.lower() if isinstance(path, (str, os.PathLike)) else ""
    return next((kind for kind, suffixes in COMPRESSIONS.items() if suffix in suffixes), None)


def compression_of_bytes(head: bytes) -> str | None:
    """The compression of an input that begins with ``head``; None for another."""
    return next((kind for kind in COMPRESSIONS if re.match(_FOREIGN[kind][1], head)), None)


def _suffixes(formats: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(suffix for suffixes in formats.values() for suffix in suffixes)


def encoding_of(head: bytes) -> str | None:
    """The encoding that a byte order mark at the start names, "utf-16" or "utf-32"; None for UTF-8."""
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)


def refuse_foreign_bytes(head: bytes, name: str) -> None:
    """Raise ValueError if ``head``, the start of the input ``name``, is not the start of a text in UTF-8.

    First bytes that are letters (``PAR1``) count only if control characters follow, which text never holds.
    """
    for kind, (_, start, remedy) in _FOREIGN.items():
        match = re.match(start, head)
        if match and (not match[0].isascii() or _CONTROL.search(head)):
            raise ValueError(f"{name} is not text but {kind}, by its first bytes: {remedy}.")
    if head.count(0) > len(head) // 8:
        raise ValueError(f"{name} is not text in UTF-8, {head.count(0)} of its first {len(head)} bytes are 0: where it "
                         "is UTF-16 without a byte order mark, convert it (iconv -f UTF-16LE -t UTF-8).")
