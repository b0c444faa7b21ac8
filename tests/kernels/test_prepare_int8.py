"""The int8 form of window layers: as near to the float layers as its integers allow, and in the ranges it states."""

import zlib

import pytest
import torch
from cases import VOCAB_SIZE, generator
from window_workload import prepared, window_head, window_parameters

from dendritic_bert.kernels import ops, prepare_int8
from dendritic_bert.kernels.prepare_int8 import activation_table, gate_table, quantise_windows, random_ids
from dendritic_bert.kernels.reference import shifted, token_places
from dendritic_bert.kernels.reference_int8 import _window_layers

DEVIATIONS = 6  # so many standard deviations off is an element that rounding does not explain


def quantised_of(values, **options):
    return quantise_windows(prepared(values, window_head(values), **options))


def groups_of_four(matrices):
    """The weights that share an int16 in plain AVX2, ``[R, M / 4, M, 4]`` of ``matrices [R, M, M]``: of an output,
    those of inputs i, i + 1, i + 4 and i + 5, where i is even and its second bit is not set."""
    starts = [i for i in range(0, matrices.shape[1], 2) if not i & 4]
    return torch.stack([matrices[:, [i, i + 1, i + 4, i + 5]].transpose(1, 2) for i in starts], dim=1)


@pytest.mark.parametrize(("dendrites", "layers", "radius"), [(16, 1, 1), (24, 2, 2), (32, 5, 1), (64, 3, 1)])
def test_u_is_within_the_rounding_of_its_integers(dendrites, layers, radius):
    """Every rounding to a step adds the variance step^2 / 12, independent of the others, and a layer's matrices carry
    it on. The steps are those of the scheme, computed here from the float64 layers."""
    values = window_parameters(12, dendrites, layers, radius)
    windowed = prepared(values, window_head(values), dtype=torch.float64)
    quantised = quantise_windows(windowed)
    ids = torch.randint(VOCAB_SIZE, (20, 30), generator=generator(5))
    row, _ = token_places(ids, None)
    unit = float(quantised.pooled_scale[-1])
    actual = unit * _window_layers(quantised, quantised.taps[0, ids].long(), row, None)
    taps, u = windowed.taps[0, ids], 0
    variance = torch.tensor(0.0)
    for layer, bias in enumerate(windowed.window_bias):
        offsets = [(k - radius) * 2**layer for k in range(2 * radius + 1)]
        if layer == 0:
            sums = sum(shifted(taps[..., k, :], row, offset) for k, offset in enumerate(offsets))
            variance = torch.full_like(sums, (len(offsets) + 1) * unit**2 / 12)
        else:
            step = unit * 2**15 / quantised.input_scale[layer - 1].double()
            matrices = windowed.window_weight[layer - 1]
            scaled = matrices * step[:, None]
            largest_sum = torch.stack([groups_of_four(scaled * sign).clamp_min(0).sum(dim=-1) for sign in (1, -1)])
            weight_step = (scaled.abs().amax(dim=(0, 1)) / 64).maximum(largest_sum.amax(dim=(0, 1, 2)) / 126)
            sums = sum(shifted(u, row, offset) @ matrix for offset, matrix in zip(offsets, matrices))
            of_inputs = sum(shifted(variance + step**2 / 12, row, offset) @ matrix**2
                            for offset, matrix in zip(offsets, matrices))
            of_weights = sum(shifted(u / step, row, offset).square().sum(dim=-1, keepdim=True) for offset in offsets)
            variance = variance + of_inputs + of_weights * weight_step**2 / 12 + 4 * unit**2
        u = u + (sums + bias).relu()
    assert (actual - u).abs().div(variance.sqrt()).max() < DEVIATIONS
    assert actual.max() > 1  # the layers do something


@pytest.mark.parametrize("dendrites", [16, 24, 64])
def test_the_integers_lie_in_their_ranges(dendrites, monkeypatch):
    monkeypatch.setattr(prepare_int8, "STREAM_HEADROOM", 0.1)  # so that the taps, not the sample, set the unit
    values = window_parameters(12, dendrites, 4)
    q = quantised_of(values)
    largest_sum = q.taps.long().abs().amax(dim=(0, 1)).sum(dim=0) + q.window_bias[0].abs()
    assert 2**14 < largest_sum.max() < 2**15
    assert q.window_weight.abs().max() == 64
    assert q.window_bias.long().abs().max() <= 2**30
    for scale in (q.input_scale, q.output_scale):
        assert scale.min() >= 1
    assert int(q.output_shift.min()) >= 0
    assert int(q.output_shift.max()) <= 29
    assert q.gate_weight.long().abs().sum() <= 2**15
    assert 8 <= q.gate_bits <= 22
    assert q.gate.long().abs().max() <= 2**29
    assert int(q.gate_table.min()) >= 1
    assert int(q.gate_table.max()) == 2**28


