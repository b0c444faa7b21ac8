"""How the Triton kernels are cut into programs: one table, with the reason for every line.

A line is looked up by hidden size, batch, length, dtype and architecture; where several fit, the first is taken. With
``DENDRITIC_BERT_AUTOTUNE=1`` all that fit are timed on the first call of their kind and the fastest is kept for the
process. That is off by default: another cut sums in another order, and two runs should agree to the bit.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch

AUTOTUNE = os.environ.get("DENDRITIC_BERT_AUTOTUNE") == "1"
ANY = 2**62
LENGTHS = (64, 256, ANY)  # a length belongs to the first bucket it does not exceed
# Below this many rows a program a row leaves a GPU of 100 to 300 multiprocessors with room for more.
FEW_ROWS = 1024
# A row of so many columns may be cut into pieces where rows are few; 16 steps of 16 tokens each.
CHUNK = 256
SEGMENT_CHUNK = 64  # of a frequent id's tokens, one program's work in the backward pass: 8 to 16 steps
KEY_TOKENS = 512  # of a program that writes sort keys: 4 a thread, one 16-byte load of ids
HEAD_TILE = 4096  # 32 registers of a thread


# Bytes of the last cache before memory, as bench/devices.py has them and the vendors' data sheets: B200's L2, MI300X's
# and MI355X's Infinity Cache. Another GPU is taken for an A100.
LAST_CACHE = {"sm_9": 50 << 20, "sm_10": 126 << 20, "gfx94": 256 << 20, "gfx95": 256 << 20, "interpreter": ANY}


class Config(NamedTuple):
    """A program's tile is ``rows`` rows of the batch by ``tokens`` columns; ``chunk`` columns of a long row a piece.
    Where every token is a row of its own (``dsn_token_logits``), the tile is ``rows * tokens`` tokens.

    ``head_tile`` is how many products of the head's layers are in registers at a time.
    """

    rows: int
    tokens: int
    num_warps: int = 4
    num_stages: int = 1
    chunk: int = CHUNK
    head_tile: int = HEAD_TILE


class Key(NamedTuple):
    """What a configuration depends on, ``op`` only where it is timed. ``arch`` is "sm_90", "gfx942" and the like, or
    "interpreter"."""

    op: str
    hidden_size: int
    length: int
    few_rows: bool
    dtype: torch.dtype
    arch: str


class Line(NamedTuple):
    """A configuration for hidden sizes and lengths up to these, for word tables of these dtypes (all where there are
    none), on architectures that start with ``arch``. ``few_rows`` is what it is preferred for, not what it needs."""

    arch: str
    hidden_size: int
    few_rows: bool
    length: int
    dtypes: tuple[torch.dtype, ...]
    config: Config
    reason: str


# Instructions a token, registers and spills in the reasons are bench/compile_ahead.py's of dsn_logits on sm_90, rows of
# 32 tokens where nothing else is said.
NARROW = (torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn)
BYTES = (torch.int8, torch.float8_e4m3fn)
WARPS_OF_32 = (
    Line("sm_8", 128, False, 64, BYTES, Config(8, 4), "as on sm_90"),
    Line("sm_9", 128, False, 64, BYTES, Config(8, 4),
         "rows of 128 bytes: four by four tokens are 16 KB in flight on a multiprocessor, 18 are wanted; eight rows "
         "are 24 and share the context, 81 instructions a token instead of 101. On sm_100 they spill 16 bytes"),
    Line("", 128, True, ANY, (), Config(1, 16),
         "a small batch is latency: one row a program, 16 gathers of 256 bytes in flight, 16 elements of the sum a "
         "thread"),
    Line("", 128, False, 64, (), Config(4, 4),
         "short rows: four share a program and a column's context row, which is 512 of the 768 bytes a bfloat16 token "
         "reads"),
    Line("", 128, False, 256, NARROW, Config(1, 16),
         "the context is in the first cache, nothing is saved by sharing its rows: 59 instructions a token at L = 128, "
         "82 with two rows of eight"),
    Line("", 128, False, ANY, (), Config(2, 8),
         "longer rows differ more in length, so fewer share a program; and a context row, which comes from L2"),
    Line("", 256, True, ANY, (), Config(1, 8), "as for 128, with twice the bytes a token"),
    Line("", 256, False, 64, NARROW, Config(1, 8), "the context is in the first cache: 141 instructions a token, 188 "
         "with two rows of four; from float32 174 and 156"),
    Line("", 256, False, ANY, (), Config(2, 4), "two rows share a context row"),
    Line("", 512, True, ANY, (), Config(1, 8), "32 elements of the sum a thread; 64 spill"),
    Line("", 512, False, ANY, BYTES, Config(1, 8),
         "222 instructions a token at H = 384; two rows of four take 372 and spill 8 bytes"),
    Line("sm_8", 512, False, ANY, NARROW, Config(1, 8), "two rows of four spill 8 bytes on sm_80"),
    Line("", 512, False, 64, NARROW, Config(1, 8), "the context is in the first cache: 253 instructions a token at "
         "H = 384, 364 with two rows of four; from float32 309 and 289"),
    Line("", 512, False, ANY, (torch.float32,), Config(2, 2),
         "two rows share a context row; with four tokens of each embed_pool spills 16 bytes"),
    Line("", 512, False, ANY, (), Config(2, 4), "two rows share a context row in as many registers"),
    Line("", 1024, True, ANY, (), Config(1, 4), "32 elements of the sum a thread; a row is 1.5 KB, four are enough"),
    Line("", 1024, False, ANY, BYTES, Config(1, 4),
         "329 instructions a token at H = 768; two rows of two take 535, and on sm_100 spill 24 bytes"),
    Line("", 1024, False, 64, NARROW, Config(1, 4), "the context is in the first cache: 469 instructions a token at "
         "H = 768, 498 with two rows of two; from float32 388 and 357"),
    Line("", 1024, False, ANY, (), Config(2, 2), "two rows share a context row in as many registers"),
    Line("", ANY, True, ANY, (), Config(1, 1, num_warps=8), "one token and its sum fill the registers"),
)
TABLE = (
    Line("interpreter", ANY, True, ANY, (), Config(16, 16, chunk=64, head_tile=2**20),
         "the interpreter's cost is per program and operation, whatever the tile"),
    *(line._replace(arch="gfx9", config=line.config._replace(num_warps=line.config.num_warps // 2),
                    reason="a wave is two warps, so two waves hold what four warps do: at H = 128 from bfloat16 48 "
                           "instructions a token, 87 with four waves of half as much; " + line.reason)
      for line in WARPS_OF_32 if line.arch == ""),
    *WARPS_OF_32,
)
_fastest: dict[Key, Config] = {}


def key_of(op: str, hidden_size: int, length: int, num_rows: int, dtype: torch.dtype, arch: str) -> Key:
    bucket = next(bound for bound in LENGTHS if length <= bound)
    return Key(op, hidden_size, bucket, bool(num_rows <= FEW_ROWS), dtype, arch)


def candidates(key: Key) -> list[Config]:
    """The configurations for a key, the preferred one first; those for another size of batch come behind."""
    fitting = [line for line in TABLE if key.arch.startswith(line.arch) and key.hidden_size <= line.hidden_size
               and key.length <= line.length and (not line.dtypes or key.dtype in line.dtypes)]
    fitting = [line for line in fitting if line.hidden_size == fitting[0].hidden_size]
    return list(dict.fromkeys(line.config for line in sorted(fitting, key=lambda line: line.few_rows != key.few_rows)))


def choose_backward(key: Key) -> Config:
    """The backward kernels hold twice as many tiles as the forward ones, so each has half the rows: at H = 128 two rows
    of four tokens take 144 instructions a token, four of two 215. Their sums are float32 whatever the table is."""
    config = candidates(key._replace(dtype=torch.float32))[0]
    if config.rows > 1:
        return config._replace(rows=config.rows // 2)
    return config._replace(tokens=max(1, config.tokens // 2))


def adds_in_cache(key: Key, vocab_size: int) -> bool:
    """Whether the word gradient is added up by atomics, rather than in the order of ids, where any order will do.

    Where a cache misses a word's row and its float32 sum, every token reads the first and reads and writes the other:
    up to fourteen times the bytes that going by ids moves, which takes twice the instructions. By the bounds of
    bench/roofline.py the two are level where rows and sums are three times the cache and ids are uniform, and at more
    where they are Zipf's, whose frequent ones stay in it.
    """
    cache = next((size for arch, size in LAST_CACHE.items() if key.arch.startswith(arch)), 40 << 20)
    return vocab_size * key.hidden_size * (key.dtype.itemsize + 4) <= 4 * cache


def choose(key: Key, milliseconds: Callable[[Config], float] | None = None) -> Config:
    """The configuration for a key: the preferred one, or the fastest, where ``milliseconds`` times a launch."""
    configs = candidates(key)
    if milliseconds is None or key.arch == "interpreter" or len(configs) == 1:
        return _fastest.get(key, configs[0])  # while a graph is captured nothing is timed, and what was timed serves
    if key not in _fastest:
        _fastest[key] = min(configs, key=milliseconds)
    return _fastest[key]
