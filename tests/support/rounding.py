"""How far rounding may move a result: the reference's formula in float64, with the rounding error of every number.

A computed number is off by a sum of many small errors. Each operation on the way was rounded, by at most u times its
result (u is the unit roundoff), and each such error reaches the number multiply by a derivative. By Hoeffding's
inequality a sum of independent errors, each at most u |v_i|, exceeds ``c u sqrt(sum v_i^2)`` with a probability of at
most 2 exp(-c^2 / 2). The v_i follow from the formula and its arguments alone, so that the bound is the same on every
processor.

Running error analysis: Higham 2002, "Accuracy and stability of numerical algorithms", section 3.3. The root in the
place of the sum: Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

aten = torch.ops.aten


class Rounded(Tensor):
    """A float64 ``value``, and in ``squares`` the sum of the v_i^2 of each of its elements. Torch's ops and autograd
    treat it as a float64 tensor."""

    value: Tensor
    squares: Tensor
    # Only of a gradient with one row per token: numbers for groups of tokens that share some of their errors.
    groups: Tensor | None = None
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
    """Every tensor of a dictionary, a prepared table or a head as an exact ``Rounded``; what the reference computes
    from them is ``Rounded`` too."""
    return tree_map(lambda x: Rounded(x.detach().cpu().double()) if isinstance(x, Tensor) else x, values)


def rounded_to(dtype: torch.dtype, value: Tensor) -> Rounded:
    """``value`` in float64 for what the kernel has rounded to ``dtype``. Its error is in units of float32's roundoff.
    """
    value = value.double()
    return Rounded(value, (value * (torch.finfo(dtype).eps / torch.finfo(torch.float32).eps)).square())


def value_of(x: Any) -> Any:
    return x.value if isinstance(x, Rounded) else x


def squares_of(x: Any) -> Any:
    if isinstance(x, Rounded):
        return x.squares
    return torch.zeros_like(x) if isinstance(x, Tensor) and x.is_floating_point() else x


def error_of(x: Any) -> Any:
    """As ``squares_of``, for arithmetic: 0 for a number and for an exact tensor."""
    return x.squares if isinstance(x, Rounded) else 0.0


# ---- ops that only move numbers, and their errors with them ----------------------------------------------------------

MOVED = {aten.alias, aten.cat, aten.clone, aten.detach, aten.embedding, aten.expand, aten.index, aten.index_select,
         aten.neg, aten.permute, aten.select, aten.select_backward, aten.slice, aten.slice_backward, aten.split,
         aten.split_with_sizes, aten.squeeze, aten.stack, aten.t, aten.transpose, aten.unsqueeze, aten.view,
         aten.unbind, aten._unsafe_view, aten._reshape_alias, aten.where, aten._to_copy}
# Ops that make new tensors, whose numbers are exact; a comparison looks at the values alone.
MADE = {aten.eq, aten.gt, aten.lt, aten.new_empty, aten.new_full, aten.new_ones, aten.new_zeros, aten.ones_like,
        aten.zeros_like}


# ---- ops that round --------------------------------------------------------------------------------------------------


def add(sign: int) -> Callable[..., Rounded]:
    def rule(a: Any, b: Any) -> Rounded:
        value = value_of(a) + sign * value_of(b)
        return Rounded(value, error_of(a) + error_of(b) + value.square())
    return rule


def multiply(a: Any, b: Any) -> Rounded:
    value = value_of(a) * value_of(b)
    return Rounded(value, error_of(a) * value_of(b)**2 + error_of(b) * value_of(a)**2 + value.square())


def divide(a: Any, b: Any) -> Rounded:
    value = value_of(a) / value_of(b)
    return Rounded(value, (error_of(a) + error_of(b) * value.square()) / value_of(b)**2 + value.square())


def square(x: Rounded, exponent: int) -> Rounded:
    assert exponent == 2
    return multiply(x, x)


def take_rsqrt(x: Rounded) -> Rounded:
    value = x.value.rsqrt()
    return Rounded(value, (value**3 / 2).square() * x.squares + value.square())


def groups_of(terms: Tensor) -> Tensor:
    """A group number for each of ``terms [n, channels]``: neighbours that are equal and not 0 in some channel belong
    together, as a row's gradient is for each of its tokens, whatever dropout sets to 0. Terms of zeros alone belong to
    the group before them."""
    nonzero = terms.any(dim=1).nonzero()[:, 0]
    is_same = ((terms[nonzero[1:]] == terms[nonzero[:-1]]) & (terms[nonzero[1:]] != 0)).any(dim=1)
    return nonzero.new_zeros(len(terms)).index_put((nonzero[1:],), (~is_same).long()).cumsum(0)


def size_of(groups: Tensor, counts: Tensor) -> Tensor:
    """For each entry of ``groups``, how many entries of its group count."""
    _, group = groups.unique(return_inverse=True)
    return group.bincount(counts.double())[group]


def accumulate(terms: Tensor) -> Tensor:
    """The squares of the partial sums of ``terms [n, channels]``. Where the same term is add repeatedly, the errors
    are not independent but have one sign."""
    repeats = size_of(groups_of(terms), terms.any(dim=1))
    return (terms.cumsum(0).square() * repeats[:, None])[1:].sum(0)


def sum_terms(x: Rounded, dim: Any = None, keepdim: bool = False) -> Rounded:
    """The sum of one term after another, where every partial sum is rounded."""
    dims = {d % x.dim() for d in ([dim] if isinstance(dim, int) else dim or range(x.dim()))}
    others = [d for d in range(x.dim()) if d not in dims]
    value, squares = (part.permute(*sorted(dims), *others).flatten(0, len(dims) - 1) if dims else part[None]
                      for part in (x.value, x.squares))
    if x.groups is not None:
        squares = squares * size_of(x.groups, x.value.flatten(0, -2).any(dim=1)).view(-1, *[1] * len(others))
    squares = squares.sum(0) + accumulate(value.flatten(1)).view(value.shape[1:])
    shape = [1 if d in dims else size for d, size in enumerate(x.shape) if keepdim or d not in dims]
    return Rounded(value.sum(0).reshape(shape), squares.reshape(shape))


def average(x: Rounded, dim: Any = None, keepdim: bool = False) -> Rounded:
    total = sum_terms(x, dim, keepdim)
    return divide(total, x.numel() // max(1, total.numel()))


def add_by_index(start: Any, dim: int, index: Tensor, source: Rounded) -> Rounded:
    """For each index, the sum of one term after another, where every partial sum is rounded; ``start`` is 0."""
    assert dim == 0
    value, squares = (part.new_zeros(start.shape).index_add(0, index, part) for part in (source.value, source.squares))
    by_index = index.argsort(stable=True)
    partial = source.value[by_index].cumsum(0)
    first = index[by_index].diff(prepend=index.new_full((1,), -1)) != 0
    before = torch.cat([torch.zeros_like(partial[:1]), partial[:-1]])[first]
    partial = torch.where(first[:, None], 0, partial - before[first.cumsum(0) - 1])
    return Rounded(value, squares.index_add(0, index[by_index], partial.square()))


def put_by_index(start: Any, indices: tuple[Tensor], source: Rounded, accumulate: bool) -> Rounded:
    """The gradient of ``x[index]``, ``start`` is 0."""
    (index,) = indices
    assert accumulate
    channels = math.prod(start.shape[1:])
    value, squares = (part.reshape(index.numel(), channels) for part in (source.value, source.squares))
    total = add_by_index(value.new_empty(len(start), channels), 0, index.flatten(), Rounded(value, squares))
    return Rounded(total.value.view(start.shape), total.squares.view(start.shape))


def differentiate_embedding(grad: Rounded, index: Tensor, rows: int, *_: Any) -> Rounded:
    value, squares = (part.reshape(-1, grad.shape[-1]) for part in (grad.value, grad.squares))
    if grad.groups is not None:
        squares = squares * size_of(grad.groups * rows + index.flatten(), value.any(dim=1))[:, None]
    return add_by_index(value.new_empty(rows, grad.shape[-1]), 0, index.flatten(), Rounded(value, squares))


def exponentiate(x: Rounded) -> Rounded:
    """The error of x counts with the slope, which is exp(x) itself; an exponential is good to two units."""
    value = x.value.exp()
    return Rounded(value, value.square() * x.squares + (2 * value).square())


def clip(x: Rounded, lowest: float, highest: float) -> Rounded:
    return activate(lambda y: y.clamp(lowest, highest), lambda y, clipped: torch.zeros_like(clipped))(x)


def multiply_matrices(a: Any, b: Any) -> Rounded:
    """The products are add one after another; the squares of the partial sums are their mean over all orders."""
    value, terms = value_of(a) @ value_of(b), value_of(a).square() @ value_of(b).square()
    squares = squares_of(a) @ value_of(b).square() + value_of(a).square() @ squares_of(b)
    return Rounded(value, squares + terms + a.shape[-1] * (value.square() / 3 + terms / 6))


def activate(function: Callable[[Tensor], Tensor], roundings: Callable[[Tensor, Tensor], Tensor]
              ) -> Callable[..., Rounded]:
    """``roundings``, of x and f(x), is what the function's own steps are off by, in u. The error of x counts with the
    function's steepest slope near x: the slope at x itself may be 0 next to a bend."""
    def rule(x: Rounded, **_: Any) -> Rounded:
        value, near = function(x.value), x.squares.sqrt() * 2**-21
        moved = torch.maximum((function(x.value + near) - value).abs(), (function(x.value - near) - value).abs())
        return Rounded(value, (moved * 2**21).square() + roundings(x.value, value).square())
    return rule


