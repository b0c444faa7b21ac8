"""The backend "cuda": the extension ``dendritic_bert._cuda``, whose sources are in csrc/cuda, and the backward pass.

The extension needs the CUDA libraries that torch brings, but neither a driver nor a GPU to be imported: code can be
traced and exported for a GPU on a machine that has none.
"""

import importlib

import torch
from torch import Tensor

from ..contract import PARAMETER_DTYPES, TABLE_DTYPES, WordGrad
from . import gpu
from .backend import Backend

_library = torch.library.Library("dendritic_bert", "FRAGMENT")
_library.define(
    "embed_pool_token_gradients_cuda(Tensor grad_pooled, Tensor pooled_hat, Tensor input_ids, Tensor word_embeddings, "
    "Tensor position_embeddings, Tensor token_type_embeddings, Tensor ln_weight, Tensor ln_bias, "
    "Tensor? attention_mask, Tensor? cu_seqlens, Tensor? token_type_ids, Tensor? position_ids, float eps, int pooling, "
    "float p_embed, float p_pool, Tensor? seed, bool atomics, bool atomic_word) -> (Tensor row_gradient, "
    "Tensor weight_terms, Tensor bias_terms, Tensor token_gradient, Tensor word_keys, Tensor context_keys, "
    "Tensor context, Tensor d_word, Tensor d_context)")
_library.define(
    "embed_pool_segment_sums_cuda(Tensor keys, Tensor order, Tensor? target, Tensor row_gradient, Tensor token_gradient, "
    "Tensor word_embeddings, Tensor context, float p_embed, Tensor? seed, int num_keys, Tensor(a!) sums) -> ()")


def _load() -> str | None:
    """Load the extension, which registers the ops' CUDA kernels; return why not where that fails."""
    try:
        importlib.import_module("dendritic_bert._cuda")
    except ImportError as error:
        return (f"the extension dendritic_bert._cuda is not there ({error}); install nvcc and a torch with CUDA, "
                "then run `pip install --no-build-isolation --force-reinstall --no-deps .`")
    return None


MISSING = _load()
BACKEND = Backend(
    name="cuda",
    device_type="cuda",
    table_dtypes={"embed_pool": PARAMETER_DTYPES, "dsn_logits": TABLE_DTYPES, "dsn_token_logits": TABLE_DTYPES},
    missing=MISSING,
    no_device=gpu.missing,
    device_refusal=gpu.refusal,
    raises_on_values=False,
)


def embed_pool_backward(grad_pooled: Tensor, pooled_hat: Tensor, rstd: Tensor, input_ids: Tensor, word: Tensor,
                        position: Tensor, token_type: Tensor, ln_weight: Tensor, ln_bias: Tensor,
                        attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
                        position_ids: Tensor | None, eps: float, pooling: int, p_embed: float, p_pool: float,
                        seed: Tensor | None, word_grad: int) -> tuple[Tensor, ...]:
    """``embed_pool_backward`` of ops, on the kernels of csrc/cuda/backward.cuh.

    Sums over tokens go by atomics, in an order that the device chooses, except where
    ``torch.use_deterministic_algorithms`` asks for the same bits every time: there, and for a sparse gradient, tokens
    are sorted by id and each id's run is summed in order. The sparse form waits for the device once, for its size.
    """
    atomics = not torch.are_deterministic_algorithms_enabled()
    row_gradient, weight_terms, bias_terms, token_gradient, word_keys, context_keys, context, d_word, d_context = (
        torch.ops.dendritic_bert.embed_pool_token_gradients_cuda(
            grad_pooled, pooled_hat, input_ids, word, position, token_type, ln_weight, ln_bias, attention_mask,
            cu_seqlens, token_type_ids, position_ids, eps, pooling, p_embed, p_pool, seed, atomics,
            word_grad == WordGrad.DENSE))

    def add_runs(keys: Tensor, order: Tensor, target: Tensor | None, no_part: int, sums: Tensor) -> Tensor:
        torch.ops.dendritic_bert.embed_pool_segment_sums_cuda(
            keys, order, target, row_gradient, token_gradient, word, context, p_embed, seed, no_part, sums)
        return sums

    if not atomics:
        keys, order = context_keys.sort(stable=True)
        d_context = add_runs(keys, order, None, context.shape[0] * context.shape[1], torch.zeros_like(context))
    d_word_ids = word.new_empty(0, dtype=torch.int64)
    if word_grad == WordGrad.SPARSE:
        keys, order = word_keys.sort(stable=True)
        starts = keys < word.shape[0]
        starts[1:] &= keys[1:] != keys[:-1]
        d_word_ids = keys[starts].long()
        sums = word.new_empty(d_word_ids.numel(), word.shape[1])
        d_word = add_runs(keys, order, starts.cumsum(0) - 1, word.shape[0], sums)
    elif word_grad == WordGrad.NONE:
        d_word = word.new_empty(0, word.shape[1])
    elif not atomics:
        keys, order = word_keys.sort(stable=True)
        d_word = add_runs(keys, order, None, word.shape[0], word.new_zeros(word.shape))
    d_position, d_token_type = position.new_zeros(position.shape), token_type.new_zeros(token_type.shape)
    d_position[:context.shape[1]] = d_context.sum(0)
    d_token_type[:context.shape[0]] = d_context.sum(1, dtype=torch.float64)  # over every token of the batch
    return (d_word.to(word.dtype), d_word_ids, d_position, d_token_type, weight_terms.sum(0).to(ln_weight.dtype),
            bias_terms.sum(0).to(ln_bias.dtype))


_library.impl("embed_pool_backward_cuda", embed_pool_backward, "CUDA")
