"""The ops: the only door to the backends.

Two public functions are differentiable: ``embed_pool``, and ``window_pool`` (with windows or a gate). Five are for
inference: ``dsn_logits`` (with the head fused), ``dsn_token_logits`` (the head
on every token), ``dsn_logits_folded`` (the head folded into the tables), ``dsn_window_logits`` (with windows or a gate)
and ``dsn_window_logits_int8`` (the same in integers). Each of them chooses a backend and calls that backend's operator,
which ``registration`` has defined; the reference is called as it is. "dsn" stands for Dendritic Semantic Network (DSN).
"""

import torch
from torch import Tensor

from . import backends, validation
from .contract import (
    ACTIVATION_CODES,
    MASK_DTYPES,
    POOLING_CODES,
    DsnHead,
    DsnTable,
    FoldedDsn,
    QuantisedWindowedDsn,
    WindowedDsn,
    WordGrad,
)
from .reference import (
    dsn_logits_folded_ref,
    dsn_logits_ref,
    dsn_token_logits_ref,
    dsn_window_logits_ref,
    embed_pool_ref,
    window_pool_ref,
)
from .reference_int8 import dsn_window_logits_int8_ref
from .registration import define as define
from .registration import operator


def is_served(op: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``op`` with a word table of ``dtype`` on ``device`` is served by the backend that the environment forces
    or, where it forces none, by a kernel rather than the reference."""
    names = tuple(backends.KERNEL_BACKENDS) if backends.FORCED is None else (backends.FORCED,)
    return any(backends.refusal(name, op, device, dtype) is None for name in names)


def serving_backend(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """The name of the backend that computes ``op`` with a word table of ``dtype`` on ``device``."""
    return backends.choose(None, op, device, dtype)


def _channels(table: Tensor) -> int:
    """The size of the last axis, of which a table without any, which validation refuses, has none."""
    return table.shape[-1] if table.dim() else 0


def _reach(windowed: WindowedDsn) -> int:
    """The columns that the windows of all layers together see to each side; 0 for tables that validation refuses."""
    if windowed.taps.dim() < 2 or not windowed.window_bias.dim():
        return 0
    return windowed.taps.shape[-2] // 2 * (2 ** windowed.window_bias.shape[0] - 1)


def embed_pool(
    input_ids: Tensor,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    eps: float = 1e-12,
    pooling: str = "mean_masked",
    p_embed: float = 0.0,
    p_pool: float = 0.0,
    seed: int | Tensor | None = None,
    sparse_grad: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Embeddings, LayerNorm, dropout and pooling in one pass; differentiable. ``reference`` has the formula.

    Args:
        input_ids: ``[B, L]``, or ``[T]`` beside ``cu_seqlens``; int32 or int64, neither of which is converted.
        word_embeddings, position_embeddings, token_type_embeddings: ``[V, H]``, ``[P, H]``, ``[K, H]``.
        ln_weight, ln_bias: LayerNorm's gamma and beta, ``[H]``. All five parameters share one dtype.
        attention_mask: ``[B, L]`` of any dtype; a token is valid where it is not 0. None: every token is valid.
        cu_seqlens: ``[B + 1]``, int32 or int64; row b holds the tokens ``cu_seqlens[b]`` to ``cu_seqlens[b + 1] - 1``.
        token_type_ids: shaped as ``input_ids``, int32 or int64. None: every token has type 0.
        position_ids: shaped as ``input_ids``, int32 or int64. None: the column, or in ``[T]`` the index in the row.
        eps: LayerNorm's epsilon.
        pooling: "mean_masked", or over padding too "mean_all" or "sum_all".
        p_embed, p_pool: the probabilities of dropout on every token's LayerNorm output and on the pooled row,
            0 <= p < 1.
        seed: of the dropout, an int or an int64 tensor of one element. None: drawn from torch's generator.
        sparse_grad: whether the word table's gradient is a sparse COO tensor, coalesced but for the reference's.
        backend: one of ``backends.BACKENDS``. None: the first that can serve the call.

    Returns:
        pooled ``[B, H]`` in the parameters' dtype. A row without valid tokens is 0.

    Raises:
        RuntimeError: where an id, position, type, shape, dtype or cu_seqlens does not fit, with the row; and where a
            requested backend cannot serve the call. The kernels on a GPU would have to be waited for: where an id,
            position, type or cu_seqlens does not fit, they read nothing and make the row NaN, and the backend
            "reference" says which it is.
    """
    validation.check_eps(eps)
    validation.check_dropout(p_embed, p_pool)
    pooling_code = _code("pooling", pooling, POOLING_CODES)
    seed = validation.seed_tensor(seed, input_ids.device) if p_embed > 0 or p_pool > 0 else None
    name = backends.choose(backend, "embed_pool", word_embeddings.device, word_embeddings.dtype,
                           _channels(word_embeddings))
    if name == "reference":
        validation.check_embed_pool(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight,
                                    ln_bias, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling)
        return embed_pool_ref(
            input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias,
            attention_mask=attention_mask, cu_seqlens=cu_seqlens, token_type_ids=token_type_ids,
            position_ids=position_ids, eps=eps, pooling=pooling, p_embed=p_embed, p_pool=p_pool, seed=seed,
            sparse_grad=sparse_grad)
    word_grad = WordGrad.NONE
    if word_embeddings.requires_grad:
        word_grad = WordGrad.SPARSE if sparse_grad else WordGrad.DENSE
    pooled, _, _ = operator("embed_pool", name)(
        input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias,
        _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids, eps, pooling_code, p_embed, p_pool,
        seed, word_grad)
    return pooled


def dsn_logits(
    input_ids: Tensor,
    table: DsnTable,
    head: DsnHead,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    pooling: str = "mean_masked",
    backend: str | None = None,
) -> Tensor:
    """Token ids to logits, in one launch from the tables that ``prepare.prepare_table`` and ``prepare.prepare_head``
    made; not differentiable. Triton takes two launches where rows are few and one of them may be long.

    ``input_ids`` and the four token arguments are those of ``embed_pool``. Returns logits ``[B, C]`` in the head's
    dtype: float32, or float64 where table and head are, which the reference serves. Raises RuntimeError as
    ``embed_pool`` does.
    """
    validation.check_eps(table.eps)
    activation = _code("activation", head.activation, ACTIVATION_CODES)
    pooling_code = _code("pooling", pooling, POOLING_CODES)
    name = backends.choose(backend, "dsn_logits", table.word.device, table.word.dtype, _channels(table.word))
    if name == "reference":
        validation.check_dsn_logits(input_ids, table, head, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                    pooling)
        return dsn_logits_ref(input_ids, table, head, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                              token_type_ids=token_type_ids, position_ids=position_ids, pooling=pooling)
    word, word_scale, context, eps = table
    weight, bias, beta_bias, lateral, top, _ = head
    return operator("dsn_logits", name)(
        input_ids, word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation,
        _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids, pooling_code)


def dsn_token_logits(
    input_ids: Tensor,
    table: DsnTable,
    head: DsnHead,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The head on every token instead of on the pooled row (question answering); not differentiable.

    The arguments are those of ``dsn_logits``. Returns logits ``[B, L, C]``, or ``[T, C]`` beside ``cu_seqlens``, in
    the head's dtype. A token that ``attention_mask`` says is not valid is not looked up, and its logits are 0. Raises
    RuntimeError as ``embed_pool`` does; on a GPU a token that more than one row of ``cu_seqlens`` holds is NaN instead.
    """
    validation.check_eps(table.eps)
    activation = _code("activation", head.activation, ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_token_logits", table.word.device, table.word.dtype, _channels(table.word))
    if name == "reference":
        validation.check_dsn_logits(input_ids, table, head, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                    "mean_masked")
        return dsn_token_logits_ref(input_ids, table, head, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                                    token_type_ids=token_type_ids, position_ids=position_ids)
    word, word_scale, context, eps = table
    weight, bias, beta_bias, lateral, top, _ = head
    return operator("dsn_token_logits", name)(
        input_ids, word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation,
        _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids)


def dsn_logits_folded(
    input_ids: Tensor,
    folded: FoldedDsn,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    pooling: str = "mean_masked",
    backend: str | None = None,
) -> Tensor:
    """``dsn_logits`` from folded tables, which hold the head already; ``prepare.fold`` makes them. Not differentiable.

    ``input_ids`` and the four token arguments are those of ``embed_pool``, with positions below
    ``folded.num_positions``. Returns logits ``[B, C]`` float32. Raises RuntimeError as ``embed_pool`` does.
    """
    activation = _code("activation", folded.activation, ACTIVATION_CODES)
    pooling_code = _code("pooling", pooling, POOLING_CODES)
    name = backends.choose(backend, "dsn_logits_folded", folded.word.device, folded.word.dtype)
    if name == "reference":
        validation.check_dsn_logits_folded(input_ids, folded, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                           pooling)
        return dsn_logits_folded_ref(input_ids, folded, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                                     token_type_ids=token_type_ids, position_ids=position_ids, pooling=pooling)
    return operator("dsn_logits_folded", name)(
        input_ids, *folded[:-1], activation, _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids,
        pooling_code)


def window_pool(
    input_ids: Tensor,
    word_embeddings: Tensor,
    token_type_embeddings: Tensor,
    ln_weight: Tensor | None,
    ln_bias: Tensor | None,
    window_input_weight: Tensor,
    window_weight: Tensor,
    window_bias: Tensor,
    gate_weight: Tensor | None,
    gate_bias: Tensor | None,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    eps: float = 1e-12,
    p_embed: float = 0.0,
    p_window: float = 0.0,
    p_pool: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Embeddings, window layers and gated mean of a model without positions; differentiable. ``reference`` has the
    formula, and serves what no kernel does: calls on a GPU, and float64.

    Args:
        input_ids, attention_mask, cu_seqlens, token_type_ids: those of ``embed_pool``.
        word_embeddings, token_type_embeddings: ``[V, H]``, ``[K, H]``.
        ln_weight, ln_bias: LayerNorm's gamma and beta, ``[H]``; None for embeddings without LayerNorm.
        window_input_weight: ``[R, H, M]`` with R = 2 * radius + 1, the matrices of layer 0, each [in, out]; entry k is
            the one of the token k - radius columns further on.
        window_weight: ``[J - 1, R, M, M]``, those of the further layers. Without windows ``[0, R, 0, 0]``.
        window_bias: ``[J, M]``. Without windows ``[0, 0]``.
        gate_weight, gate_bias: v ``[H + M]`` and G ``[V]``; None for a plain mean.
        eps: LayerNorm's epsilon.
        p_embed, p_window, p_pool: the probabilities of dropout on every token's x, on the activation of every window
            layer before it is added, and on the pooled row, 0 <= p < 1.
        seed: of the dropout, an int or an int64 tensor of one element. None: drawn from torch's generator.
        backend: one of ``backends.BACKENDS``. None: the first that can serve the call.

    All parameters share one dtype. Returns pooled ``[B, H + M]`` in it; a row without valid tokens is 0. Raises
    RuntimeError as ``embed_pool`` does.
    """
    validation.check_eps(eps)
    validation.check_dropout(p_embed, p_pool, p_window)
    has_dropout = p_embed > 0 or p_pool > 0 or p_window > 0
    seed = validation.seed_tensor(seed, input_ids.device) if has_dropout else None
    parameters = (word_embeddings, token_type_embeddings, ln_weight, ln_bias, window_input_weight, window_weight,
                  window_bias, gate_weight, gate_bias)
    device, dtype = word_embeddings.device, word_embeddings.dtype
    if backend is None and not is_served("window_pool", device, dtype):
        backend = "reference"  # also where the environment forces a backend that has no kernel for windows in training
    name = backends.choose(backend, "window_pool", device, dtype)
    if name == "reference":
        validation.check_window_pool(input_ids, *parameters, attention_mask, cu_seqlens, token_type_ids)
        return window_pool_ref(
            input_ids, *parameters, attention_mask=attention_mask, cu_seqlens=cu_seqlens, token_type_ids=token_type_ids,
            eps=eps, p_embed=p_embed, p_window=p_window, p_pool=p_pool, seed=seed)
    pooled: Tensor = operator("window_pool", name)(
        input_ids, *parameters, _integer_mask(attention_mask), cu_seqlens, token_type_ids, eps, p_embed, p_window,
        p_pool, seed)
    return pooled


def dsn_window_logits(
    input_ids: Tensor,
    windowed: WindowedDsn,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Token ids to logits of a model without positions, with windows, a gate, both or neither; ``prepare_windows`` made
    the tables. Not differentiable.

    ``input_ids`` and the three token arguments are those of ``embed_pool``. Returns logits ``[B, C]`` in the head's
    dtype: float32, or float64 where the tables are, which the reference serves. Raises RuntimeError as ``embed_pool``
    does.
    """
    activation = _code("activation", windowed.activation, ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_window_logits", windowed.values.device, windowed.window_weight.dtype,
                           _channels(windowed.taps), _reach(windowed))
    if name == "reference":
        validation.check_dsn_window_logits(input_ids, windowed, attention_mask, cu_seqlens, token_type_ids)
        return dsn_window_logits_ref(input_ids, windowed, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                                     token_type_ids=token_type_ids)
    return operator("dsn_window_logits", name)(
        input_ids, *windowed[:-1], activation, _integer_mask(attention_mask), cu_seqlens, token_type_ids)


def dsn_window_logits_int8(
    input_ids: Tensor,
    quantised: QuantisedWindowedDsn,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """``dsn_window_logits`` with window layers in int8, which ``prepare_int8.quantise_windows`` made; not
    differentiable. Every backend and every processor gives the same bits.

    ``input_ids`` and the three token arguments are those of ``embed_pool``; a row has at most 2^20 tokens. Returns
    logits ``[B, C]`` float32. Raises RuntimeError as ``embed_pool`` does.
    """
    activation = _code("activation", quantised.activation, ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_window_logits_int8", quantised.values.device, quantised.window_weight.dtype)
    if name == "reference":
        validation.check_dsn_window_logits_int8(input_ids, quantised, attention_mask, cu_seqlens, token_type_ids)
        return dsn_window_logits_int8_ref(input_ids, quantised, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                                          token_type_ids=token_type_ids)
    *tables, _, activation_table = quantised
    return operator("dsn_window_logits_int8", name)(
        input_ids, *tables, activation, activation_table, _integer_mask(attention_mask), cu_seqlens, token_type_ids)


def _code(argument: str, value: str, codes: dict[str, int]) -> int:
    code = codes.get(value)
    if code is None:
        raise RuntimeError(f"{argument} is {value!r}, expected one of {', '.join(codes)}.")
    return code


def _integer_mask(attention_mask: Tensor | None) -> Tensor | None:
    """The mask in a dtype that the kernels read. Any other, as a float mask is, is rare and worth one pass."""
    if attention_mask is None or attention_mask.dtype in MASK_DTYPES:
        return attention_mask
    return attention_mask != 0
