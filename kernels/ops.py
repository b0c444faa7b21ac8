"""The ops: the only door to the backends.

Four public functions: ``embed_pool`` (differentiable), and for inference ``dsn_logits`` (head fused),
``dsn_token_logits`` (the head on every token) and ``dsn_logits_folded`` (the head folded into the tables). Each
chooses a backend and calls that backend's torch.library op; all backends share one schema, one fake and one autograd
formula.
The schemas are defined here, in Python, so that an op exists where its kernels were not built.
"""

import threading
from typing import Any

import torch
from torch import Tensor

from . import backends, validation
from .backends import gpu
from .backends import triton as triton_backend
from .contract import ACTIVATIONS, POOLINGS, DsnHead, DsnTable, FoldedDsn
from .reference import dsn_logits_folded_ref, dsn_logits_ref, dsn_token_logits_ref, embed_pool_ref

NATIVE_BACKENDS = tuple(name for name in backends.BACKENDS if name != "reference")
_POOLING_CODES = {name: code for code, name in enumerate(POOLINGS)}
_ACTIVATION_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
KERNEL_MASK_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64)
NO_WORD_GRAD, DENSE_WORD_GRAD, SPARSE_WORD_GRAD = 0, 1, 2

_TOKENS = "Tensor? attention_mask, Tensor? cu_seqlens, Tensor? token_type_ids, Tensor? position_ids"
_EMBED = ("Tensor input_ids, Tensor word_embeddings, Tensor position_embeddings, Tensor token_type_embeddings, "
          f"Tensor ln_weight, Tensor ln_bias, {_TOKENS}, float eps, int pooling, float p_embed, float p_pool, "
          "Tensor? seed")
_PREPARED = ("Tensor input_ids, Tensor word, Tensor? word_scale, Tensor context, float eps, Tensor weight, "
             f"Tensor bias, Tensor beta_bias, Tensor lateral, Tensor top, int activation, {_TOKENS}")
_SCHEMAS = {
    # pooled_hat [B, H] is the pooled row before gamma, beta and p_pool; rstd has one entry a token: kept for backward.
    "embed_pool": f"({_EMBED}, int word_grad) -> (Tensor pooled, Tensor pooled_hat, Tensor rstd)",
    # d_word is [V, H], or [U, H] beside the U ids in d_word_ids, or empty, as word_grad asks.
    "embed_pool_backward": f"(Tensor grad_pooled, Tensor pooled_hat, Tensor rstd, {_EMBED}, int word_grad) -> "
                           "(Tensor d_word, Tensor d_word_ids, Tensor d_position, Tensor d_token_type, "
                           "Tensor d_ln_weight, Tensor d_ln_bias)",
    "dsn_logits": f"({_PREPARED}, int pooling) -> Tensor",
    "dsn_token_logits": f"({_PREPARED}) -> Tensor",
    "dsn_logits_folded": "(Tensor input_ids, Tensor rstd, Tensor word, Tensor context, int num_positions, Tensor bias, "
                         f"Tensor beta_bias, Tensor lateral, Tensor top, int activation, {_TOKENS}, int pooling) "
                         "-> Tensor",
}
_library = torch.library.Library("dendritic_bert", "FRAGMENT")
_defining = threading.Lock()


def _on_one_device(arguments: Any, fake: Any) -> Any:
    """The fake of an op. A call that mixes meta tensors with real ones ends here too, and would return memory that
    nobody wrote: it is refused."""

    def checked(*values: Any) -> Any:
        for argument, value in zip(arguments, values):
            if isinstance(value, Tensor) and value.device != values[0].device:
                raise RuntimeError(f"{argument.name} is on {value.device}, {arguments[0].name} on {values[0].device}: "
                                   "move one of them.")
        return fake(*values)

    return checked


def _num_rows(input_ids: Tensor, cu_seqlens: Tensor | None) -> Any:
    return input_ids.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1


