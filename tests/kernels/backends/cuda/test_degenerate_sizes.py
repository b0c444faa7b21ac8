"""The CUDA kernels, executed on the CPU (tests/support/cuda_on_cpu), on batches without rows, tokens, labels or
words, and on
rows that overlap: nothing is left unwritten, and nothing is written twice."""

from itertools import pairwise

import pytest
import torch
from cases import VOCAB_SIZE, exact_logits, exact_pooled, head, parameters, pooled_and_gradients
from cuda_on_cpu import build
from cuda_on_cpu.calls import (  # noqa: F401
    _kernels,
    _outputs_start_as_nan,
    expected_token_logits,
    in_every_schedule,
    logits,
    once,
    prepared,
    token_logits,
)
from helpers import assert_within_rounding
from rounding import tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.prepare import prepare_head, prepare_table
from dendritic_bert.kernels.reference import dsn_logits_ref, embed_pool_ref

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))
each_form = pytest.mark.parametrize("deterministic", [True, False], ids=["in the order of ids", "by atomics"])


def packed(cu_seqlens: list[int], num_tokens: int | None = None) -> dict[str, torch.Tensor]:
    num_tokens = cu_seqlens[-1] if num_tokens is None else num_tokens
    ids = torch.randint(VOCAB_SIZE, (num_tokens,), generator=torch.Generator().manual_seed(num_tokens))
    return {"input_ids": ids, "cu_seqlens": torch.tensor(cu_seqlens)}


