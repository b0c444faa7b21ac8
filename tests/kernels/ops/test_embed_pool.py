"""embed_pool on every backend against the float64 reference: forward and gradients."""

import pytest
import torch
from cases import (
    LAYOUTS,
    PARAMETERS,
    VOCAB_SIZE,
    awkward,
    case_id,
    covering_sample,
    exact_pooled,
    moved,
    parameters,
    pooled_and_gradients,
    random_gradient,
    tokens,
)
from embed_workload import AXES, SEED, in_view, workload
from helpers import assert_within_rounding, each_backend, each_kernel
from rounding import tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import POOLINGS
from dendritic_bert.kernels.reference import embed_pool_ref

FORWARD = covering_sample(AXES, 120)
BACKWARD = covering_sample(AXES, 90, seed=1)


@pytest.fixture(scope="module", params=FORWARD, ids=case_id)
def forward(request) -> tuple:
    """A case, the arguments that it stands for, and the results by torch's own ops and in float64, which are those of
    every backend."""
    token_arguments, values, options = workload(request.param)
    arguments = token_arguments | options | {"seed": torch.tensor(SEED)}
    return (request.param, token_arguments, values, options, embed_pool_ref(**values, **arguments),
            exact_pooled(**tracked(values), **arguments))


@each_backend
def test_forward(forward, backend, device):
    case, token_arguments, values, options, eager, exact = forward
    pooled = ops.embed_pool(**in_view(token_arguments, case, device), **in_view(values, case, device), **options,
                            seed=SEED, backend=backend)
    assert_within_rounding(pooled, eager, exact)


@pytest.fixture(scope="module", params=BACKWARD, ids=case_id)
def backward(request) -> tuple:
    """The same with the gradients."""
    token_arguments, values, options = workload(request.param)
    arguments = token_arguments | options | {"seed": torch.tensor(SEED)}
    return (request.param, token_arguments, values, options, pooled_and_gradients(embed_pool_ref, values, **arguments),
            pooled_and_gradients(exact_pooled, tracked(values), **arguments))


@each_backend
def test_gradients(backward, backend, device):
    case, token_arguments, values, options, eager, exact = backward
    results = pooled_and_gradients(ops.embed_pool, in_view(values, case, device), **options, seed=SEED, backend=backend,
                                   **in_view(token_arguments, case, device))
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@pytest.mark.parametrize(("rows", "length", "hidden_size"), [(1024, 32, 16), (8, 2000, 36)])
@each_backend
def test_gradients_that_sum_over_many_tokens(rows, length, hidden_size, backend, device):
    """One id is a third of all tokens and one token type is all of them: sums of 5,000 and 16,000 float32 terms. There
    are no more channels than make 2^19 elements, from which on the CPU's kernels take a second thread."""
    token_arguments = tokens("padded without a mask", rows, length)
    token_arguments["input_ids"][:, ::3] = 5
    values = parameters(hidden_size, num_positions=length)
    results = pooled_and_gradients(ops.embed_pool, moved(values, device), **moved(token_arguments, device),
                                   backend=backend)
    eager = pooled_and_gradients(embed_pool_ref, values, **token_arguments)
    exact = pooled_and_gradients(exact_pooled, tracked(values), **token_arguments)
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@each_backend
def test_sparse_gradient_is_the_dense_one(layout, dtype, backend, device):
    token_arguments = moved(tokens(layout, 5, 7, token_types=True), device)
    values = moved(parameters(20, dtype), device)
    dense, sparse = (pooled_and_gradients(ops.embed_pool, values, **token_arguments, sparse_grad=sparse_grad,
                                          backend=backend) for sparse_grad in (False, True))
    d_word = sparse["word_embeddings"]
    assert d_word.is_sparse
    d_word = d_word.coalesce()
    valid_ids = token_arguments["input_ids"]
    if "attention_mask" in token_arguments:
        valid_ids = valid_ids[token_arguments["attention_mask"] != 0]
    assert set(valid_ids.flatten().tolist()) <= set(d_word.indices()[0].tolist())
    if backend != "reference":
        assert d_word.indices()[0].tolist() == sorted(set(valid_ids.flatten().tolist()))
        assert torch.equal(d_word.to_dense(), dense["word_embeddings"])
    for name in PARAMETERS[1:]:
        assert torch.equal(sparse[name], dense[name])


