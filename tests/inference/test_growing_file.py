"""A file is read as it grows, up to the end that its writer names."""

import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cases import SEED

from dendritic_bert.inference.growing_file import GivenUp, GrowingFile


def test_what_is_appended_is_read(tmp_path):
    """All of it, by reads of any size, and not what is written beyond the size that was named."""
    rng, path = random.Random(SEED), tmp_path / "growing"
    data = rng.randbytes(100_000)
    path.touch()
    growing = GrowingFile(path)
    reader = io.BufferedReader(growing, 100)
    with ThreadPoolExecutor(1) as pool, open(path, "ab", buffering=0) as file, reader:
        def read() -> list[bytes]:
            sizes = random.Random(SEED)
            return list(iter(lambda: reader.read(sizes.choice([1, 50, 3000])), b""))

        parts = pool.submit(read)
        place = 0
        while place < len(data):
            end = min(len(data), place + rng.choice([0, 1, 700, 5000]))
            file.write(data[place:end])
            growing.grow_to(end)
            place = end
        file.write(b"beyond")
        growing.grow_to(len(data), is_whole=True)
        assert b"".join(parts.result(timeout=60)) == data
    assert growing.closed


def test_a_writer_that_gives_up(tmp_path):
    """Whoever waits is told, and so is whoever reads later."""
    (tmp_path / "growing").write_bytes(b"abc")
    with GrowingFile(tmp_path / "growing") as growing, ThreadPoolExecutor(1) as pool:
        growing.grow_to(2)
        assert growing.read(10) == b"ab"
        waiting = pool.submit(growing.read, 10)
        threading.Timer(0.05, growing.give_up).start()
        with pytest.raises(GivenUp):
            waiting.result(timeout=60)
        with pytest.raises(GivenUp):
            growing.read(1)
