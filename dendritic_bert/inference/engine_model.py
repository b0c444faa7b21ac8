"""A model as one file for the engine (csrc/engine), from tables and tokenizer; docs/engine.md has the format."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.contract import ACTIVATION_CODES, POOLING_CODES, QuantisedWindowedDsn
from ..model.dsn_checkpoint import DsnCheckpoint
from ..model.inference_tables import InferenceTables, WindowTables
from .scores import SCORE_FUNCTIONS, score_rule
from .texts import check_texts, without_surrogates
from .threads import without_lost_threads

if TYPE_CHECKING:
    from .._engine import Model
    from ..model.configuration import DendriticBertConfig
    from .text_logits import TextLogits
    from .tokenization import PackedTokenizer

MAGIC, VERSION, ALIGNMENT = b"DSNMODEL", 1, 64
HEADER, ENTRY = struct.Struct("<8sIIQQ"), struct.Struct("<24sII5qQ")
# The code of an element type is its place. numpy has no bfloat16; its bits come as uint16.
ELEMENT_TYPES = (np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16, np.float16, np.float32, np.float64)
FORMS = ("full_width", "folded", "windows", "windows_int8")
NO_LIMIT = 2**63 - 1
ENGINE_TEXTS = 1 << 16  # that the engine is given at a time; it takes blocks of its own
Columns = dict[str, Any]  # the texts of a call, and the second ones of pairs, by the names that errors call them


def model_file(tables: InferenceTables | WindowTables, config: DendriticBertConfig, tokenizer: PackedTokenizer,
               max_length: int | None, longest: int, labels: list[str]) -> np.ndarray:
    """The file of a model, uint8 ``[size]``, which begins at a multiple of 64.

    ``longest`` is the number of tokens of the longest row that the tables must serve. Longer texts than ``max_length``
    tokens are cut to it; None is no limit. ``tokenizer.native`` must be there.
    """
    arrays = _model_arrays(tables, config, max_length, longest, labels, has_types=False)
    trained = config.training_columns or {}
    text_columns = [trained[name] for name in ("text_column", "text_pair_column") if name in trained]
    return pack({**arrays, "keeps_end": tokenizer.truncation_side == "left", "text_columns": text_columns,
                 **_tokenizer_arrays(tokenizer.native_settings())})


def _model_arrays(tables: InferenceTables | WindowTables, config: DendriticBertConfig, max_length: int | None,
                  longest: int, labels: list[str], has_types: bool) -> dict[str, Any]:
    """All but what the tokenizer says."""
    form, arrays = _table_arrays(tables, longest, has_types)
    name, temperature = score_rule(config.problem_type, len(labels), temperature=config.temperature)
    return {
        **arrays, "form": FORMS.index(form), "pooling": POOLING_CODES.get(config.pooling, 0),
        "labels": labels, "score_function": SCORE_FUNCTIONS.index(name), "temperature": float(temperature),
        "max_length": NO_LIMIT if max_length is None else max_length}


class EngineModel:
    """The engine's model of a ``TextLogits``, made when it is first asked for, and again when the tables of its model
    have changed or a row comes that is longer than those before. Pairs have one of their own, as folded tables of all
    token types are twice as large.

    The engine serves where the kernels of csrc/cpu would, on the ids of texts and pairs from a tokenizer that it has.
    """

    def __init__(self) -> None:
        # For single texts and for pairs: what the model was made from, and the model.
        self._made: dict[bool, tuple[Any, Model | None]] = {False: (None, None), True: (None, None)}

    def current(self, owner: TextLogits, longest: int = 1, pairs: bool = False) -> Model | None:
        """The model with tables for rows of ``longest`` tokens, or None where the engine does not serve."""
        made_from, model = self._made[pairs]
        source = owner._source
        if type(source) is not DsnCheckpoint:  # which does not change
            source = without_lost_threads(_tables_of, source)
        key = source, owner.max_length, owner.tokenizer.truncation_side
        if key != made_from or (model is not None and longest > model.num_positions):
            model = without_lost_threads(lambda longest: _make_model(owner, source, longest, pairs), longest)
            self._made[pairs] = key, model
        return model

    def in_place(self, owner: TextLogits, texts: Any) -> list[str] | None:
        """The texts themselves if the engine reads them as they are: a list, of which it refuses what is no str, or an
        array of Arrow. Else None."""
        is_read = (type(texts) is list or _is_arrow(texts)) and self.current(owner) is not None
        return texts if is_read else None

    def logits(self, owner: TextLogits, texts: Any, text_pairs: Any,
               threads: int) -> tuple[np.ndarray, int, int] | None:
        """Logits ``[B, C]`` of what ``check_texts`` takes, how many texts were cut, and the first text whose logits are
        not finite, or -1; None where the engine does not serve. ``text_pairs`` are the second texts of pairs, or None.
        Raises ValueError if there are not as many."""
        def method(model: Model, texts: Any, second: Any = None) -> Any:
            logits, *others = model.logits(texts, threads, second)
            return (logits,), *others

        found = self._call(owner, columns_of(texts, text_pairs), method)
        return None if found is None else (_as_rows(found[0][0], owner.num_labels), *found[1:])

    def scores(self, owner: TextLogits, texts: Any, text_pairs: Any, threads: int, function: str,
               temperature: float) -> tuple[np.ndarray, np.ndarray, int, int] | None:
        """As ``logits``, but scores ``[B, C]``, and the label ``[B]`` int32 with the highest one of each text."""
        code = SCORE_FUNCTIONS.index(function)
        found = self._call(
            owner, columns_of(texts, text_pairs),
            lambda model, texts, second=None: model.scores(texts, threads, code, temperature, second))
        if found is None:
            return None
        (scores, labels), num_truncated, not_finite = found
        return _as_rows(scores, owner.num_labels), np.frombuffer(labels, np.int32), num_truncated, not_finite

    def _call(self, owner: TextLogits, columns: Columns, method: Callable[..., Any]) -> tuple[Any, int, int] | None:
        """What a method of the model gives, once the texts are such that it takes them and the tables long enough."""
        pairs = len(columns) > 1
        model = self.current(owner, pairs=pairs)
        if model is None:
            return None
        columns = {name: texts if type(texts) is list or _is_arrow(texts) else check_texts(texts, name)
                   for name, texts in columns.items()}
        if pairs and len(columns["text_pairs"]) != len(columns["texts"]):
            raise ValueError(f"text_pairs has {len(columns['text_pairs'])} texts and texts {len(columns['texts'])}: "
                             "pass one for each.")
        if len(columns["texts"]) > ENGINE_TEXTS:
            return self._call_in_slices(owner, columns, method, model.num_positions)
        try:
            values, num_truncated, longest, not_finite = method(model, *columns.values())
        except TypeError:  # an element is no str
            return self._call(owner, {name: check_texts(texts, name) for name, texts in columns.items()}, method)
        except UnicodeEncodeError:  # a lone surrogate
            return self._call(owner, {name: list(map(without_surrogates, check_texts(texts, name)))
                                      for name, texts in columns.items()}, method)
        if longest:
            model = self.current(owner, longest, pairs)
            if model is None or longest > model.num_positions:
                return None  # of rows that no table serves the ops have an error, or the logits
            return self._call(owner, columns, method)
        return values, num_truncated, not_finite

    def _call_in_slices(self, owner: TextLogits, columns: Columns, method: Callable[..., Any],
                        num_positions: int) -> tuple[Any, int, int] | None:
        """As ``_call``, slice by slice, and again from the first where a later one has made tables of more positions
        than ``num_positions``, which may be of another form: every row is of the same tables."""
        values, num_truncated = [], 0
        for start, part in in_slices(columns):
            try:
                found = self._call(owner, part, method)
            except TypeError:
                for name, texts in columns.items():
                    check_texts(texts, name)  # whose error names the element of all the texts
                raise
            if found is None:
                return None
            if found[2] >= 0:
                return *found[:2], start + found[2]
            model = self.current(owner, pairs=len(columns) > 1)
            if model is not None and model.num_positions > num_positions:
                return self._call(owner, columns, method)
            values.append(found[0])
            num_truncated += found[1]
        return [bytearray().join(parts) for parts in zip(*values)], num_truncated, -1

    def answers(self, owner: TextLogits, texts: list[Any], threads: int, function: str, temperature: float,
                labels: list[str]) -> tuple[list[dict[str, Any]], int] | None:
        """The label with the highest score of each text, as ``{"label", "score"}``, and how many texts were cut; None
        for what ``logits`` must say."""
        model = self.current(owner)
        if model is None:
            return None
        code = SCORE_FUNCTIONS.index(function)
        try:
            if len(texts) <= ENGINE_TEXTS:
                return model.answers(texts, threads, code, temperature, labels)
            answers: list[dict[str, Any]] = []
            num_truncated = 0
            for _, part in in_slices(columns_of(texts)):
                found = model.answers(part["texts"], threads, code, temperature, labels)
                if found is None:
                    return None
                answers += found[0]
                num_truncated += found[1]
            return answers, num_truncated
        except (TypeError, UnicodeEncodeError):
            return None


def columns_of(texts: Any, text_pairs: Any = None) -> Columns:
    """Texts, and the second ones of pairs where there are any, by their names."""
    return {"texts": texts} if text_pairs is None else {"texts": texts, "text_pairs": text_pairs}


def in_slices(columns: Columns) -> Iterator[tuple[int, Columns]]:
    """``ENGINE_TEXTS`` at a time, with the number of those before them: a call of the engine ends before Python sees an
    interrupt from the keyboard."""
    for start in range(0, len(columns["texts"]), ENGINE_TEXTS):
        yield start, {name: texts[start:start + ENGINE_TEXTS] for name, texts in columns.items()}


def _as_rows(values: bytearray, columns: int) -> np.ndarray:
    return np.frombuffer(values, np.float32).reshape(-1, columns)


def _is_arrow(texts: Any) -> bool:
    """Whether the engine reads these texts in place: an array of strings without nulls, by Arrow's C data interface."""
    return (hasattr(texts, "__arrow_c_array__") and texts.null_count == 0 and
            str(getattr(texts, "type", "string")) in ("string", "large_string"))