@each_kernel
def test_sparse_gradient_is_coalesced(backend, device):
    values, token_arguments = moved(parameters(20), device), moved(tokens("padded", 5, 7), device)
    word_embeddings = values["word_embeddings"].requires_grad_()
    pooled = ops.embed_pool(**token_arguments, **values, sparse_grad=True, backend=backend)
    assert torch.autograd.grad(pooled.sum(), word_embeddings)[0].is_coalesced()


@pytest.mark.parametrize("wanted", [*[(name,) for name in PARAMETERS], PARAMETERS[:3], PARAMETERS[3:]], ids=str)
@each_backend
def test_only_the_gradients_that_are_wanted(wanted, backend, device):
    token_arguments, values = moved(tokens("padded", 3, 5), device), moved(parameters(20), device)
    full = pooled_and_gradients(ops.embed_pool, values, **token_arguments, backend=backend)
    leaves = {name: value.clone().requires_grad_(name in wanted) for name, value in values.items()}
    pooled = ops.embed_pool(**leaves, **token_arguments, backend=backend)
    pooled.backward(random_gradient(pooled))
    for name, leaf in leaves.items():
        if name in wanted:
            assert torch.equal(leaf.grad, full[name])
        else:
            assert leaf.grad is None


@each_backend
def test_gradients_accumulate(backend, device):
    token_arguments, values = moved(tokens("padded", 3, 5), device), moved(parameters(20), device)
    once = pooled_and_gradients(ops.embed_pool, values, **token_arguments, backend=backend)
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    grad = random_gradient(once["pooled"])
    for _ in range(2):
        ops.embed_pool(**leaves, **token_arguments, backend=backend).backward(grad)
    for name, leaf in leaves.items():
        assert torch.equal(leaf.grad, 2 * once[name])


@pytest.mark.parametrize("grad", ["expanded", "transposed", "strided"])
@each_backend
def test_gradient_of_pooled_in_any_layout(grad, backend, device):
    token_arguments, values = moved(tokens("padded", 6, 5), device), moved(parameters(20), device)
    leaves = [value.requires_grad_() for value in values.values()]
    pooled = ops.embed_pool(**values, **token_arguments, backend=backend)
    plain = torch.randn(pooled.shape).to(device)
    view = plain[:1].expand(6, 20) if grad == "expanded" else awkward(plain, grad)
    expected = torch.autograd.grad(pooled, leaves, view.contiguous(), retain_graph=True)
    for actual, wanted in zip(torch.autograd.grad(pooled, leaves, view), expected):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("pooling", POOLINGS)
@each_backend
def test_rows_without_a_token_are_zero(pooling, backend, device):
    values = moved(parameters(20), device)
    padded = tokens("padded", 4, 6)
    padded["attention_mask"][2] = 0
    packed = {"input_ids": torch.arange(3), "cu_seqlens": torch.tensor([0, 0, 3, 3])}
    for token_arguments, empty in ((padded, [1, 2]), (packed, [0, 2])):
        if pooling != "mean_masked" and token_arguments is padded:
            continue  # these pool over padding too
        results = pooled_and_gradients(ops.embed_pool, values, **moved(token_arguments, device), pooling=pooling,
                                       backend=backend)
        for b in range(results["pooled"].shape[0]):
            assert bool((results["pooled"][b] == 0).all()) == (b in empty)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rows", "length"), [(0, 5), (3, 0), (0, 0)])
@each_backend
def test_no_token_at_all(rows, length, layout, backend, device):
    values = moved(parameters(20), device)
    for sparse_grad in (False, True):
        results = pooled_and_gradients(ops.embed_pool, values, **moved(tokens(layout, rows, length), device),
                                       backend=backend, sparse_grad=sparse_grad)
        expected_rows = rows
        if layout.startswith("packed") and length:
            expected_rows = 0
        assert results["pooled"].shape == (expected_rows, 20)
        for value in results.values():
            assert not value.to_dense().any()


