"""What an interrupted training leaves in its output folder: the model of the last whole epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..model.files import CONFIG
from .ema import AVERAGE_FILE
from .initialization import longest_row
from .workspace import Workspace

FOLDER = "kept"


def keep_last_epoch(workspace: Workspace, output: Path, model_class: Any, tokenizer: Any, seed: int) -> None:
    """Write the model of the last checkpoint of ``seed``, or the first seed's if that is trained, to ``output``.

    It takes the place of one that an earlier interruption has left. Nothing is written where a finished model stands
    already, or before the first epoch has ended. The training can be resumed all the same. ``workspace.kept`` says what
    was written.
    """
    checkpoint = workspace.last_checkpoint(seed)
    source = workspace.folder if workspace.runs else Path(checkpoint) if checkpoint else None
    is_finished = (output / CONFIG).exists() and not workspace.holds_kept
    if source is None or not workspace.is_main or is_finished:
        return
    model = model_class.from_pretrained(source)
    if (source / AVERAGE_FILE).exists():
        model.load_state_dict(load_file(source / AVERAGE_FILE))
    folder = workspace.folder / FOLDER
    model.save_pretrained(folder)
    tokenizer.model_max_length = longest_row(model.config)
    tokenizer.save_pretrained(folder)
    workspace.keep(folder, output)
    workspace.kept = f"the model of the last whole epoch is in {output}, "