def differentiate_relu(grad: Rounded, result: Rounded, threshold: float) -> Rounded:
    """Where rounding decides whether a number is above 0, all of its gradient counts as an error."""
    value = torch.where(result.value > 0, grad.value, 0)
    is_open = (result.value <= result.squares.sqrt() * 2**-21) & (result.squares > 0)
    return Rounded(value, torch.where(is_open, (grad.value * 2**24).square(),
                                      torch.where(result.value > 0, grad.squares, 0)))


ROUNDED: dict[Any, Callable[..., Any]] = {
    aten.add: add(1), aten.sub: add(-1), aten.mul: multiply, aten.div: divide, aten.pow: square,
    aten.rsqrt: take_rsqrt, aten.sum: sum_terms, aten.mean: average, aten.index_add: add_by_index,
    aten.embedding_dense_backward: differentiate_embedding, aten.mm: multiply_matrices,
    aten.exp: exponentiate, aten.clamp: clip,
    aten.threshold_backward: differentiate_relu, aten.index_put: put_by_index,
    aten.relu: activate(torch.relu, lambda x, y: torch.zeros_like(y)),
    # 1 - 2 / (1 + exp(2 x)) rounds numbers near 1, however small x is.
    aten.tanh: activate(torch.tanh, lambda x, y: torch.full_like(y, 2)),
    aten.sigmoid: activate(torch.sigmoid, lambda x, y: 2 * y),
    # 1 + erf is rounded and then multiply by x / 2: below 0 that error is larger than the result.
    aten.gelu: activate(torch.nn.functional.gelu, lambda x, y: 2 * y + 2 * x.clamp(-6, 6)),
}


# ---- ops of torch that are several steps -----------------------------------------------------------------------------


def normalise(x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(dim=-1, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + eps)
    return centred * rstd * weight + bias, mean, rstd


def differentiate_layer_norm(grad: Tensor, x: Tensor, shape: Any, mean: Tensor, rstd: Tensor, weight: Tensor,
                             bias: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    x_hat = (x - mean) * rstd
    scaled = grad * weight
    slope = (scaled * x_hat).mean(dim=-1, keepdim=True)
    d_x = rstd * (scaled - scaled.mean(dim=-1, keepdim=True) - x_hat * slope)
    d_x.groups = groups_of(value_of(grad).flatten(0, -2))
    tokens = list(range(x.dim() - 1))
    return d_x, (grad * x_hat).sum(tokens), grad.sum(tokens)


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm: normalise,
    aten.native_layer_norm_backward: differentiate_layer_norm,
    aten.addmm: lambda bias, a, b: torch.mm(a, b) + bias,
    aten.mv: lambda a, vector: torch.mm(a, vector[:, None])[:, 0],
    aten.square: lambda x: x * x,
}
