"""The forward kernels of Triton, interpreted on a CPU, against the float64 reference.

Run by tests/kernels/backends/triton/test_forward.py. Torch fills memory that nobody has written with NaN here, so that
an output element that is left out is seen.
"""

from itertools import pairwise

import pytest
import quick_interpreter
import torch
import triton
import triton.language as tl
from cases import (
    LAYOUTS,
    awkward,
    case_id,
    covering_sample,
    exact_logits,
    exact_pooled,
    exact_token_logits,
    head,
    parameters,
    tokens,
)
from dsn_workload import AXES, in_view, prepared
from embed_workload import AXES as EMBED_AXES
from embed_workload import SEED
from helpers import assert_within_rounding
from interpreted_workload import SIZES, workload
from philox_vectors import KNOWN_ANSWERS
from rounding import tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.arguments import bounds_of
from dendritic_bert.kernels.backends.triton.configs import Config
from dendritic_bert.kernels.backends.triton.tokens import cu_seqlens_is_valid
from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS, TABLE_DTYPES, DsnHead, DsnTable
from dendritic_bert.kernels.reference import dsn_logits_ref, dsn_token_logits_ref, embed_pool_ref

CASES = AXES | SIZES | {"dtype": list(TABLE_DTYPES), "num_labels": [1, 2, 3, 9, 256],
                        "num_dendrites": [0, 1, 2, 3, 4, 8]}


@pytest.fixture(autouse=True)
def _unwritten_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def logits(op: str, token_arguments: dict, table: DsnTable, dsn_head: DsnHead, view: str = "plain", **options):
    views = {name: awkward(value, view) for name, value in token_arguments.items()}
    return getattr(ops, op)(**views, table=in_view(table, view, "cpu"), head=in_view(dsn_head, view, "cpu"),
                            backend="triton", **options)


@pytest.mark.parametrize("case", covering_sample(CASES, 60, seed=4), ids=case_id)
def test_logits(case, monkeypatch):
    token_arguments, values, head_values = workload(case, monkeypatch, 2**20)
    table, dsn_head = prepared(values, head_values, case["dtype"], case["activation"])
    options = {"pooling": case["pooling"]}
    actual = logits("dsn_logits", token_arguments, table, dsn_head, case["view"], **options)
    assert actual.dtype == torch.float32
    eager = dsn_logits_ref(**token_arguments, table=table, head=dsn_head, **options)
    exact = exact_logits(token_arguments, table, dsn_head, **options)
    assert_within_rounding(actual, eager, exact)


@pytest.mark.parametrize("case", covering_sample(CASES, 25, seed=5), ids=case_id)
def test_token_logits(case, monkeypatch):
    token_arguments, values, head_values = workload(case, monkeypatch, 2**17)
    table, dsn_head = prepared(values, head_values, case["dtype"], case["activation"])
    actual = logits("dsn_token_logits", token_arguments, table, dsn_head, case["view"])
    eager = dsn_token_logits_ref(**token_arguments, table=table, head=dsn_head)
    exact = exact_token_logits(token_arguments, table, dsn_head)
    assert_within_rounding(actual, eager, exact)


@pytest.mark.parametrize("case", covering_sample(EMBED_AXES | SIZES, 40, seed=6), ids=case_id)
def test_embed_pool(case, monkeypatch):
    token_arguments, values, _ = workload(case, monkeypatch, 2**18)
    values = {name: value.to(case["dtype"]) for name, value in values.items()}
    options = {"pooling": case["pooling"], "eps": case["eps"], "p_embed": case["dropout"][0],
               "p_pool": case["dropout"][1]}
    views = {name: awkward(value, case["view"]) for name, value in (token_arguments | values).items()}
    actual = ops.embed_pool(**views, **options, seed=SEED, backend="triton")
    options["seed"] = torch.tensor(SEED)
    eager = embed_pool_ref(**token_arguments, **values, **options)
    assert_within_rounding(actual, eager, exact_pooled(**token_arguments, **tracked(values), **options))


CONFIGS = sorted({line.config for line in configs.TABLE} | {Config(1, 4, split_columns=4), Config(8, 2, head_tile=64)})


