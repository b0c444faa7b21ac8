"""What a call of a CUDA op reads and writes, array by array: what ``traffic`` is for Triton, for csrc/cuda.

The calls are the same: full rows, padded ``[B, L]``, int32 ids, a bool mask, columns as positions, one token type,
H <= 1024. tests/bench/analysis/test_cuda_traffic.py compares the model with every load and store that the kernels
perform when they run on a CPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from launches import NUM_POSITIONS, VOCAB_SIZE, Call
from traffic import Stream, Traffic, context_gradient, head_bytes, once, sums_of_words

# csrc/cuda: tokens.cuh, plan.h.
TILE_TOKENS = 32
BLOCK_WARPS = 4
ENOUGH_BLOCKS = 512
SPLIT_COLUMNS = 256
SLICE_CHANNELS = 512


@dataclass(frozen=True)
class Plan:
    """How a kernel deals out its rows: ``with_shape`` of launch.cuh and ``plan_rows`` of plan.h."""

    lanes: int
    vectors: int
    unroll: int
    warps_per_row: int
    splits: int

    @property
    def shape(self) -> str:
        return f"{self.lanes}x{self.vectors}"

    @property
    def groups(self) -> int:
        return 32 // self.lanes

    @property
    def step(self) -> int:
        """Tokens that a warp gathers at once."""
        return self.groups * self.unroll

    @property
    def block_rows(self) -> int:
        return BLOCK_WARPS // self.warps_per_row

    def lists(self, length: int) -> Iterator[int]:
        """The number of tokens in each list, of at most 32, that the warps make of a row."""
        for split in range(self.splits):
            columns = length * (split + 1) // self.splits - length * split // self.splits
            for warp in range(self.warps_per_row):
                left = len(range(warp, columns, self.warps_per_row))
                for first in range(0, left, TILE_TOKENS):
                    yield min(TILE_TOKENS, left - first)

    def gathered(self, length: int) -> int:
        """How many tokens of a row are gathered: copies of its first token fill up the last step of each list."""
        return sum(ceil(count / self.step) * self.step for count in self.lists(length))


def plan_of(call: Call) -> Plan:
    """The plan of the kernel that gathers. The backward's takes one token at a time and splits no row."""
    h = call.hidden_size
    if h > 1024 or h % 8:
        raise ValueError(f"H = {h} is read without 16-byte loads, which is not modelled.")
    lanes, vectors = {128: (16, 1), 256: (32, 1), 512: (32, 2), 768: (32, 3), 1024: (32, 4)}.get(
        h, (32, 1) if h < 256 else (32, 2) if h < 512 else (32, 4))
    backward = call.op == "embed_pool_backward"
    unroll = 1 if backward else {1: 4, 2: 2}.get(vectors, 1)
    short = h <= SLICE_CHANNELS and call.length <= 32 and call.rows >= BLOCK_WARPS * ENOUGH_BLOCKS
    splits = 1
    if call.rows < ENOUGH_BLOCKS and not backward:
        splits = min(max(call.length // SPLIT_COLUMNS, 1), ceil(ENOUGH_BLOCKS / call.rows))
    return Plan(lanes, vectors, unroll, 1 if short else BLOCK_WARPS, splits)


def cuda_traffic_of(call: Call) -> Traffic:
    """The traffic of ``dsn_logits``, ``embed_pool`` or, by atomics, ``embed_pool_backward``."""
    streams = {"dsn_logits": _logits, "embed_pool": _embed_pool, "embed_pool_backward": _backward}[call.op]
    return Traffic(tuple(streams(call, plan_of(call))))


def _near(name: str, requested: int) -> Stream:
    """What a block has just read before, so that the cache beside it still has it; its bytes count in no other kind."""
    return Stream(name, "near", requested, 0, 0)


def _gather(call: Call, plan: Plan) -> Iterator[Stream]:
    size, wide = call.dtype.itemsize, 4 * call.hidden_size
    row = call.hidden_size * size
    gathered, words = call.rows * plan.gathered(call.length), call.num_tokens * row
    yield once("input_ids", 4 * call.num_tokens)
    yield once("attention_mask", call.num_tokens)
    # A gradient has one row per word, however often the word occurs, so the least counts the words' rows once as well.
    least = min(call.num_tokens, VOCAB_SIZE) * row if call.op == "embed_pool_backward" else words
    yield Stream("word", "words", words, least, least)
    yield _near("word", (gathered - call.num_tokens) * row)
    if size == 1:
        scales = 4 * min(call.num_tokens, VOCAB_SIZE)
        yield Stream("word_scale", "table", 4 * call.num_tokens, scales, scales)
    least = 0 if call.op.startswith("embed_pool") else call.length * wide  # embed_pool has no context as an argument
    yield Stream("context", "table", gathered * wide, call.length * wide, least)


def _splits(call: Call, plan: Plan) -> Iterator[Stream]:
    """The sums and counts of splits, written and read back, and for each row the count of splits that have arrived."""
    if plan.splits > 1:
        blocks = call.rows * plan.splits
        yield once("partial", blocks * 4 * (call.hidden_size + 1), times=2, least=0)
        yield once("arrived", blocks * 4, least=0)


def _logits(call: Call, plan: Plan) -> Iterator[Stream]:
    yield from _gather(call, plan)
    yield from _splits(call, plan)
    weight, rest = head_bytes(call)
    blocks = ceil(call.rows / plan.block_rows)
    yield Stream("head", "table", blocks * weight + call.rows * rest, weight + rest, weight + rest)
    yield once("logits", 4 * call.num_labels * call.rows)


def _context(call: Call) -> Iterator[Stream]:
    """The kernel that makes the context table, before anything is gathered from it."""
    row, wide = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size
    columns = min(call.length, NUM_POSITIONS)
    yield Stream("position", "table", columns * row, columns * row, columns * row)
    yield Stream("token_type", "table", columns * row, row, row)
    yield once("context", columns * wide, least=0)


def _embed_pool(call: Call, plan: Plan) -> Iterator[Stream]:
    row, wide = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size
    yield from _context(call)
    yield from _gather(call, plan)
    yield from _splits(call, plan)
    yield Stream("ln", "table", call.rows * 2 * row, 2 * row, 2 * row)
    yield once("rstd", 4 * call.num_tokens)
    yield once("pooled", call.rows * row)
    yield once("pooled_hat", call.rows * wide)


def _backward(call: Call, plan: Plan) -> Iterator[Stream]:
    """torch adds up the terms of gamma and beta, clears the float32 gradients, and converts those of 16-bit tables.
    The kernel computes rstd again instead of reading it, because the row is in registers anyway."""
    row, wide = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size
    again = plan.groups * plan.warps_per_row - 1  # every group of lanes in a row's warps computes the row's gradient
    yield from _context(call)
    yield from _gather(call, plan)
    yield _near("attention_mask", call.num_tokens * plan.warps_per_row)  # each warp counts the tokens of its row
    yield once("grad_pooled", call.rows * row)
    yield _near("grad_pooled", again * call.rows * row)
    yield Stream("ln", "table", (again + 1) * call.rows * row, row, row)
    yield once("pooled_hat", call.rows * wide)
    yield once("row terms", 2 * call.rows * wide, times=2, least=2 * row)  # of gamma and of beta
    yield from sums_of_words(call)
    yield context_gradient(call, call.num_tokens)
