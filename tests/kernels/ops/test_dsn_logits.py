"""dsn_logits on every backend: against the float64 run on the same prepared tables, and against the plain contract."""

import pytest
import torch
from cases import (
    LAYOUTS,
    awkward,
    case_id,
    covering_sample,
    exact_logits,
    head,
    in_float64,
    logits_by_parameters,
    moved,
    parameters,
    tokens,
)
from dsn_workload import AXES, in_view, prepared, workload
from helpers import BACKENDS, assert_within_rounding, each_backend, serving
from rounding import Rounded, rounded_to, tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS, DsnHead, DsnTable
from dendritic_bert.kernels.prepare import prepare_head, prepare_table
from dendritic_bert.kernels.reference import dsn_logits_ref, token_places


def with_results(case: dict) -> tuple:
    """A case, the arguments that it stands for, and the results by torch's own ops and in float64, which are those of
    every backend."""
    token_arguments, values, head_values = workload(case)
    table, dsn_head = prepared(values, head_values, case["dtype"], case["activation"])
    return (case, token_arguments, table, dsn_head,
            dsn_logits_ref(**token_arguments, table=table, head=dsn_head, pooling=case["pooling"]),
            exact_logits(token_arguments, table, dsn_head, case["pooling"]))


@pytest.fixture(scope="module", params=covering_sample(AXES, 140), ids=case_id)
def case_with_results(request) -> tuple:
    return with_results(request.param)


@each_backend
def test_logits(case_with_results, backend, device):
    assert_logits(*case_with_results, backend, device)


@pytest.mark.parametrize("case", covering_sample(AXES | {"dtype": [torch.float8_e4m3fn]}, 30, seed=2), ids=case_id)
@pytest.mark.parametrize(("backend", "device"), serving("dsn_logits", torch.float8_e4m3fn))
def test_logits_from_a_float8_table(case, backend, device):
    assert_logits(*with_results(case), backend, device)


def assert_logits(case, token_arguments, table, dsn_head, eager, exact, backend, device):
    token_views = {name: awkward(value.to(device), case["view"]) for name, value in token_arguments.items()}
    logits = ops.dsn_logits(**token_views, table=in_view(table, case["view"], device), pooling=case["pooling"],
                            head=in_view(dsn_head, case["view"], device), backend=backend)
    assert logits.dtype == torch.float32
    assert_within_rounding(logits, eager, exact)


@pytest.fixture(scope="module", ids=case_id, params=covering_sample(
    AXES | {"dtype": [torch.float32, torch.bfloat16, torch.float16]}, 60, seed=1))
def case_of_parameters(request) -> tuple:
    """A case with its arguments, and the results of the plain contract on the parameters."""
    case = request.param
    token_arguments, values, head_values = workload(case)
    values = {name: value.to(case["dtype"]) for name, value in values.items()}
    options = {"activation": case["activation"], "pooling": case["pooling"]}
    exact_values = tracked(values) | {"word_embeddings": rounded_words(values["word_embeddings"], token_arguments)}
    return (token_arguments, *prepared(values, head_values, case["dtype"], case["activation"]), case["pooling"],
            logits_by_parameters(token_arguments, values, head_values, **options),
            logits_by_parameters(token_arguments, exact_values, tracked(head_values), **options))


@each_backend
def test_the_whole_way_from_the_parameters(case_of_parameters, backend, device):
    """With centring, folding and the rounding of the table."""
    token_arguments, table, dsn_head, pooling, eager, exact = case_of_parameters
    logits = ops.dsn_logits(**moved(token_arguments, device), table=in_view(table, "plain", device),
                            head=in_view(dsn_head, "plain", device), pooling=pooling, backend=backend)
    assert_within_rounding(logits, eager, exact)


