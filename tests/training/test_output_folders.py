"""A folder that cannot be written and a disk without room are errors that name the option, before any long work."""

import errno
import os
import re
from pathlib import Path

import pytest
import torch

from dendritic_bert import PretrainingOptions, pretrain
from dendritic_bert.training import evaluate
from dendritic_bert.training.distillation import distill
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.output_folders import expect_writable, expecting_room, is_disk_full
from dendritic_bert.training.sweep import sweep
from dendritic_bert.training.sweep_options import SweepOptions


@pytest.fixture
def limit():
    """Sets the most bytes that a file may have, as on a disk without room."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_folder_that_cannot_be_written(tmp_path):
    """One that can be made is not made yet."""
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/x/y"):
        with pytest.raises(OSError, match=rf"^teacher_dir .*{folder} cannot be written \(Not a directory\): name a f"):
            expect_writable(tmp_path / folder, "teacher_dir")
    for folder in ("", "new/x/y"):
        expect_writable(tmp_path / folder, "teacher_dir")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("option", ["output_dir", "teacher_dir"])
def test_it_is_found_before_the_teacher_is_loaded(tmp_path, option):
    (tmp_path / "file").write_text("a text\nanother text\n")
    folders = {"output_dir": str(tmp_path / "out"), "teacher_dir": str(tmp_path / "kept"),
               option: str(tmp_path / "file" / "x")}
    given = {"teacher": str(tmp_path / "missing"), "text_file": str(tmp_path / "file"), **folders}
    for start in (lambda: pretrain(PretrainingOptions(**given)), lambda: distill(DistillationOptions(**given))):
        with pytest.raises(OSError, match=rf"^{option} .*file.x cannot be written \(Not a directory\): name a folder"):
            start()
    assert os.listdir(tmp_path) == ["file"]


def test_it_is_found_before_the_model_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^output_dir .*file.x cannot be written \(Not a directory\): name a folder th"):
        evaluate(str(tmp_path / "missing"), dev_file="rows.csv", output_dir=str(tmp_path / "file" / "x"))


def test_a_disk_without_room(tmp_path, limit):
    with pytest.raises(OSError, match=r"^teacher_dir .* has no room: free some space and run the same command ag"):
        write_too_much(tmp_path, limit)
    with pytest.raises(ValueError, match="another"), expecting_room(tmp_path, "teacher_dir"):
        raise ValueError("another")


def write_too_much(folder: Path, limit) -> None:
    with expecting_room(folder, "teacher_dir"), open(folder / "kept", "wb") as file:
        limit(100)
        file.write(bytes(1000))


@pytest.mark.parametrize("size", [1, 100_000])
def test_how_torch_reports_a_disk_without_room(tmp_path, limit, size):
    """Without an errno, and in other words where it is noticed at the end than on the way."""
    limit(100)
    with pytest.raises(RuntimeError) as error:
        torch.save(torch.zeros(size), tmp_path / "optimizer.pt")
    assert is_disk_full(error.value)


def test_a_search_without_room(glue, space, tmp_path, limit):
    """SQLite gives no errno either."""
    options = SweepOptions(dsn=True, data_dir=glue, output_dir=str(tmp_path / "out"), epochs=1, trials=1,
                           space=space(lr={"value": 0.01}))
    limit(1000)
    with pytest.raises(OSError, match=rf"^output_dir {re.escape(options.output_dir)} has no room: free some space and"):
        sweep(options)


def test_an_error_that_a_full_disk_caused():
    error = RuntimeError("it failed")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert is_disk_full(error)
    assert not is_disk_full(OSError(errno.EACCES, os.strerror(errno.EACCES)))
