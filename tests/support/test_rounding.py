"""The judge of all kernels: its bound against numpy's float32 sums in several orders, and what it must not let pass."""

import numpy as np
import pytest
import torch
from cases import exact_logits, exact_pooled, head, in_float64, parameters, pooled_and_gradients, tokens
from dsn_workload import prepared
from helpers import CERTAINTY, assert_within_rounding, rounding_bound
from rounding import Rounded, rounded_to, tracked

from dendritic_bert.kernels.contract import ACTIVATIONS
from dendritic_bert.kernels.reference import dsn_logits_ref, embed_pool_ref

UNIT = 2.0**-24
DROPOUT = {"p_embed": 0.3, "p_pool": 0.2, "seed": torch.tensor(5)}
ORDERS = {"forwards": lambda n: np.arange(n), "backwards": lambda n: np.arange(n)[::-1],
          "large ones first": None, "shuffled": lambda n: np.random.default_rng(1).permutation(n)}


def numbers(count: int, kind: str, channels: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    terms = rng.normal(size=(count, channels))
    if kind == "of one sign":
        terms = np.abs(terms)
    elif kind == "that cancel":
        terms[count // 2:] = -terms[:count - count // 2] + 1e-3 * terms[count // 2:]
    elif kind == "one and the same":
        terms[:] = terms[0]
    return terms.astype(np.float32)


def off_by(actual: np.ndarray, exact: Rounded) -> float:
    """The largest error as a share of what is allowed."""
    error = (torch.from_numpy(actual).double() - exact.value).abs()
    return float((error / rounding_bound(exact, torch.float32)).max())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["of both signs", "of one sign", "that cancel", "one and the same"])
@pytest.mark.parametrize("count", [2, 16, 129, 3000])
def test_a_sum_in_any_order(count, kind, order):
    terms = numbers(count, kind)
    places = np.argsort(-np.abs(terms[:, 0])) if ORDERS[order] is None else ORDERS[order](count)
    total = np.zeros(terms.shape[1], dtype=np.float32)
    for term in terms[places]:
        total += term
    found = off_by(total, Rounded(torch.from_numpy(terms).double()).sum(0))
    assert found <= 1
    assert found > 1 / 20 or count == 2 or order != "forwards"  # the bound is not far beyond


@pytest.mark.parametrize("size", [16, 100, 768])
def test_a_matrix_product(size):
    a, b = numbers(30, "of both signs", size), numbers(size, "of one sign", 40)
    total = np.zeros((30, 40), dtype=np.float32)
    for k in range(size):
        total += a[:, k:k + 1] * b[k]
    assert 1 / 20 < off_by(total, Rounded(torch.from_numpy(a).double()) @ torch.from_numpy(b).double()) <= 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_of_a_rounded_number(activation):
    """Around 0, where ReLU has its bend, and where all are flat."""
    x = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    x = torch.cat([x, 1e-8 * x])
    rounded = Rounded(x, torch.full_like(x, 9.0))
    function = ACTIVATIONS[activation]
    bound = rounding_bound(function(rounded), torch.float32)
    for off in (-3 * UNIT, 3 * UNIT):
        assert ((function((x + off).float()).double() - function(x)).abs() <= bound).all()


@pytest.mark.parametrize("layout", ["padded with holes", "packed int32"])
@pytest.mark.parametrize("options", [{}, DROPOUT], ids=["", "dropout"])
def test_the_value_is_that_of_float64(layout, options):
    arguments, values = tokens(layout, 5, 9, token_types=True), parameters(20, num_positions=9)
    exact = pooled_and_gradients(exact_pooled, tracked(values), **arguments, **options)
    for name, expected in pooled_and_gradients(embed_pool_ref, in_float64(values), **arguments, **options).items():
        torch.testing.assert_close(exact[name].value, expected, rtol=1e-12, atol=1e-12)
        assert not exact[name].squares[expected == 0].any()
    table, dsn_head = prepared(values, head(20, 3, 2), torch.float16)
    wide = [type(made)(*(x.double() if isinstance(x, torch.Tensor) else x for x in made)) for made in (table, dsn_head)]
    expected = dsn_logits_ref(**arguments, table=wide[0], head=wide[1])
    torch.testing.assert_close(exact_logits(arguments, table, dsn_head).value, expected, rtol=1e-12, atol=1e-12)


def result(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, Rounded]:
    """What eager torch makes of one case, and what is exact."""
    arguments, values = tokens("padded with holes", 4, 31), parameters(16, dtype, num_positions=31)
    return embed_pool_ref(**arguments, **values), exact_pooled(**arguments, **tracked(values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("eager", [0.0, 1.0, float("nan")])
def test_what_torch_is_off_by_judges_nothing(eager, dtype):
    """A torch that happens to be exact, as of one element it may, and one that is wrong."""
    actual, exact = result(dtype)
    assert_within_rounding(actual, exact.value.to(dtype) + eager, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_element_that_is_off_by_more(dtype):
    """Though others are off by as much: the bound is each element's own."""
    actual, exact = result(dtype)
    bound = rounding_bound(exact, dtype)
    row, channel = divmod(int(torch.where(bound > 0, bound, torch.inf).argmin()), 16)
    assert 2 * bound[row, channel] < bound.max()
    wrong = actual.clone()
    wrong[row, channel] = exact.value[row, channel] + 2 * bound[row, channel] + torch.finfo(dtype).tiny
    with pytest.raises(AssertionError, match=rf"^1 of 64 elements .*\({row}, {channel}\) the most: error .*, torch"):
        assert_within_rounding(wrong, actual, exact)


@pytest.mark.parametrize("value", [1e-30, float("nan"), float("inf")])
def test_where_nothing_is_added_up_only_0_is_right(value):
    actual, exact = result()
    assert (exact.squares[1] == 0).all()  # a row without tokens
    assert_within_rounding(actual, actual, exact)
    actual[1, 3] = value
    with pytest.raises(AssertionError, match=r"^1 of 64 elements .*\(1, 3\) the most"):
        assert_within_rounding(actual, actual, exact)


def test_a_number_that_is_rounded_to_16_bits():
    """Half a unit in its last place, and of float16's least numbers half the distance between them."""
    value = torch.tensor([1.0, 3.0, 1000.0, 1e-7], dtype=torch.float64)
    bound = rounding_bound(Rounded(value, torch.full_like(value, 1e-30)), torch.float16)
    torch.testing.assert_close(bound, torch.tensor([2.0**-11, 3 * 2.0**-11, 1000 * 2.0**-11, 2.0**-25]).double())
    squares = rounded_to(torch.float16, value).squares
    torch.testing.assert_close(squares.sqrt() * UNIT, value * 2.0**-11)


def test_an_op_without_a_rule_says_so():
    with pytest.raises(NotImplementedError, match=r"aten\.cosh\.default has no rule in .*rounding\.py"):
        torch.cosh(Rounded(torch.ones(2, dtype=torch.float64)))


def test_four_times_is_seven_standard_deviations():
    """Of errors that are spread evenly over [-u, u]: what CERTAINTY stands for."""
    assert pytest.approx(7, abs=0.1) == CERTAINTY / 3**-0.5
