"""Batches, tables and heads for the tests of the ops, all from a seed; and samples that cover many options at once."""

import os
import random
from collections.abc import Sequence
from typing import Any

import torch
from rounding import Rounded, tracked, value_of
from torch import Tensor

from dendritic_bert.kernels.contract import DsnHead, DsnTable
from dendritic_bert.kernels.reference import (
    dendritic_linear_ref,
    dsn_logits_ref,
    dsn_token_logits_ref,
    embed_pool_ref,
)

# Added to every seed, for other cases and other numbers. A failure is reproduced by the test's name and this number.
SEED = int(os.environ.get("DENDRITIC_BERT_TEST_SEED", "0"))
VOCAB_SIZE = 83
LAYOUTS = ("padded", "padded with holes", "padded without a mask", "packed int32", "packed int64")
PARAMETERS = ("word_embeddings", "position_embeddings", "token_type_embeddings", "ln_weight", "ln_bias")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed + 1000 * SEED)


def covering_sample(axes: dict[str, Sequence[Any]], count: int, seed: int = 0) -> list[dict[str, Any]]:
    """``count`` combinations in which each value of an axis occurs equally often, in an order of the axis's own."""
    rng = random.Random(seed + 1000 * SEED)
    columns = {}
    for name, values in axes.items():
        column: list[Any] = []
        while len(column) < count:
            column += rng.sample(values, len(values))
        columns[name] = column[:count]
    return [dict(zip(columns, combination)) for combination in zip(*columns.values())]


def case_id(case: dict[str, Any]) -> str:
    return "-".join(f"{name}={str(value).removeprefix('torch.')}" for name, value in case.items())


def parameters(hidden_size: int, dtype: torch.dtype = torch.float32, *, num_positions: int = 8, num_types: int = 2,
               offset: float = 0.0, seed: int = 0) -> dict[str, Tensor]:
    """The five tensors of ``embed_pool``, by name; LayerNorm removes ``offset``, which is added to every word row."""
    rng = generator(seed)
    shapes = [(VOCAB_SIZE, hidden_size), (num_positions, hidden_size), (num_types, hidden_size), (hidden_size,),
              (hidden_size,)]
    values = [torch.randn(shape, generator=rng) for shape in shapes]
    values[0] += offset
    return {name: value.to(dtype) for name, value in zip(PARAMETERS, values)}


def tokens(layout: str, rows: int, length: int, *, token_types: bool = False, positions: bool = False,
           num_types: int = 2, num_positions: int | None = None, index_dtype: torch.dtype = torch.int64,
           mask_dtype: torch.dtype = torch.int64, seed: int = 0) -> dict[str, Tensor]:
    """The token arguments of an op, by name. The first row has ``length`` tokens, the second none, the others any
    number in between."""
    rng = generator(seed)
    lengths = torch.randint(length + 1, (rows,), generator=rng)
    lengths[:1] = length
    lengths[1:2] = 0
    packed = layout.startswith("packed")
    shape = (int(lengths.sum()),) if packed else (rows, length)
    result = {"input_ids": torch.randint(VOCAB_SIZE, shape, generator=rng)}
    if token_types:
        result["token_type_ids"] = torch.randint(num_types, shape, generator=rng)
    if positions:
        result["position_ids"] = torch.randint(num_positions or length + 3, shape, generator=rng)
    result = {name: value.to(index_dtype) for name, value in result.items()}
    if packed:
        cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        result["cu_seqlens"] = cu_seqlens.to(torch.int32 if layout == "packed int32" else torch.int64)
    elif layout != "padded without a mask":
        is_valid = torch.arange(length) < lengths[:, None]
        if layout == "padded with holes":
            is_valid &= torch.rand(shape, generator=rng) < 0.7
        # A token is valid where the mask is anything but 0, not only 1.
        result["attention_mask"] = (is_valid if mask_dtype == torch.bool else is_valid * 3).to(mask_dtype)
    return result


