"""What the CUDA kernels must compute, case by case: called by their tests, and by verdicts.py for each seeded bug."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from cases import VOCAB_SIZE, exact_logits, exact_pooled, parameters, pooled_and_gradients, tokens
from cuda_on_cpu import as_backend
from cuda_on_cpu.calls import (
    SEED,
    expected_token_logits,
    in_every_schedule,
    in_view,
    logits,
    once,
    prepared,
    token_arguments_of,
    token_logits,
)
from helpers import assert_within_rounding
from rounding import tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import DsnHead, DsnTable
from dendritic_bert.kernels.reference import dsn_logits_ref, embed_pool_ref

Batch = dict[str, torch.Tensor]


def assert_logits(arguments: Batch, table: DsnTable, dsn_head: DsnHead, pooling: str = "mean_masked",
                  view: str = "plain") -> None:
    actual = logits(*(in_view(values, view) for values in (arguments, table, dsn_head)), pooling)
    eager = dsn_logits_ref(**arguments, table=table, head=dsn_head, pooling=pooling)
    assert_within_rounding(actual, eager, exact_logits(arguments, table, dsn_head, pooling))


def assert_token_logits(arguments: Batch, table: DsnTable, dsn_head: DsnHead, view: str = "plain") -> None:
    actual = token_logits(*(in_view(values, view) for values in (arguments, table, dsn_head)))
    assert_within_rounding(actual, *expected_token_logits(arguments, table, dsn_head))
    if "attention_mask" in arguments:
        assert not actual[arguments["attention_mask"] == 0].any()


def assert_logits_of_case(case: dict) -> None:
    assert_logits(token_arguments_of(case), *prepared(case, case["length"] + 3), case["pooling"], case["view"])


def assert_token_logits_of_case(case: dict) -> None:
    assert_token_logits(token_arguments_of(case, 2**15), *prepared(case, case["length"] + 3), case["view"])


def assert_gradients(case: dict, run: Callable = in_every_schedule, arguments: Batch | None = None) -> None:
    """The pooled rows and the gradients of every parameter."""
    arguments = token_arguments_of(case, 2**15) if arguments is None else arguments
    values = parameters(case["hidden_size"], case["dtype"], num_positions=case["length"] + 3,
                        num_types=case["num_types"])
    p_embed, p_pool = case["dropout"]
    options = {"pooling": case["pooling"], "eps": case["eps"], "p_embed": p_embed, "p_pool": p_pool}
    views = in_view(values, case["view"]), in_view(arguments, case["view"])
    actual = run(lambda: pooled_and_gradients(ops.embed_pool, views[0], **views[1], **options, seed=SEED,
                                              sparse_grad=case["sparse_grad"], backend="cuda"))
    options["seed"] = torch.tensor(SEED)
    eager = pooled_and_gradients(embed_pool_ref, values, **arguments, **options)
    exact = pooled_and_gradients(exact_pooled, tracked(values), **arguments, **options)
    for name in actual:
        assert_within_rounding(actual[name].to_dense(), eager[name], exact[name])


def assert_split_rows(longest: int, hidden_size: int) -> None:
    """One row far longer than the others; one is empty."""
    cu_seqlens = torch.tensor([0, 5, longest, 0, 1, 300]).cumsum(0)
    input_ids = torch.randint(VOCAB_SIZE, (int(cu_seqlens[-1]),), generator=torch.Generator().manual_seed(1))
    assert_logits({"input_ids": input_ids, "cu_seqlens": cu_seqlens}, *prepared({"hidden_size": hidden_size}, longest))


def assert_short_rows(layout: str, hidden_size: int) -> None:
    """Rows that share a block; the last block has rows for three of its four warps."""
    assert_logits(tokens(layout, 2051, 5, token_types=True), *prepared({"hidden_size": hidden_size}, 5))


def assert_gradients_of_short_rows(layout: str) -> None:
    assert_gradients({"hidden_size": 16, "dtype": torch.float32, "length": 2, "num_types": 2, "dropout": (0.2, 0.1),
                      "pooling": "mean_masked", "eps": 1e-5, "view": "plain", "sparse_grad": False},
                     once if as_backend.WATCHED else in_every_schedule, tokens(layout, 2051, 2, token_types=True))


def assert_many_labels(hidden_size: int, num_labels: int) -> None:
    arguments = tokens("padded with holes", 2, 3)
    table, dsn_head = prepared({"hidden_size": hidden_size, "num_labels": num_labels, "num_dendrites": 1}, 3)
    assert_logits(arguments, table, dsn_head)
    assert_token_logits(arguments, table, dsn_head)


def shift(tensor: torch.Tensor, num_bytes: int) -> torch.Tensor:
    """The same values ``num_bytes`` behind an address that is a multiple of 64."""
    around = torch.zeros(tensor.numel() + 16, dtype=tensor.dtype)
    assert around.data_ptr() % 64 == 0
    first = num_bytes // tensor.element_size()
    return around[first:first + tensor.numel()].view(tensor.shape).copy_(tensor)


def assert_one_misaligned_argument(dtype: torch.dtype, num_bytes: int, name: str) -> None:
    """``name`` is what 16-byte loads cannot serve; the other arguments are aligned."""
    arguments = tokens("padded", 3, 5, token_types=True)
    table, dsn_head = prepared({"hidden_size": 128, "dtype": dtype}, 5)
    if name == "weight":
        dsn_head = dsn_head._replace(weight=shift(dsn_head.weight, num_bytes))
    else:
        table = table._replace(**{name: shift(getattr(table, name), num_bytes)})
    assert_logits(arguments, table, dsn_head)
    assert_token_logits(arguments, table, dsn_head)


def assert_a_bad_index_makes_its_row_nan_and_no_other(name: str, value: int, layout: str, hidden_size: int) -> None:
    arguments = tokens(layout, 7, 9, token_types=True, positions=True)
    arguments[name][3 if "cu_seqlens" in arguments else (0, 3)] = value
    table, dsn_head = prepared({"hidden_size": hidden_size}, 12)
    actual = logits(arguments, table, dsn_head)
    assert actual.isnan().any(dim=1).tolist() == [row == 0 for row in range(7)]
    assert actual.isnan().all(dim=1).tolist() == [row == 0 for row in range(7)]
    values = parameters(hidden_size, num_positions=12)
    pooled = in_every_schedule(lambda: pooled_and_gradients(ops.embed_pool, values, **arguments, backend="cuda"))
    assert pooled["pooled"].isnan().all(dim=1).tolist() == [row == 0 for row in range(7)]
    assert pooled["pooled"].isnan().any(dim=1).tolist() == [row == 0 for row in range(7)]


def packed(cu_seqlens: list[int], num_tokens: int | None = None) -> Batch:
    num_tokens = cu_seqlens[-1] if num_tokens is None else num_tokens
    ids = torch.randint(VOCAB_SIZE, (num_tokens,), generator=torch.Generator().manual_seed(num_tokens))
    return {"input_ids": ids, "cu_seqlens": torch.tensor(cu_seqlens)}


def rows_of(cu_seqlens: list[int]) -> list[range]:
    return [range(begin, end) for begin, end in pairwise(cu_seqlens)]


def count_rows(cu_seqlens: list[int]) -> list[int]:
    """For each token, the number of rows that hold it."""
    return [sum(token in row for row in rows_of(cu_seqlens)) for token in range(cu_seqlens[-1])]


def row_alone(batch: Batch, row: range) -> Batch:
    return {name: value[row.start:row.stop] for name, value in batch.items() if name != "cu_seqlens"} | {
        "cu_seqlens": torch.tensor([0, len(row)])}


def assert_tokens_of_several_rows_are_nan(hidden_size: int, position_ids: bool, cu_seqlens: list[int]) -> None:
    """And every other token is that of its row."""
    batch = packed(cu_seqlens)
    if position_ids:
        batch["position_ids"] = torch.arange(cu_seqlens[-1]) % 7
    table, dsn_head = prepared({"hidden_size": hidden_size}, max(cu_seqlens))
    actual = token_logits(batch, table, dsn_head)
    several = torch.tensor(count_rows(cu_seqlens)) > 1
    assert several.any()
    assert actual.isnan().all(dim=1).equal(several)
    assert actual.isnan().any(dim=1).equal(several)
    for row in filter(len, rows_of(cu_seqlens)):
        alone = ~several[row.start:row.stop]
        eager, exact = expected_token_logits(row_alone(batch, row), table, dsn_head)
        assert_within_rounding(actual[row.start:row.stop][alone], eager[alone], exact[alone])


def assert_gradients_of_overlapping_rows_are_nan(cu_seqlens: list[int], sparse_grad: bool,
                                                 run: Callable = in_every_schedule) -> None:
    """Wherever a token has a share, as in Triton's backward pass; an id that no row holds has none."""
    batch, values = packed(cu_seqlens), parameters(16, num_positions=max(cu_seqlens))
    batch["input_ids"] %= VOCAB_SIZE - 1
    results = run(lambda: pooled_and_gradients(
        ops.embed_pool, values, **batch, sparse_grad=sparse_grad, backend="cuda"))
    d_word = results["word_embeddings"].to_dense()
    assert d_word.isnan().any(dim=1).equal(d_word.isnan().all(dim=1))
    assert d_word[batch["input_ids"].unique()].isnan().all()
    assert d_word[-1].eq(0).all()
    assert results["ln_weight"].isnan().all()
    assert results["ln_bias"].isnan().all()


def assert_rstd_is_finite(cu_seqlens: list[int], num_finite: int) -> None:
    """That of the first ``num_finite`` of the twelve tokens; that of the others is NaN, and each is written once."""
    batch, values = packed(cu_seqlens), parameters(16)
    rstd = in_every_schedule(lambda: {"rstd": torch.ops.dendritic_bert.embed_pool_cuda(
        batch["input_ids"], *values.values(), None, batch["cu_seqlens"], None, None, 1e-12, 0, 0.0, 0.0, None, 0)[2]})
    assert rstd["rstd"].isfinite().tolist() == [token < num_finite for token in range(12)]


def assert_tokens_without_a_row_are_refused(start: int, word_grad: int) -> None:
    """By every op of the extension, before anything is launched; the backward is called itself, since a user would be
    told by the forward."""
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
