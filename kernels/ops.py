"""The ops: the only door to the backends.

Four public functions: ``embed_pool``, which is differentiable, and for inference ``dsn_logits`` (with the head fused),
``dsn_token_logits`` (the head on every token) and ``dsn_logits_folded`` (the head folded into the tables). Each of them
chooses a backend and calls that backend's operator, which ``registration`` has defined; the reference is called as it
is. "dsn" stands for Dendritic Semantic Network (DSN).
"""

import torch
from torch import Tensor

from . import backends, validation
from .contract import ACTIVATION_CODES, MASK_DTYPES, POOLING_CODES, DsnHead, DsnTable, FoldedDsn, WordGrad
from .reference import dsn_logits_folded_ref, dsn_logits_ref, dsn_token_logits_ref, embed_pool_ref
from .registration import define as define
from .registration import operator


def is_served(op: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``op`` with a word table of ``dtype`` on ``device`` is served as asked for: by the backend that the
    environment forces, or where it forces none by a kernel rather than the reference."""
    names = tuple(backends.KERNEL_BACKENDS) if backends.FORCED is None else (backends.FORCED,)
    return any(backends.refusal(name, op, device, dtype) is None for name in names)


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
    """Embeddings, LayerNorm, dropout and pooling in one pass, differentiable; the formula is in ``reference``.

    Args:
        input_ids: ``[B, L]``, or ``[T]`` beside ``cu_seqlens``; int32 or int64, read as it is.
        word_embeddings, position_embeddings, token_type_embeddings: ``[V, H]``, ``[P, H]``, ``[K, H]``.
        ln_weight, ln_bias: LayerNorm's gamma and beta, ``[H]``. All five parameters share one dtype.
        attention_mask: ``[B, L]``, any dtype, zero means padding.
        cu_seqlens: ``[B + 1]``, row b holds the tokens ``cu_seqlens[b]`` to ``cu_seqlens[b + 1] - 1``.
        token_type_ids, position_ids: shaped as ``input_ids``; default 0, and the column or the index in the row.
        eps: LayerNorm's epsilon.
        pooling: "mean_masked", "mean_all" or "sum_all" (both over padding too).
        p_embed, p_pool: dropout on every token's LayerNorm output and on the pooled row, 0 <= p < 1.
        seed: an int or an int64 tensor of one element; drawn from torch's generator where None and needed.
        sparse_grad: the word table's gradient is a coalesced sparse COO tensor.
        backend: one of ``backends.BACKENDS``; None chooses.

    Returns:
        pooled ``[B, H]`` in the parameters' dtype; a row without tokens is 0.

    Raises:
        RuntimeError: an id, position, type, shape, dtype or cu_seqlens that does not fit, naming the row; or a
            requested backend that cannot serve the call. The kernels on a GPU, which would have to be waited for, read
            nothing where an id, position, type or cu_seqlens does not fit and make the row NaN: the backend
            "reference" then says which it is.
    """
    validation.check_eps(eps)
    validation.check_dropout(p_embed, p_pool)
    seed = validation.seed_tensor(seed, input_ids.device) if p_embed > 0 or p_pool > 0 else None
    name = backends.choose(backend, "embed_pool", word_embeddings.device, word_embeddings.dtype)
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
        _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids, eps,
        _code("pooling", pooling, POOLING_CODES), p_embed, p_pool, seed, word_grad)
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
    """Token ids to logits, from tables prepared by ``weights``, in one launch (Triton takes two where rows are few and
    one may be long); not differentiable.

    ``input_ids`` and the four token arguments are those of ``embed_pool``. Returns logits ``[B, C]`` in the head's
    dtype: float32, or float64 where table and head are, which the reference serves. Raises RuntimeError as
    ``embed_pool`` does.
    """
    validation.check_eps(table.eps)
    activation = _code("activation", head.activation, ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_logits", table.word.device, table.word.dtype)
    if name == "reference":
        validation.check_dsn_logits(input_ids, table, head, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                pooling)
        return dsn_logits_ref(input_ids, table, head, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                              token_type_ids=token_type_ids, position_ids=position_ids, pooling=pooling)
    word, word_scale, context, eps = table
    weight, bias, beta_bias, lateral, top, _ = head
    return operator("dsn_logits", name)(
        input_ids, word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation,
        _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids,
        _code("pooling", pooling, POOLING_CODES))


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
    the head's dtype (float32); a token that ``attention_mask`` hides is not looked up and its logits are 0. Raises
    RuntimeError as ``embed_pool`` does; on a GPU a token that more than one row of cu_seqlens holds is NaN instead.
    """
    validation.check_eps(table.eps)
    activation = _code("activation", head.activation, ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_token_logits", table.word.device, table.word.dtype)
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
    """``dsn_logits`` from tables that hold the head already, made by ``folding.fold``; not differentiable.

    ``input_ids`` and the four token arguments are those of ``embed_pool``, with positions below
    ``folded.num_positions``. Returns logits ``[B, C]`` float32. Raises RuntimeError as ``embed_pool`` does.
    """
    activation = _code("activation", folded.activation, ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_logits_folded", folded.word.device, folded.word.dtype)
    if name == "reference":
        validation.check_dsn_logits_folded(input_ids, folded, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                       pooling)
        return dsn_logits_folded_ref(input_ids, folded, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                                     token_type_ids=token_type_ids, position_ids=position_ids, pooling=pooling)
    return operator("dsn_logits_folded", name)(
        input_ids, *folded[:-1], activation, _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids,
        _code("pooling", pooling, POOLING_CODES))


def _code(argument: str, value: str, codes: dict[str, int]) -> int:
    code = codes.get(value)
    if code is None:
        raise RuntimeError(f"{argument} is {value!r}, expected one of {', '.join(codes)}.")
    return code


def _integer_mask(attention_mask: Tensor | None) -> Tensor | None:
    """The kernels read masks of these widths as they are; a float mask is rare and worth one pass."""
    if attention_mask is None or attention_mask.dtype in MASK_DTYPES:
        return attention_mask
    return attention_mask != 0
