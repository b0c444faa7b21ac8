"""The bytes that a call of a Triton op reads and writes: a model of every load and store of its kernels.

Rows are full and padded ``[B, L]``, ids are int32, the mask is bool, positions are columns, types are all 0.
tests/bench/analysis/test_roofline.py compares the model with the addresses that pass through Triton's interpreter.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any
from unittest.mock import patch

import torch
from launches import NUM_POSITIONS, VOCAB_SIZE, Call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dendritic_bert.kernels.backends.triton import kernel, launch_backward
from dendritic_bert.kernels.backends.triton.configs import FEW_ROWS, SEGMENT_CHUNK, Config

SECTOR = 32  # bytes, the least that a cache hands over


@dataclass(frozen=True)
class Stream:
    """The bytes of one tensor in a call.

    requested: all that loads and stores ask for, repetitions included. distinct: the different ones among them.
    least: those that the contract of the op makes any kernel move. kind: "words" are rows gathered by id, which are
    reused as often as their ids occur; "sums" are such rows added to, which a cache that misses them reads and writes;
    a "table" is small, read by every program and stays in a cache; "once" comes from or goes to memory as often as it
    is requested.
    """

    name: str
    kind: str
    requested: int
    distinct: int
    least: int


@dataclass(frozen=True)
class Traffic:
    streams: tuple[Stream, ...]

    def total(self, kind: str, what: str = "requested") -> int:
        return sum(getattr(stream, what) for stream in self.streams if stream.kind == kind)

    @property
    def moved(self) -> int:
        """Bytes from and to memory if no word is reused: tables once, everything else as often as it is requested."""
        return (self.total("words") + 2 * self.total("sums") + self.total("table", "distinct") + self.total("once"))

    @property
    def least(self) -> int:
        return sum(stream.least for stream in self.streams)


def traffic_of(call: Call, config: Config) -> Traffic:
    """The traffic of a call in the padded layout, without that of torch's own operations."""
    if call.op == "dsn_token_logits":
        return Traffic(tuple(_token_logits(call, config)))
    if call.op == "dsn_logits":
        return Traffic(tuple(_logits(call, config)))
    if call.op == "embed_pool":
        return Traffic(tuple(_embed_pool(call, config)))
    form = {"scattered": _scattered, "sorted": _sorted}.get(call.word_grad, _by_id)
    return Traffic(tuple(form(call, config)))


def once(name: str, size: int, times: int = 1, least: int | None = None) -> Stream:
    """A stream that is moved ``times`` times, where the contract asks for it once, or for ``least``."""
    return Stream(name, "once", size * times, size, size if least is None else least)


def _tokens(call: Call) -> list[Stream]:
    size = call.dtype.itemsize
    rows = call.num_tokens * call.hidden_size * size
    # A gradient has one row per word however often that occurs, so the least reads every word's row once as well.
    least = min(call.num_tokens, VOCAB_SIZE) * call.hidden_size * size if call.op == "embed_pool_backward" else rows
    streams = [once("input_ids", 4 * call.num_tokens), once("attention_mask", call.num_tokens),
               Stream("word", "words", rows, least, least)]
    if size == 1:
        scales = 4 * min(call.num_tokens, VOCAB_SIZE)
        streams.append(Stream("word_scale", "table", 4 * call.num_tokens, scales, scales))
    return streams


def splits_of(call: Call, config: Config) -> int:
    """The number of splits of a row."""
    return 1 if call.rows > FEW_ROWS else ceil(call.length / config.split_columns)


def _columns(call: Call, config: Config) -> tuple[int, int]:
    """The rows of a table of positions that all programs together read, in whole steps as far as the table goes; and
    the number of different ones."""
    splits = splits_of(call, config)
    chunk = config.split_columns if splits > 1 else call.length
    lengths = [min(chunk, call.length - start) for start in range(0, call.length, chunk)]
    steps = [min(ceil(length / config.tokens) * config.tokens, NUM_POSITIONS - place * chunk)
             for place, length in enumerate(lengths)]
    programs = call.rows if splits > 1 else ceil(call.rows / config.rows)
    return programs * sum(steps), min(ceil(call.length / config.tokens) * config.tokens, NUM_POSITIONS)


