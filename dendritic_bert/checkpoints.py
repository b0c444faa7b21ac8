"""Where a training keeps what it has so far: beside the results, until they are whole.

Everything is written to ``OUTPUT_DIR/.unfinished`` and moves up when the training is done, so that an older model in
``OUTPUT_DIR`` stays whole until a newer one is. An interrupted training leaves its last checkpoint and the scores of
the seeds it had finished; the same command goes on from there, another command starts over.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

FOLDER = ".unfinished"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors and torch.save report a failed write without an errno.
NO_SPACE_WORDS = ("os error 28", "os error 27", "No space left", "PytorchStreamWriter failed writing")


class Workspace:
    """The folder of one training, and what an earlier run of it left there.

    folder: files that become the result. runs: the scores of the seeds that are finished, one dict each.
    """

    def __init__(self, folder: Path, training: dict[str, Any], is_main: bool) -> None:
        self.folder, self.training, self.is_main = folder, training, is_main
        self.runs: list[dict[str, Any]] = []
        with suppress(OSError, ValueError, KeyError):
            found = json.loads((folder / "runs.json").read_bytes())
            if found["training"] == training:
                self.runs = found["runs"]
                return
        if is_main:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._save()

    def checkpoints(self, seed: int) -> Path:
        """The folder for the checkpoints of one seed."""
        return self.folder / f"seed-{seed}"

    def last_checkpoint(self, seed: int) -> str | None:
        """The newest whole checkpoint of that seed; its state is what the Trainer writes last."""
        whole = [path.parent for path in self.checkpoints(seed).glob("checkpoint-*/trainer_state.json")]
        return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None

    def finish_run(self, run: dict[str, Any]) -> None:
        """Remember the scores of a seed; its checkpoints are needed no more."""
        self.runs.append(run)
        if self.is_main:
            self._save()
            shutil.rmtree(self.checkpoints(run["seed"]), ignore_errors=True)

    @property
    def is_worth_keeping(self) -> bool:
        return bool(self.runs) or any(self.folder.glob("seed-*/checkpoint-*/trainer_state.json"))

    def publish(self, output: Path) -> None:
        """Move every file up, the configuration last: without it the folder is no model yet."""
        (self.folder / "runs.json").unlink()
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == "config.json"):
            if path.is_dir() and (output / path.name).is_dir():
                shutil.rmtree(output / path.name)
            os.replace(path, output / path.name)

    def _save(self) -> None:
        new = self.folder / "runs.json.new"
        new.write_text(json.dumps({"training": self.training, "runs": self.runs}, indent=1), encoding="utf-8")
        os.replace(new, self.folder / "runs.json")


@contextmanager
def open_workspace(output_dir: str, training: dict[str, Any]) -> Iterator[Workspace]:
    """The workspace of the ``training`` (JSON values that are the same when it is resumed) whose results belong in
    ``output_dir``; they appear there when the block ends well. After an error what it can be resumed by stays.

    Under torchrun every process comes here, and the first one writes.

    Raises OSError where ``output_dir`` cannot be written, is in use by another training, or the disk becomes full.
    """
    output, is_main = Path(output_dir), int(os.environ.get("RANK", "0")) == 0
    folder, is_new = output / FOLDER, not output.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"output_dir {output} cannot be written ({error.strerror}): name a folder that can.") from error
    lock = FileLock(output / f"{FOLDER}.lock")
    if is_main:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(f"output_dir {output} is in use by another training: wait for it or name another "
                                  "folder.") from None
    try:
        workspace = Workspace(folder, training, is_main)
        try:
            yield workspace
            if is_main:
                workspace.publish(output)
        except BaseException as error:
            if is_main and not workspace.is_worth_keeping:
                shutil.rmtree(folder)
            if isinstance(error, KeyboardInterrupt) and workspace.is_worth_keeping:
                raise KeyboardInterrupt("(the same command goes on where this one ended)") from None
            if is_disk_full(error):
                kept = f"; the last good checkpoint is in {folder}" if workspace.is_worth_keeping else ""
                raise OSError(f"output_dir {output} has no room for the next checkpoint{kept}: free some space and run "
                              "the same command again.") from error
            raise
        if is_main:
            folder.rmdir()
    finally:
        lock.release()
        if is_main:
            Path(lock.lock_file).unlink(missing_ok=True)
            if is_new and output.is_dir() and not any(output.iterdir()):
                output.rmdir()


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is a write for which there was no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        if any(words in str(error) for words in NO_SPACE_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
