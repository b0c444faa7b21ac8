"""3-bit parity through a stock Trainer with growing dendrites. Run by two_ranks.py, it is one of a DDP group."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from parity import parity_model, parity_rows
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from dendritic_bert import DendriticLinear
from dendritic_bert.growth.callback import GrowDendrites, most_epochs
from dendritic_bert.growth.perforatedai_rule import PerforatedGrowth
from dendritic_bert.growth.rule import Growth

RULES = ("perforatedai", "plain")
MOST, TRIES = 2, 2
# A stall, a dendrite that helps, one that does not, a second try that does: with a patience of 2 it ends by itself.
SCORES = (0.5, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.65, 0.65, 0.65, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9)


class ParityRows(Dataset):
    def __init__(self, seed: int, steps: int = 1):
        rows = zip(*parity_rows(seed))
        self.rows = [{"input_ids": input_ids, "labels": label} for input_ids, label in rows] * steps

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


class Log(TrainerCallback):
    """(dendrites, score, learning rate) of every epoch and the optimizers, as they are before the rule decides."""

    def __init__(self):
        self.rows, self.optimizers = [], []

    def on_evaluate(self, args, state, control, model, optimizer, lr_scheduler, metrics, **_):
        layer = model.classifier if isinstance(model.classifier, (DendriticLinear, torch.nn.Sequential)) else None
        layer = layer[0] if isinstance(layer, torch.nn.Sequential) else layer or model.classifier
        count = layer.num_dendrites if isinstance(layer, DendriticLinear) else len(layer.dendrite_module.layers)
        self.rows.append((count, metrics["eval_accuracy"], lr_scheduler.get_last_lr()[0]))
        if not self.optimizers or self.optimizers[-1] is not optimizer:
            self.optimizers.append(optimizer)
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        assert {id(parameter) for parameter in model.parameters() if parameter.requires_grad} == held


def make_training(
    folder: Path, rule: str, *, epochs: int = 5, steps: int = 2, patience: int = 2, head_hidden: int | None = None,
    scores: tuple[float, ...] | None = SCORES, callbacks: tuple[TrainerCallback, ...] = (), start: int = 0, **arguments,
) -> GrowDendrites:
    """``scores``, from the epoch ``start`` on, replace those of the model; None leaves the model's."""
    model = parity_model(5, head_hidden).float()
    script: Iterator[float] = iter((scores or ())[start:])

    def judge(found) -> dict[str, float]:
        return {"accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids)) if scores is None
                else next(script)}

    defaults = {"learning_rate": 0.05, "per_device_train_batch_size": 512, "per_device_eval_batch_size": 512,
                "max_grad_norm": 0.0, "num_train_epochs": most_epochs(MOST, TRIES, epochs), "seed": 1,
                "eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1, "logging_strategy": "no",
                "report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False}
    trainer = Trainer(model, TrainingArguments(str(folder), **defaults | arguments), compute_metrics=judge,
                      train_dataset=ParityRows(0, steps), eval_dataset=ParityRows(1), callbacks=list(callbacks))
    grows = (Growth(model, MOST, patience=patience, tries=TRIES) if rule == "plain"
             else PerforatedGrowth(model, MOST, folder, patience=patience, tries=TRIES))
    return GrowDendrites(trainer, grows, "accuracy", epochs)


def main(folder: Path) -> None:
    """Train as one of two ranks; each process writes the weights that it ends with, and what it saw."""
    for rule in RULES:
        log = Log()
        growing = make_training(folder / rule, rule, callbacks=(log,), per_device_train_batch_size=256,
                                ddp_backend="gloo")
        growing.train()
        assert growing.trainer.args.world_size == 2
        assert type(growing.trainer.model_wrapped) is torch.nn.parallel.DistributedDataParallel
        result = {"weights": growing.trainer.model.state_dict(), "rows": log.rows}
        torch.save(result, folder / f"{rule}-{growing.trainer.args.process_index}.pt")
    torch.distributed.destroy_process_group()  # gloo's threads may abort a process that ends while they live


if __name__ == "__main__":
    main(Path(sys.argv[1]))
