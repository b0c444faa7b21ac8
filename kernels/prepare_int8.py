"""Window layers in int8: from the tables of ``prepare.prepare_windows`` to integers, and in which ranges they lie.

The scheme (Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", with the differences said here). Every u is at least 0, so that it needs no sign.

- The residual stream u{j} is int16 in one unit for all layers, in which the largest u of a sample takes half of the
  range; what lies above 32767 saturates. So are the taps of layer 0, and the unit is large enough that no sum of R
  taps and the bias leaves int16.
- Before a product, u is multiplied by a factor of its channel and rounded to 0..255. The weights of a product lie in
  -64..64, with one scale for each output. Two products, 2 * 255 * 64 = 32,640, fit int16: vpmaddubsw, which saturates,
  gives the same as vpdpbusd, which does not. With 0..127 and -127..127, which fit as well, the logits of a trained
  model were off by 1.3 to 1.7 times as much.
- Of the weights of an output in groups of four, those of inputs 8i + 2h, 8i + 2h + 1, 8i + 2h + 4 and 8i + 2h + 5 with
  h = 0 or 1, neither the positive nor the negative ones sum up to more than 128: all four products fit int16, so that
  plain AVX2 widens one sum in place of two. The scales of most outputs are what they would be without this.
- The factor of a channel is the square root of what would make its own largest value 255, times that of the layer; the
  weights take the other root (Xiao et al. 2023, "SmoothQuant").
- The bias of a layer is corrected so that the mean of each of its sums over the sample is that of the float layer
  (Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction").
- The sample is one of ids drawn at random, unless the caller has texts.

Ranges, for R taps, M channels and rows of at most 2^20 tokens:

- a sum of a layer: 2^30 of its bias and R * M * 255 * 64 < 2^30 for R * M <= 65,536, which fits int32;
- the gate's logit: 2^30 of sum |gate_weight| * 32767 with sum |gate_weight| <= 2^15, and 2^29 of the token's own part;
- a gate: 1 to 2^28, so that the sum of 2^20 gates times a value or u, both within 2^15, is at most 2^63 - 2^43.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from .contract import ACTIVATION_LIMIT, ACTIVATION_STEPS, GATE_LIMIT, GATE_STEPS, QuantisedWindowedDsn, WindowedDsn
from .reference import shifted, token_places
from .reference_int8 import add_layer, first_layer, multiply, requantise

LARGEST_INPUT, LARGEST_WEIGHT, LARGEST_GROUP, LARGEST_INT16 = 255, 64, 128, 32767
LARGEST_GATE, MOST_PRODUCTS = 2**28, 2**16
SAMPLE_ROWS, SAMPLE_COLUMNS = 64, 24  # of random ids; 512 rows gave no better labels and took 0.5 s longer
# How much larger than in the sample u may become before a product's factor saturates.
INPUT_HEADROOM, STREAM_HEADROOM = 1.2, 2.0
SMALLEST_RANGE = 0.01  # of a channel, as a part of the largest of its layer: a dead channel must not take the weights


class _Layer(NamedTuple):
    """A layer's integers, as float64 or int64 tensors ``[M]``, and ``window_weight [R, M, M]``."""

    window_bias: Tensor
    input_scale: Tensor
    window_weight: Tensor
    output_shift: Tensor
    output_scale: Tensor


