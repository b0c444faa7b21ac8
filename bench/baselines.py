"""The same computation in plain PyTorch, which the kernels are compared with."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEmbeddings
from workload import MAX_POSITIONS, SMALL, VOCAB_SIZE, Tokens, Weights

from dendritic_bert.kernels.reference import dendritic_linear_ref, embed_pool_ref


def eager_logits(input_ids: Tensor, attention_mask: Tensor, model: Weights) -> Tensor:
    """The logits ``[B, C]`` of padded rows, as one would write them without this package."""
    pooled = embed_pool_ref(input_ids, *model.embeddings, attention_mask=attention_mask)
    return dendritic_linear_ref(pooled, *model.head, activation="sigmoid")


def transformers_logits(tokens: Tokens, model: Weights) -> Callable[[], Tensor]:
    """The same with the embedding module of transformers: a baseline that others wrote."""
    hidden_size = model.embeddings[0].shape[1]
    module = BertEmbeddings(BertConfig(vocab_size=VOCAB_SIZE, hidden_size=hidden_size, num_attention_heads=1,
                                       max_position_embeddings=MAX_POSITIONS)).eval()
    names = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
             "LayerNorm.weight", "LayerNorm.bias")
    module.load_state_dict(dict(zip(names, model.embeddings)), strict=False)
    mask = tokens.attention_mask[..., None].float()

    def run() -> Tensor:
        pooled = (module(tokens.padded) * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        return F.linear(pooled, *model.head[:2])

    return run


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` through torch.compile, for one shape. At the small sizes of the tests it is traced only."""
    return torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager" if SMALL else "inductor")
