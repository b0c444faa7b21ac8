"""What rounding may do to a result: the reference's formula run in float64, every number beside its rounding error.

A computed number is off by a sum of many small errors: each operation on the way was rounded, by at most u times its
result (u the unit roundoff), and each such error reaches the number multiplied by a derivative. By Hoeffding's
inequality a sum of independent errors, each at most u |v_i|, exceeds ``c u sqrt(sum v_i^2)`` with a probability of at
most 2 exp(-c^2 / 2). The v_i follow from the formula and its arguments alone: the bound is the same on every processor.

Running error analysis: Higham 2002, "Accuracy and stability of numerical algorithms", section 3.3. The root in the
place of the sum: Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

aten = torch.ops.aten


class Rounded(Tensor):
    """A float64 ``value`` and ``squares``, the sum of the v_i^2 of each of its elements; torch's ops take it for a
    float64 tensor, and so does autograd."""

    value: Tensor
    squares: Tensor
    runs: Tensor | None = None  # of a gradient by token: the tokens of a row are a run, and share some of their errors
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value: Tensor, squares: Tensor | None = None) -> "Rounded":
        self = Tensor._make_wrapper_subclass(cls, value.shape, strides=value.stride(), dtype=value.dtype)
        self.value = value
        self.squares = torch.zeros_like(value) if squares is None else squares
        return self

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Rounded({self.value}, {self.squares})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        op, kwargs = func.overloadpacket, kwargs or {}
        if op in FORMULAS:
            return FORMULAS[op](*args, **kwargs)
        if op in ROUNDED:
            return ROUNDED[op](*args, **kwargs)
        if op in MADE:
            return func(*tree_map(value_of, args), **kwargs)
        if op not in MOVED:
            raise NotImplementedError(f"{func} has no rule in {__file__}.")
        values, squares = (func(*tree_map(part, args), **tree_map(part, kwargs)) for part in (value_of, squares_of))
        return tree_map(Rounded, values, squares)


def tracked(values: Any) -> Any:
    """Every tensor of a dictionary, a prepared table or a head in float64, and exact so far; what the reference
    computes from them is ``Rounded``."""
    return tree_map(lambda x: Rounded(x.detach().cpu().double()) if isinstance(x, Tensor) else x, values)


def rounded_to(dtype: torch.dtype, value: Tensor) -> Rounded:
    """``value`` in float64 where the kernel has it rounded to ``dtype``; an error in units of float32's roundoff."""
    value = value.double()
    return Rounded(value, (value * (torch.finfo(dtype).eps / torch.finfo(torch.float32).eps)).square())


def value_of(x: Any) -> Any:
    return x.value if isinstance(x, Rounded) else x


def squares_of(x: Any) -> Any:
    if isinstance(x, Rounded):
        return x.squares
    return torch.zeros_like(x) if isinstance(x, Tensor) and x.is_floating_point() else x


def error_of(x: Any) -> Any:
    """As ``squares_of``, for arithmetic: a number and an exact tensor have none."""
    return x.squares if isinstance(x, Rounded) else 0.0


# ---- what only moves numbers about moves their errors with them ------------------------------------------------------

MOVED = {aten.alias, aten.cat, aten.clone, aten.detach, aten.embedding, aten.expand, aten.index, aten.index_select,
         aten.neg, aten.permute, aten.select, aten.select_backward, aten.slice, aten.slice_backward, aten.split,
         aten.split_with_sizes, aten.squeeze, aten.stack, aten.t, aten.transpose, aten.unsqueeze, aten.view,
         aten.unbind, aten._unsafe_view, aten._reshape_alias, aten.where, aten._to_copy}
# Made new, with numbers that are exact.
MADE = {aten.new_empty, aten.new_full, aten.new_ones, aten.new_zeros, aten.ones_like, aten.zeros_like}


# ---- what is rounded -------------------------------------------------------------------------------------------------


def added(sign: int) -> Callable[..., Rounded]:
    def rule(a: Any, b: Any) -> Rounded:
        value = value_of(a) + sign * value_of(b)
        return Rounded(value, error_of(a) + error_of(b) + value.square())
    return rule


def multiplied(a: Any, b: Any) -> Rounded:
    value = value_of(a) * value_of(b)
    return Rounded(value, error_of(a) * value_of(b)**2 + error_of(b) * value_of(a)**2 + value.square())


def divided(a: Any, b: Any) -> Rounded:
    value = value_of(a) / value_of(b)
    return Rounded(value, (error_of(a) + error_of(b) * value.square()) / value_of(b)**2 + value.square())


def squared(x: Rounded, exponent: int) -> Rounded:
    assert exponent == 2
    return multiplied(x, x)


def reciprocal_root(x: Rounded) -> Rounded:
    value = x.value.rsqrt()
    return Rounded(value, (value**3 / 2).square() * x.squares + value.square())


def runs_of(terms: Tensor) -> Tensor:
    """Numbers for runs of ``terms [n, channels]`` that are the same in some channel, as a row's gradient is for each of
    its tokens, whatever is dropped of it; what is 0 in all is in the run before."""
    shown = terms.any(dim=1).nonzero()[:, 0]
    again = ((terms[shown[1:]] == terms[shown[:-1]]) & (terms[shown[1:]] != 0)).any(dim=1)
    return shown.new_zeros(len(terms)).index_put((shown[1:],), (~again).long()).cumsum(0)


def size_of(runs: Tensor, shown: Tensor) -> Tensor:
    """For each number in ``runs`` how often it stands there among those that are shown."""
    _, run = runs.unique(return_inverse=True)
    return run.bincount(shown.double())[run]