def _tables_of(source: Any) -> InferenceTables | WindowTables | None:
    """The tables of a model, which are others when its logits may have changed; None for what is not of the one class,
    as a wrapped one."""
    if "current_tables" not in vars(type(source)):
        return None
    with torch.no_grad():
        return source.current_tables()


def _make_model(owner: TextLogits, source: Any, longest: int, pairs: bool) -> Model | None:
    """A model that shares the tokenizer of ``owner``; with ``pairs`` its tables have all token types."""
    config, tokenizer = owner.config, owner.tokenizer
    tables = source.make_tables() if isinstance(source, DsnCheckpoint) else source
    native = None if tables is None or not _are_for_cpu(tables) else tokenizer.native
    if native is None or native.largest_id >= config.vocab_size:
        return None
    max_length = NO_LIMIT if owner.max_length is None else owner.max_length
    if max_length < tokenizer.single.num_special:
        return None  # for which the tokenizer has an error
    from .._engine import Model

    has_types = pairs and tokenizer.pair is not None and any(tokenizer.pair.types)
    arrays = _model_arrays(tables, config, owner.max_length, min(longest, max_length), owner.label_names(), has_types)
    file = pack({**arrays, "keeps_end": tokenizer.truncation_side == "left"})
    model = Model(file.ctypes.data, file.nbytes, file, native)
    return model if model.has_pairs or not pairs else None