def quantise_windows(windowed: WindowedDsn, input_ids: Tensor | None = None) -> QuantisedWindowedDsn:
    """The int8 form of a model with windows.

    ``input_ids [B, L]`` is a sample of texts without padding, from which the ranges of the layers are taken; by default
    64 rows of 24 random ids, the same on every machine. Everything is computed in float64 and rounded once. Raises
    ValueError for a model without windows, for one whose parameters are not finite, and where R * M is above 65,536.
    """
    _check(windowed)
    wide = WindowedDsn._make(value.double() if isinstance(value, Tensor) else value for value in windowed)
    if input_ids is None:
        input_ids = random_ids(wide.taps.shape[1]).to(wide.taps.device)
    row, _ = token_places(input_ids, None)
    float_layers = _float_layers(wide, wide.taps[0, input_ids], row)
    ranges = torch.stack([u.flatten(0, -2).amax(dim=0) for u, _ in float_layers])
    inputs = [_input_range(largest) for largest in ranges[:-1]]
    unit = _stream_unit(wide, ranges, inputs)

    taps = (wide.taps / unit).round()
    first_bias = (wide.window_bias[0] / unit).round().long()
    u = first_layer(taps[0, input_ids].long(), first_bias, row)
    layers = []
    for layer, largest in enumerate(inputs, start=1):
        layers.append(_quantise_layer(wide, layer, largest, unit, u, float_layers[layer][1], row))
        sums = multiply(requantise(u, layers[-1].input_scale), layers[-1].window_weight, row, layer)
        u = add_layer(u, sums.long() + layers[-1].window_bias, layers[-1].output_shift, layers[-1].output_scale)

    gate, gate_weight, gate_bits = _quantise_gate(wide, unit)
    value_scale = (wide.values.abs().amax(dim=(0, 1)) / LARGEST_INT16).clamp_min(torch.finfo(torch.float32).tiny)
    dendrites = first_bias.numel()

    def stack(name: str, dtype: torch.dtype) -> Tensor:
        rows = [getattr(layer, name) for layer in layers]
        empty = wide.window_weight if name == "window_weight" else wide.window_bias[1:]  # where J is 1
        return (torch.stack(rows) if rows else empty).to(dtype).contiguous()

    return QuantisedWindowedDsn(
        values=(wide.values / value_scale).round().to(torch.int16).contiguous(),
        gate=gate,
        taps=taps.to(torch.int16).contiguous(),
        window_bias=torch.stack([first_bias, *(layer.window_bias for layer in layers)]).to(torch.int32),
        input_scale=stack("input_scale", torch.int16),
        window_weight=in_fours(stack("window_weight", torch.int8)),
        output_shift=stack("output_shift", torch.int32),
        output_scale=stack("output_scale", torch.int16),
        gate_weight=gate_weight,
        gate_bits=gate_bits,
        gate_table=gate_table().to(first_bias.device),
        pooled_scale=torch.cat([value_scale, value_scale.new_full((dendrites,), unit)]).float(),
        weight=windowed.weight.float(),
        bias=windowed.bias.float(),
        lateral=windowed.lateral.float(),
        top=windowed.top.float(),
        activation=windowed.activation,
        activation_table=activation_table(windowed.activation).to(first_bias.device))


def in_fours(matrices: Tensor) -> Tensor:
    """``[..., in, out]`` as ``[..., in / 4, out, 4]``: the order in which vpdpbusd reads four inputs of an output."""
    return matrices.unflatten(-2, (-1, 4)).transpose(-1, -2).contiguous()


def random_ids(vocab_size: int) -> Tensor:
    """The sample that serves where there are no texts: ``[64, 24]``, the same on every machine."""
    return torch.randint(vocab_size, (SAMPLE_ROWS, SAMPLE_COLUMNS), generator=torch.Generator().manual_seed(0))


@functools.cache
def gate_table() -> Tensor:
    """exp(x) * 2^28 / exp(8) for x = -8, -8 + 1/256, ..., 8, rounded to int32: ``[4097]``."""
    steps = int(2 * GATE_LIMIT * GATE_STEPS)
    return torch.tensor([max(1, round(LARGEST_GATE * math.exp(i / GATE_STEPS - 2 * GATE_LIMIT)))
                         for i in range(steps + 1)], dtype=torch.int32)


@functools.cache
def activation_table(activation: str) -> Tensor:
    """The activation for x = -16, -16 + 1/64, ..., 16, float32 ``[2049]``: for gelu, gelu(x) / x; for relu nothing."""
    functions = {"sigmoid": lambda x: 1 / (1 + math.exp(-x)), "tanh": math.tanh,
                 "gelu": lambda x: math.erfc(-x / math.sqrt(2)) / 2}
    if activation not in functions:
        return torch.zeros(0)
    middle = int(ACTIVATION_LIMIT * ACTIVATION_STEPS)
    return torch.tensor([functions[activation](i / ACTIVATION_STEPS) for i in range(-middle, middle + 1)])


def _check(windowed: WindowedDsn) -> None:
    if windowed.window_bias.shape[0] == 0:
        raise ValueError("the model has no window layer (J is 0), and int8 is for them: use dsn_window_logits.")
    taps, dendrites = windowed.taps.shape[2:]
    if taps * dendrites > MOST_PRODUCTS:
        raise ValueError(f"a window layer has {taps} taps of {dendrites} channels, and int8 sums take {MOST_PRODUCTS} "
                         "products at most: use float32.")
    for name, value in windowed._asdict().items():
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise ValueError(f"{name} holds a value that is not finite, which no integer stands for: use float32.")


