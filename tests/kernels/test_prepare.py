"""Prepared tables and heads: centred, combined, folded, quantised, and rounded once."""

import pytest
import torch
from cases import head, in_float64, parameters
from dsn_workload import prepared
from hypothesis import given, settings
from hypothesis import strategies as st

from dendritic_bert.kernels.contract import TABLE_DTYPES
from dendritic_bert.kernels.prepare import fold, prepare_head, prepare_table

FP8 = torch.float8_e4m3fn
FLOAT_DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def tables(hidden_size: int = 20, dtype: torch.dtype = torch.float32, **options) -> list[torch.Tensor]:
    return list(parameters(hidden_size, dtype, **options).values())[:3]


def without_mean(rows: torch.Tensor) -> torch.Tensor:
    return rows.double() - rows.double().mean(dim=-1, keepdim=True)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("source", [*FLOAT_DTYPES, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_words_are_centred_in_float64_and_rounded_once(source, dtype, offset):
    word, position, token_type = tables(dtype=source, offset=offset)
    table = prepare_table(word, position, token_type, eps=1e-7, dtype=dtype)
    assert table.word.dtype == dtype
    assert torch.equal(table.word, without_mean(word).to(dtype))
    assert table.word_scale is None
    assert table.eps == 1e-7


@pytest.mark.parametrize("source", [*FLOAT_DTYPES, torch.float64])
def test_context_is_type_plus_position(source):
    word, position, token_type = tables(dtype=source, num_types=3)
    context = prepare_table(word, position, token_type).context
    assert context.dtype == torch.float32
    assert context.shape == (3, 8, 20)
    for k in range(3):
        for p in range(8):
            assert torch.equal(context[k, p], without_mean(token_type[k].double() + position[p].double()).float())


@pytest.mark.parametrize(("source", "stored"), [*[(dtype, dtype) for dtype in FLOAT_DTYPES],
                                                (torch.float64, torch.float32)])
def test_dtype_is_that_of_the_words(source, stored):
    assert prepare_table(*tables(dtype=source)).word.dtype == stored


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-30, 1e-3, 1.0, 1e4]), st.sampled_from([1, 2, 16, 33]))
def test_int8_is_within_half_a_step(seed, size, hidden_size):
    generator = torch.Generator().manual_seed(seed)
    word = size * torch.randn(4, hidden_size, generator=generator)
    table = prepare_table(word, torch.zeros(1, hidden_size), torch.zeros(1, hidden_size), dtype=torch.int8)
    exact, scale = without_mean(word), table.word_scale.double()[:, None]
    assert table.word.dtype == torch.int8
    assert table.word_scale.dtype == torch.float32
    assert ((table.word.double() * scale - exact).abs() <= scale * (0.5 + 1e-5)).all()
    torch.testing.assert_close(table.word_scale.double(), exact.abs().amax(dim=1) / 127, rtol=1e-6, atol=1e-40)
    if hidden_size > 1 and size > 1e-20:
        assert (table.word.abs().amax(dim=1) == 127).all()  # the whole range is used, and -128 never


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-30, 1e-3, 1.0, 1e4]), st.sampled_from([1, 2, 16, 33]))
def test_float8_is_within_half_a_unit_in_the_last_place(seed, size, hidden_size):
    """Three bits follow the leading one, down to 2^-6 of the scale; below that the step is 2^-9."""
    generator = torch.Generator().manual_seed(seed)
    word = size * torch.randn(4, hidden_size, generator=generator)
    table = prepare_table(word, torch.zeros(1, hidden_size), torch.zeros(1, hidden_size), dtype=FP8)
    exact, scale = without_mean(word), table.word_scale.double()[:, None]
    assert table.word.dtype == FP8
    assert table.word_scale.dtype == torch.float32
    bound = torch.maximum(exact.abs() * 2.0**-4, scale * 2.0**-10)
    assert ((table.word.double() * scale - exact).abs() <= bound * (1 + 1e-5)).all()
    torch.testing.assert_close(table.word_scale.double(), exact.abs().amax(dim=1) / 448, rtol=1e-6, atol=1e-40)
    if hidden_size > 1 and size > 1e-20:
        assert (table.word.double().abs().amax(dim=1) == 448).all()  # the whole range is used


@pytest.mark.parametrize("dtype", [torch.int8, FP8])
def test_a_row_without_variance_is_zero(dtype):
    word = torch.full((3, 16), 7.0)
    table = prepare_table(word, torch.zeros(1, 16), torch.zeros(1, 16), dtype=dtype)
    assert not table.word.float().any()
    assert table.word_scale.isfinite().all()


def test_what_is_prepared_shares_no_memory_and_has_no_gradient():
    values = {name: value.requires_grad_() for name, value in parameters(16).items()}
    head_values = {name: value.requires_grad_() for name, value in head(16, 2, 1).items()}
    table = prepare_table(*list(values.values())[:3])
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head_values)
    made = [value for value in (*table, *dsn_head) if isinstance(value, torch.Tensor)]
    assert not any(value.requires_grad for value in made)
    assert all(value.is_contiguous() for value in made)


