"""When a dendrite grows, and which weights are kept: PerforatedAI's rule, without PerforatedAI.

After every epoch the rule is given a score on rows that are not trained on. If the score has not improved for
``patience`` epochs, the best weights so far are restored, and every layer of the head grows one dendrite. A dendrite
that did not improve the score is lost at the next restoration, as the best weights do not have it. Growth ends after
``tries`` such dendrites in a row, or when ``max_dendrites`` dendrites have improved the score.

This is the rule of perforatedai 3.2.9 (``DOING_HISTORY`` with default settings): it decides the same in every epoch,
and from the same seed it gives new dendrites the same numbers.
"""

from __future__ import annotations

import enum
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..model.dendritic_linear import dendritic_layers, resize_dendrites

# PerforatedAI's improvement_threshold and improvement_threshold_raw. A score is better if it exceeds the best so far by
# more than this share of itself (the first number applies without a dendrite, the second with one, ...) and by more
# than the absolute gain.
RELATIVE_GAINS = (0.001, 0.0001, 0.0)
ABSOLUTE_GAIN = 1e-5


class Outcome(enum.Enum):
    """What a score has done to the model. GREW and DONE leave it with other parameters than before."""

    UNCHANGED = "unchanged"
    GREW = "grew"
    DONE = "done"


@dataclass
class _Progress:
    """What the rule remembers beside the best weights, and restores with them."""

    epoch: int = 0
    switched_at: int = 0
    improved_at: int = 0
    stage_best: float = 0.0
    best: float = 0.0
    stage_improved: bool = True
    num_dendrites: int = 0
    failed_tries: int = 0


class Growth:
    """PerforatedAI's rule on the ``DendriticLinear`` layers of ``model``.

    Args:
        model: any module with such layers, all with the same number of dendrites.
        max_dendrites: the most dendrites of each output.
        patience: epochs without a better score after which a dendrite grows (``n_epochs_to_switch``).
        tries: dendrites in a row that may fail to improve the score (``max_dendrite_tries``).
        maximize: whether a higher score is better.

    Raises ValueError if the layers have different numbers of dendrites.
    """

    def __init__(
        self, model: nn.Module, max_dendrites: int, *, patience: int = 10, tries: int = 2, maximize: bool = True
    ) -> None:
        self.model, self.max_dendrites = model, max_dendrites
        self.patience, self.tries, self.maximize = patience, tries, maximize
        start = {layer.num_dendrites for layer in dendritic_layers(model).values()}
        if len(start) != 1:
            raise ValueError(f"the layers of model have {sorted(start)} dendrites, expected the same number in each.")
        self._now = _Progress(num_dendrites=start.pop())
        self._best = replace(self._now)
        self._weights: dict[str, Tensor] = {}
        self.is_done = False

    @property
    def num_dendrites(self) -> int:
        """Dendrites of each output at present."""
        return self._now.num_dendrites

    def guard(self) -> AbstractContextManager[None]:
        """A context for the training loop (see ``PerforatedGrowth.guard``); this rule needs none."""
        return nullcontext()

    def add_score(self, score: float, stage_is_over: bool = False, optimizer: Any = None) -> Outcome:
        """Take the score of one more epoch; ``stage_is_over`` ends the stage before patience runs out."""
        now = self._now
        since_switch = now.epoch - now.switched_at
        if since_switch > 0 and (now.stage_best == 0 or self._is_better(score, now.stage_best)):
            now.stage_best, now.improved_at = score, now.epoch
            if now.best == 0 or self._is_better(score, now.best):
                now.best, now.stage_improved = score, True
                self._store()
        elif not self._weights:
            self._store()
        if stage_is_over or (since_switch >= self.patience and now.epoch - now.improved_at >= self.patience):
            return self._switch()
        now.epoch += 1
        return Outcome.UNCHANGED

    def _is_better(self, score: float, than: float) -> bool:
        sign = 1 if self.maximize else -1
        share = RELATIVE_GAINS[min(self._now.num_dendrites, len(RELATIVE_GAINS) - 1)]
        return sign * (score * (1 - sign * share) - than) > 0 and sign * (score - than) > ABSOLUTE_GAIN

    def _store(self) -> None:
        self._best = replace(self._now)
        self._weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def _switch(self) -> Outcome:
        """Restore the best weights, and grow a dendrite or end with them."""
        failed_tries = None if self._now.stage_improved else self._now.failed_tries + 1
        if failed_tries == self.tries or (failed_tries is None and self._now.num_dendrites >= self.max_dendrites):
            self.finish()
            return Outcome.DONE
        self._restore()
        now = self._now
        # If the last dendrite helped, the count is the one of when it did: PerforatedAI resets it, then restores it.
        now.failed_tries = now.failed_tries if failed_tries is None else failed_tries
        now.switched_at, now.stage_best, now.stage_improved = now.epoch, 0.0, False
        now.epoch += 1
        now.improved_at = now.epoch
        now.num_dendrites += 1
        resize_dendrites(self.model, now.num_dendrites)
        return Outcome.GREW

    def _restore(self) -> None:
        self._now = replace(self._best)
        # PerforatedAI makes every dendrite anew before it loads the weights; doing the same draws the same numbers.
        resize_dendrites(self.model, 0)
        resize_dendrites(self.model, self._now.num_dendrites)
        self.model.load_state_dict(self._weights)

    def finish(self) -> None:
        """Restore the best weights."""
        if not self.is_done and self._weights:
            self._restore()
        self.is_done = True

    def save(self, folder: Path) -> None:
        """Write to ``folder`` what ``load`` needs beside the model's own weights."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._weights, folder / "best.safetensors")
        progress = [self.is_done, asdict(self._now), asdict(self._best)]
        (folder / "growth.json").write_text(json.dumps(progress), encoding="utf-8")

    def load(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Continue from what ``save`` wrote to ``folder``; ``weights`` are those that the model had then."""
        self.is_done, now, best = json.loads((folder / "growth.json").read_text(encoding="utf-8"))
        self._now, self._best = _Progress(**now), _Progress(**best)
        self._weights = load_file(folder / "best.safetensors")
        resize_dendrites(self.model, self._now.num_dendrites)
        self.model.load_state_dict(weights)
