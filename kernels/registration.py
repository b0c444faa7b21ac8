"""The registered operators: for each op one schema, one fake and one autograd formula, which all backends share.

The schemas are defined here, in Python, so that an operator exists where its kernels were not built. The operator of
``op`` on a backend is ``torch.ops.dendritic_bert.<op>_<backend>``.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from .backends.backend import constant
from .contract import WordGrad

_TOKENS = "Tensor? attention_mask, Tensor? cu_seqlens, Tensor? token_type_ids, Tensor? position_ids"
_WINDOW_TOKENS = "Tensor? attention_mask, Tensor? cu_seqlens, Tensor? token_type_ids"
_EMBED = ("Tensor input_ids, Tensor word_embeddings, Tensor position_embeddings, Tensor token_type_embeddings, "
          f"Tensor ln_weight, Tensor ln_bias, {_TOKENS}, float eps, int pooling, float p_embed, float p_pool, "
          "Tensor? seed, int word_grad")
_WINDOW_POOL = ("Tensor input_ids, Tensor word_embeddings, Tensor token_type_embeddings, Tensor? ln_weight, "
                "Tensor? ln_bias, Tensor window_input_weight, Tensor window_weight, Tensor window_bias, "
                f"Tensor? gate_weight, Tensor? gate_bias, {_WINDOW_TOKENS}, float eps, float p_embed, float p_window, "
                "float p_pool, Tensor? seed")
_PREPARED = ("Tensor input_ids, Tensor word, Tensor? word_scale, Tensor context, float eps, Tensor weight, "
             f"Tensor bias, Tensor beta_bias, Tensor lateral, Tensor top, int activation, {_TOKENS}")
# Poolings, activations and word_grad are numbers: the places in contract.POOLINGS and contract.ACTIVATIONS, and
# contract.WordGrad.
SCHEMAS = {
    # pooled_hat [B, H] is the pooled row before gamma, beta and p_pool; rstd has one entry per token. The backward pass
    # reads both.
    "embed_pool": f"({_EMBED}) -> (Tensor pooled, Tensor pooled_hat, Tensor rstd)",
    # d_word is [V, H] where word_grad asks for a dense gradient, and [U, H] beside the U ids in d_word_ids where it
    # asks for a sparse one; else both are empty.
    "embed_pool_backward": f"(Tensor grad_pooled, Tensor pooled_hat, Tensor rstd, {_EMBED}) -> "
                           "(Tensor d_word, Tensor d_word_ids, Tensor d_position, Tensor d_token_type, "
                           "Tensor d_ln_weight, Tensor d_ln_bias)",
    "window_pool": f"({_WINDOW_POOL}) -> Tensor",
    # A gradient has the shape of its parameter, or is empty where there is no such parameter.
    "window_pool_backward": f"(Tensor grad_pooled, {_WINDOW_POOL}) -> "
                            "(Tensor d_word, Tensor d_token_type, Tensor d_ln_weight, Tensor d_ln_bias, "
                            "Tensor d_window_input_weight, Tensor d_window_weight, Tensor d_window_bias, "
                            "Tensor d_gate_weight, Tensor d_gate_bias)",
    "dsn_logits": f"({_PREPARED}, int pooling) -> Tensor",
    "dsn_token_logits": f"({_PREPARED}) -> Tensor",
    "dsn_logits_folded": "(Tensor input_ids, Tensor rstd, Tensor word, Tensor context, int num_positions, Tensor bias, "
                         f"Tensor beta_bias, Tensor lateral, Tensor top, int activation, {_TOKENS}, int pooling) "
                         "-> Tensor",
    "dsn_window_logits": "(Tensor input_ids, Tensor values, Tensor? gate, Tensor taps, Tensor window_bias, "
                         "Tensor window_weight, Tensor gate_weight, Tensor weight, Tensor bias, Tensor lateral, "
                         f"Tensor top, int activation, {_WINDOW_TOKENS}) -> Tensor",
    "dsn_window_logits_int8": "(Tensor input_ids, Tensor values, Tensor? gate, Tensor taps, Tensor window_bias, "
                              "Tensor input_scale, Tensor window_weight, Tensor output_shift, Tensor output_scale, "
                              "Tensor gate_weight, int gate_bits, Tensor gate_table, Tensor pooled_scale, "
                              "Tensor weight, Tensor bias, Tensor lateral, Tensor top, int activation, "
                              f"Tensor activation_table, {_WINDOW_TOKENS}) -> Tensor",
}


def _argument_names(schema: str) -> list[str]:
    arguments = schema[1:schema.index(")")]
    return [argument.split()[-1] for argument in arguments.split(", ")]


class EmbedPoolArguments(NamedTuple):
    """The arguments of the operator ``embed_pool``, or what autograd returns for each of them."""

    input_ids: Tensor | None = None
    word_embeddings: Tensor | None = None
    position_embeddings: Tensor | None = None
    token_type_embeddings: Tensor | None = None
    ln_weight: Tensor | None = None
    ln_bias: Tensor | None = None
    attention_mask: Tensor | None = None
    cu_seqlens: Tensor | None = None
    token_type_ids: Tensor | None = None
    position_ids: Tensor | None = None
    eps: float | None = None
    pooling: int | None = None
    p_embed: float | None = None
    p_pool: float | None = None
    seed: Tensor | None = None
    word_grad: int | None = None


class EmbedPoolGradients(NamedTuple):
    """The results of the operator ``embed_pool_backward``."""

    d_word: Tensor
    d_word_ids: Tensor
    d_position: Tensor
    d_token_type: Tensor
    d_ln_weight: Tensor
    d_ln_bias: Tensor


# The fakes: what torch.compile and torch.export are told of the results. Each takes by name the arguments it needs.


def _num_rows(input_ids: Tensor, cu_seqlens: Tensor | None) -> Any:
    return input_ids.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1


def _fake_embed_pool(*, input_ids: Tensor, cu_seqlens: Tensor | None, word_embeddings: Tensor, **_: Any
                     ) -> tuple[Tensor, Tensor, Tensor]:
    shape = (_num_rows(input_ids, cu_seqlens), word_embeddings.shape[1])
    return (word_embeddings.new_empty(shape), word_embeddings.new_empty(shape, dtype=torch.float32),
            word_embeddings.new_empty((input_ids.numel(),), dtype=torch.float32))


def _fake_embed_pool_backward(*, word_embeddings: Tensor, position_embeddings: Tensor, token_type_embeddings: Tensor,
                              ln_weight: Tensor, ln_bias: Tensor, word_grad: int, **_: Any) -> tuple[Tensor, ...]:
    vocab_size, hidden_size = word_embeddings.shape
    num_ids = torch.library.get_ctx().new_dynamic_size() if word_grad == WordGrad.SPARSE else 0
    num_rows = vocab_size if word_grad == WordGrad.DENSE else num_ids
    return EmbedPoolGradients(
        word_embeddings.new_empty((num_rows, hidden_size)), word_embeddings.new_empty((num_ids,), dtype=torch.int64),
        *(parameter.new_empty(parameter.shape)
          for parameter in (position_embeddings, token_type_embeddings, ln_weight, ln_bias)))


# The parameters of window_pool, which follow input_ids in its arguments.
_WINDOW_PARAMETERS = ("word_embeddings", "token_type_embeddings", "ln_weight", "ln_bias", "window_input_weight",
                      "window_weight", "window_bias", "gate_weight", "gate_bias")


def _fake_window_pool(*, input_ids: Tensor, cu_seqlens: Tensor | None, word_embeddings: Tensor, window_bias: Tensor,
                      **_: Any) -> Tensor:
    return word_embeddings.new_empty((_num_rows(input_ids, cu_seqlens),
                                      word_embeddings.shape[1] + window_bias.shape[1]))


def _fake_window_pool_backward(*, word_embeddings: Tensor, **arguments: Any) -> tuple[Tensor, ...]:
    parameters = [{"word_embeddings": word_embeddings, **arguments}[name] for name in _WINDOW_PARAMETERS]
    return tuple(word_embeddings.new_empty(0 if parameter is None else parameter.shape) for parameter in parameters)


def _fake_dsn_logits(*, input_ids: Tensor, cu_seqlens: Tensor | None, bias: Tensor, top: Tensor, **_: Any) -> Tensor:
    return bias.new_empty((_num_rows(input_ids, cu_seqlens), top.shape[1]))


def _fake_dsn_token_logits(*, input_ids: Tensor, bias: Tensor, top: Tensor, **_: Any) -> Tensor:
    return bias.new_empty((*input_ids.shape, top.shape[1]))


_FAKES: dict[str, Callable[..., Any]] = {
    "embed_pool": _fake_embed_pool,
    "embed_pool_backward": _fake_embed_pool_backward,
    "window_pool": _fake_window_pool,
    "window_pool_backward": _fake_window_pool_backward,
    "dsn_logits": _fake_dsn_logits,
    "dsn_token_logits": _fake_dsn_token_logits,
    "dsn_logits_folded": _fake_dsn_logits,
    "dsn_window_logits": _fake_dsn_logits,
    "dsn_window_logits_int8": _fake_dsn_logits,
}


def _by_name(fake: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The fake as torch.library calls it, with the values in the order of ``names``. A call that mixes meta tensors
    with real ones ends here too, and would return memory that nobody wrote: it is refused."""

    def call(*values: Any) -> Any:
        for name, value in zip(names, values):
            if isinstance(value, Tensor) and value.device != values[0].device:
                raise RuntimeError(f"{name} is on {value.device}, {names[0]} on {values[0].device}: move one of them.")
        return fake(**dict(zip(names, values)))

    return call