@pytest.mark.parametrize("hidden_size", [16, 100, 128, 768])
@pytest.mark.parametrize("offset", [1e2, 1e4])
@each_backend
def test_a_common_offset_cancels(offset, hidden_size, backend, device):
    """LayerNorm removes what all channels share, here up to 10,000 times what remains; E[x^2] - E[x]^2 would not."""
    token_arguments = tokens("padded", 5, 40)
    values = parameters(hidden_size, offset=offset, num_positions=43)
    results = pooled_and_gradients(ops.embed_pool, moved(values, device), **moved(token_arguments, device),
                                   backend=backend)
    eager = pooled_and_gradients(embed_pool_ref, values, **token_arguments)
    exact = pooled_and_gradients(exact_pooled, tracked(values), **token_arguments)
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@pytest.mark.parametrize("hidden_size", [16, 100, 768])
@each_backend
def test_a_token_without_variance(hidden_size, backend, device):
    """All channels of e are equal, so that (e - mean) / sqrt(0 + eps) is 0 and only beta is left."""
    values = moved(parameters(hidden_size), device)
    values |= {"word_embeddings": torch.full((VOCAB_SIZE, hidden_size), 2.0, device=device),
               "position_embeddings": torch.full((8, hidden_size), -0.5, device=device),
               "token_type_embeddings": torch.zeros(2, hidden_size, device=device)}
    results = pooled_and_gradients(ops.embed_pool, values, **moved(tokens("padded without a mask", 3, 5), device),
                                   eps=1e-5, backend=backend)
    torch.testing.assert_close(results["pooled"], values["ln_bias"].expand(3, -1), rtol=1e-6, atol=1e-6)
    assert all(bool(value.isfinite().all()) for value in results.values())


@each_backend
def test_gamma_zero(backend, device):
    values = moved(parameters(100), device)
    values["ln_weight"] = torch.zeros_like(values["ln_weight"])
    token_arguments = moved(tokens("padded with holes", 4, 7), device)
    results = pooled_and_gradients(ops.embed_pool, values, **token_arguments, backend=backend)
    occupied = (token_arguments["attention_mask"] != 0).any(dim=1)
    torch.testing.assert_close(results["pooled"], torch.where(occupied[:, None], values["ln_bias"], 0.0), rtol=1e-6,
                               atol=0)
    for name in PARAMETERS[:3]:
        assert not results[name].any()
    assert results["ln_weight"].any()


@each_backend
def test_a_nan_stays_in_its_row(backend, device):
    values, token_arguments = moved(parameters(20), device), moved(tokens("padded without a mask", 6, 4), device)
    values["word_embeddings"][70] = float("nan")
    token_arguments["input_ids"].clamp_(max=69)[3, 2] = 70
    pooled = ops.embed_pool(**token_arguments, **values, backend=backend)
    assert pooled.isnan().all(dim=1).tolist() == [b == 3 for b in range(6)]
    assert pooled.isnan().any(dim=1).tolist() == [b == 3 for b in range(6)]


@each_backend
def test_offsets_beyond_two_to_the_31(backend, device):
    """The last row of the table starts 2^31 elements after the first. Only the rows that are used take up memory."""
    vocab_size, hidden_size = 2**21 + 8, 1024
    try:
        word_embeddings = torch.empty(vocab_size, hidden_size, dtype=torch.bfloat16, device=device)
    except RuntimeError as error:
        pytest.skip(f"no 4.3 GB of address space: {error}")
    used = torch.tensor([0, 5, 2**20 + 1, 2**21 + 7])
    values = moved(parameters(hidden_size, torch.bfloat16), device)
    small = values | {"word_embeddings": values["word_embeddings"][:4].clone()}
    word_embeddings[used] = small["word_embeddings"]
    ids = torch.tensor([[0, 1, 2], [3, 3, 1]])
    large, expected = (pooled_and_gradients(ops.embed_pool, values | {"word_embeddings": table}, sparse_grad=True,
                                            input_ids=input_ids.to(device), backend=backend)
                       for table, input_ids in ((word_embeddings, used[ids]), (small["word_embeddings"], ids)))
    assert torch.equal(large["pooled"], expected["pooled"])
    large, expected = (results["word_embeddings"].coalesce() for results in (large, expected))
    assert large.indices()[0].tolist() == used.tolist()
    assert torch.equal(large.values(), expected.values())


@pytest.mark.parametrize(("p_embed", "p_pool"), [(0.5, 0.0), (0.0, 0.5)])
@each_backend
def test_dropout_is_drawn_from_torch_unless_seeded(p_embed, p_pool, backend, device):
    values, token_arguments = moved(parameters(100), device), moved(tokens("padded", 3, 5), device)

    def call(**options):
        return ops.embed_pool(**values, **token_arguments, p_embed=p_embed, p_pool=p_pool, backend=backend, **options)

    torch.manual_seed(1)
    first, second = call(), call()
    torch.manual_seed(1)
    assert torch.equal(call(), first)
    assert not torch.equal(first, second)
    assert torch.equal(call(seed=7), call(seed=torch.tensor(7, device=device)))
    assert not torch.equal(call(seed=7), call(seed=7 + 2**32))
    assert not torch.equal(call(seed=7), call(seed=-7))
