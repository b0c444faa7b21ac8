"""What the CUDA kernel of dsn_window_logits must compute, case by case: called by its tests, and by verdicts.py for
each seeded bug."""

from typing import Any

import torch
from cases import VOCAB_SIZE, tokens
from cuda_on_cpu.as_backend import WATCHED
from cuda_on_cpu.calls import in_every_schedule, in_view
from helpers import assert_within_rounding
from window_workload import AXES, exact_window_logits, prepared, window_head, window_parameters, workload

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import WindowedDsn
from dendritic_bert.kernels.reference import dsn_window_logits_ref

Batch = dict[str, torch.Tensor]
# Rows of 25 tokens and fewer share a tile.
PLAIN: dict[str, Any] = {name: values[0] for name, values in AXES.items()} | {
    "layout": "packed int32", "hidden_size": 7, "dendrites": 32, "layers": 5, "length": 25, "rows": 5, "num_labels": 3,
    "num_dendrites": 2, "has_gate": True, "is_folded": True, "token_types": True, "num_types": 2}


def window_logits(arguments: Batch, windowed: WindowedDsn) -> torch.Tensor:
    return in_every_schedule(lambda: {"logits": ops.dsn_window_logits(
        **arguments, windowed=windowed, backend="cuda")})["logits"]


def windowed_of(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> WindowedDsn:
    _, values, head_values = workload(case)
    return prepared(values, head_values, activation=case["activation"], is_folded=case["is_folded"], dtype=dtype)


def assert_window_logits(arguments: Batch, windowed: WindowedDsn, view: str = "plain") -> None:
    actual = window_logits(in_view(arguments, view), in_view(windowed, view))
    eager = dsn_window_logits_ref(**arguments, windowed=windowed)
    assert_within_rounding(actual, eager, exact_window_logits(arguments, windowed))


def assert_window_logits_of_case(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    most = 100 if WATCHED else 400
    case = case | {"rows": min(case["rows"], max(2, most // (case["length"] + case["num_labels"])))}
    assert_window_logits(workload(case)[0], windowed_of(case, dtype), case["view"])


def packed_rows(lengths: list[int]) -> Batch:
    ids = torch.randint(VOCAB_SIZE, (sum(lengths),), generator=torch.Generator().manual_seed(len(lengths)))
    return {"input_ids": ids, "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0)}


def assert_rows_of_every_length(lengths: list[int], **changes: Any) -> None:
    assert_window_logits(packed_rows(lengths), windowed_of(PLAIN | changes))


def assert_masked_columns_in_front_keep_their_place() -> None:
    """What is valid begins at the second, the seventh and no column of a row."""
    first_valid = torch.tensor([[1], [6], [9]])
    arguments = {"input_ids": torch.arange(27).view(3, 9), "attention_mask": torch.arange(9) >= first_valid}
    assert_window_logits(arguments, windowed_of(PLAIN | {"layers": 2, "dendrites": 16}))


def assert_a_bad_index_makes_its_row_nan(name: str, value: int) -> None:
    """And no other row, though others share its tile."""
    for layout, place in (("padded without a mask", (1, 4)), ("packed int64", 4)):
        arguments = tokens(layout, 4, 9, token_types=True)
        arguments[name][place] = value
        row = 1 if isinstance(place, tuple) else int((arguments["cu_seqlens"] <= place).sum()) - 1
        actual = window_logits(arguments, windowed_of(PLAIN | {"layers": 2, "dendrites": 16}))
        assert actual.isnan().any(dim=1).tolist() == [r == row for r in range(4)]
        assert actual.isnan().all(dim=1).tolist() == [r == row for r in range(4)]


def assert_masked_tokens_are_not_read() -> None:
    """Neither their ids nor what the tables hold for them, wherever in the row they are."""
    windowed = windowed_of(PLAIN | {"layers": 2, "dendrites": 16})
    arguments = tokens("padded with holes", 3, 20, mask_dtype=torch.int32)
    mask = arguments["attention_mask"] != 0
    ids = arguments["input_ids"] % (VOCAB_SIZE - 1)
    expected = window_logits(arguments | {"input_ids": torch.where(mask, ids, 0)}, windowed)
    spoilt = windowed._replace(**{name: getattr(windowed, name).clone() for name in ("values", "gate", "taps")})
    for name in ("values", "gate", "taps"):
        getattr(spoilt, name)[:, VOCAB_SIZE - 1] = float("nan")
    for filler in (VOCAB_SIZE - 1, -5):
        assert torch.equal(window_logits(arguments | {"input_ids": torch.where(mask, ids, filler)}, spoilt), expected)


def assert_nan_stays_in_its_row() -> None:
    """A NaN of the tables reaches the logits of its row, through the rectifier and the gate's clip."""
    for field in ("values", "gate", "taps"):
        windowed = windowed_of(PLAIN | {"layers": 2, "dendrites": 16, "num_types": 1})
        getattr(windowed, field)[:, 5] = float("nan")
        ids = torch.full((5, 6), 1)
        ids[1, 5] = ids[3, 0] = 5
        logits = window_logits({"input_ids": ids}, windowed)
        assert logits.isnan().all(dim=1).tolist() == [False, True, False, True, False], field
        assert logits.isnan().any(dim=1).tolist() == [False, True, False, True, False], field


def assert_gates_are_clipped() -> None:
    """At 8 either way, so that one token does not decide alone."""
    windowed = windowed_of(PLAIN | {"layers": 1, "token_types": False})
    assert windowed.gate is not None
    gate = torch.where(torch.arange(VOCAB_SIZE) % 2 == 0, 9.5, -9.5).expand_as(windowed.gate).contiguous()
    assert_window_logits(packed_rows([12, 30]), windowed._replace(gate=gate))


def assert_a_row_has_the_same_bits_in_any_batch(dtype: torch.dtype) -> None:
    """Alone, among others, or padded with a mask."""
    values = window_parameters(layers=3, dendrites=32)
    windowed = prepared(values, window_head(values), dtype=dtype)
    lengths = [25, 0, 70, 1, 160]
    arguments = packed_rows(lengths)
    rows = arguments["input_ids"].split(lengths)
    packed = window_logits(arguments, windowed)
    for row, expected in zip(rows, packed):
        assert torch.equal(window_logits({"input_ids": row[None]}, windowed)[0], expected)
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=-1)
    assert torch.equal(window_logits({"input_ids": padded, "attention_mask": padded >= 0}, windowed), packed)
