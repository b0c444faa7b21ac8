"""The backend "cuda": the extension ``dendritic_bert._cuda``, whose sources are in csrc/cuda, and the backward pass.

The extension needs the CUDA libraries that torch brings, but neither a driver nor a GPU to be imported: code can be
traced and exported for a GPU on a machine that has none.
"""

import importlib
from typing import NamedTuple

import torch
from torch import Tensor

from ..contract import PARAMETER_DTYPES, TABLE_DTYPES, WINDOW_DTYPES, WordGrad
from . import gpu
from .backend import Backend


class TokenGradients(NamedTuple):
    """What the first part of the backward pass returns. B rows, T tokens; ``context`` has the token types and positions
    that may occur. What is not asked for has no rows.

    row_gradient: ``[B, H]``, what every token of a row shares. weight_terms, bias_terms: ``[B, H]``, what each row adds
    to the gradients of LayerNorm's weight and bias. token_gradient: ``[T, 8]``, what else a token's gradient takes.
    word_keys, context_keys: ``[T]`` int32, the rows of the tables that a token adds up; the number of the tables' rows
    for a token that is not valid. context: ``[K, P, H]``, position plus token type. d_word ``[V, H]``, d_context
    ``[K, P, H]``: gradients that atomics have added up. All but the keys are float32.
    """

    row_gradient: Tensor
    weight_terms: Tensor
    bias_terms: Tensor
    token_gradient: Tensor
    word_keys: Tensor
    context_keys: Tensor
    context: Tensor
    d_word: Tensor
    d_context: Tensor


_library = torch.library.Library("dendritic_bert", "FRAGMENT")
# d_context is asked for by ``atomics``, d_word by ``atomic_word`` beside it; what the segment sums need is there unless
# both are.
_library.define(
    "embed_pool_token_gradients_cuda(Tensor grad_pooled, Tensor pooled_hat, Tensor input_ids, Tensor word_embeddings, "
    "Tensor position_embeddings, Tensor token_type_embeddings, Tensor ln_weight, Tensor ln_bias, "
    "Tensor? attention_mask, Tensor? cu_seqlens, Tensor? token_type_ids, Tensor? position_ids, float eps, int pooling, "
    "float p_embed, float p_pool, Tensor? seed, bool atomics, bool atomic_word) -> "
    f"({', '.join(f'Tensor {name}' for name in TokenGradients._fields)})")
# ``keys`` are sorted, and ``order`` says where each was before. Row ``target[i]`` of ``sums``, or without a target row
# ``keys[i]``, becomes the sum over the segment that holds place i; keys from ``num_keys`` on belong to no row.
_library.define(
    "embed_pool_segment_sums_cuda(Tensor keys, Tensor order, Tensor? target, Tensor row_gradient, "
    "Tensor token_gradient, Tensor word_embeddings, Tensor context, float p_embed, Tensor? seed, int num_keys, "
    "Tensor(a!) sums) -> ()")


def _load() -> str | None:
    """Load the extension, which registers the ops' CUDA kernels; return why if that fails."""
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
    table_dtypes={"embed_pool": PARAMETER_DTYPES, "dsn_logits": TABLE_DTYPES, "dsn_token_logits": TABLE_DTYPES,
                  "dsn_window_logits": WINDOW_DTYPES},
    missing=MISSING,
    no_device=gpu.missing,
    # As csrc/cuda/plan.h has them.
    largest={"embed_pool": 4096, "dsn_logits": 4096, "dsn_token_logits": 4096, "dsn_window_logits": 64},
    largest_reach=240,
    device_refusal=gpu.refusal,
    raises_on_values=False,
)


def embed_pool_backward(grad_pooled: Tensor, pooled_hat: Tensor, rstd: Tensor, input_ids: Tensor, word: Tensor,
                        position: Tensor, token_type: Tensor, ln_weight: Tensor, ln_bias: Tensor,
                        attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
                        position_ids: Tensor | None, eps: float, pooling: int, p_embed: float, p_pool: float,
                        seed: Tensor | None, word_grad: int) -> tuple[Tensor, ...]:
    """The backward pass of ``embed_pool``, by csrc/cuda/embed_pool_backward.cu and csrc/cuda/sorted_gradient.cu.

    Atomics sum over tokens in an order that the device chooses, except where ``torch.use_deterministic_algorithms``
    asks for the same bits every time: there, and for a sparse gradient, tokens are sorted by id, and the segment of
    each id is summed in order. The sparse form waits for the device once, to learn how many ids there are.
    """
    atomics = not torch.are_deterministic_algorithms_enabled()
    tokens = TokenGradients(*torch.ops.dendritic_bert.embed_pool_token_gradients_cuda(
        grad_pooled, pooled_hat, input_ids, word, position, token_type, ln_weight, ln_bias, attention_mask, cu_seqlens,
        token_type_ids, position_ids, eps, pooling, p_embed, p_pool, seed, atomics, word_grad == WordGrad.DENSE))
    num_words, hidden_size = word.shape
    num_types, num_positions, _ = tokens.context.shape

    def sum_segments(keys: Tensor, order: Tensor, target: Tensor | None, num_keys: int, sums: Tensor) -> Tensor:
        torch.ops.dendritic_bert.embed_pool_segment_sums_cuda(
            keys, order, target, tokens.row_gradient, tokens.token_gradient, word, tokens.context, p_embed, seed,
            num_keys, sums)
        return sums

    d_word, d_context = tokens.d_word, tokens.d_context
    if not atomics:
        keys, order = tokens.context_keys.sort(stable=True)
        d_context = sum_segments(keys, order, None, num_types * num_positions, torch.zeros_like(tokens.context))
    d_word_ids = word.new_empty(0, dtype=torch.int64)
    if word_grad == WordGrad.SPARSE:
        keys, order = tokens.word_keys.sort(stable=True)
        starts = keys < num_words
        starts[1:] &= keys[1:] != keys[:-1]
        d_word_ids = keys[starts].long()
        sums = word.new_empty(d_word_ids.numel(), hidden_size)
        d_word = sum_segments(keys, order, starts.cumsum(0) - 1, num_words, sums)
    elif word_grad == WordGrad.NONE:
        d_word = word.new_empty(0, hidden_size)
    elif not atomics:
        keys, order = tokens.word_keys.sort(stable=True)
        d_word = sum_segments(keys, order, None, num_words, word.new_zeros(word.shape))
    d_position, d_token_type = position.new_zeros(position.shape), token_type.new_zeros(token_type.shape)
    d_position[:num_positions] = d_context.sum(0)
    d_token_type[:num_types] = d_context.sum(1, dtype=torch.float64)  # every token of the batch adds to one of these
    return (d_word.to(word.dtype), d_word_ids, d_position, d_token_type,
            tokens.weight_terms.sum(0).to(ln_weight.dtype), tokens.bias_terms.sum(0).to(ln_bias.dtype))


_library.impl("embed_pool_backward_cuda", embed_pool_backward, "CUDA")
