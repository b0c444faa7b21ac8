"""How the Triton kernels are cut into programs: one table, with the reason for every line.

A line is looked up by hidden size, batch, length, dtype and architecture; where several fit, the first is taken. With
``DENDRITIC_BERT_AUTOTUNE=1``, all that fit are timed at the first call of their kind, and the fastest is kept for the
life of the process. That is off by default, because another configuration sums in another order, and two runs should
agree to the bit.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch

AUTOTUNE = os.environ.get("DENDRITIC_BERT_AUTOTUNE") == "1"
ANY = 2**62
LENGTHS = (64, 256, ANY)  # a length belongs to the first bucket that it does not exceed
# With at most this many rows, one program per row leaves room on a GPU of 100 to 300 multiprocessors.
FEW_ROWS = 1024
# Where rows are few, longer ones are split every so many columns: 16 steps of 16 tokens each.
SPLIT_COLUMNS = 256
# With at most FEW_BOUNDS rows, every program that must know whether cu_seqlens is valid compares all bounds itself: 40
# instructions beside the 1,800 of four tokens with a head at H = 384. With more, a launch of its own summarises them,
# one program for every BOUNDS_ROWS rows.
FEW_BOUNDS, BOUNDS_ROWS = 256, 1024
SEGMENT_CHUNK = 64  # tokens of a frequent id that one program of the backward pass sums, in 8 to 16 steps
KEY_TOKENS = 512  # tokens for which one program writes sort keys: 4 per thread, one 16-byte load of ids
THREAD_ELEMENTS = 16  # of a tile of windows, or of values, that a thread holds
MOST_WINDOW_WARPS = 8  # of a tile of windows, or 16 for bfloat16 at M' <= 32: more leave less than 255 registers each
SHORT_ROW_TOKENS = 64  # of a program of short rows: 16 for each of four warps at M' = 32, as tensor cores take them
HEAD_TILE = 1024  # products in a warp's tile of the head: 32 registers per thread


# Bytes of the last cache before memory, from the vendors' data sheets as in bench/analysis/devices.py: the L2 of H100
# and of B200, the Infinity Cache of MI300X and of MI355X. Any other GPU is taken for an A100.
LAST_CACHE = {"sm_9": 50 << 20, "sm_10": 126 << 20, "gfx94": 256 << 20, "gfx95": 256 << 20, "interpreter": ANY}


class Config(NamedTuple):
    """A program's tile is ``rows`` rows of the batch by ``tokens`` columns. Long rows are split every ``split_columns``
    columns. Where every token has a head of its own (``dsn_token_logits``), the tile is ``rows * tokens`` tokens.

    ``head_tile`` is the number of products of the head's layers that a warp holds in registers at a time.
    """

    rows: int
    tokens: int
    num_warps: int = 4
    num_stages: int = 1
    split_columns: int = SPLIT_COLUMNS
    head_tile: int = HEAD_TILE


class Key(NamedTuple):
    """What a configuration depends on. ``op`` matters only where launches are timed, and in that every token of
    ``dsn_token_logits`` has a head of its own. ``arch`` is "sm_90", "gfx942" and the like, or "interpreter"."""

    op: str
    hidden_size: int
    length: int
    few_rows: bool
    dtype: torch.dtype
    arch: str


class Line(NamedTuple):
    """A configuration for hidden sizes and lengths up to these, for word tables of these dtypes (for all if there are
    none), on architectures whose names start with ``arch``. ``few_rows`` says what it is preferred for, not what it
    requires."""

    arch: str
    hidden_size: int
    few_rows: bool
    length: int
    dtypes: tuple[torch.dtype, ...]
    config: Config
    reason: str


# The reasons count instructions per token, registers and spills of dsn_logits on sm_90, from
# bench/analysis/compile_ahead.py, for rows of 128 tokens unless they say otherwise. Triton spreads warps along the
# hidden size first. Two warps that share a token of more than 128 channels therefore add through shared memory in every
# step, whereas one warp adds by shuffles, and a program of one warp has nothing to add up at the end of a row either.
HALVES = (torch.bfloat16, torch.float16)
BYTES = (torch.int8, torch.float8_e4m3fn)
WARPS_OF_32 = (
    Line("", 128, True, ANY, (), Config(1, 16),
         "For a small batch latency counts: one row per program keeps 16 gathers of 256 bytes in flight, and a thread "
         "holds 16 elements of the sum."),
    Line("", 128, False, ANY, BYTES, Config(1, 8, num_warps=1),
         "It takes 40 instructions per token, where four warps of four tokens take 56. Rows have 128 bytes: 16 warps "
         "keep 16 KB in flight, where four tokens per warp would leave 11."),
    Line("", 128, False, 256, (), Config(1, 4, num_warps=1),
         "It takes 49 instructions per token from bfloat16, where four warps take 58, and 63 from float32, where they "
         "take 71. For rows of 32 tokens it takes 70, where four rows that share a column's context row take 91."),
    Line("", 128, False, ANY, (), Config(2, 2, num_warps=1),
         "Rows are longer: two of them share a context row, which comes from L2."),
    Line("", 256, True, ANY, (), Config(1, 8),
         "As for 128, with twice the bytes per token."),
    Line("", 256, False, ANY, BYTES, Config(1, 4, num_warps=1),
         "It takes 77 instructions per token, where four warps take 167."),
    Line("", 256, False, 64, (), Config(1, 2, num_warps=1),
         "Rows are short, and their context is in the first cache: it takes 87 instructions per token from float32, "
         "where four warps take 134. Four tokens take 40 registers more."),
    Line("", 256, False, ANY, (), Config(2, 1, num_warps=1),
         "Two rows share a context row, which comes from L2."),
    Line("", 512, True, ANY, (), Config(1, 8),
         "A thread holds 32 elements of the sum; 64 would spill."),
    Line("", 512, False, ANY, BYTES, Config(1, 4, num_warps=2),
         "It takes 161 instructions per token at H = 384; one warp of two tokens takes as many and spills 8 bytes."),
    Line("", 512, False, 64, (), Config(1, 2, num_warps=1),
         "Rows are short, and their context is in the first cache: it takes 113 instructions per token at H = 384 from "
         "float32, where four warps take 273. Four tokens spill 96 bytes."),
    Line("", 512, False, ANY, (), Config(2, 1, num_warps=1),
         "Two rows share a context row, which comes from L2: 2.3 KB per token instead of 3.1 at H = 384 from float32."),
    Line("", 1024, True, ANY, (), Config(1, 4),
         "A thread holds 32 elements of the sum. A row has 1.5 KB, of which four in flight are enough."),
    Line("", 1024, False, ANY, BYTES, Config(1, 4),
         "It takes 329 instructions per token at H = 768; one warp takes 269 but spills 8 bytes, and 80 on sm_100."),
    Line("", 1024, False, 64, HALVES, Config(1, 1, num_warps=1),
         "It takes 230 instructions per token at H = 768 for rows of 32 tokens, where two warps take 354 and four take "
         "469."),
    Line("", 1024, False, ANY, (), Config(2, 1, num_warps=2),
         "Two rows share a context row: 4.7 KB per token instead of 6.3 at H = 768 from float32, whose context is in "
         "no first cache even for rows of 32 tokens. In one warp they would spill 168 bytes."),
    Line("", ANY, True, ANY, (), Config(1, 1, num_warps=8),
         "One token and its sum fill the registers."),
)

# dsn_token_logits keeps no sum beside its tile, and the tokens of a tile share the head's weights: the more the better.
TOKENS_OF_32 = (
    Line("", 512, False, ANY, (), Config(1, 4, num_warps=1),
         "At H = 384 from float32 it takes 442 instructions per token and 5.4 KB from the cache, where two tokens take "
         "552 and 7.7 KB."),
    Line("", 1024, False, ANY, (), Config(1, 4, num_warps=2),
         "At H = 768 from float32 it takes 950 instructions per token; one warp of four tokens spills 328 bytes."),
    Line("", ANY, False, ANY, (), Config(1, 1, num_warps=8),
         "One token fills the registers."),
)


def fit_waves(config: Config) -> Config:
    """The same work for a GPU whose waves are as wide as two warps: half as many or, where there is one, twice the
    tokens."""
    if config.num_warps == 1:
        return config._replace(tokens=2 * config.tokens)
    return config._replace(num_warps=config.num_warps // 2)


def add_architectures(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """The interpreter's line, then ``lines`` for AMD's GPUs, then ``lines`` themselves, which are for NVIDIA's."""
    return (
        Line("interpreter", ANY, True, ANY, (), Config(16, 16, split_columns=64, head_tile=2**18),
             "The interpreter's time goes by programs and operations, whatever the tile."),
        *(line._replace(arch="gfx9", config=fit_waves(line.config), reason="A wave is two warps. " + line.reason)
          for line in lines),
        *lines)