def _float_layers(windowed: WindowedDsn, taps: Tensor, row: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each layer u and the sums of its products without the bias, of texts without padding."""
    radius = taps.shape[-2] // 2
    sums = torch.stack([shifted(taps[..., k, :], row, k - radius) for k in range(taps.shape[-2])]).sum(dim=0)
    u = (sums + windowed.window_bias[0]).relu()
    layers = [(u, sums)]
    for layer, bias in enumerate(windowed.window_bias[1:], start=1):
        sums = multiply(u, windowed.window_weight[layer - 1], row, layer)
        u = u + (sums + bias).relu()
        layers.append((u, sums))
    return layers


def _input_range(largest: Tensor) -> Tensor:
    """The value of each channel that becomes 255, from the largest value of each in the sample."""
    of_layer = largest.max().clamp_min(torch.finfo(torch.float32).tiny) * INPUT_HEADROOM
    return ((largest * INPUT_HEADROOM).maximum(of_layer * SMALLEST_RANGE) * of_layer).sqrt()


def _stream_unit(windowed: WindowedDsn, ranges: Tensor, inputs: list[Tensor]) -> float:
    """The unit of the residual stream. No factor from a layer's sums to the stream may be above 1."""
    first = windowed.taps.abs().amax(dim=(0, 1)).sum(dim=0) + windowed.window_bias[0].abs()
    # Half a unit of rounding for each tap and the bias stays below the last 1 / 1024 of the range.
    unit = max(first.max().item() * 1.001, ranges.max().item() * STREAM_HEADROOM) / LARGEST_INT16
    for largest, matrices in zip(inputs, windowed.window_weight):
        unit = max(unit, _weight_scale(matrices * largest[:, None]).max().item() / LARGEST_INPUT * 1.01)
    return max(unit, torch.finfo(torch.float32).tiny)


def _quantise_layer(windowed: WindowedDsn, layer: int, largest: Tensor, unit: float, u: Tensor, float_sums: Tensor,
                    row: Tensor) -> _Layer:
    """Layer ``layer``, which reads the integers ``u`` of the sample. ``largest`` is the value of each channel that
    becomes 255, and ``float_sums`` are the sums of the float layer's products over the sample."""
    input_scale = (unit * LARGEST_INPUT / largest * 2**15).round().clamp(1, LARGEST_INT16).long()
    matrices = windowed.window_weight[layer - 1] * (unit * 2**15 / input_scale)[:, None]
    scale = _weight_scale(matrices)
    # Below that the bias, up to 2^15 units, would leave its range, and the multiplier its 15 bits.
    scale = torch.where(scale == 0, unit, scale).clamp_min(unit * 2.0**-14)
    matrices = (matrices / scale).round()
    sums = multiply(requantise(u, input_scale), matrices, row, layer)
    correction = (float_sums / scale - sums).flatten(0, -2).mean(dim=0)
    output_shift, output_scale = _as_shift_and_multiplier(scale / unit)
    half = 1 << output_shift >> 1  # the shift rounds down
    bias = (windowed.window_bias[layer] / scale + correction).round().clamp(-2.0**30, 2.0**29).long() + half
    return _Layer(bias, input_scale, matrices, output_shift, output_scale)


def _weight_scale(matrices: Tensor) -> Tensor:
    """What each output of ``matrices [R, M, M]`` is divided by, ``[M]``, so that its weights, rounded, lie in their
    ranges. The sum of four grows by at most 2 when they are rounded."""
    groups = matrices.unflatten(1, (-1, 2, 2, 2))
    sums = [side.sum(dim=(2, 4)).amax(dim=(0, 1, 2)) for side in (groups.clamp_min(0), -groups.clamp_max(0))]
    return (matrices.abs().amax(dim=(0, 1)) / LARGEST_WEIGHT).maximum(torch.maximum(*sums) / (LARGEST_GROUP - 2))


def _as_shift_and_multiplier(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """``ratio``, at most 1, as multiplier / 2^15 / 2^shift, with a multiplier of 15 bits and a shift of 0 to 29."""
    shift = (-ratio.log2()).floor().clamp(0, 29)
    return shift.long(), (ratio * 2.0 ** (shift + 15)).round().clamp(max=LARGEST_INT16).long()


def _quantise_gate(windowed: WindowedDsn, unit: float) -> tuple[Tensor | None, Tensor, int]:
    """The gate's part of a token and weights of u, both with ``gate_bits`` bits after the point, at most 22."""
    size, gate_bits = windowed.gate_weight.abs().sum().item() * unit, 22
    while size * 2.0**gate_bits > 2**15 - windowed.gate_weight.numel():
        gate_bits -= 1
    if gate_bits < 8:
        raise ValueError(f"gate_weight is as large as {windowed.gate_weight.abs().max().item():.3g} where u is as "
                         f"large as {unit * LARGEST_INT16:.3g}, too much for an integer gate: use float32.")
    gate_weight = (windowed.gate_weight * (unit * 2.0**gate_bits)).round().to(torch.int16)
    if windowed.gate is None:
        return None, gate_weight, gate_bits
    gate = (windowed.gate * 2.0**gate_bits).round().clamp(-2.0**29, 2.0**29)
    return gate.to(torch.int32).contiguous(), gate_weight, gate_bits
