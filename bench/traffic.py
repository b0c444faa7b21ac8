"""What a call of a Triton op reads and writes, by what it is: a model of every load and store of its kernels.

Rows are full and padded ``[B, L]``, ids int32, the mask bool, positions columns, one token type. tests/test_roofline.py
holds the model to the addresses that pass through Triton's interpreter.
"""

from dataclasses import dataclass
from math import ceil

from launches import NUM_DENDRITES, NUM_LABELS, NUM_POSITIONS, VOCAB_SIZE, Call

from dendritic_bert.kernels.triton_configs import FEW_ROWS, Config

SECTOR = 32  # bytes; what a cache hands over at least


@dataclass(frozen=True)
class Stream:
    """One tensor's bytes in a call.

    requested: what loads and stores ask for, repetitions included. distinct: the different ones among them.
    least: what the op's contract makes any kernel move. kind: "words" are rows gathered by id, whose reuse is the
    ids'; a "table" is small, read by every program and kept near; "once" comes from or goes to memory as requested.
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
        """Bytes from and to memory where no word is reused: tables once, everything else as often as requested."""
        return self.total("words") + self.total("table", "distinct") + self.total("once")

    @property
    def least(self) -> int:
        return sum(stream.least for stream in self.streams)


def traffic_of(call: Call, config: Config) -> Traffic:
    """Of ``dsn_logits``, ``dsn_token_logits``, ``embed_pool`` or ``embed_pool_backward`` (scattered), padded."""
    if call.op == "dsn_token_logits":
        return Traffic(tuple(_token_logits(call, config)))
    if call.op == "dsn_logits":
        return Traffic(tuple(_logits(call, config)))
    return Traffic(tuple(_embed_pool(call, config) if call.op == "embed_pool" else _backward(call, config)))


def _once(name: str, size: int, times: int = 1, least: int | None = None) -> Stream:
    return Stream(name, "once", size * times, size, size if least is None else least)


def _tokens(call: Call) -> list[Stream]:
    size = call.dtype.itemsize
    rows = call.num_tokens * call.hidden_size * size
    streams = [_once("input_ids", 4 * call.num_tokens), _once("attention_mask", call.num_tokens),
               Stream("word", "words", rows, rows, rows)]
    if size == 1:
        scales = 4 * min(call.num_tokens, VOCAB_SIZE)
        streams.append(Stream("word_scale", "table", 4 * call.num_tokens, scales, scales))
    return streams


def _columns(length: int, config: Config) -> int:
    """Columns that a program reads of a table of positions: whole steps, as far as the table goes."""
    return min(ceil(length / config.tokens) * config.tokens, NUM_POSITIONS)


def _head(call: Call, programs: int) -> Stream:
    units = (1 + NUM_DENDRITES) * NUM_LABELS
    size = 4 * (units * (call.hidden_size + 2)
                + NUM_LABELS * (NUM_DENDRITES * (NUM_DENDRITES - 1) // 2 + NUM_DENDRITES))
    return Stream("head", "table", programs * size, size, size)


def _logits(call: Call, config: Config) -> list[Stream]:
    row = 4 * call.hidden_size
    streams = _tokens(call)
    if call.length <= config.chunk or call.rows > FEW_ROWS:
        programs = ceil(call.rows / config.rows)
        columns = _columns(call.length, config)
        requested = programs * columns
    else:
        programs = ceil(call.rows / config.rows)
        pieces = call.rows * ceil(call.length / config.chunk)
        lengths = [min(config.chunk, call.length - start) for start in range(0, call.length, config.chunk)]
        columns = _columns(call.length, config)
        requested = call.rows * sum(
            min(ceil(length / config.tokens) * config.tokens, NUM_POSITIONS - place * config.chunk)
            for place, length in enumerate(lengths))
        streams.append(_once("pieces", pieces * (row + 4), times=2, least=0))
    streams.append(Stream("context", "table", requested * row, columns * row, call.length * row))
    return [*streams, _head(call, programs), _once("logits", 4 * NUM_LABELS * call.rows)]


def _token_logits(call: Call, config: Config) -> list[Stream]:
    row = 4 * call.hidden_size
    tile = config.rows * config.tokens
    programs = ceil(call.num_tokens / tile)
    context = Stream("context", "table", programs * tile * row, call.length * row, call.length * row)
    return [*_tokens(call), context, _head(call, programs), _once("logits", 4 * NUM_LABELS * call.num_tokens)]


def _context_parameters(call: Call, config: Config) -> list[Stream]:
    row = call.hidden_size * call.dtype.itemsize
    columns = _columns(call.length, config)
    requested = ceil(call.rows / config.rows) * columns * row
    return [Stream("position", "table", requested, columns * row, call.length * row),
            Stream("token_type", "table", requested, row, row)]


def _embed_pool(call: Call, config: Config) -> list[Stream]:
    row = call.hidden_size * call.dtype.itemsize
    programs = ceil(call.rows / config.rows)
    return [*_tokens(call), *_context_parameters(call, config),
            Stream("ln", "table", programs * 2 * row, 2 * row, 2 * row), _once("rstd", 4 * call.num_tokens),
            _once("pooled", call.rows * row), _once("pooled_hat", call.rows * 4 * call.hidden_size)]


def _backward(call: Call, config: Config) -> list[Stream]:
    """Gradients by atomics into float32 sums that are cleared before and, for 16-bit tables, converted behind."""
    row, wide = call.hidden_size * call.dtype.itemsize, 4 * call.hidden_size
    programs = ceil(call.rows / config.rows)
    converted = VOCAB_SIZE * (wide + row if row < wide else 0)
    ids, _, *words = _tokens(call)
    return [ids, _once("attention_mask", call.num_tokens, times=2), *words, *_context_parameters(call, config),
            _once("grad_pooled", call.rows * row), _once("pooled_hat", call.rows * wide),
            _once("rstd", 4 * call.num_tokens), Stream("ln", "table", programs * row, row, row),
            _once("row_gradient", call.rows * wide, least=0),
            Stream("row_gradient of tokens", "table", call.num_tokens * wide, call.rows * wide, 0),
            _once("shares of gamma and beta", call.rows * wide, times=4, least=2 * row),
            _once("d_word", call.num_tokens * wide, least=0),
            Stream("d_context", "table", call.num_tokens * wide, call.length * wide, call.length * row),
            _once("cleared and converted", VOCAB_SIZE * wide + converted, least=VOCAB_SIZE * row)]


def cached_bytes(traffic: Traffic, first_cache_bytes: int) -> int:
    """Bytes between the last cache and the multiprocessors: words and streams; tables too, where the first cache, half
    of which may be theirs, cannot hold them. A scale is 4 bytes and comes in a sector."""
    scales = [stream for stream in traffic.streams if stream.name == "word_scale"]
    tables = [stream for stream in traffic.streams if stream.kind == "table" and stream not in scales]
    near = sum(stream.distinct for stream in tables) <= first_cache_bytes / 2
    return (traffic.total("words") + traffic.total("once") + sum(stream.requested // 4 * SECTOR for stream in scales)
            + sum(stream.distinct if near else stream.requested for stream in tables))
