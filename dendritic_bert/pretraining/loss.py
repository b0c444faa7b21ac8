"""The loss of an encoder against its teacher's embeddings."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def embedding_loss(output: Any, labels: Tensor, num_items_in_batch: Any = None, *, gram_weight: float) -> Tensor:
    """``mean_b (1 - e_b . t_b) + gram_weight * mean_bc (e_b . e_c - t_b . t_c)^2``, a scalar.

    e and t are the rows of ``output.logits`` and of ``labels``, the teacher's embeddings, both ``[B, D]``, at length 1
    and in float32. Of several models, whose embeddings stand side by side in the logits, it is the sum. The first term
    asks for the teacher's directions, the second for its cosines between the texts of a batch, which are what is left
    when the projection is taken off (Park et al. 2019, "Relational Knowledge Distillation", have it with distances).
    ``num_items_in_batch`` is an argument of the Trainer's and is not used.
    """
    theirs = F.normalize(labels.float(), dim=1)
    loss = labels.new_zeros((), dtype=theirs.dtype)
    for embeddings in output.logits.float().split(labels.shape[1], dim=1):
        ours = F.normalize(embeddings, dim=1)
        loss = loss + 1 - (ours * theirs).sum(dim=1).mean()
        if gram_weight:
            loss = loss + gram_weight * (ours @ ours.T - theirs @ theirs.T).square().mean()
    return loss