@pytest.mark.parametrize("sign", [1, -1])
def test_four_products_fit_int16(sign):
    """Also where all weights of an output are large and of one sign."""
    values = window_parameters(12, 32, 3)
    values["window_weight"] = sign * values["window_weight"].abs()
    matrices = quantised_of(values).window_weight.long().transpose(-1, -2).flatten(-3, -2).flatten(0, 1)
    sums = groups_of_four(sign * matrices).sum(dim=-1)
    assert sums.max() >= 124
    assert 255 * sums.max() < 2**15


def test_padded_channels_stay_zero():
    values = window_parameters(12, 24, 3)
    q = quantised_of(values)
    ids = torch.arange(20)[None]
    u = _window_layers(q, q.taps[0, ids].long(), token_places(ids, None)[0], None)
    assert u[..., :24].any()
    assert not u[..., 24:].any()


def test_tables_are_the_same_on_every_machine():
    """Their entries are rounded from functions of the C library, of which none may round across."""
    assert zlib.crc32(gate_table().numpy().tobytes()) == 2206391295
    expected = {"sigmoid": 3397672545, "tanh": 1155203890, "gelu": 70552829}
    assert {name: zlib.crc32(activation_table(name).numpy().tobytes()) for name in expected} == expected
    assert random_ids(VOCAB_SIZE)[0, :4].tolist() == [37, 52, 54, 52]


def test_a_sample_sets_the_ranges():
    """Texts with larger u make the steps of the inputs larger."""
    values = window_parameters(12, 16, 2)
    windowed = prepared(values, window_head(values))
    sums = windowed.taps[0].sum(dim=1).amax(dim=-1)
    small, large = (quantise_windows(windowed, order.repeat(8, 4)) for order in (sums.argsort()[:10],
                                                                                sums.argsort()[-10:]))
    assert (small.input_scale >= large.input_scale).all()
    assert (small.input_scale > large.input_scale).any()


def test_large_gates_take_fewer_bits():
    values = window_parameters(12, 16, 2)
    assert quantised_of(values).gate_bits == 22
    values["gate_weight"] *= 2000
    assert quantised_of(values).gate_bits < 20
    values["gate_weight"] *= 1e6
    with pytest.raises(ValueError, match=r"gate_weight is as large as .* too much for an integer gate: use float32"):
        quantised_of(values)


def test_a_layer_of_zeros():
    values = window_parameters(12, 16, 3)
    values["window_weight"][0].zero_()
    values["window_input_weight"][..., 3] = 0
    values["window_bias"][0, 3] = -1  # a dead channel
    q = quantised_of(values)
    assert not q.window_weight[0].any()
    assert q.window_weight[1].any()


@pytest.mark.parametrize("channel", [slice(None), 3])
@pytest.mark.parametrize("factor", [1e-3, 1e-5, 1e-6, 1e-12])
def test_weights_that_are_small_beside_the_bias(factor, channel):
    """The layer adds hardly more than relu(bias), and that it must add; logits come as near as with larger weights."""
    values = window_parameters(12, 16, 3)
    values["window_weight"][1, :, :, channel] *= factor
    values["window_bias"][2, channel] = 5 * values["window_bias"].abs().max()
    windowed = prepared(values, window_head(values))
    ids = torch.randint(VOCAB_SIZE, (20, 30), generator=generator(5))
    exact = ops.dsn_window_logits(ids, windowed, backend="reference")
    found = ops.dsn_window_logits_int8(ids, quantise_windows(windowed), backend="reference")
    assert (found - exact).abs().max() < 0.005 * exact.abs().max()


@pytest.mark.parametrize(("change", "message"), [
    ({"layers": 0}, r"the model has no window layer \(J is 0\)"),
    ({"window_bias": float("nan")}, "window_bias holds a value that is not finite"),
    ({"word_embeddings": float("inf")}, "holds a value that is not finite"),
])
def test_quantise_windows_refuses(change, message):
    values = window_parameters(12, 16, change.pop("layers", 2))
    for name, value in change.items():
        values[name].flatten()[3] = value
    with pytest.raises(ValueError, match=message):
        quantised_of(values)


def test_more_products_than_a_sum_holds(monkeypatch):
    monkeypatch.setattr(prepare_int8, "MOST_PRODUCTS", 47)
    with pytest.raises(ValueError, match="3 taps of 16 channels, and int8 sums take 47 products at most"):
        quantised_of(window_parameters(12, 16, 2))
