"""The gradients of ``embed_pool`` in Triton, interpreted on a CPU, against the float64 reference.

Run by tests/kernels/backends/triton/test_backward.py. There are three forms: everything by atomics; words by id and the
rest by atomics; everything sorted.
"""

import pytest
import torch
from cases import (
    PARAMETERS,
    VOCAB_SIZE,
    awkward,
    case_id,
    covering_sample,
    exact_pooled,
    parameters,
    random_gradient,
    tokens,
)
from cases import pooled_and_gradients as run
from embed_workload import AXES, SEED
from helpers import assert_within_rounding
from interpreted_workload import SIZES, workload
from rounding import tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.configs import Config
from dendritic_bert.kernels.contract import POOLINGS
from dendritic_bert.kernels.reference import embed_pool_ref

FORMS = ("atomics", "by id", "sorted")
CASES = AXES | SIZES | {"form": FORMS, "sparse_grad": [False, False, True]}
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def _restore(monkeypatch):
    monkeypatch.setattr(configs, "adds_in_cache", configs.adds_in_cache)
    yield
    torch.use_deterministic_algorithms(False)


def use(form: str) -> None:
    """Use this form until the test ends."""
    configs.adds_in_cache = lambda *_: form == "atomics"
    torch.use_deterministic_algorithms(form == "sorted")


def triton_gradients(values: dict, form: str, **options) -> dict[str, torch.Tensor]:
    """``pooled`` and all gradients. In the sorted form torch fills memory that nobody has written with NaN."""
    use(form)
    results = run(ops.embed_pool, values, backend="triton", **options)
    return {name: value.to_dense() for name, value in results.items()}


@pytest.mark.parametrize("case", covering_sample(CASES, 45, seed=7), ids=case_id)
def test_gradients(case, monkeypatch):
    token_arguments, values, _ = workload(case, monkeypatch, 2**18)
    values = {name: value.to(case["dtype"]) for name, value in values.items()}
    options = {"pooling": case["pooling"], "eps": case["eps"], "p_embed": case["dropout"][0],
               "p_pool": case["dropout"][1]}
    views = {name: awkward(value, case["view"]) for name, value in token_arguments.items()}
    results = triton_gradients({name: awkward(value, case["view"]) for name, value in values.items()},
                               case["form"], sparse_grad=case["sparse_grad"], seed=SEED, **options, **views)
    options["seed"] = torch.tensor(SEED)
    eager = run(embed_pool_ref, values, **token_arguments, **options)
    exact = run(exact_pooled, tracked(values), **token_arguments, **options)
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@each_form
@pytest.mark.parametrize("config", sorted({line.config for line in configs.TABLE} | {Config(1, 4, split_columns=4)}),
                         ids=str)
