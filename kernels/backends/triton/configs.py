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
SPLIT_COLUMNS = 256
# Of so many rows every program that must know looks at all bounds, 40 instructions beside the 1,800 of four tokens with
# a head at H = 384. Of more a launch of its own does, with a program for every chunk.
FEW_BOUNDS, BOUNDS_ROWS = 256, 1024
SEGMENT_CHUNK = 64  # of a frequent id's tokens, one program's work in the backward pass: 8 to 16 steps
KEY_TOKENS = 512  # of a program that writes sort keys: 4 a thread, one 16-byte load of ids
HEAD_TILE = 1024  # of a warp: 32 registers of a thread


# Bytes of the last cache before memory, as bench/analysis/devices.py has them and the vendors' data sheets: B200's
# L2, MI300X's
# and MI355X's Infinity Cache. Another GPU is taken for an A100.
LAST_CACHE = {"sm_9": 50 << 20, "sm_10": 126 << 20, "gfx94": 256 << 20, "gfx95": 256 << 20, "interpreter": ANY}


class Config(NamedTuple):
    """A program's tile is ``rows`` rows of the batch by ``tokens`` columns; ``chunk`` columns of a long row a piece.
    Where every token is a row of its own (``dsn_token_logits``), the tile is ``rows * tokens`` tokens.

    ``head_tile`` is how many products of the head's layers a warp holds in registers at a time.
    """

    rows: int
    tokens: int
    num_warps: int = 4
    num_stages: int = 1
    split_columns: int = SPLIT_COLUMNS
    head_tile: int = HEAD_TILE


class Key(NamedTuple):
    """What a configuration depends on; of ``op``, where nothing is timed, whether tokens have a head each. ``arch`` is
    "sm_90", "gfx942" and the like, or "interpreter"."""

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


# Instructions a token, registers and spills in the reasons are bench/analysis/compile_ahead.py's of dsn_logits on
# sm_90, rows of
# 128 tokens where nothing else is said. Triton spreads warps along the hidden size first, so two warps that share a
# token of more than 128 channels add through shared memory, in every step; one warp adds by shuffles, and a program of
# one has nothing to add up at the end of a row either.
HALVES = (torch.bfloat16, torch.float16)
BYTES = (torch.int8, torch.float8_e4m3fn)
WARPS_OF_32 = (
    Line("", 128, True, ANY, (), Config(1, 16),
         "a small batch is latency: one row a program, 16 gathers of 256 bytes in flight, 16 elements of the sum a "
         "thread"),
    Line("", 128, False, ANY, BYTES, Config(1, 8, num_warps=1),
         "40 instructions a token, 56 with four warps of four tokens; rows of 128 bytes: 16 warps have 16 KB in "
         "flight, where four tokens a warp would leave 11"),
    Line("", 128, False, 256, (), Config(1, 4, num_warps=1),
         "49 instructions a token from bfloat16, 58 with four warps; from float32 63 and 71, and for rows of 32 tokens "
         "70, where four rows that share a column's context row take 91"),
    Line("", 128, False, ANY, (), Config(2, 2, num_warps=1),
         "longer rows: two of them share a context row, which comes from L2"),
    Line("", 256, True, ANY, (), Config(1, 8), "as for 128, with twice the bytes a token"),
    Line("", 256, False, ANY, BYTES, Config(1, 4, num_warps=1), "77 instructions a token, 167 with four warps"),
    Line("", 256, False, 64, (), Config(1, 2, num_warps=1),
         "short rows, whose context is in the first cache: 87 instructions a token from float32, 134 with four warps; "
         "four tokens take 40 registers more"),
    Line("", 256, False, ANY, (), Config(2, 1, num_warps=1), "two rows share a context row, which comes from L2"),
    Line("", 512, True, ANY, (), Config(1, 8), "32 elements of the sum a thread; 64 spill"),
    Line("", 512, False, ANY, BYTES, Config(1, 4, num_warps=2),
         "161 instructions a token at H = 384; one warp of two tokens takes as many and spills 8 bytes"),
    Line("", 512, False, 64, (), Config(1, 2, num_warps=1),
         "short rows, whose context is in the first cache: 113 instructions a token at H = 384 from float32, 273 with "
         "four warps; four tokens spill 96 bytes"),
    Line("", 512, False, ANY, (), Config(2, 1, num_warps=1),
         "two rows share a context row, which comes from L2: 2.3 KB a token instead of 3.1 at H = 384 from float32"),
    Line("", 1024, True, ANY, (), Config(1, 4), "32 elements of the sum a thread; a row is 1.5 KB, four are enough"),
    Line("", 1024, False, ANY, BYTES, Config(1, 4),
         "329 instructions a token at H = 768; one warp takes 269 and spills 8 bytes, on sm_100 80"),
    Line("", 1024, False, 64, HALVES, Config(1, 1, num_warps=1),
         "230 instructions a token at H = 768 for rows of 32 tokens, 354 with two warps, 469 with four"),
    Line("", 1024, False, ANY, (), Config(2, 1, num_warps=2),
         "two rows share a context row, 4.7 KB a token instead of 6.3 at H = 768 from float32, whose context is in no "
         "first cache even for rows of 32 tokens; in one warp they spill 168 bytes"),
    Line("", ANY, True, ANY, (), Config(1, 1, num_warps=8), "one token and its sum fill the registers"),
)

