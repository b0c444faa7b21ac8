"""The int8 reference against its formulas, written out token by token and channel by channel in Python's integers."""

import math

import pytest
import torch
from cases import tokens
from window_workload import prepared, window_head, window_parameters

from dendritic_bert.kernels.contract import QuantisedWindowedDsn
from dendritic_bert.kernels.prepare_int8 import quantise_windows
from dendritic_bert.kernels.reference_int8 import dsn_window_logits_int8_ref


def logits_of_row(ids: list[int | None], types: list[int], q: QuantisedWindowedDsn) -> list[float]:
    """The logits of one row, where a token that is not valid has the id None."""
    u = last_layer(ids, types, q)
    valid = [t for t, token in enumerate(ids) if token is not None]
    gates = {t: gate_of(u[t], types[t], ids[t], q) for t in valid}
    share = 1.0 / max(1, sum(gates.values()))
    scales = q.pooled_scale.tolist()
    pooled = []
    for place in range(len(scales)):
        width = q.values.shape[2]
        total = sum(gates[t] * (int(q.values[types[t], ids[t], place]) if place < width else u[t][place - width])
                    for t in valid)
        pooled.append(to_float32(total * share * scales[place]))
    return head_of(pooled, q)


def last_layer(ids, types, q):
    layers, channels = q.window_bias.shape
    num_taps, columns = q.taps.shape[2], range(len(ids))
    radius = num_taps // 2

    def neighbours(t, dilation):
        return [(k, t + (k - radius) * dilation) for k in range(num_taps)
                if 0 <= t + (k - radius) * dilation < len(ids) and ids[t + (k - radius) * dilation] is not None]

    u = [[0 if ids[t] is None else max(0, int(q.window_bias[0, c]) + sum(
        int(q.taps[types[s], ids[s], k, c]) for k, s in neighbours(t, 1))) for c in range(channels)] for t in columns]
    for j in range(1, layers):
        scale = q.input_scale[j - 1].tolist()
        inputs = [[min(255, (x * scale[c] + 2**14) >> 15) for c, x in enumerate(token)] for token in u]
        weight = q.window_weight[j - 1].tolist()
        for t in columns:
            for o in range(channels):
                total = int(q.window_bias[j, o]) + sum(
                    inputs[s][i] * weight[k][i // 4][o][i % 4] for k, s in neighbours(t, 2**j) for i in range(channels))
                activated = max(0, min(32767, total >> int(q.output_shift[j - 1, o])))
                if ids[t] is not None:
                    u[t][o] = min(32767, u[t][o] + ((activated * int(q.output_scale[j - 1, o]) + 2**14) >> 15))
    return u


def gate_of(u, type_id, token, q):
    if q.gate is None:
        return 1
    total = int(q.gate[type_id, token]) + sum(x * int(w) for x, w in zip(u, q.gate_weight))
    logit = max(-8.0, min(8.0, total / 2**q.gate_bits))
    return int(q.gate_table[math.floor((logit + 8) * 256 + 0.5)])


def head_of(pooled, q):
    outputs, width = q.weight.shape
    is_folded = width < len(pooled)
    of_pooled, z = pooled[len(pooled) - width:], []
    for o in range(outputs):
        fourth = [0.0] * 4
        for i in range(width):
            fourth[i % 4] += of_pooled[i] * float(q.weight[o, i])
        z.append((fourth[0] + fourth[1]) + (fourth[2] + fourth[3]) + float(q.bias[o]))
        if is_folded:
            z[o] += pooled[o]
    dendrites, labels = q.top.shape
    a: list[list[float]] = []
    for k in range(dendrites):
        a.append([])
        for c in range(labels):
            total = z[(1 + k) * labels + c]
            for j in range(k):
                total += float(q.lateral[k, j, c]) * a[j][c]
            a[k].append(activation_of(to_float32(total), q))
    for c in range(labels):
        for k in range(dendrites):
            z[c] += float(q.top[k, c]) * a[k][c]
    return z[:labels]


def activation_of(x, q):
    if q.activation == "relu":
        return max(0.0, x)
    place = to_float32(to_float32(max(-16.0, min(16.0, x)) + 16.0) * 64)
    below = min(2047, math.floor(place))
    low, high = (float(q.activation_table[below + i]) for i in (0, 1))
    y = to_float32(low + to_float32(high - low) * (place - below))
    return to_float32(x * y) if q.activation == "gelu" else y


def to_float32(x):
    return torch.tensor(x, dtype=torch.float64).float().item()


@pytest.mark.parametrize(("activation", "layers", "radius", "is_folded", "has_gate"), [
    ("sigmoid", 3, 1, True, True), ("tanh", 2, 2, False, True), ("gelu", 1, 1, True, False),
    ("relu", 3, 1, False, True)])
def test_the_formulas(activation, layers, radius, is_folded, has_gate):
    values = window_parameters(5, 16, layers, radius, has_gate=has_gate)
    quantised = quantise_windows(prepared(values, window_head(values), activation=activation, is_folded=is_folded))
    arguments = tokens("padded with holes", 3, 9, token_types=True, mask_dtype=torch.bool)
    logits = dsn_window_logits_int8_ref(**arguments, quantised=quantised)
    for row in range(3):
        ids = [i if m else None for i, m in zip(arguments["input_ids"][row].tolist(),
                                                arguments["attention_mask"][row].tolist())]
        expected = logits_of_row(ids, arguments["token_type_ids"][row].tolist(), quantised)
        assert logits[row].tolist() == [to_float32(x) for x in expected]