def head_bytes(call: Call) -> tuple[int, int]:
    """The bytes of a prepared head: its weights, and the rest, which is two biases per unit and what joins the
    dendrites."""
    labels, dendrites = call.num_labels, call.num_dendrites
    units = (1 + dendrites) * labels
    return 4 * units * call.hidden_size, 4 * (2 * units + labels * (dendrites * (dendrites - 1) // 2 + dendrites))


def _head(call: Call, programs: int) -> Stream:
    size = sum(head_bytes(call))
    return Stream("head", "table", programs * size, size, size)


def _logits(call: Call, config: Config) -> list[Stream]:
    row = 4 * call.hidden_size
    streams = _tokens(call)
    requested, columns = _columns(call, config)
    if (splits := splits_of(call, config)) > 1:
        streams.append(once("splits", call.rows * splits * (row + 4), times=2, least=0))
    streams.append(Stream("context", "table", requested * row, columns * row, call.length * row))
    return [*streams, _head(call, ceil(call.rows / config.rows)), once("logits", 4 * call.num_labels * call.rows)]


def _token_logits(call: Call, config: Config) -> list[Stream]:
    row = 4 * call.hidden_size
    tile = config.rows * config.tokens
    programs = ceil(call.num_tokens / tile)
    context = Stream("context", "table", programs * tile * row, call.length * row, call.length * row)
    return [*_tokens(call), context, _head(call, programs), once("logits", 4 * call.num_labels * call.num_tokens)]


def _context_parameters(call: Call, requested: int, columns: int) -> list[Stream]:
    row = call.hidden_size * call.dtype.itemsize
    return [Stream("position", "table", requested * row, columns * row, call.length * row),
            Stream("token_type", "table", requested * row, row, row)]


def _embed_pool(call: Call, config: Config) -> list[Stream]:
    row, wide = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size
    programs = ceil(call.rows / config.rows)
    streams = [*_tokens(call), *_context_parameters(call, *_columns(call, config))]
    if (splits := splits_of(call, config)) > 1:
        streams.append(once("splits", call.rows * splits * (wide + 4), times=2, least=0))
    return [*streams, Stream("ln", "table", programs * 2 * row, 2 * row, 2 * row), once("rstd", 4 * call.num_tokens),
            once("pooled", call.rows * row), once("pooled_hat", call.rows * wide)]


def _scattered(call: Call, config: Config) -> list[Stream]:
    """Gradients by atomics into float32 sums, which are cleared first and, for tables of 16 bits, converted at the end.
    Every split of a row reads the row's gradient and counts its mask."""
    row, wide = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size
    splits = splits_of(call, config)
    rows = 1 if splits > 1 else config.rows
    programs = splits * ceil(call.rows / rows)
    requested, columns = _columns(call, config)
    ids, _, words, *scale = _tokens(call)
    return [ids, Stream("attention_mask", "table", (1 + splits) * call.num_tokens, call.num_tokens, call.num_tokens),
            words, *scale, *_context_parameters(call, requested, columns),
            Stream("grad_pooled", "table", splits * call.rows * row, call.rows * row, call.rows * row),
            once("pooled_hat", call.rows * wide), once("rstd", 4 * call.num_tokens),
            Stream("ln", "table", programs * row, row, row),
            *sums_of_words(call), context_gradient(call, ceil(call.rows / rows) * call.length),
            Stream("d_ln", "table", programs * 2 * wide, 2 * wide, 2 * row)]


def sums_of_words(call: Call) -> list[Stream]:
    """Gradients of words that are added up by atomics in float32: cleared first and, as those of positions are,
    converted to 16 bits at the end."""
    row, wide = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size
    converted = [once("converted", (VOCAB_SIZE + NUM_POSITIONS) * row, least=0),
                 Stream("d_word read again", "words", VOCAB_SIZE * wide, 0, 0)]
    return [Stream("d_word", "sums", call.num_tokens * wide, call.num_tokens * wide, 0),
            once("cleared", VOCAB_SIZE * wide, least=VOCAB_SIZE * row), *(converted if row < wide else [])]


def _by_id(call: Call, config: Config) -> list[Stream]:
    """Gradients of words in the order of ids, which a counting sort finds. Ids and mask are read for the counts and for
    the order, the mask for the sizes of rows too; the counts of ids are added up, become offsets, and are incremented.
    What one kernel hands to the next is no larger than the ids and is read again at once, so it comes from the cache:
    it is a table."""
    wide, tokens, programs = 4 * call.hidden_size, call.num_tokens, ceil(call.rows / config.rows)
    return [*_in_order(call, config, 1), Stream("input_ids", "table", 2 * 4 * tokens, 4 * tokens, 4 * tokens),
            Stream("attention_mask", "table", 3 * tokens, tokens, tokens),
            Stream("offsets", "table", 2 * 4 * tokens, 4 * VOCAB_SIZE, 0),
            Stream("order", "table", 2 * 4 * tokens, 4 * tokens, 0),
            Stream("d_ln", "table", programs * 2 * wide, 2 * wide, 2 * call.hidden_size * call.dtype.itemsize),
            context_gradient(call, tokens)]


def _sorted(call: Call, config: Config) -> list[Stream]:
    """Gradients in the order of sorted ids, and again in that of sorted positions. Torch sorts both keys of a token, of
    16 bits each; its cell is written once and gathered in either order. In the second pass a word's row comes from
    memory as often as it is requested."""
    row, wide, tokens = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size, call.num_tokens
    words = tokens * row
    return [*_in_order(call, config, 2), Stream("words again", "words", words, min(words, VOCAB_SIZE * row), 0),
            Stream("input_ids", "table", 2 * 4 * tokens, 4 * tokens, 4 * tokens),
            Stream("attention_mask", "table", 2 * tokens, tokens, tokens),
            once("keys", 2 * 2 * tokens, least=0), once("cells", 4 * tokens, least=0),
            once("orders", 2 * 4 * tokens, least=0),
            once("parts of gamma and beta", ceil(call.rows / config.rows) * wide, times=2, least=2 * row),
            once("chunks of positions", (tokens // SEGMENT_CHUNK) * wide * (call.rows > SEGMENT_CHUNK), 2, least=0),
            context_gradient(call, NUM_POSITIONS)]


def _in_order(call: Call, config: Config, passes: int) -> list[Stream]:
    """What a pass over all tokens in the order of ids, and a second in that of positions, read and write. If all ids
    occur equally often, no segment of the first pass is cut: a word's row and its gradient are moved once."""
    row, wide, tokens = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size, call.num_tokens
    words, second = min(tokens, VOCAB_SIZE), passes - 1
    positions = call.length * ceil(call.rows / SEGMENT_CHUNK)  # chunks of the second pass
    ids = words if call.word_grad == "sparse" else VOCAB_SIZE
    programs = [ceil((segments + tokens // SEGMENT_CHUNK) / config.rows) for segments in (ids, NUM_POSITIONS)]
    return [once("words in their order", words * row),
            Stream("position", "table", (tokens + second * positions) * row, call.length * row, call.length * row),
            Stream("token_type", "table", (words + second * positions) * row, row, row),
            Stream("rstd", "table", passes * 4 * tokens, 4 * tokens, 4 * tokens),
            Stream("grad_pooled", "table", (call.rows + passes * tokens) * row, call.rows * row, call.rows * row),
            once("pooled_hat", call.rows * wide),
            Stream("row_share", "table", 4 * (call.rows + passes * tokens), 4 * call.rows, 0),
            Stream("ln", "table", sum(programs[:passes]) * row, row, row),
            once("d_word", ids * row)]


def context_gradient(call: Call, requested: int) -> Stream:
    """Rows of the positions' gradient in float32: without types one for each position, whether it occurs or not."""
    row = call.hidden_size * call.dtype.itemsize
    wide = 4 * call.hidden_size
    return Stream("d_context", "table", requested * wide, NUM_POSITIONS * wide, NUM_POSITIONS * row)


def sort_bytes(key_bytes: int) -> int:
    """Bytes that torch.sort moves per element. It is cub::DeviceRadixSort, whose passes take 8 bits of the key each and
    read and write the key and an int64 value; a histogram reads the keys first."""
    return key_bytes * 2 * (key_bytes + 8) + key_bytes


class _Bytes(TorchDispatchMode):
    """Adds up the bytes that torch's own operations move: those of all passes of a sort, and every other tensor once
    however many operations read and write it, since what a launcher allocates fits the cache. Tensors that kernels are
    given do not count here, because the kernels' model counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.sorts = 0
        self.of_torch: dict[int, torch.UntypedStorage] = {}
        self.of_kernels: dict[int, torch.UntypedStorage] = {}

    @property
    def total(self) -> int:
        alone = [storage for key, storage in self.of_torch.items() if key not in self.of_kernels]
        return self.sorts + sum(storage.nbytes() for storage in alone)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        if function is torch.ops.aten.sort.stable:
            self.sorts += sort_bytes(arguments[0].element_size()) * arguments[0].numel()
            self.of_kernels |= _storages(result)
        elif not function.is_view and "empty" not in str(function):
            made = "new_" in str(function) or "_like" in str(function)  # they read only the kind of their argument
            self.of_torch |= _storages(result if made else (arguments, keywords, result))
        return result

    def no_kernel(self, kernel: Any) -> Any:
        """A replacement for ``wrap_triton`` that launches nothing."""
        def launch(*arguments: Any, **constants: Any) -> None:
            self.of_kernels |= _storages(arguments)

        return defaultdict(lambda: launch)


def _storages(tree: Any) -> dict[int, torch.UntypedStorage]:
    """Storages by address. They are kept alive, since the address of one that is gone may become another's."""
    found = [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return {storage._cdata: storage for storage in found}


@contextmanager
def torch_bytes(target: str) -> Iterator[_Bytes]:
    """Inside, the bytes of a launcher's own torch operations are counted, and its kernels are not launched."""
    mode = _Bytes()
    with (patch.object(kernel, "wrap_triton", mode.no_kernel), mode,
          patch.object(kernel, "architecture", lambda _: target),
          patch.object(launch_backward, "architecture", lambda _: target)):
        yield mode


def cached_bytes(traffic: Traffic, first_cache_bytes: int) -> int:
    """Bytes between the last cache and the multiprocessors: words, sums and what is moved once; tables too, as often as
    they are requested, unless they fit half of the first cache. A scale has 4 bytes and comes in a sector."""
    scales = [stream for stream in traffic.streams if stream.name == "word_scale"]
    tables = [stream for stream in traffic.streams if stream.kind == "table" and stream not in scales]
    near = sum(stream.distinct for stream in tables) <= first_cache_bytes / 2
    return (traffic.total("words") + traffic.total("sums") + traffic.total("once")
            + sum(stream.requested // 4 * SECTOR for stream in scales)
            + sum(stream.distinct if near else stream.requested for stream in tables))
