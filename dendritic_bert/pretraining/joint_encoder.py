"""Two encoders with one word table, trained together: one with windows, and the gated bag of words without them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from ..kernels import ops
from ..model.base import leave_untold
from ..model.configuration import DendriticBertConfig
from ..model.modeling import DendriticBertForSequenceClassification
from ..model.window_modules import TokenGate, no_windows

WITHOUT_WINDOWS = {"window_layers": 0, "window_dendrites": 0}
BAG = "bag_"  # begins the names of what the model without windows has for itself


class JointEncoder(DendriticBertForSequenceClassification):
    """The model with windows, and beside it gate and projection of the model without, which reads the same embeddings.

    ``logits`` are ``[B, 2 D]``: the embeddings by the model with windows, then those by the other.
    """

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.bag_gate = TokenGate(bag_config(config))
        self.bag_projection = nn.Linear(config.hidden_size, int(config.num_labels or 0))

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,  # type: ignore[override]
                labels: Any = None, **_: Any) -> SequenceClassifierOutput:
        """Embeddings of ``input_ids [B, L]``. By the name of ``labels``, which are not used, the Trainer knows what to
        hand to the metrics."""
        assert input_ids is not None
        with_windows: Any = super().forward(input_ids, attention_mask, return_dict=True)
        embeddings = self.bert.embeddings
        words, types = embeddings.word_embeddings.weight, embeddings.token_type_embeddings.weight
        p_embed, p_pool = (dropout.p if dropout.training else 0.0 for dropout in (embeddings.dropout, self.dropout))
        pooled = ops.window_pool(input_ids, words, types, None, None, *no_windows(self.config, words),
                                 self.bag_gate.weight, self.bag_gate.word_bias, attention_mask=attention_mask,
                                 p_embed=p_embed, p_pool=p_pool)
        return SequenceClassifierOutput(logits=torch.cat([with_windows.logits, self.bag_projection(pooled)], dim=1))

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        """Called by transformers before it reports on a checkpoint: what would begin as random numbers is refused."""
        lost = sorted(key for key in loading_info.missing_keys if key.startswith(BAG))
        if lost:
            leave_untold(loading_info)
            raise ValueError(f"{self.name_or_path} lacks {lost[0]}, as it holds one encoder and not two: load it as a "
                             "DendriticBertForSequenceClassification.")
        super()._adjust_missing_and_unexpected_keys(loading_info)

    def save_apart(self, folder: Path, folder_without: Path) -> None:
        """Write the two as models of their own, the one with windows to ``folder``."""
        with_windows = DendriticBertForSequenceClassification(copy.deepcopy(self.config))
        with_windows.load_state_dict(
            {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(BAG)})
        bag = DendriticBertForSequenceClassification(bag_config(self.config))
        bag.bert.embeddings.load_state_dict(self.bert.embeddings.state_dict())
        bag.bert.gate.load_state_dict(self.bag_gate.state_dict())
        bag.classifier.load_state_dict(self.bag_projection.state_dict())
        with_windows.save_pretrained(folder)
        bag.save_pretrained(folder_without)


def bag_config(config: DendriticBertConfig) -> DendriticBertConfig:
    """The configuration of the same model without windows."""
    return DendriticBertConfig(**config.to_dict() | WITHOUT_WINDOWS)