TABLE, TOKEN_TABLE = add_architectures(WARPS_OF_32), add_architectures(TOKENS_OF_32)
_fastest: dict[Key, Config] = {}


def key_of(op: str, hidden_size: int, length: int, num_rows: int, dtype: torch.dtype, arch: str) -> Key:
    bucket = next(bound for bound in LENGTHS if length <= bound)
    return Key(op, hidden_size, bucket, bool(num_rows <= FEW_ROWS), dtype, arch)


def candidates(key: Key) -> list[Config]:
    """The configurations for a key, the preferred one first; those for the other size of batch come last."""
    table = TOKEN_TABLE if key.op == "dsn_token_logits" else TABLE
    fitting = [line for line in table if key.arch.startswith(line.arch) and key.hidden_size <= line.hidden_size
               and key.length <= line.length and (not line.dtypes or key.dtype in line.dtypes)]
    fitting = [line for line in fitting if line.hidden_size == fitting[0].hidden_size]
    return list(dict.fromkeys(line.config for line in sorted(fitting, key=lambda line: line.few_rows != key.few_rows)))


def fit_head(config: Config, hidden_size: int, num_dendrites: int) -> Config:
    """Twice the warps where one would spill beside the head. The weights of all its layers are loaded together: beside
    those of five or more, a warp that holds a whole row of more than 256 channels spills 8 bytes (sm_90 at H = 768,
    sm_100 at H = 384)."""
    if num_dendrites >= 4 and hidden_size > 256 and config.num_warps == 1:
        return config._replace(num_warps=2)
    return config


