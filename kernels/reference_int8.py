"""int8 window layers in plain PyTorch integers. Unlike ``reference``, this is not approximated: kernels give its bits.

Up to the pooled row, everything is a sum or a product of integers, or a shift, so that neither order nor processor
matters. After it, each operation is one that IEEE 754 rounds correctly, in an order that is fixed here; a product that
enters a sum has two float32 factors, so that it is exact in float64 and a fused multiply-add gives the same bits.
``prepare_int8`` has the scheme and the ranges. For a token t, in the formulas of ``reference``:

    u0_t   = max(0, b_0 + sum_k taps_k[id_{t+k}])
    q_t    = min(255, (u{j-1}_t * input_scale_j + 2^14) >> 15)
    a_t    = clip((b_j + sum_k U_jk q_{t + k 2^j}) >> output_shift_j, 0, 32767)
    u{j}_t = min(32767, u{j-1}_t + ((a_t * output_scale_j + 2^14) >> 15))
    g_t    = gate_table[(clip(v . u_t + gate[id_t], -8, 8) + 8) * 256, rounded to the nearest]     1 without a gate
"""

import torch
from torch import Tensor

from .contract import ACTIVATION_LIMIT, ACTIVATION_STEPS, GATE_LIMIT, GATE_STEPS, QuantisedWindowedDsn
from .reference import _selected, _valid, shifted, token_places


def dsn_window_logits_int8_ref(
    input_ids: Tensor,
    quantised: QuantisedWindowedDsn,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Token ids -> logits ``[B, C]`` float32; see ``ops.dsn_window_logits_int8``."""
    row, _ = token_places(input_ids, cu_seqlens)
    ids = _valid(input_ids, attention_mask)
    types = torch.zeros_like(ids) if token_type_ids is None else _valid(token_type_ids, attention_mask)
    u = _window_layers(quantised, quantised.taps[types, ids].long(), row, attention_mask)
    h = torch.cat([quantised.values[types, ids].long(), u], dim=-1)
    gates = h.new_ones(h.shape[:-1])
    if quantised.gate is not None:
        logits = (u * quantised.gate_weight.long()).sum(dim=-1) + quantised.gate[types, ids].long()
        gates = quantised.gate_table.long()[gate_place(logits, quantised.gate_bits)]
    weighted = _selected(torch.cat([gates[..., None] * h, gates[..., None]], dim=-1), attention_mask)
    num_rows = input_ids.shape[0] if cu_seqlens is None else cu_seqlens.numel() - 1
    totals = weighted.new_zeros(num_rows, weighted.shape[-1])
    totals = totals.index_add(0, row.flatten(), weighted.flatten(0, -2))
    share = 1.0 / totals[:, -1:].clamp_min(1).double()
    return _head(quantised, (totals[:, :-1].double() * share * quantised.pooled_scale.double()).float())


def first_layer(taps: Tensor, bias: Tensor, row: Tensor) -> Tensor:
    """u of layer 0 from the taps of every token ``[..., R, M]``, 0 at tokens that are not valid."""
    radius = taps.shape[-2] // 2
    total = bias.expand(taps.shape[:-2] + bias.shape)
    for tap in range(taps.shape[-2]):
        total = total + shifted(taps[..., tap, :], row, tap - radius)
    return total.clamp_min(0)


def requantise(u: Tensor, input_scale: Tensor) -> Tensor:
    """What a layer's products read: 0 to 255."""
    return ((u * input_scale + 2**14) >> 15).clamp_max(255)


def multiply(inputs: Tensor, matrices: Tensor, row: Tensor, layer: int) -> Tensor:
    """The sums of a layer's products, from ``matrices [R, in, out]``, in float64, which holds those of integers."""
    radius = matrices.shape[0] // 2
    total = inputs.new_zeros(inputs.shape[:-1] + matrices.shape[-1:], dtype=torch.float64)
    for tap, matrix in enumerate(matrices):
        total = total + shifted(inputs, row, (tap - radius) * 2**layer).double() @ matrix.double()
    return total


def add_layer(u: Tensor, sums: Tensor, output_shift: Tensor, output_scale: Tensor) -> Tensor:
    """u of the next layer, from the sums of its products and its bias."""
    activated = (sums >> output_shift).clamp(0, 32767)
    return (u + ((activated * output_scale + 2**14) >> 15)).clamp_max(32767)


def gate_place(logits: Tensor, gate_bits: int) -> Tensor:
    """The entry of ``gate_table`` for logits with ``gate_bits`` bits after the point."""
    limit, shift = int(GATE_LIMIT) << gate_bits, gate_bits - (GATE_STEPS.bit_length() - 1)
    return (logits.clamp(-limit, limit) + limit + (1 << shift >> 1)) >> shift


def _window_layers(quantised: QuantisedWindowedDsn, taps: Tensor, row: Tensor, attention_mask: Tensor | None
                   ) -> Tensor:
    """u of the last layer ``[..., M]``, int64."""
    biases = quantised.window_bias.long()
    u = _selected(first_layer(_selected(taps.flatten(-2), attention_mask).view(taps.shape), biases[0], row),
                  attention_mask)
    matrices = quantised.window_weight.transpose(-1, -2).flatten(2, 3)
    for layer, bias in enumerate(biases[1:], start=1):
        of = layer - 1
        inputs = requantise(u, quantised.input_scale[of].long())
        sums = multiply(inputs, matrices[of], row, layer).long() + bias
        u = _selected(add_layer(u, sums, quantised.output_shift[of].long(), quantised.output_scale[of].long()),
                      attention_mask)
    return u


def _head(quantised: QuantisedWindowedDsn, pooled: Tensor) -> Tensor:
    """The logits ``[B, C]`` of pooled rows ``[B, D + M]``. A product of a row and the matrix is taken in float64, in
    four sums of every fourth product, which are then added in pairs."""
    outputs, width = quantised.weight.shape
    of_pooled, weight = pooled[:, pooled.shape[1] - width:].double(), quantised.weight.double()
    fourth = pooled.new_zeros(4, pooled.shape[0], outputs, dtype=torch.float64)
    for channel in range(width):
        fourth[channel % 4] += of_pooled[:, channel, None] * weight[:, channel]
    z = (fourth[0] + fourth[1]) + (fourth[2] + fourth[3]) + quantised.bias.double()
    if width < pooled.shape[1]:  # the values hold the head
        z = z + pooled[:, :outputs].double()
    logits, *dendrites = z.split(quantised.top.shape[1], dim=-1)
    activations: list[Tensor] = []
    for k, total in enumerate(dendrites):
        for j in range(k):
            total = total + quantised.lateral[k, j].double() * activations[j].double()
        activations.append(_activate(quantised, total.float()))
    for k, a in enumerate(activations):
        logits = logits + quantised.top[k].double() * a.double()
    return logits.float()


def _activate(quantised: QuantisedWindowedDsn, x: Tensor) -> Tensor:
    """The activation of float32 ``x``, interpolated between the entries of its table; of NaN it is NaN."""
    if quantised.activation == "relu":
        return x.clamp_min(0)
    place = (x.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT) + ACTIVATION_LIMIT) * ACTIVATION_STEPS
    below = place.nan_to_num().floor().long().clamp_max(quantised.activation_table.numel() - 2)
    low, high = quantised.activation_table[below], quantised.activation_table[below + 1]
    y = (low.double() + (high - low).double() * (place - below.float()).double()).float()
    return x * y if quantised.activation == "gelu" else y
