"""What the runtime writes takes the place of nothing that it should not."""

import fcntl
import gzip
import json
import os
import stat
import threading

import pytest


def test_what_cannot_be_written(runtime, classify_file, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(OSError, match=r"output .*none.out\.csv cannot be written \(No such file or directory\)"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "none" / "out.csv")
    with pytest.raises(ValueError, match="is the input, choose another"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "a\n"
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"^output .*folder\.csv is a folder: name a file\.$"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "folder.csv")
    (tmp_path / "out.csv").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write everything
    with pytest.raises(PermissionError, match=r"^output .*out\.csv is write-protected, choose another path\.$"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "out.csv")
    assert names(tmp_path) == ["a.txt", "folder.csv", "out.csv"]


@pytest.fixture
def replaced(runtime, classify_file, tmp_path):
    """Write lines of JSON to a path, and return what ``look`` gives while the output is being written."""
    (tmp_path / "a.txt").write_text("a film\n")

    def write(output, look=lambda: None):
        seen = []

        class Looking(runtime.TextClassifier):
            def predict_array(self, texts, threads):
                seen.append(look())
                return super().predict_array(texts, threads)

        assert classify_file(Looking(), tmp_path / "a.txt", output) == 1
        return seen[0]

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_of_a_replaced_file_is_kept(replaced, tmp_path, mode):
    """And nobody may read meanwhile what is to replace a private file."""
    output = tmp_path / "out.jsonl"
    output.write_text("old")
    output.chmod(mode)
    meanwhile = replaced(output, (tmp_path / ".out.jsonl.tmp").stat)
    assert stat.S_IMODE(meanwhile.st_mode) == stat.S_IMODE(output.stat().st_mode) == mode
    assert json.loads(output.read_text())["text"] == "a film"


def test_a_file_of_another_owner_is_written_in_place(replaced, tmp_path, monkeypatch):
    def refused(*arguments):
        raise PermissionError

    output = tmp_path / "out.jsonl"
    output.write_text("old, and longer than the new one" * 9)
    before = output.stat()
    monkeypatch.setattr(os, "chown", refused)
    replaced(output)
    assert os.path.samestat(output.stat(), before)
    assert json.loads(output.read_text())["text"] == "a film"
    assert names(tmp_path) == ["a.txt", "out.jsonl"]


def test_a_link_stays_a_link(replaced, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "out.jsonl").symlink_to("folder/target")
    replaced(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").is_symlink()
    assert json.loads((tmp_path / "folder" / "target").read_text())["text"] == "a film"
    assert names(tmp_path) == ["a.txt", "folder", "out.jsonl"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv.gz", "parquet", "arrow"])
def test_a_pipe_stays_a_pipe(replaced, tmp_path, suffix):
    output, found = tmp_path / f"out.{suffix}", []
    os.mkfifo(output)
    if suffix in ("parquet", "arrow"):
        with pytest.raises(ValueError, match=f"is a pipe or a device, which takes no {suffix}: name a file, or wr"):
            replaced(output)
        return
    reader = threading.Thread(target=lambda: found.append(output.read_bytes()))
    reader.start()
    replaced(output)
    reader.join()
    assert b"a film" in (gzip.decompress(found[0]) if suffix.endswith("gz") else found[0])
    assert output.is_fifo()


def test_what_a_killed_run_has_left_is_written_over(replaced, tmp_path):
    (tmp_path / ".out.jsonl.tmp").write_text("half a line" * 99)
    replaced(tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "a film"
    assert names(tmp_path) == ["a.txt", "out.jsonl"]


def test_two_runs_into_one_output(replaced, tmp_path, monkeypatch):
    def second_run():
        with pytest.raises(BlockingIOError, match=r"^output .*out\.jsonl is being written by another process, wait"):
            replaced(tmp_path / "out.jsonl")

    replaced(tmp_path / "out.jsonl", second_run)
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "a film"
    flock = fcntl.flock

    def first_run_ends(file, how):
        os.replace(tmp_path / ".out.jsonl.tmp", tmp_path / "out.jsonl")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", first_run_ends)
    second_run()


def test_the_disk_has_a_file_before_it_gets_its_name(replaced, tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments, name=name, call=call: done.append(name) or call(*arguments))
    replaced(tmp_path / "out.jsonl")
    assert done == ["fsync", "replace"]
