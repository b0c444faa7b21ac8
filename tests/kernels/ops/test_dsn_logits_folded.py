"""dsn_logits_folded on every backend, against the float64 run of the contract on the tables that were folded."""

import pytest
import torch
from cases import LAYOUTS, awkward, case_id, covering_sample, exact_logits, head, moved, parameters, tokens
from dsn_workload import AXES, in_view, prepared, workload
from helpers import assert_within_rounding, serving
from rounding import Rounded, rounded_to, tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import POOLINGS, FoldedDsn
from dendritic_bert.kernels.prepare import fold
from dendritic_bert.kernels.reference import dsn_logits_folded_ref, dsn_logits_ref

each_folded = pytest.mark.parametrize(("backend", "device"), serving("dsn_logits_folded", torch.float32))


@pytest.fixture(scope="module", params=covering_sample(AXES, 140, seed=3), ids=case_id)
def case_with_results(request) -> tuple:
    """A case, the arguments that it stands for, and the results by torch's own ops and in float64, which are those of
    every backend."""
    case = request.param
    token_arguments, values, head_values = workload(case)
    table, dsn_head = prepared(values, head_values, case["dtype"], case["activation"])
    folded, pooling = fold(table, dsn_head), case["pooling"]
    eager = dsn_logits_ref(**token_arguments, table=table, head=dsn_head, pooling=pooling)
    rounded = dsn_logits_folded_ref(**token_arguments, folded=rounded_once(folded), pooling=pooling)
    exact = Rounded(exact_logits(token_arguments, table, dsn_head, pooling).value, rounded.squares)
    return case, token_arguments, folded, eager, exact


@each_folded
def test_logits(case_with_results, backend, device):
    case, token_arguments, folded, eager, exact = case_with_results
    token_views = {name: awkward(value.to(device), case["view"]) for name, value in token_arguments.items()}
    logits = ops.dsn_logits_folded(**token_views, folded=in_view(folded, case["view"], device),
                                   pooling=case["pooling"], backend=backend)
    assert logits.dtype == torch.float32
    assert_within_rounding(logits, eager, exact)


def rounded_once(folded: FoldedDsn) -> FoldedDsn:
    """The folded tables in float64, with the error of having been rounded once."""
    wide, tables = tracked(folded), ("rstd", "word", "context")
    return wide._replace(**{name: rounded_to(torch.float32, getattr(folded, name)) for name in tables})


@pytest.mark.parametrize("nearness", [0.0, 1e-9, 1e-6, 1e-3])
@each_folded
def test_words_that_cancel_their_context(nearness, backend, device):
    """|w|^2 + |q|^2 + 2 <w, q> loses every digit where w is nearly -q. The bound is what rounding w and q once does."""
    values, head_values = parameters(64), head(64, 3, 1)
    context = values["position_embeddings"] + values["token_type_embeddings"][0]
    values["word_embeddings"][:8] = nearness * values["word_embeddings"][:8] - context
    table, dsn_head = prepared(values, head_values, torch.float32)
    ids = torch.arange(8).expand(8, 8).contiguous()
    logits = ops.dsn_logits_folded(ids.to(device), in_view(fold(table, dsn_head), "plain", device), backend=backend)
    exact = exact_logits({"input_ids": ids}, table, dsn_head).value
    rounding = 2.0**-23 / max(nearness, 2.0**-23)  # of w and q, relative to w + q
    torch.testing.assert_close(logits.cpu().double(), exact, rtol=0, atol=8 * rounding * exact.abs().max().item())


