"""Averaged weights: what is kept of a training is an exponential moving average of its weights over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

AVERAGE_FILE = "average.safetensors"


class AveragedWeights(TrainerCallback):
    """An exponential moving average of the weights, which are put in their place at the end.

    It looks back over ``1 / (1 - decay)`` steps and at most 40 % of the training: of the weights it began with, which
    have learnt nothing, e^-2.5 = 8 % are left at the end even of a short one. It is saved beside every checkpoint,
    before the file that makes the checkpoint whole.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        decay = min(self.decay, max(0.0, 1 - 2.5 / state.max_steps))
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        saved = _checkpoint(args, state) / AVERAGE_FILE
        if state.global_step and saved.exists():
            self.average.module.load_state_dict(load_file(saved))
            self.average.n_averaged.fill_(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.average.update_parameters(model)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            folder = _checkpoint(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(self.average.module.state_dict(), folder / AVERAGE_FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        model.load_state_dict(self.average.module.state_dict())


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