@pytest.mark.parametrize("layout", ["padded with holes", "packed int64"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_configuration(config, layout, monkeypatch):
    """Rows of 0 to 21 tokens in every configuration for a GPU: the interpreter's own is another."""
    monkeypatch.setattr(configs, "choose", lambda *_: config)
    token_arguments, values = tokens(layout, 5, 21, token_types=True), parameters(20, num_positions=21)
    table, dsn_head = prepared(values, head(20, 5, 2), torch.float32)
    for op, reference, exact in (("dsn_logits", dsn_logits_ref, exact_logits),
                                 ("dsn_token_logits", dsn_token_logits_ref, exact_token_logits)):
        eager = reference(**token_arguments, table=table, head=dsn_head)
        assert_within_rounding(logits(op, token_arguments, table, dsn_head), eager,
                               exact(token_arguments, table, dsn_head))
    dropout = {"p_embed": 0.3, "p_pool": 0.2, "seed": torch.tensor(3)}
    assert_within_rounding(ops.embed_pool(**token_arguments, **values, **dropout, backend="triton"),
                           embed_pool_ref(**token_arguments, **values, **dropout),
                           exact_pooled(**token_arguments, **tracked(values), **dropout))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("lengths", [[512], [0, 200, 1, 0, 64, 65, 128, 63, 0], [64] * 5, [0, 0, 0, 130]], ids=str)
def test_rows_in_splits(lengths, pooling):
    """Rows that end at, before and behind the end of a split of 64, and empty ones; both layouts to the same bits."""
    values, width = parameters(20, num_positions=600), max(lengths)
    table, dsn_head = prepared(values, head(20, 3, 2), torch.float32)
    keep = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(83, keep.shape, generator=torch.Generator().manual_seed(0))
    packed = {"input_ids": ids[keep], "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0)}
    actual = logits("dsn_logits", packed, table, dsn_head, pooling=pooling)
    assert_within_rounding(actual, dsn_logits_ref(**packed, table=table, head=dsn_head, pooling=pooling),
                           exact_logits(packed, table, dsn_head, pooling))
    dropout = {"pooling": pooling, "p_embed": 0.3, "p_pool": 0.2, "seed": torch.tensor(3)}
    pooled = ops.embed_pool(**packed, **values, **dropout, backend="triton")
    assert_within_rounding(pooled, embed_pool_ref(**packed, **values, **dropout),
                           exact_pooled(**packed, **tracked(values), **dropout))
    if pooling == "mean_masked":
        padded = {"input_ids": ids, "attention_mask": keep}
        assert torch.equal(logits("dsn_logits", padded, table, dsn_head), actual)
        assert torch.equal(ops.embed_pool(**padded, **values, **dropout, backend="triton"), pooled)


BAD_ROW, BAD_COLUMN = 2, 3
CALLS = ["dsn_logits", "dsn_logits in splits", "dsn_token_logits", "embed_pool", "embed_pool in splits"]
SPLITS_OF_FOUR = Config(1, 4, split_columns=4)


def results(call: str, token_arguments: dict, values: dict, view: str = "plain") -> torch.Tensor:
    """The result of a call for every row or token: ``[..., channels]``."""
    with pytest.MonkeyPatch.context() as patch:
        if call.endswith("in splits"):
            patch.setattr(configs, "choose", lambda *_: SPLITS_OF_FOUR)
        return _results(call.split()[0], token_arguments, values, view)


def _results(op: str, token_arguments: dict, values: dict, view: str) -> torch.Tensor:
    if op == "embed_pool":
        return ops.embed_pool(**token_arguments, **{name: awkward(value, view) for name, value in values.items()},
                              backend="triton")
    table, dsn_head = prepared(values, head(20, 3, 1), torch.float32)
    return logits(op, token_arguments, table, dsn_head, view)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize(("name", "size"), [("input_ids", 83), ("token_type_ids", 2), ("position_ids", 8)])
def test_a_bad_index_makes_its_row_alone_nan(name, size, layout, call):
    """Nothing is read there, whatever the index: the tables lie among NaN, which must appear in no other row."""
    good = tokens("padded without a mask", 5, 7, token_types=True, positions=True, num_positions=8)
    flat = {key: value.flatten() for key, value in good.items()} | {"cu_seqlens": torch.arange(0, 36, 7)}
    values = parameters(20)
    expected = results(call, good if layout == "padded" else flat, values, "odd offset")
    for bad in (-1, size, 2**31 - 1, 2**31, 2**32, -(2**63)):
        arguments = good if layout == "padded" else flat
        arguments = arguments | {name: arguments[name].clone()}
        arguments[name].view(-1)[BAD_ROW * 7 + BAD_COLUMN] = bad
        actual = results(call, arguments, values, "odd offset")
        expected_nan = torch.zeros(actual.shape[:-1], dtype=torch.bool)
        if call == "dsn_token_logits":
            expected_nan.view(-1)[BAD_ROW * 7 + BAD_COLUMN] = True
        else:
            expected_nan[BAD_ROW] = True
        assert actual[expected_nan].isnan().all()
        assert torch.equal(actual[~expected_nan], expected[~expected_nan])


@pytest.mark.parametrize("op", ["dsn_logits", "dsn_token_logits"])
@pytest.mark.parametrize("bad", [-1, 83, 2**31 - 1, 2**40])
def test_the_scale_of_a_bad_id_is_not_read(bad, op):
    """Neither is its row; memory_checker sees where kernels read."""
    table, dsn_head = prepared(parameters(20), head(20, 3, 1), torch.int8)
    ids = torch.tensor([[1, bad, 3], [3, 7, 1]])
    nan = logits(op, {"input_ids": ids}, table, dsn_head).isnan().all(dim=-1)
    assert nan.tolist() == ([True, False] if op == "dsn_logits" else [[False, True, False], [False] * 3])


@pytest.mark.parametrize("call", CALLS[:3])
def test_a_bad_index_that_the_mask_hides(call):
    good = tokens("padded with holes", 5, 7, token_types=True, positions=True, num_positions=8)
    bad = {name: torch.where(good["attention_mask"] != 0, value, 2**40) if name != "attention_mask" else value
              for name, value in good.items()}
    values = parameters(20)
    assert torch.equal(results(call, bad, values), results(call, good, values))


@pytest.mark.parametrize("call", CALLS)
def test_a_row_longer_than_the_position_table(call):
    ids = tokens("padded without a mask", 1, 17)["input_ids"][0]
    arguments = {"input_ids": ids, "cu_seqlens": torch.tensor([0, 8, 17])}
    bad = results(call, arguments, parameters(20), "odd offset").isnan().all(dim=-1)
    assert bad.tolist() == ([False] * 16 + [True] if call == "dsn_token_logits" else [False, True])


INVALID = [([0, 5, 3, 12], [1]), ([0, 5, 9, 13], [2]), ([1, 5, 9, 12], [0]), ([0, 5, 9, 11], [2]),
          ([-4, 5, 9, 12], [0]), ([0, 2**31 - 1, 9, 12], [0, 1]), ([0, 5, -9, 12], [1, 2]), ([0, 12, 1, 12], [1]),
          ([0, 11, 0, 12, 0, 12], [1, 3])]


@pytest.mark.parametrize("call", ["dsn_logits", "embed_pool"])
@pytest.mark.parametrize(("cu_seqlens", "nan_rows"), INVALID, ids=str)
def test_invalid_bounds_of_rows(cu_seqlens, nan_rows, call):
    arguments = {"input_ids": tokens("padded without a mask", 1, 12)["input_ids"][0],
                 "cu_seqlens": torch.tensor(cu_seqlens)}
    actual = results(call, arguments, parameters(20, num_positions=12), "odd offset")
    assert actual.isnan().all(dim=1).nonzero().flatten().tolist() == nan_rows
    assert actual.isnan().any(dim=1).nonzero().flatten().tolist() == nan_rows
    # A row that shares columns with another may lose a split to it. Then it is NaN too; otherwise it is right.
    splits = results(f"{call} in splits", arguments, parameters(20, num_positions=12), "odd offset")
    has_nan = splits.isnan().any(dim=1)
    assert has_nan[nan_rows].all()
    assert splits[has_nan].isnan().all()
    torch.testing.assert_close(splits[~has_nan], actual[~has_nan], rtol=1e-5, atol=1e-5)


OVERLAPPING = [[0, 8, 6, 10, 12], [0, 12, 2, 3, 4, 5, 11, 12], [0, 3, 0, 12], [0, 9, 3, 7, 5, 12], [0, 4, 4, 2, 2, 12]]


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize(("config", "few_bounds"), [(Config(16, 16), 256), (Config(1, 4), 2)], ids=["large", "small"])
@pytest.mark.parametrize("cu_seqlens", [*(invalid for invalid, _ in INVALID), *OVERLAPPING, [0, 4, 4, 9, 12]], ids=str)
def test_a_token_belongs_to_the_one_row_that_holds_it(cu_seqlens, config, few_bounds, positions, monkeypatch):
    """Row b holds the tokens from ``cu_seqlens[b]`` to ``cu_seqlens[b + 1] - 1``. A token is NaN if no row holds it, or
    more than one does, or one whose bounds lie outside the batch. Where rows are few, the kernel compares all bounds
    itself."""
    monkeypatch.setattr(configs, "choose", lambda *_: config)
    monkeypatch.setattr(configs, "FEW_BOUNDS", few_bounds)
    monkeypatch.setattr(configs, "BOUNDS_ROWS", 2)
    ids, values = tokens("padded without a mask", 1, 12)["input_ids"][0], parameters(20, num_positions=12)
    position_ids = torch.arange(12).flip(0) if positions else None
    arguments = {"input_ids": ids, "position_ids": position_ids, "cu_seqlens": torch.tensor(cu_seqlens)}
    actual = results("dsn_token_logits", {name: value for name, value in arguments.items() if value is not None},
                     values)
    rows = [range(*bounds) for bounds in pairwise(cu_seqlens)]
    inside = [0 <= row.start <= row.stop <= 12 for row in rows]
    inside[0], inside[-1] = inside[0] and rows[0].start == 0, inside[-1] and rows[-1].stop == 12
    columns = torch.full((12, 1), -1)
    for place in range(12):
        holders = [number for number, row in enumerate(rows) if place in row]
        if len(holders) == 1 and inside[holders[0]]:
            columns[place] = place - rows[holders[0]].start if position_ids is None else position_ids[place]
    expected = results("dsn_token_logits", {"input_ids": ids[:, None], "position_ids": columns}, values)[:, 0]
    assert torch.equal(expected.isnan(), (columns < 0).expand(12, 3))
    assert torch.equal(actual.isnan(), expected.isnan())
    assert torch.equal(actual.nan_to_num(), expected.nan_to_num())


@triton.jit
def validity_kernel(cu_seqlens, bounds, num_bounds, num_rows, num_tokens, result):
    valid = cu_seqlens_is_valid(cu_seqlens, bounds, num_bounds, (num_rows, 0, num_tokens))
    tl.store(result, valid.to(tl.int32))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("num_rows", "group"), [(1, 1024), (2, 1024), (255, 1024), (256, 1024), (257, 1024),
                                                 (1024, 1024), (1025, 1024), (3 * 1024, 1024), (2100, 8)])
def test_bounds_that_decrease_anywhere(num_rows, group, dtype, monkeypatch):
    """In any step of the comparison, and at its ends. Where rows are few, a kernel compares their bounds itself; where
    there are more, it compares a summary of them, which takes two steps for 263 groups."""
    monkeypatch.setattr(configs, "BOUNDS_ROWS", group)
    rise = torch.arange(num_rows + 1, dtype=dtype)
    cases = [(rise, num_rows, True), (rise + 1, num_rows + 1, False), (rise, num_rows + 1, False)]
    for place in sorted({1, 2, 255, 256, 257, 1023, 1024, 1025, 2048, num_rows - 1} & set(range(1, num_rows))):
        decreasing = rise.clone()
        decreasing[place] += 2
        cases.append((decreasing, num_rows, False))
    for cu_seqlens, num_tokens, expected in cases:
        result = torch.full((1,), -1, dtype=torch.int32)
        bounds, num_bounds = bounds_of(cu_seqlens, num_rows)
        validity_kernel[(1,)](cu_seqlens, bounds, num_bounds, num_rows, num_tokens, result)
        assert bool(result) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rows", "length"), [(0, 5), (3, 0), (0, 0)])
def test_no_token_at_all(rows, length, layout):
    token_arguments, values = tokens(layout, rows, length), parameters(20)
    table, dsn_head = prepared(values, head(20, 3, 1), torch.float32)
    expected = dsn_logits_ref(**token_arguments, table=table, head=dsn_head)
    torch.testing.assert_close(logits("dsn_logits", token_arguments, table, dsn_head), expected)
    shape = logits("dsn_token_logits", token_arguments, table, dsn_head).shape
    assert shape == (*token_arguments["input_ids"].shape, 3)
    assert not ops.embed_pool(**token_arguments, **values, backend="triton").any()


@triton.jit
def philox_words(seed, counter, words):
    w0, w1, w2, w3 = tl.philox(tl.load(seed), tl.load(counter), tl.load(counter + 1), tl.load(counter + 2),
                               tl.load(counter + 3))
    tl.store(words, w0)
    tl.store(words + 1, w1)
    tl.store(words + 2, w2)
    tl.store(words + 3, w3)


@pytest.mark.parametrize("rounds", [tl.random.philox_impl, quick_interpreter.philox_of_triton], ids=["quick", "triton"])
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_philox_known_answers(counter, key, answer, rounds, monkeypatch):
    monkeypatch.setattr(tl.random, "philox_impl", rounds)
    words = torch.zeros(4, dtype=torch.uint32)
    philox_words[(1,)](torch.tensor([key[0] | key[1] << 32], dtype=torch.uint64),
                       torch.tensor(counter, dtype=torch.uint32), words)
    assert tuple(words.tolist()) == answer


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_at_their_ends(activation):
    """Arguments for which exp overflows, for which the activation is flat, and around 0; NaN stays NaN."""
    z = torch.tensor([-1e30, -200.0, -20.0, -3.0, -1e-3, -0.0, 1e-30, 1e-3, 3.0, 20.0, 200.0, 1e30, float("nan")])
    count = z.numel()
    dsn_head = DsnHead(torch.zeros(2 * count, 16), torch.cat([torch.zeros(count), z]), torch.zeros(2 * count),
                       torch.zeros(1, 1, count), torch.ones(1, count), activation)
    table, _ = prepared(parameters(16), head(16, 1, 0), torch.float32)
    actual = logits("dsn_logits", {"input_ids": torch.zeros(1, 1, dtype=torch.int64)}, table, dsn_head)
    torch.testing.assert_close(actual[0].double(), ACTIVATIONS[activation](z.double()), rtol=1e-6, atol=1e-6,
                               equal_nan=True)


def test_only_the_lower_triangle_of_lateral_is_read():
    table, dsn_head = prepared(parameters(20), head(20, 3, 4), torch.float32)
    unread = torch.ones(4, 4).triu().bool()[:, :, None].expand(4, 4, 3)
    with_nan = dsn_head._replace(lateral=dsn_head.lateral.masked_fill(unread, float("nan")))
    token_arguments = tokens("padded", 3, 5)
    assert torch.equal(logits("dsn_logits", token_arguments, table, with_nan),
                       logits("dsn_logits", token_arguments, table, dsn_head))


@pytest.mark.parametrize("op", ["dsn_logits", "dsn_token_logits"])
def test_offsets_beyond_two_to_the_31(op):
    """The last row of an int8 table starts 2^31 bytes behind the first; only the rows that are used become memory."""
    torch.use_deterministic_algorithms(False)  # or the whole table would be filled
    vocab_size, hidden_size = 2**21 + 8, 1024
    try:
        word = torch.empty(vocab_size, hidden_size, dtype=torch.int8)
    except RuntimeError as error:
        pytest.skip(f"no 2.1 GB of address space: {error}")
    table, dsn_head = prepared(parameters(hidden_size), head(hidden_size, 2, 1), torch.int8)
    used = torch.tensor([0, 5, 2**20 + 1, 2**21 + 7])
    scale = torch.ones(vocab_size)
    word[used], scale[used] = table.word[:4], table.word_scale[:4]
    ids = torch.tensor([[0, 1, 2], [3, 3, 1]])
    large = getattr(ops, op)(used[ids], DsnTable(word, scale, table.context, table.eps), dsn_head, backend="triton")
    assert torch.equal(large, getattr(ops, op)(ids, table, dsn_head, backend="triton"))