@pytest.mark.parametrize("source", [*FLOAT_DTYPES, torch.float64])
@pytest.mark.parametrize("num_dendrites", [0, 1, 3])
def test_gamma_and_beta_are_folded_in_float64(num_dendrites, source):
    values, head_values = parameters(20), head(20, 3, num_dendrites)
    gamma, beta = (values[name].to(source) for name in ("ln_weight", "ln_bias"))
    head_values = {name: value.to(source) for name, value in head_values.items()}
    dsn_head = prepare_head(gamma, beta, **head_values, activation="tanh")
    wide = in_float64(head_values)
    # (A gamma) h + b + s A beta, see prepare.py
    assert torch.equal(dsn_head.weight, (wide["weight"] * gamma.double()).float())
    torch.testing.assert_close(dsn_head.beta_bias.double(), wide["weight"] @ beta.double(), rtol=1e-6, atol=1e-6)
    for name in ("bias", "lateral", "top"):
        assert torch.equal(getattr(dsn_head, name), wide[name].float())
        assert getattr(dsn_head, name).dtype == torch.float32
    assert dsn_head.activation == "tanh"


@pytest.mark.parametrize(("lateral", "top"), [(None, None), (torch.zeros(0, 0, 3), torch.zeros(0, 3)),
                                              (None, torch.zeros(0, 3))])
def test_a_head_without_dendrites(lateral, top):
    dsn_head = prepare_head(torch.ones(8), torch.zeros(8), torch.ones(3, 8), torch.zeros(3), lateral, top)
    assert dsn_head.lateral.shape == (0, 0, 3)
    assert dsn_head.top.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.complex64])
def test_a_table_is_not_stored_as(dtype):
    with pytest.raises(ValueError, match=rf"dtype is {dtype}, .*{TABLE_DTYPES[-1]}"):
        prepare_table(*tables(), dtype=dtype)


@pytest.mark.parametrize(("change", "message"), [
    ({"activation": "swish"}, "activation is 'swish', known are sigmoid, tanh, relu, gelu"),
    ({"weight": torch.ones(7, 8)}, r"weight has 7 rows, top \(2, 3\) asks for 9"),
    ({"bias": torch.ones(8)}, r"bias \(8,\)"),
    ({"ln_weight": torch.ones(7)}, r"ln_weight \(7,\)"),
    ({"ln_bias": torch.ones(1, 8)}, r"ln_bias \(1, 8\)"),
    ({"lateral": torch.ones(2, 1, 3)}, r"lateral has shape \(2, 1, 3\), expected \(2, 2, 3\)"),
    ({"top": torch.ones(1, 3)}, r"weight has 9 rows, top \(1, 3\) asks for 6"),
    ({"lateral": None}, r"lateral has shape \(0, 0, 3\), expected \(2, 2, 3\)"),
    ({"top": torch.ones(3)}, r"top has shape \(3,\)"),
    ({"weight": torch.ones(9)}, r"weight has shape \(9,\)"),
])
def test_a_head_that_does_not_fit(change, message):
    arguments = {"ln_weight": torch.ones(8), "ln_bias": torch.ones(8), "weight": torch.ones(9, 8),
                 "bias": torch.ones(9), "lateral": torch.ones(2, 2, 3), "top": torch.ones(2, 3)} | change
    with pytest.raises(ValueError, match=message):
        prepare_head(**arguments)


@pytest.mark.parametrize(("change", "message"), [
    ({"word_embeddings": torch.ones(8)}, r"word_embeddings has shape \(8,\)"),
    ({"position_embeddings": torch.ones(5, 7)}, r"position_embeddings has shape \(5, 7\)"),
    ({"token_type_embeddings": torch.ones(2, 1)}, r"token_type_embeddings has shape \(2, 1\)"),
    ({"eps": -1e-12}, "eps is -1e-12"),
    ({"eps": float("nan")}, "eps is nan"),
])
def test_tables_that_do_not_fit(change, message):
    arguments = {"word_embeddings": torch.ones(9, 8), "position_embeddings": torch.ones(5, 8),
                 "token_type_embeddings": torch.ones(2, 8)} | change
    with pytest.raises(ValueError, match=message):
        prepare_table(**arguments)


@pytest.mark.parametrize(("num_positions", "num_types"), [(0, 1), (1, 1), (16, 2), (17, 1), (40, 3)])
def test_folding_a_part_gives_the_bits_of_the_whole(num_positions, num_types):
    table, dsn_head = prepared(parameters(48, num_positions=43, num_types=3), head(48, 3, 2), torch.float32)
    whole, part = fold(table, dsn_head), fold(table, dsn_head, num_positions, num_types)
    tiles = (num_positions + 15) // 16
    assert part.num_positions == num_positions
    assert torch.equal(part.word, whole.word)
    first = whole.rstd[:num_types, :num_positions // 16]
    assert torch.equal(part.rstd[:, :num_positions // 16], first)
    torch.testing.assert_close(part.context[:, :num_positions], whole.context[:num_types, :num_positions])
    assert part.rstd.shape == (num_types, tiles, *whole.rstd.shape[2:])


@pytest.mark.parametrize(("num_positions", "num_types"), [(44, 1), (-1, 1), (8, 0), (8, 4)])
def test_folding_more_than_there_is(num_positions, num_types):
    table, dsn_head = prepared(parameters(48, num_positions=43, num_types=3), head(48, 3, 2), torch.float32)
    with pytest.raises(ValueError, match=rf"num_types is {num_types} and num_positions {num_positions}, .* 3 types and "
                                         "43 positions"):
        fold(table, dsn_head, num_positions, num_types)