@pytest.mark.parametrize("pooling", POOLINGS)
@each_folded
def test_an_empty_row_gets_the_bias_and_not_beta(pooling, backend, device):
    values, head_values = parameters(20), head(20, 3, 0)
    values["ln_bias"] += 5
    folded = in_view(fold(*prepared(values, head_values, torch.float32)), "plain", device)
    logits = ops.dsn_logits_folded(**moved({"input_ids": torch.arange(5), "cu_seqlens": torch.tensor([0, 0, 5, 5])},
                                           device), folded=folded, pooling=pooling, backend=backend)
    assert torch.equal(logits[0].cpu(), head_values["bias"])
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@each_folded
def test_only_positions_that_were_folded(layout, backend, device):
    """Neither rows that pad the last tile nor positions that were left out count as positions."""
    table, dsn_head = prepared(parameters(20, num_positions=40), head(20, 3, 1), torch.float32)
    folded = in_view(fold(table, dsn_head, num_positions=17), "plain", device)
    fits = moved(tokens(layout, 3, 17), device)
    assert ops.dsn_logits_folded(**fits, folded=folded, backend=backend).shape == (3, 3)
    with pytest.raises(RuntimeError, match="row 0 has 18 tokens, the position table 17"):
        ops.dsn_logits_folded(**moved(tokens(layout, 3, 18), device), folded=folded, backend=backend)


@each_folded
def test_bad_indices(backend, device):
    folded = in_view(fold(*prepared(parameters(20), head(20, 3, 1), torch.float32), num_types=1), "plain", device)
    good = torch.zeros(2, 3, dtype=torch.int64, device=device)
    for name, value, size in (("input_ids", 83, 83), ("token_type_ids", 1, 1), ("position_ids", 8, 8)):
        arguments = {"input_ids": good, "token_type_ids": good, "position_ids": good} | {name: good.clone()}
        arguments[name][1, 2] = value
        with pytest.raises(RuntimeError, match=f"{name} holds {value} in row 1, expected 0 to {size - 1}"):
            ops.dsn_logits_folded(**arguments, folded=folded, backend=backend)


@pytest.mark.parametrize(("name", "make", "message"), [
    ("rstd", lambda t: t[..., :8], "rstd has shape"),
    ("rstd", lambda t: t[:, :, :-1], r"(rstd|word) has shape"),
    ("word", lambda t: t[:, :3], "word has shape"),
    ("context", lambda t: t[:, :8], "context has shape"),
    ("rstd", lambda t: t.double(), "rstd (is not float32|has dtype)"),
    ("bias", lambda t: t[:-1], "bias has shape"),
    ("lateral", lambda t: t[0], "lateral has shape"),
    ("top", lambda t: t[0], "top has shape"),
    ("num_positions", lambda n: 17, "num_positions is 17, expected 0 to 16"),
    ("activation", lambda a: "swish", "activation is 'swish'"),
])
@each_folded
def test_tables_that_do_not_fit(name, make, message, backend, device):
    folded = fold(*prepared(parameters(20), head(20, 3, 1), torch.float32))
    folded = in_view(folded._replace(**{name: make(getattr(folded, name))}), "plain", device)
    with pytest.raises(RuntimeError, match=message):
        ops.dsn_logits_folded(torch.zeros(2, 3, dtype=torch.int64, device=device), folded, backend=backend)


@each_folded
def test_a_nan_is_not_hidden(backend, device):
    table, dsn_head = prepared(parameters(20), head(20, 3, 1), torch.float32)
    table.word[70] = float("nan")
    ids = torch.zeros(6, 4, dtype=torch.int64)
    ids[3, 2] = 70
    logits = ops.dsn_logits_folded(ids.to(device), in_view(fold(table, dsn_head), "plain", device), backend=backend)
    assert logits.isnan().any(dim=1).tolist() == [b == 3 for b in range(6)]


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads):
    folded = fold(*prepared(parameters(64, num_positions=3000), head(64, 3, 1), torch.float32))
    ids = torch.randint(83, (40, 3000), generator=torch.Generator().manual_seed(0))
    before, rows = torch.get_num_threads(), {}
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            rows[count] = [ops.dsn_logits_folded(ids, folded), ops.dsn_logits_folded(ids[:1], folded)]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(rows[threads][0], rows[1][0])
    assert torch.equal(rows[threads][1], rows[1][0][:1])
