"""Where output goes: nothing of a user's is written over, whatever it is called and through whatever link."""

import errno
import io
import json
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from small_classifier import hugging_face_tokenizer, small_model

from dendritic_bert.inference import output_files, resumable_output
from dendritic_bert.inference.classifier import TextClassifier


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier(small_model(), hugging_face_tokenizer())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("good film\nbad film\n")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# ---- files that are not ours -----------------------------------------------------------------------------------------

NOT_OURS = {"of the user": b"my own notes\n", "empty": b"", "JSON of another program": b'{"run": {}, "position": {}}\n',
            "a list": b"[]\n", "bytes": b"\xff\x00\n", "half a journal": b'{"journal": "dendritic-bert", "run"'}


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(("name", "kind"), [
    (f"out.csv.partial{suffix}", kind) for suffix in ("", ".json", ".whole") for kind in NOT_OURS
    if (suffix, kind) != (".json", "empty")])  # which is the journal of a run that was killed at once
def test_a_file_with_the_name_of_a_partial_or_a_journal(classifier, folder, name, kind, resume):
    Path(name).write_bytes(NOT_OURS[kind])
    before = contents(folder)
    with pytest.raises(FileExistsError, match=rf"{name} is (no file|not a journal) of this program.*: move it away"):
        classifier.classify_file("in.txt", "out.csv", resume=resume)
    assert contents(folder) == before
    Path(name).unlink()
    assert classifier.classify_file("in.txt", "out.csv").num_records == 2


def begin(classifier, monkeypatch) -> None:
    """A run that ends after the first of two records."""
    logits, left = classifier.logits, iter(range(1))
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "logits", lambda texts: logits(texts) if next(left, None) is not None else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            classifier.classify_file("in.txt", "out.csv", batch_size=1, threads=1)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("data", [b"my own notes, longer than what was there before\n" * 9, b"short", b""])
def test_a_partial_that_is_not_the_one_of_its_journal(classifier, folder, monkeypatch, data, resume):
    begin(classifier, monkeypatch)
    Path("out.csv.partial").write_bytes(data)
    before = contents(folder)
    with pytest.raises(FileExistsError, match=r"out\.csv\.partial is not what its journal describes: move both away"):
        classifier.classify_file("in.txt", "out.csv", resume=resume)
    assert contents(folder) == before


def links(target: str, folder: Path) -> dict[str, str]:
    """Other names of a file."""
    os.symlink(target, "symbolic")
    os.link(target, "hard")
    os.symlink(folder, "folder")
    return {name: name for name in ("symbolic", "hard")} | {
        "plain": target, "dotted": f"./folder/../{folder.name}/{target}", "linked folder": f"folder/{target}",
        "absolute": str(folder / target)}


@pytest.mark.parametrize("link", ["plain", "dotted", "linked folder", "absolute", "symbolic", "hard"])
@pytest.mark.parametrize("name", ["out", "out.partial", "out.partial.json", "out.partial.whole"])
def test_an_input_is_never_written_over(classifier, folder, name, link):
    """By a path, by a stream that stands on it, and by standard input; as the output and as what lies beside it."""
    os.rename("in.txt", name)
    input = links(name, folder)[link]
    before = contents(folder)
    message = r"output out (is the input|keeps what it has so far in .*partial.*, which is the input), choose another"
    with pytest.raises(ValueError, match=message):
        classifier.classify_file(input, "out", input_format="text")
    for mode in ("r", "rb"):
        with open(input, mode) as stream, pytest.raises(ValueError, match=message):
            classifier.classify_file(stream, "out")
    assert contents(folder) == before


def test_a_stream_that_goes_on_at_the_end_of_its_input(classifier, folder):
    """`classify --file in.txt >> in.txt` would never end."""
    for mode in ("a", "ab"):
        with open("in.txt", mode) as stream, pytest.raises(ValueError, match="output is the input, choose another"):
            classifier.classify_file("in.txt", stream)
    assert Path("in.txt").read_text() == "good film\nbad film\n"


