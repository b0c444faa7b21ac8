"""The GPUs of the roofline, from their vendors' papers, and how often their caches hold the row that a token needs."""

from dataclasses import dataclass
from functools import cache

import numpy as np

# A table never has a cache to itself: ids, outputs and the device's own hashing of addresses take the rest.
SHARE_OF_CACHE = 0.8


@dataclass(frozen=True)
class Device:
    """Peak rates at the boost clock, in bytes and instructions per second.

    ``cache`` is the last cache before memory: L2, or MI300X's Infinity Cache. ``first_cache_bytes`` is the L1 of one of
    the ``multiprocessors``, each of which issues ``issue`` instructions of a warp (wave) per clock.
    """

    name: str
    target: str
    multiprocessors: int
    clock: float
    issue: int
    memory_rate: float
    cache_rate: float
    cache_bytes: int
    first_cache_bytes: int

    @property
    def issue_rate(self) -> float:
        return self.multiprocessors * self.issue * self.clock


# NVIDIA A100 80GB datasheet and "NVIDIA A100 Tensor Core GPU Architecture" (2020): 108 SMs, 1.41 GHz, 2,039 GB/s,
#   40 MB of L2 read at 5,120 bytes per clock, 192 KB of L1, 4 schedulers per SM.
# NVIDIA H100 SXM datasheet and "NVIDIA H100 Tensor Core GPU Architecture" (2022): 132 SMs, 1.755 GHz under load (its
#   highest clock is 1.98), 3.35 TB/s, 50 MB of L2, 256 KB of L1. NVIDIA does not publish the speed of its L2; 5.5
#   TB/s has been measured (Chips and Cheese, "Nvidia's H100: Funny L2, and Tons of Bandwidth", 2023, PCIe model).
# NVIDIA H200 datasheet (2024): an H100 with 4.8 TB/s.
# AMD MI300X datasheet and "AMD CDNA 3 Architecture" (2023): 304 CUs, 2.1 GHz, 5.3 TB/s, 256 MB of Infinity Cache at
#   17.2 TB/s, 32 KB of L1; 4 SIMDs of 16 lanes take 4 clocks for a wave of 64, together one per clock.
DEVICES = (
    Device("A100", "sm_80", 108, 1.41e9, 4, 2.039e12, 7.2e12, 40 << 20, 192 << 10),
    Device("H100", "sm_90", 132, 1.755e9, 4, 3.35e12, 5.5e12, 50 << 20, 256 << 10),
    Device("H200", "sm_90", 132, 1.755e9, 4, 4.8e12, 5.5e12, 50 << 20, 256 << 10),
    Device("MI300X", "gfx942", 304, 2.1e9, 1, 5.3e12, 17.2e12, 256 << 20, 32 << 10),
)


@cache
def hit_rate(ids: str, vocab_size: int, row_bytes: int, cache_bytes: int) -> float:
    """The share of a long stream of ids whose rows an LRU cache of ``cache_bytes`` holds when they are requested.

    ids: "uniform", or "zipf" with p(rank) ~ 1 / rank as in ``workload``. Che's approximation (Che, Tung, Wang 2002,
    "Hierarchical web caching systems"): every row stays for the same time t, and t is such that the cache is full.
    """
    held = SHARE_OF_CACHE * cache_bytes / row_bytes
    if held >= vocab_size:
        return 1.0
    p = 1 / np.arange(1, vocab_size + 1) if ids == "zipf" else np.ones(vocab_size)
    p /= p.sum()
    low, high = 0.0, 1e12
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if (-np.expm1(-p * t)).sum() < held else (low, t)
    return float((p * -np.expm1(-p * t)).sum())