def _embed_pool_fake(input_ids: Tensor, word_embeddings: Tensor, position_embeddings: Tensor,
                     token_type_embeddings: Tensor, ln_weight: Tensor, ln_bias: Tensor, attention_mask: Tensor | None,
                     cu_seqlens: Tensor | None, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    shape = (_num_rows(input_ids, cu_seqlens), word_embeddings.shape[1])
    return (word_embeddings.new_empty(shape), word_embeddings.new_empty(shape, dtype=torch.float32),
            word_embeddings.new_empty((input_ids.numel(),), dtype=torch.float32))


def _embed_pool_backward_fake(grad_pooled: Tensor, pooled_hat: Tensor, rstd: Tensor, input_ids: Tensor,
                              word_embeddings: Tensor, position_embeddings: Tensor, token_type_embeddings: Tensor,
                              ln_weight: Tensor, ln_bias: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    word_grad = rest[-1]
    num_ids = torch.library.get_ctx().new_dynamic_size() if word_grad == SPARSE_WORD_GRAD else 0
    num_rows = {NO_WORD_GRAD: 0, DENSE_WORD_GRAD: word_embeddings.shape[0], SPARSE_WORD_GRAD: num_ids}[word_grad]
    return (word_embeddings.new_empty((num_rows, word_embeddings.shape[1])),
            word_embeddings.new_empty((num_ids,), dtype=torch.int64), torch.empty_like(position_embeddings),
            torch.empty_like(token_type_embeddings), torch.empty_like(ln_weight), torch.empty_like(ln_bias))


def _dsn_logits_fake(input_ids: Tensor, word: Tensor, word_scale: Tensor | None, context: Tensor, eps: float,
                     weight: Tensor, bias: Tensor, beta_bias: Tensor, lateral: Tensor, top: Tensor, activation: int,
                     attention_mask: Tensor | None, cu_seqlens: Tensor | None, *_: Any) -> Tensor:
    return weight.new_empty((_num_rows(input_ids, cu_seqlens), top.shape[1]))


def _dsn_token_logits_fake(input_ids: Tensor, word: Tensor, word_scale: Tensor | None, context: Tensor, eps: float,
                           weight: Tensor, bias: Tensor, beta_bias: Tensor, lateral: Tensor, top: Tensor,
                           *_: Any) -> Tensor:
    return weight.new_empty((*input_ids.shape, top.shape[1]))


def _dsn_logits_folded_fake(input_ids: Tensor, rstd: Tensor, word: Tensor, context: Tensor, num_positions: int,
                            bias: Tensor, beta_bias: Tensor, lateral: Tensor, top: Tensor, activation: int,
                            attention_mask: Tensor | None, cu_seqlens: Tensor | None, *_: Any) -> Tensor:
    return bias.new_empty((_num_rows(input_ids, cu_seqlens), top.shape[1]))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)
    ctx.tensor_places = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
    ctx.save_for_backward(output[1], output[2], *(inputs[i] for i in ctx.tensor_places))
    ctx.other_inputs = [None if isinstance(value, Tensor) else value for value in inputs]


def _embed_pool_autograd(name: str) -> Any:
    backward_op = getattr(torch.ops.dendritic_bert, f"embed_pool_backward_{name}")

    def backward(ctx: Any, grad_pooled: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_pooled is None:
            return (None,) * len(ctx.other_inputs)
        pooled_hat, rstd, *tensors = ctx.saved_tensors
        inputs = list(ctx.other_inputs)
        for place, tensor in zip(ctx.tensor_places, tensors):
            inputs[place] = tensor
        d_word, d_word_ids, *others = backward_op(grad_pooled, pooled_hat, rstd, *inputs)
        if inputs[-1] == SPARSE_WORD_GRAD:
            d_word = torch.sparse_coo_tensor(d_word_ids[None], d_word, inputs[1].shape, is_coalesced=True,
                                             check_invariants=False)
        elif inputs[-1] == NO_WORD_GRAD:
            d_word = None
        return None, d_word, *others, *(None,) * (len(inputs) - 6)

    return backward


def _not_differentiable(ctx: Any, *grads: Tensor | None) -> Any:
    raise RuntimeError("embed_pool is differentiable once: pass backend=\"reference\" for second derivatives, "
                       f"or set {backends.ENVIRONMENT_VARIABLE}=reference.")


_FAKES = {"embed_pool": _embed_pool_fake, "embed_pool_backward": _embed_pool_backward_fake,
          "dsn_logits": _dsn_logits_fake, "dsn_token_logits": _dsn_token_logits_fake,
          "dsn_logits_folded": _dsn_logits_folded_fake}
_OPS: dict[str, dict[str, Any]] = {op: {} for op in _SCHEMAS}  # and by backend


def define(backend: str) -> None:
    """Define the ops of a backend, once. Triton's are defined by the first call that it serves: who loads a program
    that was exported with them calls this before."""
    with _defining:
        if backend in _OPS["embed_pool"]:
            return
        for op, schema in _SCHEMAS.items():
            names = triton_backend.define(op, schema) if backend == "triton" else ()
            if not names:
                _library.define(f"{op}_{backend}{schema}")
            for name in names or (f"{op}_{backend}",):
                arguments = getattr(torch.ops.dendritic_bert, name).default._schema.arguments
                torch.library.register_fake(f"dendritic_bert::{name}", _on_one_device(arguments, _FAKES[op]),
                                            lib=_library)
        torch.library.register_autograd(f"dendritic_bert::embed_pool_{backend}", _embed_pool_autograd(backend),
                                        setup_context=_save_for_backward, lib=_library)
        torch.library.register_autograd(f"dendritic_bert::embed_pool_backward_{backend}", _not_differentiable,
                                        lib=_library)
        for op, by_backend in _OPS.items():
            by_backend[backend] = getattr(torch.ops.dendritic_bert, f"{op}_{backend}").default


@gpu.constant
def _make_sure_of(backend: str) -> None:
    if backend not in _OPS["embed_pool"]:
        define(backend)


def _op(op: str, backend: str) -> Any:
    _make_sure_of(backend)
    return _OPS[op][backend]


for _backend in NATIVE_BACKENDS:
    if _backend != "triton" or triton_backend.INTERPRETED or triton_backend.MISSING is not None:
        define(_backend)


def is_served(op: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``op`` with a word table of ``dtype`` on ``device`` is served as asked for: by the backend that the
    environment forces, or where it forces none by a kernel rather than the reference."""
    names = NATIVE_BACKENDS if backends.FORCED is None else (backends.FORCED,)
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
    word_grad = NO_WORD_GRAD
    if word_embeddings.requires_grad:
        word_grad = SPARSE_WORD_GRAD if sparse_grad else DENSE_WORD_GRAD
    pooled, _, _ = _op("embed_pool", name)(
        input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias,
        _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids, eps,
        _code("pooling", pooling, _POOLING_CODES), p_embed, p_pool, seed, word_grad)
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
    activation = _code("activation", head.activation, _ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_logits", table.word.device, table.word.dtype)
    if name == "reference":
        validation.check_dsn_logits(input_ids, table, head, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                pooling)
        return dsn_logits_ref(input_ids, table, head, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                              token_type_ids=token_type_ids, position_ids=position_ids, pooling=pooling)
    word, word_scale, context, eps = table
    weight, bias, beta_bias, lateral, top, _ = head
    return _op("dsn_logits", name)(
        input_ids, word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation,
        _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids,
        _code("pooling", pooling, _POOLING_CODES))


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
    activation = _code("activation", head.activation, _ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_token_logits", table.word.device, table.word.dtype)
    if name == "reference":
        validation.check_dsn_logits(input_ids, table, head, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                "mean_masked")
        return dsn_token_logits_ref(input_ids, table, head, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                                    token_type_ids=token_type_ids, position_ids=position_ids)
    word, word_scale, context, eps = table
    weight, bias, beta_bias, lateral, top, _ = head
    return _op("dsn_token_logits", name)(
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
    activation = _code("activation", folded.activation, _ACTIVATION_CODES)
    name = backends.choose(backend, "dsn_logits_folded", folded.word.device, folded.word.dtype)
    if name == "reference":
        validation.check_dsn_logits_folded(input_ids, folded, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                       pooling)
        return dsn_logits_folded_ref(input_ids, folded, attention_mask=attention_mask, cu_seqlens=cu_seqlens,
                                     token_type_ids=token_type_ids, position_ids=position_ids, pooling=pooling)
    return _op("dsn_logits_folded", name)(
        input_ids, *folded[:-1], activation, _integer_mask(attention_mask), cu_seqlens, token_type_ids, position_ids,
        _code("pooling", pooling, _POOLING_CODES))


def _code(argument: str, value: str, codes: dict[str, int]) -> int:
    code = codes.get(value)
    if code is None:
        raise RuntimeError(f"{argument} is {value!r}, expected one of {', '.join(codes)}.")
    return code


def _integer_mask(attention_mask: Tensor | None) -> Tensor | None:
    """The kernels read masks of these widths as they are; a float mask is rare and worth one pass."""
    if attention_mask is None or attention_mask.dtype in KERNEL_MASK_DTYPES:
        return attention_mask
    return attention_mask != 0