def test_a_file_of_the_model_is_never_written_over(folder):
    small_model().save_pretrained("model")
    hugging_face_tokenizer().save_pretrained("model")
    before = contents(folder / "model")
    loaded = TextClassifier.from_pretrained("model")
    for name in ("config.json", "tokenizer.json"):
        with pytest.raises(ValueError, match=rf"output model/{name} is model/{name}, a file of the model, choose"):
            loaded.classify_file("in.txt", f"model/{name}")
    loaded.classify_file("in.txt", "model/labels.json")  # a new file harms nothing
    assert {name: data for name, data in contents(folder / "model").items() if name != "labels.json"} == before
    os.symlink("nowhere", "model/dangling")
    loaded.classify_file("in.txt", "model/labels.json")  # nor does one of ours, or a link to nothing


# ---- the name it gets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_of_a_replaced_file_is_kept(classifier, folder, monkeypatch, mode):
    """And nobody may read meanwhile what is to replace a private file."""
    Path("out.csv").write_text("old")
    os.chmod("out.csv", mode)
    logits, seen = classifier.logits, []
    monkeypatch.setattr(classifier, "logits", lambda texts: seen.append(os.stat("out.csv.partial").st_mode)
                        or logits(texts))
    classifier.classify_file("in.txt", "out.csv")
    assert stat.S_IMODE(os.stat("out.csv").st_mode) == mode
    assert [stat.S_IMODE(mode) for mode in seen] == [0o600]