# dsn_token_logits keeps no sum beside its tile, and its tokens share the head's weights: the more the better.
TOKENS_OF_32 = (
    Line("", 512, False, ANY, (), Config(1, 4, num_warps=1),
         "at H = 384 from float32 442 instructions a token and 5.4 KB from the cache, two tokens 552 and 7.7 KB"),
    Line("", 1024, False, ANY, (), Config(1, 4, num_warps=2),
         "at H = 768 from float32 950 instructions a token; one warp of four tokens spills 328 bytes"),
    Line("", ANY, False, ANY, (), Config(1, 1, num_warps=8), "one token fills the registers"),
)


def fit_waves(config: Config) -> Config:
    """Of a device whose waves are two warps: half of them, or where there is one twice the tokens."""
    if config.num_warps == 1:
        return config._replace(tokens=2 * config.tokens)
    return config._replace(num_warps=config.num_warps // 2)


def add_architectures(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """The interpreter's line, AMD's of ``lines``, and those for NVIDIA's GPUs."""
    return (
        Line("interpreter", ANY, True, ANY, (), Config(16, 16, split_columns=64, head_tile=2**18),
             "the interpreter's cost is per program and operation, whatever the tile"),
        *(line._replace(arch="gfx9", config=fit_waves(line.config), reason="a wave is two warps; " + line.reason)
          for line in lines),
        *lines)


TABLE, TOKEN_TABLE = add_architectures(WARPS_OF_32), add_architectures(TOKENS_OF_32)
_fastest: dict[Key, Config] = {}


def key_of(op: str, hidden_size: int, length: int, num_rows: int, dtype: torch.dtype, arch: str) -> Key:
    bucket = next(bound for bound in LENGTHS if length <= bound)
    return Key(op, hidden_size, bucket, bool(num_rows <= FEW_ROWS), dtype, arch)


def candidates(key: Key) -> list[Config]:
    """The configurations for a key, the preferred one first; those for another size of batch come behind."""
    table = TOKEN_TABLE if key.op == "dsn_token_logits" else TABLE
    fitting = [line for line in table if key.arch.startswith(line.arch) and key.hidden_size <= line.hidden_size
               and key.length <= line.length and (not line.dtypes or key.dtype in line.dtypes)]
    fitting = [line for line in fitting if line.hidden_size == fitting[0].hidden_size]
    return list(dict.fromkeys(line.config for line in sorted(fitting, key=lambda line: line.few_rows != key.few_rows)))


def fit_head(config: Config, hidden_size: int, num_dendrites: int) -> Config:
    """The weights of all layers of a head are under way together: beside five and more of them a warp that holds a
    whole row of more than 256 channels spills (8 bytes: sm_90 at H = 768, sm_100 at H = 384). Twice the warps."""
    if num_dendrites >= 4 and hidden_size > 256 and config.num_warps == 1:
        return config._replace(num_warps=2)
    return config


def halve(config: Config) -> Config:
    """Half the tile, or as much in twice the registers: twice the warps, eight at most, to each thread of which a
    multiprocessor has 168 registers to give and more."""
    if config.rows > 1:
        return config._replace(rows=config.rows // 2)
    if config.tokens > 1:
        return config._replace(tokens=config.tokens // 2)
    return config._replace(num_warps=min(8, 2 * config.num_warps))


def choose_backward(key: Key) -> Config:
    """The backward kernels hold twice as many tiles as the forward ones, so each is half as large: at H = 384 two
    tokens a warp take 126 registers and 221 instructions a token, one 103 and 228. Their sums are float32 whatever the
    table is."""
    return halve(candidates(key._replace(dtype=torch.float32))[0])


def choose_segments(key: Key) -> Config:
    """For tokens in the order of their ids, one at a time: an id has few of them, most have one, and what of a tile is
    empty is for nothing. At H = 128 the kernel takes 186 instructions a token, with two a warp 219. However few the
    rows are, ids are many."""
    config = choose_backward(key._replace(few_rows=False))
    return config if key.arch == "interpreter" else config._replace(rows=1, tokens=1)


def adds_in_cache(key: Key, vocab_size: int) -> bool:
    """Whether the word gradient is added up by atomics, rather than in the order of ids, where any order will do.

    In a cache that holds the words and their float32 sums that moves no byte too many. Where it misses them, every
    token reads a word's row, and reads and writes its sum: 6 to 11 times the bytes. Beside a table of 16 bits the sums
    are twice the gradient, cleared, written, read again and converted: 1.6 to 18 times. By the bounds of
    bench/analysis/roofline.py, 262,144 tokens, going by id is then 1.0 to 2.6 times as fast on an A100 or H100, but
    0.75 times
    on an A100 from bfloat16 at H = 128; on MI300X, whose cache misses none, 0.4 to 1.0 times. For float32 words of
    H = 128, which all caches hold, it is 1.1 to 1.45 times as fast on the first two, but in five launches where atomics
    take one, which is what a batch of a few thousand tokens waits for.
    """
    cache = next((size for arch, size in LAST_CACHE.items() if key.arch.startswith(arch)), 40 << 20)
    return key.dtype == torch.float32 and vocab_size * key.hidden_size * (key.dtype.itemsize + 4) <= cache


def choose(key: Key, milliseconds: Callable[[Config], float] | None = None) -> Config:
    """The configuration for a key: the preferred one, or the fastest, where ``milliseconds`` times a launch."""
    configs = candidates(key)
    if milliseconds is None or key.arch == "interpreter" or len(configs) == 1:
        return _fastest.get(key, configs[0])  # while a graph is captured nothing is timed, and what was timed serves
    if key not in _fastest:
        _fastest[key] = min(configs, key=milliseconds)
    return _fastest[key]