# The autograd formulas of embed_pool and of window_pool.


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keeps the inputs, and of several outputs those after the first, which are not differentiable."""
    kept = output[1:] if isinstance(output, tuple) else ()
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)
    ctx.num_kept = len(kept)
    ctx.save_for_backward(*kept, *[value if isinstance(value, Tensor) else None for value in inputs])
    ctx.numbers = [None if isinstance(value, Tensor) else value for value in inputs]


def _saved(ctx: Any) -> tuple[tuple[Tensor, ...], list[Any]]:
    """What ``_save_for_backward`` kept: the outputs after the first, and the inputs."""
    kept, tensors = ctx.saved_tensors[:ctx.num_kept], ctx.saved_tensors[ctx.num_kept:]
    return kept, [number if tensor is None else tensor for tensor, number in zip(tensors, ctx.numbers)]


def _backward_of_embed_pool(operator: Any) -> Callable[..., Any]:
    def backward(ctx: Any, grad_pooled: Tensor | None, *_: None) -> EmbedPoolArguments:
        if grad_pooled is None:
            return EmbedPoolArguments()
        kept, values = _saved(ctx)
        inputs: Any = EmbedPoolArguments(*values)
        gradients = EmbedPoolGradients(*operator(grad_pooled, *kept, *inputs))
        d_word = None if inputs.word_grad == WordGrad.NONE else gradients.d_word
        if inputs.word_grad == WordGrad.SPARSE:
            d_word = torch.sparse_coo_tensor(gradients.d_word_ids[None], gradients.d_word,
                                             inputs.word_embeddings.shape, is_coalesced=True, check_invariants=False)
        return EmbedPoolArguments(
            word_embeddings=d_word, position_embeddings=gradients.d_position,
            token_type_embeddings=gradients.d_token_type, ln_weight=gradients.d_ln_weight, ln_bias=gradients.d_ln_bias)

    return backward


def _backward_of_window_pool(operator: Any) -> Callable[..., Any]:
    def backward(ctx: Any, grad_pooled: Tensor | None) -> tuple[Tensor | None, ...]:
        _, inputs = _saved(ctx)
        if grad_pooled is None:
            return (None,) * len(inputs)
        parameters = inputs[1:1 + len(_WINDOW_PARAMETERS)]
        gradients = [None if parameter is None else gradient
                     for parameter, gradient in zip(parameters, operator(grad_pooled, *inputs))]
        return (None, *gradients, *[None] * (len(inputs) - 1 - len(gradients)))

    return backward


_BACKWARDS = {"embed_pool": _backward_of_embed_pool, "window_pool": _backward_of_window_pool}


def _not_differentiable(op: str) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise RuntimeError(f"{op} is differentiable once: pass backend=\"reference\" for second derivatives, "
                           f"or set {backends.ENVIRONMENT_VARIABLE}=reference.")

    return backward


# The operators of each backend.
_library = torch.library.Library("dendritic_bert", "FRAGMENT")
_operators: dict[str, dict[str, Any]] = {op: {} for op in SCHEMAS}  # by op and backend
_defining = threading.Lock()


def define(name: str) -> None:
    """Define the operators of the backend ``name``, once.

    Those of a lazy backend are defined by the first call that it serves. A process that loads a program which was
    exported with them defines them first.
    """
    backend = backends.KERNEL_BACKENDS[name]
    with _defining:
        if name in _operators["embed_pool"]:
            return
        for op, schema in SCHEMAS.items():
            defined = () if backend.define is None else backend.define(op, schema)
            if not defined:
                defined = (f"{op}_{name}",)
                _library.define(defined[0] + schema)
            names = _argument_names(schema)
            for operator_name in defined:
                torch.library.register_fake(f"dendritic_bert::{operator_name}", _by_name(_FAKES[op], names),
                                            lib=_library)
        for op, backward_of in _BACKWARDS.items():
            operator_of_backward = getattr(torch.ops.dendritic_bert, f"{op}_backward_{name}")
            torch.library.register_autograd(f"dendritic_bert::{op}_{name}", backward_of(operator_of_backward),
                                            setup_context=_save_for_backward, lib=_library)
            torch.library.register_autograd(f"dendritic_bert::{op}_backward_{name}", _not_differentiable(op),
                                            lib=_library)
        for op, by_backend in _operators.items():
            by_backend[name] = getattr(torch.ops.dendritic_bert, f"{op}_{name}").default


@constant
def _make_sure_of(backend: str) -> None:
    if backend not in _operators["embed_pool"]:
        define(backend)


def operator(op: str, backend: str) -> Any:
    """The operator of ``op`` on ``backend``, defined where it was not yet."""
    _make_sure_of(backend)
    return _operators[op][backend]


for _name, _backend in backends.KERNEL_BACKENDS.items():
    if not _backend.is_lazy:
        define(_name)