def test_the_mode_of_a_new_file_is_that_of_the_system(classifier, folder):
    before = os.umask(0o027)
    try:
        classifier.classify_file("in.txt", "out.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("out.csv").st_mode) == 0o640


def test_the_owner_of_a_replaced_file_is_kept(classifier, folder, monkeypatch):
    """By chown; where that is not allowed, by writing into the file itself."""
    Path("out.csv").write_text("old " * 100)
    inode, asked = os.stat("out.csv").st_ino, []

    def chown(path, uid, gid):
        asked.append((Path(path).name, uid, gid))
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    classifier.classify_file("in.txt", "out.csv")
    status = os.stat("out.csv")
    assert asked == [("out.csv.partial", status.st_uid, status.st_gid)]
    assert status.st_ino == inode
    assert len(Path("out.csv").read_text().splitlines()) == 3
    assert sorted(contents(folder)) == ["in.txt", "out.csv"]


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_file_that_cannot_be_replaced_is_written_in_place(classifier, folder, monkeypatch, number):
    """As one that is mounted into a container: a rename onto it fails with EBUSY."""
    classifier.classify_file("in.txt", "whole.csv")
    Path("out.csv").write_text("old " * 100)
    inode = os.stat("out.csv").st_ino

    def replace(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", replace)
    classifier.classify_file("in.txt", "out.csv")
    assert os.stat("out.csv").st_ino == inode
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sorted(contents(folder)) == ["in.txt", "out.csv", "whole.csv"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written(classifier, folder, monkeypatch, number):
    """An output that is there is written in place, with a warning; a new one is an error before any work."""
    classifier.classify_file("in.txt", "whole.csv")
    Path("out.csv").write_text("old " * 100)
    open_file = os.open

    def open_no_new_file(path, flags, *rest):
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), str(path))
        return open_file(path, flags, *rest)

    monkeypatch.setattr(os, "open", open_no_new_file)
    with pytest.warns(UserWarning, match="output out.csv is written in place and not resumed: no file can be made"):
        classifier.classify_file("in.txt", "out.csv")
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    monkeypatch.setattr(classifier, "logits", lambda texts: pytest.fail("work was done before the path was tried"))
    with pytest.raises(OSError, match=r"output .*new.csv cannot be written \(.*\), choose another path"):
        classifier.classify_file("in.txt", "new.csv")


def test_a_write_protected_output(classifier, folder, monkeypatch):
    Path("out.csv").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write everything
    with pytest.raises(PermissionError, match=r"output .*out.csv is write-protected, choose another path"):
        classifier.classify_file("in.txt", "out.csv")
    assert sorted(contents(folder)) == ["in.txt", "out.csv"]


def test_the_name_is_durable(classifier, folder, monkeypatch):
    """After the rename the folder is synced, before the journal, by which one could go on, is removed."""
    done = []
    for name in ("fsync", "replace"):
        function = getattr(os, name)

        def recorded(*arguments, function=function, name=name):
            on_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            done.append(("folder" if on_folder else name, Path("out.csv.partial.json").exists()))
            return function(*arguments)

        monkeypatch.setattr(os, name, recorded)
    classifier.classify_file("in.txt", "out.csv")
    assert done[-3:] == [("fsync", True), ("replace", True), ("folder", True)]


@pytest.mark.skipif(resumable_output.fcntl is None, reason="no flock on this system")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks(classifier, folder, monkeypatch, number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(resumable_output.fcntl, "flock", flock)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier.classify_file("in.txt", "out.csv")
    assert [str(warning.message)[:24] for warning in caught] == ["the file system of outpu"]
    assert len(Path("out.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["out.csv.gz", "out.parquet"])
def test_a_table_that_could_not_be_finished(classifier, folder, monkeypatch, name, threads):
    """What is classified stays, and the same call does what is left."""
    classifier.classify_file("in.txt", f"whole.{name}")
    with monkeypatch.context() as patch:
        patch.setattr(output_files.shutil, "copyfileobj", no_room)
        patch.setattr(output_files, "_groups", no_room)
        with pytest.raises(OSError, match=rf"output {name} cannot be written \(No space left on device\): make room"):
            classifier.classify_file("in.txt", name, threads=threads)
    assert sorted(contents(folder)) == ["in.txt", f"{name}.partial", f"{name}.partial.json", f"whole.{name}"]
    Path(f"{name}.partial.whole").write_bytes(b"half of it")  # as it is left by a process that is killed
    assert classifier.classify_file("in.txt", name, threads=threads).num_resumed == 2
    assert Path(name).read_bytes() == Path(f"whole.{name}").read_bytes()
    assert sorted(contents(folder)) == ["in.txt", name, f"whole.{name}"]


def no_room(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


# ---- paths that are no files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/{pid}/fd/{}", "linked"])
def test_a_pipe_by_its_path(classifier, folder, path):
    """As >(program) and /dev/stdout are; on both sides."""
    readable, writable = os.pipe()
    if path == "linked":
        os.symlink(f"/dev/fd/{writable}", "linked")
    with open(readable, "rb") as end:
        classifier.classify_file("in.txt", path.format(writable, pid=os.getpid()))
        os.close(writable)
        lines = end.read().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["good film", "bad film"]
    readable, writable = os.pipe()
    os.write(writable, b"good film\n")
    os.close(writable)
    output = io.BytesIO()
    classifier.classify_file(f"/dev/fd/{readable}", output)
    os.close(readable)
    assert json.loads(output.getvalue())["text"] == "good film"


def test_an_open_file_by_its_path(classifier, folder):
    """What is opened to go on at its end goes on there: `-o /dev/stdout >> log`."""
    Path("log").write_text("before\n")
    with open("log", "a") as log:
        classifier.classify_file("in.txt", f"/dev/fd/{log.fileno()}")
    assert [line[:7] for line in Path("log").read_text().splitlines()] == ["before", '{"text"', '{"text"']
    assert sorted(contents(folder)) == ["in.txt", "log"]
    with open("in.txt", "rb", buffering=0) as stream:
        stream.seek(10)
        output = io.BytesIO()
        classifier.classify_file(f"/dev/fd/{stream.fileno()}", output)
    assert json.loads(output.getvalue())["text"] == "bad film"


def can_mount() -> bool:
    command = ["unshare", "--mount", "true"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="a file can be mounted only by root")
def test_a_mounted_file(folder):
    """The real thing: what is mounted gets the lines."""
    small_model().save_pretrained("model")
    hugging_face_tokenizer().save_pretrained("model")
    Path("outside.jsonl").write_text("old " * 1000)
    Path("inside.jsonl").touch()
    code = "from dendritic_bert import TextClassifier as C\n" \
           "C.from_pretrained('model').classify_file('in.txt', 'inside.jsonl')"
    subprocess.run(["unshare", "--mount", "sh", "-ec", 'mount --bind outside.jsonl inside.jsonl; "$1" -c "$2"', "sh",
                    sys.executable, code], check=True, capture_output=True)
    assert [json.loads(line)["text"] for line in Path("outside.jsonl").read_text().splitlines()] == [
        "good film", "bad film"]
    assert sorted(path.name for path in folder.iterdir()) == ["in.txt", "inside.jsonl", "model", "outside.jsonl"]
