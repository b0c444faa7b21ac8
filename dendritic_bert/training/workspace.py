"""The folder in which a training works until its results are complete.

Everything is written to ``OUTPUT_DIR/.unfinished`` and moves up when the training ends, so that an older model in
``OUTPUT_DIR`` stays whole until a newer one is. An interrupted training leaves its last checkpoint and the scores of
the seeds that it finished: the same command continues from there, another command starts over.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..atomic_write import atomic_path
from ..auto_classes import MODEL_TYPE
from ..file_lock import locked
from ..growth.perforatedai_rule import SAVE_NAME
from ..model.files import BAG_FOLDER, CONFIG, MODEL_FILES
from .evaluation_report import PICTURES
from .output_folders import expect_no_other_files, expect_writable, is_disk_full

FOLDER, LOCK = ".unfinished", ".unfinished.lock"
WRITTEN = (*MODEL_FILES, *PICTURES, BAG_FOLDER, SAVE_NAME)  # the names that trainings write in OUTPUT_DIR
RUNS_FILE = "runs.json"  # in that folder, where it shows that the folder is this program's
UNFINISHED_RUNS = f".{RUNS_FILE}."  # how the names begin that atomic_path gives the file until it is whole


class Workspace:
    """The folder of one training, with what an earlier run of the same training left there.

    folder: holds the files that become the result. runs: the scores of the finished seeds, one dict per seed. kept:
    what an interrupted training has written to the output folder, in words. holds_kept: whether the model in the output
    folder is one that an interrupted training has written there, which a newer one may replace. replaced: while the
    result moves to the output folder, the files that an earlier model leaves there; else None.
    """

    def __init__(self, folder: Path, training: dict[str, Any], is_main: bool) -> None:
        self.folder, self.training, self.is_main = folder, training, is_main
        self.runs: list[dict[str, Any]] = []
        self.kept, self.holds_kept = "", False
        self.replaced: list[str] | None = None
        if is_main:  # else they would move up with the result
            for path in folder.glob(f"{UNFINISHED_RUNS}*"):
                path.unlink()
        found = _notes(folder / RUNS_FILE)
        self.holds_kept = found.get("holds_kept", False)
        if found and found["training"] == training:
            self.runs = found["runs"]
            return
        if is_main and found.get("replaced") is not None:  # a move that was interrupted
            self._finish_move(folder.parent, found["replaced"])
        if is_main:
            self._empty()

    def _empty(self) -> None:
        """Delete what another training has left. The list of runs stays, as one of no training, until there is nothing
        else: without it a folder is not this program's, and under this one's name old checkpoints would be gone on
        from."""
        training, self.training = self.training, {}
        self._save()
        for path in self.folder.iterdir():
            if path.name != RUNS_FILE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.training = training
        self._save()

    def checkpoints(self, seed: int) -> Path:
        """The folder for the checkpoints of one seed."""
        return self.folder / f"seed-{seed}"

    def last_checkpoint(self, seed: int) -> str | None:
        """The newest complete checkpoint of that seed, or None: the Trainer writes ``trainer_state.json`` last."""
        complete = [path.parent for path in self.checkpoints(seed).glob("checkpoint-*/trainer_state.json")]
        return str(max(complete, key=lambda path: int(path.name.split("-")[1]))) if complete else None

    def finish_run(self, run: dict[str, Any]) -> None:
        """Save the scores of a seed and delete its checkpoints."""
        self.runs.append(run)
        if self.is_main:
            self._save()
            shutil.rmtree(self.checkpoints(run["seed"]), ignore_errors=True)

    @property
    def can_be_resumed(self) -> bool:
        """Whether the folder holds anything that the same command could continue from."""
        return bool(self.runs) or any(self.folder.glob("seed-*/checkpoint-*/trainer_state.json"))

    def keep(self, folder: Path, output: Path) -> None:
        """Move the model in ``folder``, of an epoch before the last, to ``output``, and note that it is none of a
        finished training."""
        self.holds_kept = True
        self._save()
        move_model(folder, output)
        folder.rmdir()

    def publish(self, output: Path) -> None:
        """Move every file up. What an earlier model had and this one has not is deleted. If the move is interrupted,
        whoever opens the folder next ends it."""
        is_model = _is_model(output / CONFIG)
        self.replaced = [name for name in MODEL_FILES if is_model and not (self.folder / name).exists()]
        self.training, self.runs = {}, []  # which nothing goes on from
        self._save()
        self._finish_move(output, self.replaced)
        (self.folder / RUNS_FILE).unlink()

    def _finish_move(self, output: Path, replaced: list[str]) -> None:
        move_model(self.folder, output, replaced)
        self.holds_kept = False

    def _save(self) -> None:
        with atomic_path(self.folder / RUNS_FILE) as unfinished:
            unfinished.write_text(json.dumps({"training": self.training, "runs": self.runs,
                                              "holds_kept": self.holds_kept, "replaced": self.replaced}, indent=1),
                                  encoding="utf-8")


def move_model(folder: Path, output: Path, replaced: Sequence[str] = ()) -> None:
    """Move every file but the list of runs, the configuration last: without it ``output`` is not yet a model. So it
    loses that of an older model first, whose weights must not be taken for the new one's or the reverse, and then the
    files ``replaced``. In a folder that both have, what only ``output`` has there stays: it may be a user's. A second
    call goes on with a move that was interrupted."""
    if (folder / CONFIG).exists():
        (output / CONFIG).unlink(missing_ok=True)
    for name in replaced:
        (output / name).unlink(missing_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG):
        if path.name == RUNS_FILE:
            continue
        if path.is_dir() and (output / path.name).is_dir():
            move_model(path, output / path.name)
            path.rmdir()
        else:
            os.replace(path, output / path.name)


@contextmanager
def open_workspace(output_dir: str, training: dict[str, Any]) -> Iterator[Workspace]:
    """The workspace of a training whose results belong in ``output_dir``, where they appear when the block ends.

    ``training`` is a dict of JSON values that is the same when the training is resumed. After an error, whatever the
    training can be resumed from stays. Under torchrun every process opens the workspace, and the first one writes.

    Raises OSError if ``output_dir`` cannot be written, holds files that this program has not written under the names
    that it writes, is in use by another training, or if the disk becomes full.
    """
    output, is_main = Path(output_dir), _is_main()
    folder, is_new = output / FOLDER, not output.exists()
    _refuse_files_of_others(output, folder)
    expect_writable(output, "output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(output / LOCK, f"output_dir {output}") if is_main else nullcontext():
            workspace = Workspace(folder, training, is_main)
            with _keeping_what_can_be_resumed(workspace, output):
                yield workspace
                if is_main:
                    workspace.publish(output)
            if is_main:
                folder.rmdir()
    finally:
        if is_main and is_new and output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def expect_usable(output_dir: str) -> None:
    """Raise as ``open_workspace`` does, before work that takes long and needs no workspace yet."""
    output = Path(output_dir)
    _refuse_files_of_others(output, output / FOLDER)
    expect_writable(output, "output_dir")
    if _is_main() and (output / LOCK).exists():
        with locked(output / LOCK, f"output_dir {output}"):
            pass


def _is_main() -> bool:
    """Whether this is the first, or the only one, of several processes (torchrun)."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def _keeping_what_can_be_resumed(workspace: Workspace, output: Path) -> Iterator[None]:
    """After an error, delete what no training can go on from, and name what there is in the error."""
    try:
        yield
    except BaseException as error:
        has_notes = workspace.holds_kept or workspace.replaced is not None
        if workspace.is_main and not (workspace.can_be_resumed or has_notes):
            shutil.rmtree(workspace.folder)
        if isinstance(error, KeyboardInterrupt) and workspace.can_be_resumed:
            raise KeyboardInterrupt(f"({workspace.kept}the same command goes on where this one ended)") from None
        if is_disk_full(error):
            kept = f"; the last good checkpoint is in {workspace.folder}" if workspace.can_be_resumed else ""
            raise OSError(f"output_dir {output} has no room for the next checkpoint{kept}: free some space and run "
                          "the same command again.") from error
        raise


def _refuse_files_of_others(output: Path, folder: Path) -> None:
    """Raise FileExistsError if a training would delete or replace files that this program has not written."""
    in_folder = os.listdir(folder) if folder.is_dir() else []
    notes = _notes(folder / RUNS_FILE)
    # An unfinished list of runs alone is what a training has left that was killed as it began.
    if not notes and not all(name.startswith(UNFINISHED_RUNS) for name in in_folder):
        raise FileExistsError(f"{folder} is not a folder of this program, as it holds no {RUNS_FILE} of a training: "
                              "move it, or name another output_dir.")
    has_moved = notes.get("holds_kept") or notes.get("replaced") is not None  # files of a training to OUTPUT_DIR
    if has_moved or _is_model(output / CONFIG):
        return
    expect_no_other_files(output, WRITTEN, "model of this program")


def _notes(path: Path) -> dict[str, Any]:
    """What a list of runs holds; nothing if it is none of this program."""
    try:
        found = json.loads(path.read_bytes())
        return found if {"training", "runs"} <= found.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_model(path: Path) -> bool:
    try:
        return json.loads(path.read_bytes())["model_type"] == MODEL_TYPE
    except (OSError, ValueError, KeyError, TypeError):
        return False
