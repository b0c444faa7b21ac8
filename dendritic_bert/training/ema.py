"""An exponential moving average (EMA) of the weights over the steps of a training, which is kept in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

AVERAGE_FILE = "average.safetensors"


class AveragedWeights(TrainerCallback):
    """Averages the weights over the steps and puts the average into the model when the training ends.

    The average looks back over ``1 / (1 - decay)`` steps, but over at most 40 % of the training: even after a short
    one, only e^-2.5 = 8 % of it are the initial weights, which have learnt nothing. It is saved with every checkpoint,
    before the file that completes the checkpoint.
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
        if state.is_world_process_zero and control.should_save:
            folder = _checkpoint(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(self.average.module.state_dict(), folder / AVERAGE_FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        model.load_state_dict(self.average.module.state_dict())


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