def rounded_words(words: torch.Tensor, token_arguments: dict) -> Rounded:
    """Word rows that are rounded to their dtype once they are centred. Where an id occurs several times in a row, its
    errors are the same, so that they add up and do not cancel."""
    input_ids, cu_seqlens = token_arguments["input_ids"].long(), token_arguments.get("cu_seqlens")
    row, _ = token_places(input_ids, cu_seqlens)
    occurs = torch.nn.functional.one_hot(input_ids.flatten(), len(words))
    rows = 1 + len(input_ids if cu_seqlens is None else cu_seqlens)
    by_row = occurs.new_zeros(rows, len(words)).index_add(0, row.flatten(), occurs)
    centred = words.double() - words.double().mean(dim=1, keepdim=True)
    return Rounded(words.double(), rounded_to(words.dtype, centred).squares * by_row.amax(dim=0)[:, None])


@pytest.mark.parametrize("hidden_size", [16, 100, 128, 768])
@pytest.mark.parametrize("offset", [1e2, 1e4])
@each_backend
def test_a_common_offset_cancels_before_it_is_rounded(offset, hidden_size, backend, device):
    """Rows are centred in float64, so that nothing is left of an offset, however large."""
    token_arguments, head_values = tokens("padded", 5, 40), head(hidden_size, 3, 2)
    values = parameters(hidden_size, offset=offset, num_positions=43)
    table, dsn_head = prepared(values, head_values, torch.float32)
    logits = ops.dsn_logits(**moved(token_arguments, device), table=in_view(table, "plain", device),
                            head=in_view(dsn_head, "plain", device), backend=backend)
    exact = logits_by_parameters(token_arguments, in_float64(values), in_float64(head_values), "sigmoid", "mean_masked")
    torch.testing.assert_close(logits.cpu().double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float64_is_served_by_the_reference(layout, pooling):
    """Also where kernels are available; a backend that is requested by name refuses it."""
    token_arguments, values, head_values = tokens(layout, 5, 8), in_float64(parameters(20)), in_float64(head(20, 3, 2))
    table = prepare_table(*list(values.values())[:3], dtype=torch.float64)
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head_values, dtype=torch.float64)
    logits = ops.dsn_logits(**token_arguments, table=table, head=dsn_head, pooling=pooling)
    assert logits.dtype == torch.float64
    expected = logits_by_parameters(token_arguments, values, head_values, "sigmoid", pooling)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    if ("cpu", "cpu") in BACKENDS:
        with pytest.raises(RuntimeError, match=r"the word table is torch\.float64, the cpu backend reads"):
            ops.dsn_logits(**token_arguments, table=table, head=dsn_head, backend="cpu")