def test_every_configuration(config, form, monkeypatch):
    """The table's configurations for a GPU, with chunks of four tokens of an id. Without types and positions the rows
    of a program share a context in each column, whose gradient the atomics then add once for all of them."""
    monkeypatch.setattr(configs, "choose", lambda *_: config)
    monkeypatch.setattr(configs, "SEGMENT_CHUNK", 4)
    monkeypatch.setattr(configs, "choose_backward", lambda _: config._replace(tokens=max(1, config.tokens // 2)))
    token_arguments = tokens("padded with holes", 5, 9, token_types=form == "sorted")
    values = parameters(20, num_positions=9)
    options = {"p_embed": 0.3, "p_pool": 0.2}
    results = triton_gradients(values, form, seed=5, **token_arguments, **options)
    options["seed"] = torch.tensor(5)
    eager = run(embed_pool_ref, values, **token_arguments, **options)
    exact = run(exact_pooled, tracked(values), **token_arguments, **options)
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@each_form
def test_a_row_that_is_counted_in_two_steps(form):
    """Each step reads 128 columns of the mask."""
    token_arguments, values = tokens("padded with holes", 1, 150), parameters(16, num_positions=150)
    results = triton_gradients(values, form, **token_arguments)
    eager = run(embed_pool_ref, values, **token_arguments)
    exact = run(exact_pooled, tracked(values), **token_arguments)
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@pytest.mark.parametrize("form", ["by id", "sorted"])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 300])
@pytest.mark.parametrize("before", [0, 1, 64, 100])
def test_an_id_in_several_chunks(before, count, form):
    """The chunks of an id end every 64 tokens: ids of one chunk and of several, and one with more than another."""
    ids = torch.tensor([3] * before + [7] * count + [82] * 70)
    ids = ids[torch.randperm(ids.numel(), generator=torch.Generator().manual_seed(0))]
    token_arguments = {"input_ids": ids, "cu_seqlens": torch.tensor([0, ids.numel() // 2, ids.numel()])}
    values = parameters(16, num_positions=256)
    results = triton_gradients(values, form, **token_arguments)
    eager = run(embed_pool_ref, values, **token_arguments)
    exact = run(exact_pooled, tracked(values), **token_arguments)
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@pytest.mark.parametrize("vocab_size", [2**15 - 2, 2**15 - 1, 2**15])
def test_keys_at_the_end_of_16_bits(vocab_size):
    """The vocabulary's size is a key too: that of tokens that are not valid."""
    ids = torch.tensor([[0, 1, vocab_size - 1, vocab_size - 1], [vocab_size - 2, 0, 5, 5]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    values = parameters(16)
    values["word_embeddings"] = values["word_embeddings"].repeat(vocab_size // VOCAB_SIZE + 1, 1)[:vocab_size]
    results = triton_gradients(values, "sorted", sparse_grad=True, input_ids=ids, attention_mask=mask)
    expected = run(embed_pool_ref, values, input_ids=ids, attention_mask=mask)
    for name, value in results.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["padded", "padded with holes", "packed int32"])
def test_the_sparse_gradient_is_the_dense_one(layout):
    """It has the same bits, is coalesced, and holds the ids of valid tokens and no others."""
    token_arguments, values = tokens(layout, 5, 7, token_types=True), parameters(20)
    dense = triton_gradients(values, "sorted", **token_arguments)
    leaf = values["word_embeddings"].requires_grad_()
    pooled = ops.embed_pool(**values, **token_arguments, sparse_grad=True, backend="triton")
    grad = random_gradient(pooled)
    sparse = torch.autograd.grad(pooled, leaf, grad)[0]
    valid_ids = token_arguments["input_ids"]
    if "attention_mask" in token_arguments:
        valid_ids = valid_ids[token_arguments["attention_mask"] != 0]
    assert sparse.is_coalesced()
    assert sparse.indices()[0].tolist() == sorted(set(valid_ids.flatten().tolist()))
    assert torch.equal(sparse.to_dense(), dense["word_embeddings"])


@each_form
@pytest.mark.parametrize("pooling", POOLINGS)
def test_tokens_that_are_not_valid_have_no_gradient(pooling, form):
    """The gradient is exactly 0 for ids and positions that only masked tokens have, unless padding is pooled too."""
    ids = torch.tensor([[1, 2, 3, 9], [1, 4, 9, 9]])
    mask = ids != 9
    results = triton_gradients(parameters(20), form, input_ids=ids, attention_mask=mask, pooling=pooling)
    used = {1, 2, 3, 4} | ({9} if pooling != "mean_masked" else set())
    assert set(results["word_embeddings"].any(dim=1).nonzero().flatten().tolist()) == used
    places = set(results["position_embeddings"].any(dim=1).nonzero().flatten().tolist())
    assert places == ({0, 1, 2} if pooling == "mean_masked" else {0, 1, 2, 3})
    assert results["token_type_embeddings"].any(dim=1).tolist() == [True, False]


@each_form
@pytest.mark.parametrize(("name", "bad"), [("input_ids", VOCAB_SIZE), ("input_ids", -1), ("token_type_ids", 2),
                                           ("position_ids", 8), ("position_ids", -(2**40))])
def test_a_bad_index_has_no_gradient(name, bad, form):
    """Nothing is added for it, nor outside the tables; rows without it get their gradients."""
    token_arguments = tokens("padded without a mask", 4, 6, token_types=True, positions=True, num_positions=8)
    values = parameters(20)
    good = {key: value[:3] for key, value in token_arguments.items()}
    expected = triton_gradients(values, form, **good)
    bad_arguments = good | {name: good[name].clone()}
    bad_arguments = {key: torch.cat([value, token_arguments[key][3:]]) for key, value in bad_arguments.items()}
    bad_arguments[name][3, 2] = bad
    use(form)
    leaves = {key: value.detach().requires_grad_() for key, value in values.items()}
    pooled = ops.embed_pool(**leaves, **bad_arguments, backend="triton")
    assert pooled.isnan().any(dim=1).tolist() == [False, False, False, True]
    grad = torch.zeros_like(pooled)
    grad[:3] = random_gradient(pooled[:3])
    pooled.backward(grad)
    for key in PARAMETERS[:3]:
        torch.testing.assert_close(leaves[key].grad, expected[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [-1, VOCAB_SIZE, 2**31 - 1])
def test_a_bad_id_has_no_row_in_the_sparse_gradient(bad):
    word = parameters(20) | {"word_embeddings": parameters(20)["word_embeddings"].requires_grad_()}
    pooled = ops.embed_pool(torch.tensor([[1, bad, 3], [3, 7, 1]]), **word, sparse_grad=True, backend="triton")
    pooled[1].sum().backward()
    assert word["word_embeddings"].grad._indices()[0].tolist() == [1, 3, 7]


@each_form
@pytest.mark.parametrize(("cu_seqlens", "valid_rows"), [
    ([0, 5, 3, 12], [0, 2]), ([0, 5, 9, 13], [0, 1]), ([1, 5, 9, 12], [1, 2]), ([0, 5, 9, 11], [0, 1]),
    ([0, 2**31 - 1, -2**31, 12], [])], ids=str)
def test_invalid_bounds_leave_no_gradient(cu_seqlens, valid_rows, form):
    """The gradients of gamma and beta are NaN, and so are those of words in valid rows, which may share tokens."""
    ids = torch.arange(12)
    values = {name: value.requires_grad_() for name, value in parameters(20, num_positions=12).items()}
    arguments = {"input_ids": ids, "cu_seqlens": torch.tensor(cu_seqlens, dtype=torch.int32)}
    use(form)
    pooled = ops.embed_pool(**arguments, **values, backend="triton")
    pooled.backward(torch.ones_like(pooled))
    for row in valid_rows:
        assert values["word_embeddings"].grad[cu_seqlens[row]:cu_seqlens[row + 1]].isnan().all()
    assert values["ln_weight"].grad.isnan().all()
    assert values["ln_bias"].grad.isnan().all()


@pytest.mark.parametrize("grad", ["expanded", "transposed", "strided"])
def test_gradient_of_pooled_in_any_layout(grad):
    token_arguments, values = tokens("padded", 6, 5), parameters(20)
    leaves = [value.requires_grad_() for value in values.values()]
    pooled = ops.embed_pool(**values, **token_arguments, backend="triton")
    plain = torch.randn(pooled.shape)
    view = plain[:1].expand(6, 20) if grad == "expanded" else awkward(plain, grad)
    expected = torch.autograd.grad(pooled, leaves, view.contiguous(), retain_graph=True)
    for actual, wanted in zip(torch.autograd.grad(pooled, leaves, view), expected):
        assert torch.equal(actual, wanted)


@each_form
def test_only_the_gradients_that_are_wanted(form):
    token_arguments, values = tokens("padded", 3, 5), parameters(20)
    full = triton_gradients(values, form, **token_arguments)
    for name in PARAMETERS:
        leaves = {key: value.clone().requires_grad_(key == name) for key, value in values.items()}
        pooled = ops.embed_pool(**leaves, **token_arguments, backend="triton")
        pooled.backward(random_gradient(pooled))
        if form == "by id" and name != "word_embeddings":  # without it everything goes by atomics: other sums
            torch.testing.assert_close(leaves[name].grad, full[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(leaves[name].grad, full[name])


def test_offsets_beyond_two_to_the_31():
    """The last row of the table starts 2^31 elements behind the first; only the rows that are used become memory."""
    vocab_size, hidden_size = 2**21 + 8, 1024
    try:
        word_embeddings = torch.empty(vocab_size, hidden_size, dtype=torch.bfloat16)
    except RuntimeError as error:
        pytest.skip(f"no 4.3 GB of address space: {error}")
    used = torch.tensor([0, 5, 2**20 + 1, 2**21 + 7])
    values = parameters(hidden_size, torch.bfloat16)
    small = values | {"word_embeddings": values["word_embeddings"][:4].clone()}
    word_embeddings[used] = small["word_embeddings"]
    ids = torch.tensor([[0, 1, 2], [3, 3, 1]])
    large, expected = (run(ops.embed_pool, values | {"word_embeddings": table}, sparse_grad=True, input_ids=input_ids,
                           backend="triton")
                       for table, input_ids in ((word_embeddings, used[ids]), (small["word_embeddings"], ids)))
    assert torch.equal(large["pooled"], expected["pooled"])
    large, expected = (results["word_embeddings"].coalesce() for results in (large, expected))
    assert large.indices()[0].tolist() == used.tolist()
    assert torch.equal(large.values(), expected.values())