def _are_for_cpu(tables: InferenceTables | WindowTables) -> bool:
    """Whether the kernels of csrc/cpu compute the logits of packed ids."""
    if isinstance(tables, InferenceTables):
        op, table = "dsn_logits", tables.table.word
        if not tables.has_positions:
            return False
    else:
        table = tables.windowed.window_weight
        op = "dsn_window_logits_int8" if isinstance(tables.windowed, QuantisedWindowedDsn) else "dsn_window_logits"
    return table.device.type == "cpu" and ops.serving_backend(op, table.device, table.dtype) == "cpu"


def pack(arrays: dict[str, Any]) -> np.ndarray:
    """The bytes of a file with these arrays: numbers, str, lists of str and arrays of numpy or torch."""
    from .._engine import checksum

    plain = [(name, array) for name, value in arrays.items() for name, array in _plain(name, value)]
    place = HEADER.size + len(plain) * ENTRY.size
    places = []
    for _, array in plain:
        place = -(-place // ALIGNMENT) * ALIGNMENT
        places.append(place)
        place += array.nbytes
    room = np.zeros(place + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    file = room[start:start + place]
    for number, ((name, array), offset) in enumerate(zip(plain, places)):
        shape = (*array.shape, *[0] * (5 - array.ndim))
        element_type = ELEMENT_TYPES.index(array.dtype.type)
        ENTRY.pack_into(file.data, HEADER.size + number * ENTRY.size, name.encode(), element_type, array.ndim, *shape,
                        offset)
        file[offset:offset + array.nbytes] = np.frombuffer(np.ascontiguousarray(array), np.uint8)
    body = file[HEADER.size:]
    HEADER.pack_into(file.data, 0, MAGIC, VERSION, len(plain), place, checksum(body.ctypes.data, body.nbytes))
    return file


def _plain(name: str, value: Any) -> Iterable[tuple[str, np.ndarray]]:
    """A value as arrays of the file's element types: a list of str is two, their bytes and where each ends."""
    if isinstance(value, list) and (not value or isinstance(value[0], str)):
        encoded = [text.encode() for text in value]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        yield name, np.frombuffer(b"".join(encoded), np.uint8)
        yield f"{name}_ends", ends
    elif isinstance(value, str):
        yield name, np.frombuffer(value.encode(), np.uint8)
    elif isinstance(value, Tensor):
        value = value.detach().contiguous()
        yield name, (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
    elif isinstance(value, float):
        yield name, np.array(value, np.float64)
    elif isinstance(value, int):
        yield name, np.array(value, np.int64)
    else:
        yield name, value


def _table_arrays(tables: InferenceTables | WindowTables, longest: int, has_types: bool) -> tuple[str, dict[str, Any]]:
    """The form of the tables, and their arrays by the names that kernels/contract.py gives them."""
    if isinstance(tables, WindowTables):
        form = "windows_int8" if isinstance(tables.windowed, QuantisedWindowedDsn) else "windows"
        named: Any = tables.windowed._asdict()
    else:
        folded = tables.folded_for_rows(longest, has_types)
        form = "full_width" if folded is None else "folded"
        named = {**tables.table._asdict(), **tables.head._asdict()} if folded is None else folded._asdict()
    named["activation"] = ACTIVATION_CODES[named["activation"]]
    return form, {name: value for name, value in named.items() if value is not None}


def _tokenizer_arrays(settings: dict[str, Any]) -> dict[str, Any]:
    # In the order of the ids: tokenizers gives out a vocabulary in another order each time.
    vocabulary = dict(sorted(settings["vocabulary"].items(), key=lambda item: item[1]))
    added = settings["added_tokens"]
    numbers = {name: np.array(settings[name], np.int32) for name in ("prefix", "suffix")}
    numbers["pair"], numbers["pair_types"] = np.array(settings["pair"], np.int32).reshape(-1, 2).T.copy()
    return settings | numbers | {
        "vocabulary": list(vocabulary), "vocabulary_ids": np.fromiter(vocabulary.values(), np.int32),
        "added_tokens": [content for content, *_ in added],
        "added_token_ids": np.array([number for _, number, *_ in added], np.int32),
        "added_tokens_are_text": np.array([is_text for _, _, is_text, *_ in added], np.uint8)}
