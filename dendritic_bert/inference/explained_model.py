"""A Dendritic Semantic Network (DSN) as a function of what it looks up for the tokens of one row, in float64.

It looks up an embedding x_t for every token, and where its mean is gated a number G_t. Without windows and gate the
pooled row is a sum over tokens. With them it is not, and ``scaled_logits`` computes the logits of a row in which x_t
and G_t of each token are multiplied by a factor: those of the row itself where all factors are 1; and where all are 0,
those of a row of zeros, of as many tokens for which nothing but zeros is looked up.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.reference import gated_mean_ref, pool_ref, token_places, window_layers_ref
from ..model.dendritic_linear import DendriticLinear, DendriticMLP, dendritic_layers
from ..model.dsn_checkpoint import DsnCheckpoint
from .integrated_gradients import head_logits
from .tokenization import PackedBatch


class ExplainedModel:
    """``source`` is a ``DendriticBertForSequenceClassification`` or its ``DsnCheckpoint``.

    Raises ValueError for a model whose logits do not follow from the weights of a DSN.
    """

    def __init__(self, source: Any) -> None:
        self.config = source.config
        self.head = _head(source)
        self._tensors = source.state_dict()

    @property
    def pools_a_sum(self) -> bool:
        """Whether the pooled row is a sum over tokens of what each looks up."""
        return self.config.window_layers == 0 and self.config.pooling != "gated_mean"

    def embeddings(self, batch: PackedBatch) -> Tensor:
        """``x_t [T, H]`` of every token of the one row of ``batch``."""
        ids, count = torch.from_numpy(batch.input_ids).long(), len(batch.input_ids)
        types = torch.zeros_like(ids) if batch.token_type_ids is None else torch.from_numpy(batch.token_type_ids).long()
        x = self._rows("bert.embeddings.word_embeddings.weight", ids)
        x = x + self._rows("bert.embeddings.token_type_embeddings.weight", types)
        if self.config.max_position_embeddings:
            x = x + self._rows("bert.embeddings.position_embeddings.weight", torch.arange(count))
        if self.config.embedding_norm == "layer_norm":
            gamma, beta = (self._tensor(f"bert.embeddings.LayerNorm.{name}") for name in ("weight", "bias"))
            x = F.layer_norm(x, gamma.shape, gamma, beta, self.config.layer_norm_eps)
        return x

    def gates(self, batch: PackedBatch) -> Tensor:
        """``G_t [T]`` of every token, zeros where the mean has no gate."""
        ids = torch.from_numpy(batch.input_ids).long()
        is_gated = self.config.pooling == "gated_mean"
        return self._rows("bert.gate.word_bias", ids) if is_gated else torch.zeros(len(ids), dtype=torch.float64)

    def scaled_logits(self, x: Tensor, gates: Tensor, scales: Tensor) -> Tensor:
        """The logits ``[S, C]`` of S rows, in which ``x [T, H]`` and ``gates [T]`` of a row have the factors
        ``scales [S, T]``."""
        h = scales[..., None] * x
        row, column = token_places(scales, None)
        if self.config.window_layers:
            windows = [self._tensor(f"bert.windows.{name}") for name in ("input_weight", "weight", "bias")]
            h = torch.cat([h, window_layers_ref(h, row, column, None, *windows)], dim=-1)
        if self.config.pooling == "gated_mean":
            gate_logits = h @ self._tensor("bert.gate.weight") + scales * gates
            return head_logits(self.head, gated_mean_ref(h, gate_logits, row, None, None))
        return head_logits(self.head, pool_ref(h, row, None, None, self.config.pooling))

    def _rows(self, name: str, indices: Tensor) -> Tensor:
        """Rows of a table; all of BERT's word table would take 31 MB in float64."""
        table = self._tensors[name].detach()
        return table[indices.to(table.device)].to("cpu", torch.float64)

    def _tensor(self, name: str) -> Tensor:
        return self._tensors[name].detach().to("cpu", torch.float64, copy=True)


def _head(source: Any) -> DendriticLinear | DendriticMLP:
    config = source.config
    if not config.dsn:
        raise ValueError("explain needs a DSN, but dsn is False: BERT's encoder mixes the tokens, so that no share "
                         "belongs to one word alone. Train a DSN, or sample with a library such as SHAP or Captum.")
    if isinstance(source, DsnCheckpoint):
        head = DendriticLinear(config.pooled_size, source.num_labels, config.num_dendrites, config.dendrite_activation)
        head.load_state_dict({name.removeprefix("classifier."): tensor for name, tensor in source.state_dict().items()
                              if name.startswith("classifier.")})
        return head
    from ..model.embedding_modules import Parts, are_plain, parts_of  # transformers' BERT takes a second to import

    parts: Parts = [*parts_of(source.bert),
                    *((layer, DendriticLinear) for layer in dendritic_layers(source.classifier).values())]
    if not isinstance(source.classifier, (DendriticLinear, DendriticMLP)) or not are_plain(parts):
        raise ValueError("explain reads the weights of embeddings and head, but hooks, an adapter or another module "
                         "changes what they compute: merge or remove it (PEFT: model.merge_and_unload()).")
    return source.classifier
