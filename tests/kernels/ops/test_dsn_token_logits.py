"""dsn_token_logits on every backend: a token's logits are those of a row that holds this token alone."""

import pytest
import torch
from cases import (
    LAYOUTS,
    awkward,
    case_id,
    covering_sample,
    exact_token_logits,
    head,
    in_float64,
    logits_by_parameters,
    moved,
    parameters,
    tokens,
)
from dsn_workload import AXES, in_view, prepared, workload
from helpers import assert_within_rounding, raises_on_values, serving

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.reference import dsn_token_logits_ref, token_places

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]
OP = "dsn_token_logits"
each_server = pytest.mark.parametrize(("backend", "device"), serving(OP, *DTYPES))
CASES = {name: values for name, values in AXES.items() if name != "pooling"} | {
    "dtype": DTYPES, "num_labels": [1, 2, 9, 256], "rows": [0, 1, 3, 7]}


def each_token_a_row(token_arguments: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The valid tokens as packed rows of one token each, with the positions they had; and which tokens they are."""
    input_ids, cu_seqlens = token_arguments["input_ids"], token_arguments.get("cu_seqlens")
    _, column = token_places(input_ids, cu_seqlens)
    is_valid = token_arguments.get("attention_mask", torch.ones_like(input_ids)) != 0
    positions = token_arguments.get("position_ids", column)
    rows = {"input_ids": input_ids[is_valid], "position_ids": positions[is_valid].long()}
    if "token_type_ids" in token_arguments:
        rows["token_type_ids"] = token_arguments["token_type_ids"][is_valid]
    rows["input_ids"] = rows["input_ids"].long()
    rows["cu_seqlens"] = torch.arange(rows["input_ids"].numel() + 1)
    return rows, is_valid


@pytest.mark.parametrize("case", covering_sample(CASES | {"length": [0, 1, 2, 31, 129]}, 60, seed=3), ids=case_id)
@each_server
def test_token_logits(case, backend, device):
    token_arguments, values, head_values = workload(case)
    table, dsn_head = prepared(values, head_values, case["dtype"], case["activation"])
    token_views = {name: awkward(value.to(device), case["view"]) for name, value in token_arguments.items()}
    logits = ops.dsn_token_logits(**token_views, table=in_view(table, case["view"], device),
                                  head=in_view(dsn_head, case["view"], device), backend=backend)
    assert logits.dtype == torch.float32
    eager = dsn_token_logits_ref(**token_arguments, table=table, head=dsn_head)
    exact = exact_token_logits(token_arguments, table, dsn_head)
    assert_within_rounding(logits, eager, exact)
    if "attention_mask" in token_arguments:
        assert not logits.cpu()[token_arguments["attention_mask"] == 0].any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"token_types": True, "positions": True}], ids=["plain", "types, positions"])
@each_server
def test_a_token_is_a_row_of_its_own(layout, options, backend, device):
    """The expected logits follow from the parameters themselves, pooled over one token."""
    token_arguments, head_values = tokens(layout, 5, 9, **options), head(20, 3, 2)
    values = parameters(20, num_positions=12)
    table, dsn_head = prepared(values, head_values, torch.float32, "tanh")
    logits = ops.dsn_token_logits(**moved(token_arguments, device), table=in_view(table, "plain", device),
                                  head=in_view(dsn_head, "plain", device), backend=backend).cpu()
    assert logits.shape == (*token_arguments["input_ids"].shape, 3)
    rows, is_valid = each_token_a_row(token_arguments)
    expected = logits_by_parameters(rows, in_float64(values), in_float64(head_values), "tanh", "mean_masked")
    torch.testing.assert_close(logits[is_valid].double(), expected, rtol=1e-5, atol=1e-5)
    assert not logits[~is_valid].any()


@each_server
def test_what_stands_at_a_masked_token_is_not_looked_up(backend, device):
    values = parameters(20)
    table, dsn_head = prepared(values, head(20, 3, 1), torch.float32)
    arguments = moved(tokens("padded with holes", 4, 6, token_types=True, positions=True, num_positions=8), device)
    table, dsn_head = in_view(table, "plain", device), in_view(dsn_head, "plain", device)
    expected = ops.dsn_token_logits(**arguments, table=table, head=dsn_head, backend=backend)
    for name in ("input_ids", "token_type_ids", "position_ids"):
        spoilt = arguments | {name: torch.where(arguments["attention_mask"] != 0, arguments[name], 2**40)}
        assert torch.equal(ops.dsn_token_logits(**spoilt, table=table, head=dsn_head, backend=backend), expected)


@pytest.mark.parametrize(("name", "size"), [("input_ids", 83), ("token_type_ids", 2), ("position_ids", 8)])
@each_server
def test_an_index_outside_its_table(name, size, backend, device):
    """A backend that looks at values says so; a GPU's kernels make the token's logits NaN."""
    table, dsn_head = prepared(parameters(20), head(20, 3, 1), torch.float32)
    arguments = moved(tokens("padded without a mask", 4, 6, token_types=True, positions=True, num_positions=8),
                      device)
    arguments[name][2, 3] = size
    call = {"table": in_view(table, "plain", device), "head": in_view(dsn_head, "plain", device), "backend": backend}
    if raises_on_values(backend):
        with pytest.raises(RuntimeError, match=rf"^{name} holds {size} in row 2, expected 0 to {size - 1}\.$"):
            ops.dsn_token_logits(**arguments, **call)
    else:
        bad = ops.dsn_token_logits(**arguments, **call).isnan()
        assert bad.any(dim=2).nonzero().tolist() == bad.all(dim=2).nonzero().tolist() == [[2, 3]]


def test_the_cpu_kernels_do_not_serve_it_and_the_automatic_choice_goes_on():
    for op, dtype, reason in ((OP, torch.float32, f"no kernel for {OP}"),
                              ("dsn_logits", torch.float8_e4m3fn, "the word table is torch.float8_e4m3fn")):
        if backends.availability()["cpu"] is None:
            assert reason in (backends.refusal("cpu", op, "cpu", dtype) or "")
        assert backends.choose(None, op, "cpu", dtype) != "cpu"
    table, dsn_head = prepared(parameters(20), head(20, 3, 1), torch.float8_e4m3fn)
    assert ops.dsn_logits(torch.zeros(1, 2, dtype=torch.int64), table, dsn_head).shape == (1, 3)
    with pytest.raises(RuntimeError, match="backend 'cpu' cannot serve this call"):
        ops.dsn_token_logits(torch.zeros(1, 2, dtype=torch.int64), table, dsn_head, backend="cpu")