@pytest.mark.parametrize("pooling", POOLINGS)
@each_backend
def test_an_empty_row_gets_the_bias_and_not_beta(pooling, backend, device):
    values, head_values = parameters(20), head(20, 3, 2)
    values["ln_bias"] += 5
    table, dsn_head = prepared(values, head_values, torch.float32)
    token_arguments = {"input_ids": torch.arange(5), "cu_seqlens": torch.tensor([0, 0, 5, 5])}
    logits = ops.dsn_logits(**moved(token_arguments, device), table=in_view(table, "plain", device),
                            head=in_view(dsn_head, "plain", device), pooling=pooling, backend=backend)
    expected = logits_by_parameters(token_arguments, in_float64(values), in_float64(head_values), "sigmoid", pooling)
    torch.testing.assert_close(logits.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rows", "length"), [(0, 5), (3, 0), (0, 0)])
@each_backend
def test_no_token_at_all(rows, length, layout, backend, device):
    table, dsn_head = prepared(parameters(20), head(20, 3, 1), torch.float32)
    logits = ops.dsn_logits(**moved(tokens(layout, rows, length), device), table=in_view(table, "plain", device),
                            head=in_view(dsn_head, "plain", device), backend=backend)
    assert logits.shape == (rows, 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@each_backend
def test_activations_at_their_ends(activation, backend, device):
    """At arguments where exp overflows, where the functions are flat, and around 0. The head's weights are 0, so that
    its bias is the argument."""
    z = torch.tensor([-1e30, -200.0, -20.0, -3.0, -1e-3, -0.0, 1e-30, 1e-3, 3.0, 20.0, 200.0, 1e30])
    count = z.numel()
    dsn_head = DsnHead(torch.zeros(2 * count, 16), torch.cat([torch.zeros(count), z]), torch.zeros(2 * count),
                       torch.zeros(1, 1, count), torch.ones(1, count), activation)
    table, _ = prepared(parameters(16), head(16, 1, 0), torch.float32)
    logits = ops.dsn_logits(torch.zeros(1, 1, dtype=torch.int64, device=device), in_view(table, "plain", device),
                            in_view(dsn_head, "plain", device), backend=backend)
    expected = ACTIVATIONS[activation](z.double())
    torch.testing.assert_close(logits[0].cpu().double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@each_backend
def test_a_nan_is_not_hidden(activation, backend, device):
    """A NaN in one id's row of the table reaches, through every activation, the logits of the rows with that id and no
    others."""
    table, dsn_head = prepared(parameters(20), head(20, 3, 1), torch.float32, activation)
    table.word[70] = float("nan")
    token_arguments = moved(tokens("padded without a mask", 6, 4), device)
    token_arguments["input_ids"].clamp_(max=69)[3, 2] = 70
    logits = ops.dsn_logits(**token_arguments, table=in_view(table, "plain", device),
                            head=in_view(dsn_head, "plain", device), backend=backend)
    assert logits.isnan().all(dim=1).tolist() == [b == 3 for b in range(6)]
    assert logits.isnan().any(dim=1).tolist() == [b == 3 for b in range(6)]


@each_backend
def test_a_nan_behind_a_row_reaches_no_logit(backend, device):
    """The context of a column beyond the valid tokens may be NaN, as in a model that has diverged there."""
    table, dsn_head = prepared(parameters(20), head(20, 3, 1), torch.float32)
    table.context[:, 3:] = float("nan")
    token_arguments = tokens("padded without a mask", 6, 5) | {"attention_mask": torch.ones(6, 5, dtype=torch.int64)}
    token_arguments["attention_mask"][:, 3:] = 0
    token_arguments["attention_mask"][4, 3] = 1
    logits = ops.dsn_logits(**moved(token_arguments, device), table=in_view(table, "plain", device),
                            head=in_view(dsn_head, "plain", device), backend=backend)
    assert logits.isnan().any(dim=1).tolist() == [b == 4 for b in range(6)]


@each_backend
def test_only_the_lower_triangle_of_lateral_is_read(backend, device):
    table, dsn_head = prepared(parameters(20), head(20, 3, 4), torch.float32)
    unread = torch.ones(4, 4).triu().bool()[:, :, None].expand(4, 4, 3)
    with_nan = dsn_head._replace(lateral=dsn_head.lateral.masked_fill(unread, float("nan")))
    token_arguments = moved(tokens("padded", 3, 5), device)
    expected, actual = (ops.dsn_logits(**token_arguments, table=in_view(table, "plain", device),
                                       head=in_view(one, "plain", device), backend=backend)
                        for one in (dsn_head, with_nan))
    assert torch.equal(actual, expected)


@each_backend
def test_offsets_beyond_two_to_the_31(backend, device):
    """The last row of an int8 table starts 2^31 bytes after the first. Only the rows that are used take up memory."""
    vocab_size, hidden_size = 2**21 + 8, 1024
    try:
        word = torch.empty(vocab_size, hidden_size, dtype=torch.int8, device=device)
    except RuntimeError as error:
        pytest.skip(f"no 2.1 GB of address space: {error}")
    table, dsn_head = prepared(parameters(hidden_size), head(hidden_size, 2, 1), torch.int8)
    table, dsn_head = in_view(table, "plain", device), in_view(dsn_head, "plain", device)
    used = torch.tensor([0, 5, 2**20 + 1, 2**21 + 7], device=device)
    scale = torch.ones(vocab_size, device=device)
    word[used], scale[used] = table.word[:4], table.word_scale[:4]
    ids = torch.tensor([[0, 1, 2], [3, 3, 1]], device=device)
    large = ops.dsn_logits(used[ids], DsnTable(word, scale, table.context, table.eps), dsn_head, backend=backend)
    assert torch.equal(large, ops.dsn_logits(ids, table, dsn_head, backend=backend))