def accumulated(terms: Tensor) -> Tensor:
    """The squares of the partial sums of ``terms [n, channels]``. Where the same is added again and again, the errors
    are not independent, but all of one sign."""
    repeats = size_of(runs_of(terms), terms.any(dim=1))
    return (terms.cumsum(0).square() * repeats[:, None])[1:].sum(0)


def summed(x: Rounded, dim: Any = None, keepdim: bool = False) -> Rounded:
    """One term after another, every partial sum rounded."""
    dims = {d % x.dim() for d in ([dim] if isinstance(dim, int) else dim or range(x.dim()))}
    kept = [d for d in range(x.dim()) if d not in dims]
    value, squares = (part.permute(*sorted(dims), *kept).flatten(0, len(dims) - 1) if dims else part[None]
                      for part in (x.value, x.squares))
    if x.runs is not None:
        squares = squares * size_of(x.runs, x.value.flatten(0, -2).any(dim=1)).view(-1, *[1] * len(kept))
    squares = squares.sum(0) + accumulated(value.flatten(1)).view(value.shape[1:])
    shape = [1 if d in dims else size for d, size in enumerate(x.shape) if keepdim or d not in dims]
    return Rounded(value.sum(0).reshape(shape), squares.reshape(shape))


def averaged(x: Rounded, dim: Any = None, keepdim: bool = False) -> Rounded:
    total = summed(x, dim, keepdim)
    return divided(total, x.numel() // max(1, total.numel()))


def added_by_index(start: Any, dim: int, index: Tensor, source: Rounded) -> Rounded:
    """``start`` is 0. One term of an index after another, every partial sum rounded."""
    assert dim == 0
    value, squares = (part.new_zeros(start.shape).index_add(0, index, part) for part in (source.value, source.squares))
    by_index = index.argsort(stable=True)
    partial = source.value[by_index].cumsum(0)
    first = index[by_index].diff(prepend=index.new_full((1,), -1)) != 0
    before = torch.cat([torch.zeros_like(partial[:1]), partial[:-1]])[first]
    partial = torch.where(first[:, None], 0, partial - before[first.cumsum(0) - 1])
    return Rounded(value, squares.index_add(0, index[by_index], partial.square()))


def embedding_gradient(grad: Rounded, index: Tensor, rows: int, *_: Any) -> Rounded:
    value, squares = (part.reshape(-1, grad.shape[-1]) for part in (grad.value, grad.squares))
    if grad.runs is not None:
        squares = squares * size_of(grad.runs * rows + index.flatten(), value.any(dim=1))[:, None]
    return added_by_index(value.new_empty(rows, grad.shape[-1]), 0, index.flatten(), Rounded(value, squares))


def matrix_product(a: Any, b: Any) -> Rounded:
    """Products one after another: of all their orders, what the squares of the partial sums are expected to be."""
    value, terms = value_of(a) @ value_of(b), value_of(a).square() @ value_of(b).square()
    squares = squares_of(a) @ value_of(b).square() + value_of(a).square() @ squares_of(b)
    return Rounded(value, squares + terms + a.shape[-1] * (value.square() / 3 + terms / 6))


def activated(function: Callable[[Tensor], Tensor], roundings: Callable[[Tensor, Tensor], Tensor]
              ) -> Callable[..., Rounded]:
    """``roundings`` of x and f(x) is what the function's own steps are off by, in u. x moves f(x) by the function's
    steepest slope near it: the slope at x itself may be 0 where x is next to a bend."""
    def rule(x: Rounded, **_: Any) -> Rounded:
        value, near = function(x.value), x.squares.sqrt() * 2**-21
        moved = torch.maximum((function(x.value + near) - value).abs(), (function(x.value - near) - value).abs())
        return Rounded(value, (moved * 2**21).square() + roundings(x.value, value).square())
    return rule


ROUNDED: dict[Any, Callable[..., Any]] = {
    aten.add: added(1), aten.sub: added(-1), aten.mul: multiplied, aten.div: divided, aten.pow: squared,
    aten.rsqrt: reciprocal_root, aten.sum: summed, aten.mean: averaged, aten.index_add: added_by_index,
    aten.embedding_dense_backward: embedding_gradient, aten.mm: matrix_product,
    aten.relu: activated(torch.relu, lambda x, y: torch.zeros_like(y)),
    # 1 - 2 / (1 + exp(2 x)) rounds numbers near 1, however small x is.
    aten.tanh: activated(torch.tanh, lambda x, y: torch.full_like(y, 2)),
    aten.sigmoid: activated(torch.sigmoid, lambda x, y: 2 * y),
    # 1 + erf is rounded, and times x/2: below 0 more than the result has.
    aten.gelu: activated(torch.nn.functional.gelu, lambda x, y: 2 * y + 2 * x.clamp(-6, 6)),
}


# ---- what torch computes in one op, written out ----------------------------------------------------------------------


def layer_norm(x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(dim=-1, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + eps)
    return centred * rstd * weight + bias, mean, rstd


def layer_norm_backward(grad: Tensor, x: Tensor, shape: Any, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor,
                        wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    normalised = (x - mean) * rstd
    scaled = grad * weight
    slope = (scaled * normalised).mean(dim=-1, keepdim=True)
    d_x = rstd * (scaled - scaled.mean(dim=-1, keepdim=True) - normalised * slope)
    d_x.runs = runs_of(value_of(grad).flatten(0, -2))
    tokens = list(range(x.dim() - 1))
    return d_x, (grad * normalised).sum(tokens), grad.sum(tokens)


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm: layer_norm,
    aten.native_layer_norm_backward: layer_norm_backward,
    aten.addmm: lambda bias, a, b: torch.mm(a, b) + bias,
    aten.square: lambda x: x * x,
}
