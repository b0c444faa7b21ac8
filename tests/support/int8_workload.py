"""Models and batches around every tile of the int8 kernels, and a digest of their logits."""

import hashlib

import torch
from cases import VOCAB_SIZE, generator, tokens
from window_workload import prepared, window_head, window_parameters

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import QuantisedWindowedDsn
from dendritic_bert.kernels.prepare_int8 import quantise_windows

# One and two panels of sixteen channels, what is left of them, and one and two blocks of 64.
MODELS = ((16, 2, 1), (32, 5, 1), (48, 3, 2), (64, 4, 1), (128, 2, 1))


def digest(backend: str) -> str:
    """Of the logits of every model, of packed rows of 0 to 26 tokens and longer ones and of padded ones with holes."""
    result = hashlib.sha256()
    for dendrites, layers, radius in MODELS:
        rng = generator(dendrites)
        values = window_parameters(12, dendrites, layers, radius)
        sample = torch.randint(VOCAB_SIZE, (4, 12), generator=rng)
        quantised = quantise_windows(prepared(values, window_head(values), is_folded=dendrites < 48), sample)
        lengths = torch.tensor([*range(27), 33, 40, 61, 300, 700])
        packed = {"input_ids": torch.randint(VOCAB_SIZE, (int(lengths.sum()),), generator=rng),
                  "cu_seqlens": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])}
        for arguments in (packed, tokens("padded with holes", 7, 21)):
            for tables in (quantised, with_largest_sums(quantised), with_largest_groups(quantised)):
                logits = ops.dsn_window_logits_int8(**arguments, quantised=tables, backend=backend)
                result.update(logits.numpy().tobytes())
    return result.hexdigest()


def with_largest_sums(quantised: QuantisedWindowedDsn) -> QuantisedWindowedDsn:
    """Tables whose u are 32767 from layer 0 on, but at the ends of a row, and whose gates are 2^28 - 1."""
    taps = quantised.taps.shape[2]
    bias = quantised.window_bias.clone()
    bias[0] = 32767 % taps
    return quantised._replace(taps=torch.full_like(quantised.taps, 32767 // taps), window_bias=bias,
                              gate_table=torch.full_like(quantised.gate_table, 2**28 - 1))


def with_largest_groups(quantised: QuantisedWindowedDsn) -> QuantisedWindowedDsn:
    """Tables whose inputs of layer 1 are 255 nearly everywhere, and whose weights sum up to 128 or -128 in every group
    of four that a kernel may add up in int16 (prepare_int8.py)."""
    groups = torch.tensor([[64, 64, 0, 0], [0, 64, 64, 0], [64, 0, -64, 64], [32, 32, 32, 32]], dtype=torch.int8)
    layers, taps, fours, dendrites, _ = quantised.window_weight.shape
    drawn = torch.randint(8, (layers, taps, fours // 2, dendrites, 2), generator=generator(7))
    # Of [.., eights, outputs, pairs, fours, 2] as the tables have it, [.., eights, fours, outputs, pairs, 2].
    weight = torch.cat([groups, -groups])[drawn].unflatten(-1, (2, 2)).permute(0, 1, 2, 5, 3, 4, 6)
    return with_largest_sums(quantised)._replace(window_weight=weight.reshape_as(quantised.window_weight))