def head(hidden_size: int, num_labels: int, num_dendrites: int, seed: int = 1) -> dict[str, Tensor]:
    """The tensors of a dendritic head, by name, scaled so that activations neither saturate nor vanish."""
    rng = generator(seed)
    rows = (1 + num_dendrites) * num_labels
    shapes = {"weight": (rows, hidden_size), "bias": (rows,), "lateral": (num_dendrites, num_dendrites, num_labels),
              "top": (num_dendrites, num_labels)}
    values = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    values["weight"] /= hidden_size**0.5
    return values


def moved(values: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in values.items()}


def awkward(tensor: Tensor, view: str) -> Tensor:
    """The same values with another layout in memory. Around them lie NaNs, or indices outside every table."""
    if tensor.dim() == 0:
        return tensor
    outside = True if tensor.dtype == torch.bool else (
        float("nan") if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)
    if view == "odd offset":
        around = torch.full((tensor.numel() + 2,), outside, dtype=tensor.dtype, device=tensor.device)
        result = around[1:-1].view(tensor.shape)
    elif view == "strided":
        around = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), outside, dtype=tensor.dtype,
                            device=tensor.device)
        result = around[..., 1::2]
    elif view == "transposed":
        result = torch.empty(tensor.shape[::-1], dtype=tensor.dtype, device=tensor.device).permute(
            *reversed(range(tensor.dim())))
    else:
        return tensor
    return result.copy_(tensor)


def random_gradient(pooled: Tensor, seed: int = 2) -> Tensor:
    """A gradient of ``pooled`` whose numbers every dtype represents, so that it is the same for all."""
    grad = torch.randn(pooled.shape, generator=generator(seed)).bfloat16().half()
    return Rounded(grad.double()) if isinstance(pooled, Rounded) else grad.to(pooled)


def pooled_and_gradients(function: Any, values: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """``pooled`` and the gradient of every parameter for a random gradient of ``pooled``."""
    leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
    pooled = function(**leaves, **options)
    pooled.backward(random_gradient(pooled))
    return {"pooled": pooled.detach()} | {name: leaf.grad for name, leaf in leaves.items()}


def exact_pooled(ln_weight: Tensor, ln_bias: Tensor, **arguments: Any) -> Tensor:
    """``embed_pool_ref`` with the errors of a kernel's sums, which are sums of x_hat alone: they remain where gamma
    times such a sum and beta cancel. The value is that of ``embed_pool_ref``."""
    pooled = embed_pool_ref(**arguments, ln_weight=ln_weight, ln_bias=ln_bias)
    without_beta = embed_pool_ref(**arguments, ln_weight=ln_weight, ln_bias=torch.zeros_like(ln_bias)).detach()
    return pooled + (without_beta - value_of(without_beta))


def in_float64(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu().double() for name, value in values.items()}


def exact_logits(token_arguments: dict[str, Tensor], table: DsnTable, dsn_head: DsnHead,
                 pooling: str = "mean_masked") -> Tensor:
    """The float64 run of the reference on prepared tables as they are, rounded or quantised."""
    return dsn_logits_ref(**moved(token_arguments, "cpu"), table=tracked(table), head=tracked(dsn_head),
                          pooling=pooling)


def exact_token_logits(token_arguments: dict[str, Tensor], table: DsnTable, dsn_head: DsnHead
                       ) -> Tensor:
    return dsn_token_logits_ref(**moved(token_arguments, "cpu"), table=tracked(table),
                                head=tracked(dsn_head))


def logits_by_parameters(token_arguments: dict[str, Tensor], table_values: dict[str, Tensor],
                         head_values: dict[str, Tensor], activation: str, pooling: str) -> Tensor:
    """The contract without any preparation, in the dtype of the values: pool with gamma and beta, then the head."""
    pooled = embed_pool_ref(**token_arguments, **table_values, pooling=pooling)
    return dendritic_linear_ref(pooled.to(head_values["weight"].dtype), **head_values, activation=activation)
