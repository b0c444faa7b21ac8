"""What classify_file takes of the system's memory, C++ included, where the records of a file are long."""

import json
import os
from pathlib import Path

import pytest

from dendritic_bert.inference.classifier import TextClassifier

RESET = Path("/proc/self/clear_refs")
LINE_BYTES = 16 << 20
# A record may have 64 MiB, and a run is to take no more than 300 MB above the start.
MOST_COPIES = 300e6 / (64 << 20)
CONTENTS = {"words": "the quick brown fox jumps ", "a word": "fox", "chinese": "\u96fb\u5f71", "marks": "\u0301",
            "controls": "\x01", "quotes": '"\\"'}


def memory(name: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most since the last reset."""
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier.from_pretrained()


@pytest.mark.skipif(not os.access(RESET, os.W_OK), reason="this system does not say how much memory was taken at most")
@pytest.mark.parametrize(("input_format", "content", "output_format"), [
    *(("txt", content, "jsonl") for content in CONTENTS), ("jsonl", "words", "jsonl"), ("jsonl", "words", "csv.gz"),
    ("csv", "quotes", "tsv")])
def test_memory_with_long_records(classifier, tmp_path, input_format, content, output_format):
    (tmp_path / "small.txt").write_text("a fine film\n" * 100)
    input = tmp_path / f"in.{input_format}"
    text = CONTENTS[content] * 1000
    inside = {"txt": text, "jsonl": json.dumps(text)[1:-1], "csv": text.replace('"', '""')}[input_format]
    before, after = {"txt": ("", "\n"), "jsonl": ('{"text": "', '"}\n'), "csv": ('"', '"\n')}[input_format]
    with open(input, "w") as file:  # without a long text in memory, which would leave room there
        file.write("text\n" * (input_format == "csv"))
        for _ in range(3):
            file.write(before)
            for _ in range(LINE_BYTES // len(inside.encode())):
                file.write(inside)
            file.write(after)
    classifier.classify_file(tmp_path / "small.txt", tmp_path / "small.jsonl", threads=2)
    RESET.write_text("5")
    start = memory("VmRSS")
    classifier.classify_file(input, tmp_path / f"out.{output_format}", threads=2)
    assert (memory("VmHWM") - start) / (input.stat().st_size / 3) < MOST_COPIES
