"""Models and batches around every tile of the int8 kernels, and a digest of their logits."""

import hashlib

import torch
from cases import VOCAB_SIZE, generator, tokens
from window_workload import prepared, window_head, window_parameters

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import QuantisedWindowedDsn
from dendritic_bert.kernels.prepare_int8 import quantise_windows

# One and two panels of sixteen channels, and what is left of them.
MODELS = ((16, 2, 1), (32, 5, 1), (48, 3, 2), (64, 4, 1))


def digest(backend: str) -> str:
    """Of the logits of every model, of packed rows of 0 to 26 tokens and longer ones and of padded ones with holes."""
    result = hashlib.sha256()
    for dendrites, layers, radius in MODELS:
        rng = generator(dendrites)
        values = window_parameters(12, dendrites, layers, radius)
        sample = torch.randint(VOCAB_SIZE, (4, 12), generator=rng)
        quantised = quantise_windows(prepared(values, window_head(values), is_folded=dendrites < 48), sample)
        lengths = torch.tensor([*range(27), 40, 61, 300])
        packed = {"input_ids": torch.randint(VOCAB_SIZE, (int(lengths.sum()),), generator=rng),
                  "cu_seqlens": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])}
        for arguments in (packed, tokens("padded with holes", 7, 21)):
            for tables in (quantised, with_largest_sums(quantised)):
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

