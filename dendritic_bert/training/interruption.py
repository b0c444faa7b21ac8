"""What an interrupted training leaves in its output folder: the model of the last whole epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..datasets.benchmark import Benchmark
from ..model.files import CONFIG
from .ema import AVERAGE_FILE
from .initialization import longest_row
from .workspace import RUNS_FILE, Workspace

FOLDER = "kept"


def keep_last_epoch(workspace: Workspace, output: Path, benchmark: Benchmark, tokenizer: Any, seed: int) -> None:
    """Write the model of the last checkpoint of ``seed``, or the first seed's if that is trained, to ``output``.

    It takes the place of one that an earlier interruption has left. Nothing is written where a finished model stands
    already, or before the first epoch has ended. The training can be resumed all the same. ``workspace.kept`` says what
    was written.
    """
    checkpoint = workspace.last_checkpoint(seed)
    is_finished = (output / CONFIG).exists() and not workspace.holds_kept
    if not (workspace.runs or checkpoint) or not workspace.is_main or is_finished:
        return
    folder = workspace.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if workspace.runs:
        shutil.copytree(workspace.folder, folder, ignore=shutil.ignore_patterns(FOLDER, RUNS_FILE, "seed-*"))
        config = benchmark.load(folder).config
    else:
        model = benchmark.model_class.from_pretrained(checkpoint)
        if Path(str(checkpoint), AVERAGE_FILE).exists():
            model.load_state_dict(load_file(Path(str(checkpoint), AVERAGE_FILE)))
        benchmark.save(model, folder)
        config = model.config
    tokenizer.model_max_length = longest_row(config)
    for path in benchmark.folders(folder):
        tokenizer.save_pretrained(path)
    workspace.keep(folder, output)
    workspace.kept = f"the model of the last whole epoch is in {output}, "
