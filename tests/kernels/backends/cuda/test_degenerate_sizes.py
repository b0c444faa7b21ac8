"""The CUDA kernels, run on the CPU (tests/support/cuda_on_cpu), on batches without rows, tokens, labels or words, and
on rows that overlap: nothing is left unwritten, and nothing is written twice."""

from itertools import pairwise

import pytest
import torch
from cases import exact_logits, exact_pooled, head, parameters, pooled_and_gradients
from cuda_on_cpu import build
from cuda_on_cpu.assertions import (
    assert_gradients_of_overlapping_rows_are_nan,
    assert_logits,
    assert_rstd_is_finite,
    assert_token_logits,
    assert_tokens_of_several_rows_are_nan,
    assert_tokens_without_a_row_are_refused,
    count_rows,
    packed,
    row_alone,
    rows_of,
)
from cuda_on_cpu.calls import in_every_schedule, logits, once, prepared, token_logits
from helpers import assert_within_rounding
from rounding import tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.prepare import prepare_head, prepare_table
from dendritic_bert.kernels.reference import dsn_logits_ref, embed_pool_ref

pytestmark = [pytest.mark.skipif(build.missing() is not None, reason=str(build.missing())),
              pytest.mark.usefixtures("kernels_on_cpu", "outputs_start_as_nan")]
each_form = pytest.mark.parametrize("deterministic", [True, False], ids=["in the order of ids", "by atomics"])


def padded(rows: int, length: int, masked: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.arange(rows * length).view(rows, length)
    return {"input_ids": ids} | ({"attention_mask": torch.zeros_like(ids)} if masked else {})


WITHOUT_TOKENS = [padded(0, 0), padded(0, 3), padded(3, 0), padded(2, 2, masked=True), packed([0]), packed([0, 0]),
                  packed([0, 0, 0])]
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
    assert_logits(batch, table, dsn_head)
    assert_token_logits(batch, table, dsn_head)


@pytest.mark.parametrize("batch", WITHOUT_TOKENS, ids=batch_id)
@each_form
def test_an_empty_word_table(deterministic, batch):
    """The gradient has no rows, and the logits are those of an empty row. No table has the ids of masked tokens."""
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
    torch.use_deterministic_algorithms(deterministic)
    assert_tokens_without_a_row_are_refused(start, word_grad)


def random_bounds(seed: int) -> list[int]:
    inner = torch.randint(25, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [0, *inner, 24]


OVERLAPS = [[0, 60, 50, 100, 130], [0, 10, 20, 30, 5, 40], [0, 5, 0, 5, 0, 40], [0, 40, 39, 40], [0, 1, 0, 40],
            [0, 8, 8, 7, 7, 20], [0, 20, 10, 10, 20], *map(random_bounds, range(8))]


@pytest.mark.parametrize("cu_seqlens", OVERLAPS, ids=str)
@pytest.mark.parametrize(("hidden_size", "position_ids"), [(128, False), (16, True)])
def test_a_token_of_several_rows_is_nan_and_every_other_is_that_of_its_row(hidden_size, position_ids, cu_seqlens):
    assert_tokens_of_several_rows_are_nan(hidden_size, position_ids, cu_seqlens)


@pytest.mark.parametrize("hidden_size", [100, 1032])
def test_overlapping_rows_of_other_shapes(hidden_size):
    """Warps that share a row's tokens, and warps that share its channels."""
    cu_seqlens = OVERLAPS[0]
    table, dsn_head = prepared({"hidden_size": hidden_size}, 60)
    actual = token_logits(packed(cu_seqlens), table, dsn_head)
    assert actual.isnan().all(dim=1).tolist() == [num_rows > 1 for num_rows in count_rows(cu_seqlens)]


@pytest.mark.parametrize(("cu_seqlens", "num_tokens"), [
    ([0, 3, 2, 5], 5), ([3, 5, 2, 5], 5), ([2, 1, 5], 5), ([0, 3, 4, 2], 5), ([0, 9, 9], 5), ([-5, 3, -1, 7], 5),
    ([0, 2**31 - 1, 5], 5), ([4, 4], 5), ([0, 0], 5), ([5, 0], 5), ([1, 3, 5], 5), ([0, 3, 4], 5)], ids=str)
def test_tokens_of_no_row_and_of_invalid_rows_are_nan(cu_seqlens, num_tokens):
    """Every token is written, the same in every schedule; it is finite if one valid row holds it and no other row."""
    table, dsn_head = prepared({"hidden_size": 128}, 12)
    actual = token_logits(packed(cu_seqlens, num_tokens), table, dsn_head)
    assert actual.isnan().any(dim=1).equal(actual.isnan().all(dim=1))
    first, last = rows_of(cu_seqlens)[0], rows_of(cu_seqlens)[-1]
    valid = [row for row in rows_of(cu_seqlens) if row.start >= 0 and row.stop <= num_tokens
             and (row is not first or row.start == 0) and (row is not last or row.stop == num_tokens)]
    for token in range(num_tokens):
        holders = [row for row in rows_of(cu_seqlens) if token in row]
        if len(holders) != 1 or holders[0] not in valid:
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
    torch.use_deterministic_algorithms(deterministic)
    run = in_every_schedule if deterministic else once
    assert_gradients_of_overlapping_rows_are_nan(cu_seqlens, sparse_grad, run)


@pytest.mark.parametrize(("cu_seqlens", "num_finite"), [
    ([0, 3, 8, 12], 12), ([0, 2, 12], 2), ([0, 7, 3, 12], 0), ([1, 3, 12], 0)], ids=str)
def test_the_rstd_of_every_token_is_written_once(cu_seqlens, num_finite):
    """It is NaN in a row longer than the position table, and for every token if rows overlap."""
    assert_rstd_is_finite(cu_seqlens, num_finite)