def padded(rows: int, length: int, masked: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.arange(rows * length).view(rows, length)
    return {"input_ids": ids} | ({"attention_mask": torch.zeros_like(ids)} if masked else {})


WITHOUT_TOKENS = [padded(0, 0), padded(0, 3), padded(3, 0), padded(2, 2, masked=True), packed([0]), packed([0, 0]),
                  packed([0, 0, 0])]
# Where word tables may be empty: under a mask an id is looked up in the reference.
BATCHES = [*WITHOUT_TOKENS, padded(1, 1), packed([0, 1]), packed([0, 0, 2]), packed([0, 2, 2])]
batch_id = lambda batch: "-".join(f"{name} {list(value.shape)}" for name, value in batch.items())  # noqa: E731


@pytest.mark.parametrize("batch", BATCHES, ids=batch_id)
@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("trained", [True, False], ids=["words trained", "words frozen"])
@each_form
def test_training_on_next_to_nothing(deterministic, trained, sparse_grad, batch):
    torch.use_deterministic_algorithms(deterministic)
    values = parameters(16)
    frozen = {} if trained else {"word_embeddings": values.pop("word_embeddings")}
    options = {"p_embed": 0.2, "p_pool": 0.1, "seed": torch.tensor(3)}
    actual = (in_every_schedule if deterministic else once)(lambda: pooled_and_gradients(
        ops.embed_pool, values, **frozen, **batch, **options, sparse_grad=sparse_grad, backend="cuda"))
    eager = pooled_and_gradients(embed_pool_ref, values, **frozen, **batch, **options)
    exact = pooled_and_gradients(exact_pooled, tracked(values), **tracked(frozen), **batch, **options)
    for name in actual:
        assert_within_rounding(actual[name].to_dense(), eager[name], exact[name])


@pytest.mark.parametrize("batch", BATCHES, ids=batch_id)
@pytest.mark.parametrize(("num_labels", "num_dendrites"), [(0, 0), (0, 2), (2, 0), (2, 2)])
def test_inference_on_next_to_nothing(num_labels, num_dendrites, batch):
    table, dsn_head = prepared({"hidden_size": 16, "num_labels": num_labels, "num_dendrites": num_dendrites}, 3)
    assert_within_rounding(logits(batch, table, dsn_head), dsn_logits_ref(**batch, table=table, head=dsn_head),
                           exact_logits(batch, table, dsn_head))
    assert_within_rounding(token_logits(batch, table, dsn_head), *expected_token_logits(batch, table, dsn_head))


@pytest.mark.parametrize("batch", WITHOUT_TOKENS, ids=batch_id)
@each_form
def test_an_empty_word_table(deterministic, batch):
    """Gradients of no rows; logits that are the head's of an empty row. A token whose mask hides it is in no table."""
    torch.use_deterministic_algorithms(deterministic)
    values = parameters(16) | {"word_embeddings": torch.zeros(0, 16)}
    num_rows = batch["cu_seqlens"].numel() - 1 if "cu_seqlens" in batch else batch["input_ids"].shape[0]
    results = pooled_and_gradients(ops.embed_pool, values, **batch, backend="cuda")
    assert results.pop("pooled").equal(torch.zeros(num_rows, 16))
    for name, gradient in results.items():
        assert gradient.equal(torch.zeros_like(values[name]))
    *tables, ln_weight, ln_bias = values.values()
    dsn_head = prepare_head(ln_weight, ln_bias, **head(16, 2, 1))
    full = prepared({"hidden_size": 16}, 8)[0]
    actual = logits(batch, prepare_table(*tables), dsn_head)
    assert actual.equal(logits(batch, full, dsn_head))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("word_grad", [0, 1, 2], ids=["no word gradient", "dense", "sparse"])
@pytest.mark.parametrize("start", [0, 5])
def test_tokens_without_a_row_are_refused_before_anything_is_launched(start, word_grad, deterministic):
    """Every op of the extension, the backward's own included: what a user would be told of is the forward."""
    torch.use_deterministic_algorithms(deterministic)
    batch = {"input_ids": torch.arange(5), "cu_seqlens": torch.tensor([start])}
    message = r"^cu_seqlens has shape \[1\], no row, beside 5 input_ids: pass the end of each row too\.$"
    table, dsn_head = prepared({"hidden_size": 16}, 8)
    values = parameters(16)
    for call in (lambda: ops.dsn_logits(**batch, table=table, head=dsn_head, backend="cuda"),
                 lambda: ops.dsn_token_logits(**batch, table=table, head=dsn_head, backend="cuda"),
                 lambda: ops.embed_pool(**batch, **values, backend="cuda"),
                 lambda: torch.ops.dendritic_bert.embed_pool_backward_cuda(
                     torch.zeros(0, 16), torch.zeros(0, 16), torch.zeros(5), batch["input_ids"], *values.values(), None,
                     batch["cu_seqlens"], None, None, 1e-12, 0, 0.0, 0.0, None, word_grad)):
        with pytest.raises(RuntimeError, match=message):
            call()


def random_bounds(seed: int) -> list[int]:
    inner = torch.randint(25, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [0, *inner, 24]


OVERLAPS = [[0, 60, 50, 100, 130], [0, 10, 20, 30, 5, 40], [0, 5, 0, 5, 0, 40], [0, 40, 39, 40], [0, 1, 0, 40],
            [0, 8, 8, 7, 7, 20], [0, 20, 10, 10, 20], *map(random_bounds, range(8))]


def rows_of(cu_seqlens: list[int]) -> list[range]:
    return [range(begin, end) for begin, end in pairwise(cu_seqlens)]


def claims(cu_seqlens: list[int]) -> list[int]:
    """How many rows hold each token."""
    return [sum(token in row for row in rows_of(cu_seqlens)) for token in range(cu_seqlens[-1])]


def row_alone(batch: dict[str, torch.Tensor], row: range) -> dict[str, torch.Tensor]:
    return {name: value[row.start:row.stop] for name, value in batch.items() if name != "cu_seqlens"} | {
        "cu_seqlens": torch.tensor([0, len(row)])}


@pytest.mark.parametrize("cu_seqlens", OVERLAPS, ids=str)
@pytest.mark.parametrize(("hidden_size", "position_ids"), [(128, False), (16, True)])
def test_a_token_that_several_rows_claim_is_nan_and_every_other_is_its_row_s(hidden_size, position_ids, cu_seqlens):
    batch = packed(cu_seqlens)
    if position_ids:
        batch["position_ids"] = torch.arange(cu_seqlens[-1]) % 7
    table, dsn_head = prepared({"hidden_size": hidden_size}, max(cu_seqlens))
    actual = token_logits(batch, table, dsn_head)
    several = torch.tensor(claims(cu_seqlens)) > 1
    assert several.any()
    assert actual.isnan().all(dim=1).equal(several)
    assert actual.isnan().any(dim=1).equal(several)
    for row in filter(len, rows_of(cu_seqlens)):
        alone = ~several[row.start:row.stop]
        eager, exact = expected_token_logits(row_alone(batch, row), table, dsn_head)
        assert_within_rounding(actual[row.start:row.stop][alone], eager[alone], exact[alone])


@pytest.mark.parametrize("hidden_size", [100, 1032])
def test_overlapping_rows_of_other_shapes(hidden_size):
    """Warps that share a row's tokens, and warps that share its channels."""
    cu_seqlens = OVERLAPS[0]
    table, dsn_head = prepared({"hidden_size": hidden_size}, 60)
    actual = token_logits(packed(cu_seqlens), table, dsn_head)
    assert actual.isnan().all(dim=1).tolist() == [claimed > 1 for claimed in claims(cu_seqlens)]


@pytest.mark.parametrize(("cu_seqlens", "num_tokens"), [
    ([0, 3, 2, 5], 5), ([3, 5, 2, 5], 5), ([2, 1, 5], 5), ([0, 3, 4, 2], 5), ([0, 9, 9], 5), ([-5, 3, -1, 7], 5),
    ([0, 2**31 - 1, 5], 5), ([4, 4], 5), ([0, 0], 5), ([5, 0], 5), ([1, 3, 5], 5), ([0, 3, 4], 5)], ids=str)
def test_tokens_of_no_row_and_of_rows_that_do_not_fit_are_nan(cu_seqlens, num_tokens):
    """Every token is written, the same in every schedule; finite where exactly one row that fits holds it."""
    table, dsn_head = prepared({"hidden_size": 128}, 12)
    actual = token_logits(packed(cu_seqlens, num_tokens), table, dsn_head)
    assert actual.isnan().any(dim=1).equal(actual.isnan().all(dim=1))
    first, last = rows_of(cu_seqlens)[0], rows_of(cu_seqlens)[-1]
    fit = [row for row in rows_of(cu_seqlens) if row.start >= 0 and row.stop <= num_tokens
           and (row is not first or row.start == 0) and (row is not last or row.stop == num_tokens)]
    for token in range(num_tokens):
        holders = [row for row in rows_of(cu_seqlens) if token in row]
        if len(holders) != 1 or holders[0] not in fit:
            assert actual[token].isnan().all()
    if cu_seqlens in ([1, 3, 5], [0, 3, 4], [0, 3, 2, 5]):
        assert actual.isnan().any(dim=1).sum() == {1: 3, 4: 2, 5: 1}[cu_seqlens[0] or cu_seqlens[-1]]


@pytest.mark.parametrize("cu_seqlens", OVERLAPS, ids=str)
def test_pooled_results_of_overlapping_rows(cu_seqlens):
    """A token is read by every row that holds it; a row that ends before it starts is NaN, and the others are right."""
    batch, values = packed(cu_seqlens), parameters(16, num_positions=max(cu_seqlens))
    table, dsn_head = prepared({"hidden_size": 16}, max(cu_seqlens))
    results = in_every_schedule(lambda: {
        "logits": ops.dsn_logits(**batch, table=table, head=dsn_head, backend="cuda"),
        "pooled": ops.embed_pool(**batch, **values, backend="cuda")})
    for result in results.values():
        for (begin, end), actual in zip(pairwise(cu_seqlens), result):
            assert actual.isnan().all() == actual.isnan().any() == (begin > end)
    for number, row in enumerate(rows_of(cu_seqlens)):
        if row.start > row.stop:
            continue
        alone, this = row_alone(batch, row), slice(number, number + 1)
        assert_within_rounding(results["logits"][this], dsn_logits_ref(**alone, table=table, head=dsn_head),
                               exact_logits(alone, table, dsn_head))
        assert_within_rounding(results["pooled"][this], embed_pool_ref(**alone, **values),
                               exact_pooled(**alone, **tracked(values)))


@pytest.mark.parametrize("cu_seqlens", OVERLAPS, ids=str)
@pytest.mark.parametrize("sparse_grad", [False, True])
@each_form
def test_gradients_of_overlapping_rows_are_nan(deterministic, sparse_grad, cu_seqlens):
    """Wherever a token has a share, as in Triton's backward; no id that is in no row has one."""
    torch.use_deterministic_algorithms(deterministic)
    batch, values = packed(cu_seqlens), parameters(16, num_positions=max(cu_seqlens))
    batch["input_ids"] %= VOCAB_SIZE - 1
    results = (in_every_schedule if deterministic else once)(lambda: pooled_and_gradients(
        ops.embed_pool, values, **batch, sparse_grad=sparse_grad, backend="cuda"))
    d_word = results["word_embeddings"].to_dense()
    assert d_word.isnan().any(dim=1).equal(d_word.isnan().all(dim=1))
    assert d_word[batch["input_ids"].unique()].isnan().all()
    assert d_word[-1].eq(0).all()
    assert results["ln_weight"].isnan().all()
    assert results["ln_bias"].isnan().all()


@pytest.mark.parametrize(("cu_seqlens", "expected"), [
    ([0, 3, 8, 12], "finite"), ([0, 2, 12], "NaN from 2 on"), ([0, 7, 3, 12], "NaN"), ([1, 3, 12], "NaN")], ids=str)
def test_the_rstd_of_every_token_is_written_once(cu_seqlens, expected):
    """Of a row that is longer than the position table, or where rows overlap, it is NaN."""
    batch, values = packed(cu_seqlens), parameters(16)
    rstd = in_every_schedule(lambda: {"rstd": torch.ops.dendritic_bert.embed_pool_cuda(
        batch["input_ids"], *values.values(), None, batch["cu_seqlens"], None, None, 1e-12, 0, 0.0, 0.0, None, 0)[2]})
    good = {"finite": 12, "NaN from 2 on": 2, "NaN": 0}[expected]
    assert rstd["rstd"].isfinite().tolist() == [token < good for token in range(12)]