def halve(config: Config) -> Config:
    """Half the tile or, where it is one token, the same in twice the warps: at most eight, to each of whose threads a
    multiprocessor can give 168 registers and more."""
    if config.rows > 1:
        return config._replace(rows=config.rows // 2)
    if config.tokens > 1:
        return config._replace(tokens=config.tokens // 2)
    return config._replace(num_warps=min(8, 2 * config.num_warps))


def choose_backward(key: Key) -> Config:
    """The backward kernels hold twice as many tiles as the forward ones, so each is half as large. At H = 384, two
    tokens per warp take 126 registers and 221 instructions per token, and one takes 103 and 228. Their sums are float32
    whatever the dtype of the table."""
    return halve(candidates(key._replace(dtype=torch.float32))[0])


def choose_segments(key: Key) -> Config:
    """For tokens in the order of their ids, one at a time. Most ids have one token, and the empty part of a tile is
    wasted: at H = 128 the kernel takes 186 instructions per token, and 219 with two tokens per warp. There are many ids
    even where rows are few."""
    config = choose_backward(key._replace(few_rows=False))
    return config if key.arch == "interpreter" else config._replace(rows=1, tokens=1)


def adds_in_cache(key: Key, vocab_size: int) -> bool:
    """Whether the word gradient is added up by atomics rather than in the order of ids, where any order will do.

    In a cache that holds the words and their float32 sums, atomics move no byte too many. In one that does not, every
    token reads a word's row, and reads and writes its sum: 6 to 11 times the bytes. Beside a table of 16 bits the sums
    are twice as large as the gradient, and are cleared, written, read again and converted: 1.6 to 18 times the bytes.

    By the bounds of bench/analysis/roofline.py for 262,144 tokens, going by id is then 1.0 to 2.6 times as fast on an
    A100 or H100, except for 0.75 times on an A100 from bfloat16 at H = 128. On MI300X, whose cache holds everything, it
    is 0.4 to 1.0 times as fast. For float32 words of H = 128, which all caches hold, it is 1.1 to 1.45 times as fast on
    the first two, but it takes five launches where atomics take one, and those are what a batch of a few thousand
    tokens waits for.
    """
    cache = next((size for arch, size in LAST_CACHE.items() if key.arch.startswith(arch)), 40 << 20)
    return key.dtype == torch.float32 and vocab_size * key.hidden_size * (key.dtype.itemsize + 4) <= cache


def choose(key: Key, milliseconds: Callable[[Config], float] | None = None) -> Config:
    """The configuration for a key: the preferred one or, if ``milliseconds`` times a launch, the fastest."""
    configs = candidates(key)
    if milliseconds is None or key.arch == "interpreter" or len(configs) == 1:
        return _fastest.get(key, configs[0])  # nothing is timed while a graph is captured, but earlier timings serve
    if key not in _fastest:
        _fastest[key] = min(configs, key=milliseconds)
    return _fastest[key]


class WindowConfig(NamedTuple):
    """How the kernels of ``windows`` are cut. A tile is ``rows`` rows of the batch by ``columns`` columns, or that many
    columns of one row. ``value_columns`` columns of the values are added at a time."""

    rows: int
    columns: int
    value_columns: int
    num_warps: int
    head_tile: int = HEAD_TILE

    @property
    def tokens(self) -> int:
        return self.rows * self.columns


def choose_windows(num_rows: int, length: int, num_tokens: int, channels: int, width: int, halo: int,
                   dtype: torch.dtype, arch: str) -> WindowConfig:
    """For ``num_rows`` rows of ``length`` columns, or of any (0) where they are packed. ``channels`` and ``width`` are
    the sizes of a tile's rows of windows and of values, powers of two; ``dtype`` is that of the matrices.

    A thread holds 16 elements of a tile of windows, of which 32 would spill. At M' = 32 it then takes 90 to 128
    registers for bfloat16, so that 16 warps have a tile of 256 tokens, and up to 211 for float32, so that 8 have one of
    128. The longest row of a packed batch is not known, but the average length is: a row that is longer than twice that
    takes a whole tile, of which for J = 5 62 columns are halo.

    Three float32 forms spill: the loop over tiles of a packed batch 200 bytes per thread (sm_80), and M' = 64 in any
    layout 744 (sm_80) and 56 (sm_90).
    """
    is_many = num_rows > FEW_ROWS
    longest, expected, num_warps = length, length, MOST_WINDOW_WARPS
    if length == 0:
        longest, expected = num_tokens, -(-2 * num_tokens // num_rows)
    if dtype == torch.bfloat16 and channels <= 32 and not (length == 0 and is_many):
        num_warps = 2 * MOST_WINDOW_WARPS  # except for the loop over tiles, which takes up to 255 registers
    most = max(16, num_warps * 32 * THREAD_ELEMENTS // channels)
    columns = 16
    while columns < most and columns < expected:  # compared alone, so that a traced size stays free between two powers
        columns *= 2
    tokens = max(columns, SHORT_ROW_TOKENS) if is_many else columns
    if longest > columns:
        tokens = max(tokens, 2 * power_of_2(2 * halo))
    threads = max(32, min(32 * num_warps, tokens * channels // THREAD_ELEMENTS))
    value_columns = max(1, min(columns, THREAD_ELEMENTS * threads * columns // (tokens * width)))
    config = WindowConfig(tokens // columns, columns, value_columns, threads // 32)
    if arch == "interpreter":  # whose time goes by operations
        return config._replace(head_tile=2**18)
    return config._replace(num_warps=max(1, config.num_warps // 2)) if arch.startswith("gfx9") else config


def power_of_2(size: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, size - 1).bit_length()
