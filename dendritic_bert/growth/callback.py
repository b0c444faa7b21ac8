"""Growing dendrites while a stock Hugging Face ``Trainer`` trains, by a callback.

    trainer = Trainer(model, arguments, ..., eval_dataset=held_out)       # eval_strategy="epoch"
    growing = GrowDendrites(trainer, PerforatedGrowth(model, 3, "out"), "accuracy", epochs=10)
    growing.train(resume_from_checkpoint=None)                            # or trainer.train()

A *stage* is the time between two dendrites. It has its own optimizer and its own learning rate schedule.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback

from ..model.files import WEIGHTS
from .rule import Outcome


class Rule(Protocol):
    """When a dendrite grows: ``rule.Growth`` or ``perforatedai_rule.PerforatedGrowth``."""

    is_done: bool

    @property
    def num_dendrites(self) -> int: ...
    def add_score(self, score: float, stage_is_over: bool = False, optimizer: Any = None) -> Outcome: ...
    def finish(self) -> None: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path, weights: dict[str, Tensor]) -> None: ...
    def guard(self) -> AbstractContextManager[None]: ...


def most_epochs(max_dendrites: int, tries: int, epochs: int) -> int:
    """The ``num_train_epochs`` that always suffice: one stage without dendrites, and one for every try at each."""
    return epochs * (1 + max_dendrites * tries)


class GrowDendrites(TrainerCallback):
    """Gives every evaluation's score to ``rule``, and renews optimizer, schedule and DDP wrapper whenever it grows.

    When the rule is done the training stops, and the model has the best weights and ``DendriticLinear`` layers. Under
    DDP every process decides the same from the same score, the first process first.

    Args:
        trainer: a Trainer that evaluates every epoch; the callback adds itself to it.
        rule: a rule on the trainer's model.
        score: the name of the score among the evaluation's metrics, without "eval_"; or rows, whose loss is the score
            (the rule must then minimize).
        epochs: the most epochs of a stage, over which the learning rate falls; the rule's patience may end it sooner.
    """

    def __init__(self, trainer: Trainer, rule: Rule, score: str | Dataset[Any], epochs: int) -> None:
        self.trainer, self.rule, self.score, self.epochs = trainer, rule, score, epochs
        self.stage_epoch = self.stage_steps = 0
        self.is_training = False
        trainer.add_callback(self)

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """``trainer.train()``, which can resume from a checkpoint of a growing training, to the same result.

        Raises RuntimeError if PerforatedAI gives up, whatever it does instead of raising.
        """
        if resume_from_checkpoint is not None:
            checkpoint = Path(resume_from_checkpoint)
            saved = _state_folder(checkpoint.parent, int(checkpoint.name.split("-")[1]))
            self.stage_epoch = json.loads((saved / "stage.json").read_text())["epoch"]
            with self.trainer.args.main_process_first(local=False):
                self.rule.load(saved, load_file(checkpoint / WEIGHTS))
            self.trainer.accelerator.wait_for_everyone()
        if self.rule.is_done:
            self.rule.finish()
            self.trainer.accelerator.wait_for_everyone()
            return
        with self.rule.guard():
            self.trainer.train(resume_from_checkpoint=resume_from_checkpoint)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.is_training = True
        self.stage_steps = self.epochs * round(state.max_steps / state.num_train_epochs)
        loaded = self.trainer.lr_scheduler.state_dict() if state.global_step else None  # type: ignore[union-attr]
        self._start_schedule()
        if loaded is not None:
            self.trainer.lr_scheduler.load_state_dict(loaded)  # type: ignore[union-attr]
            for group, lr in zip(self.trainer.optimizer.param_groups, loaded["_last_lr"]):  # type: ignore[union-attr]
                group["lr"] = lr

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if not self.is_training:
            return
        self.stage_epoch += 1
        score = metrics[f"eval_{self.score}"] if isinstance(self.score, str) else self._loss_on(self.score)
        with args.main_process_first(local=False):
            outcome = self.rule.add_score(score, self.stage_epoch == self.epochs, self.trainer.optimizer)
        self.trainer.accelerator.wait_for_everyone()  # before the first process replaces files that the others read
        if outcome is not Outcome.UNCHANGED:
            self.stage_epoch = 0
        if outcome is Outcome.GREW:
            self._rebuild()
        control.should_training_stop |= outcome is Outcome.DONE
        if args.should_save and args.save_strategy != "no":
            self._save(Path(args.output_dir), state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.is_training = False
        self.rule.finish()
        self.trainer.accelerator.wait_for_everyone()

    def _loss_on(self, rows: Dataset[Any]) -> float:
        batches = self.trainer.get_eval_dataloader(rows)
        found = self.trainer.evaluation_loop(batches, "held-out rows", prediction_loss_only=True)
        return found.metrics["eval_loss"]  # type: ignore[index]

    def _start_schedule(self) -> None:
        self.trainer.lr_scheduler = None
        self.trainer.create_scheduler(self.stage_steps)
        self.trainer.callback_handler.lr_scheduler = self.trainer.lr_scheduler

    def _rebuild(self) -> None:
        """Make a new optimizer, schedule and DDP wrapper for the new parameters."""
        trainer = self.trainer
        trainer.accelerator.free_memory()
        trainer.optimizer = None
        trainer.create_optimizer()
        wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        if trainer.model_wrapped is not trainer.model:
            # The training loop keeps a reference to the old wrapper, so that one takes on the new one's state.
            trainer.model_wrapped.__dict__ = wrapped.__dict__
        trainer.callback_handler.optimizer = trainer.optimizer
        self._start_schedule()

    def _save(self, folder: Path, step: int) -> None:
        """Save the rule's state before the Trainer writes the checkpoint of this step, so that no checkpoint lacks it,
        and delete the states whose checkpoints are gone."""
        state = _state_folder(folder, step)
        self.rule.save(state)
        (state / "stage.json").write_text(json.dumps({"epoch": self.stage_epoch}))
        for other in folder.glob("growth-*"):
            if other != state and not (folder / other.name.replace("growth", "checkpoint")).exists():
                with contextlib.suppress(OSError):
                    shutil.rmtree(other)


def _state_folder(folder: Path, step: int) -> Path:
    return folder / f"growth-{step}"
