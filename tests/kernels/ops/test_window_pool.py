"""window_pool: the reference against torch's own convolution in float64, and the kernels against the reference; values,
gradients, dropout, and bad input."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from cases import (
    LAYOUTS,
    VOCAB_SIZE,
    awkward,
    case_id,
    covering_sample,
    generator,
    pooled_and_gradients,
    random_gradient,
    tokens,
)
from helpers import assert_within_rounding, serving
from rounding import tracked
from window_workload import AXES, window_parameters, workload

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.reference import (
    POOL_STREAM,
    WINDOW_STREAM,
    dropout_keep,
    window_layers_ref,
    window_pool_ref,
)

SERVING = serving("window_pool", torch.float32)
each_backend = pytest.mark.parametrize(("backend", "device"), SERVING, ids=map("-".join, SERVING))
KERNELS = [pair for pair in SERVING if pair[0] != "reference"]
each_kernel = pytest.mark.parametrize(("backend", "device"), KERNELS, ids=map("-".join, KERNELS))
DROPOUT = {"p_embed": 0.2, "p_window": 0.3, "p_pool": 0.1}
SEED = 2**40 + 17
GRADIENT_AXES = AXES | {
    "dropout": [{}, {"p_embed": 0.2}, {"p_window": 0.3}, {"p_pool": 0.3}, DROPOUT],
    "dtype": [torch.float32, torch.float32, torch.bfloat16, torch.float16], "eps": [1e-12, 1e-5]}


def present(values):
    return {name: value for name, value in values.items() if value is not None}


def differentiated(function, values, **options):
    """``pooled_and_gradients`` with the absent parameters left absent. A gradient that is not there is 0."""
    absent = {name: None for name, value in values.items() if value is None}
    results = pooled_and_gradients(function, present(values), **absent, **options)
    return {name: 0 * values[name] if value is None else value for name, value in results.items()}


def in_view(values, view):
    return {name: None if value is None else awkward(value, view) for name, value in values.items()}


def gradient_workload(case):
    """The bound takes the errors of a sum's terms for independent. LayerNorm gives all tokens of one id the same error,
    and a plain mean all tokens of a row: with either a batch has few tokens of an id or row."""
    if case["has_norm"] or not case["has_gate"]:
        case = case | {"rows": min(case["rows"], 3), "length": min(case["length"], 31)}
    token_arguments, values, _ = workload(case)
    return token_arguments, {name: None if value is None else value.to(case["dtype"]) for name, value in values.items()}


@pytest.mark.parametrize("case", covering_sample(GRADIENT_AXES, 80, seed=6), ids=case_id)
@each_kernel
def test_values_and_gradients_of_a_kernel(case, backend, device):
    token_arguments, values = gradient_workload(case)
    options = case["dropout"] | {"eps": case["eps"]}
    results = differentiated(ops.window_pool, in_view(values, case["view"]), **in_view(token_arguments, case["view"]),
                             **options, seed=SEED, backend=backend)
    options["seed"] = torch.tensor(SEED)
    eager = differentiated(window_pool_ref, values, **token_arguments, **options)
    exact = differentiated(window_pool_ref, tracked(values), **token_arguments, **options)
    assert results.keys() == {"pooled", *present(values)}
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@pytest.mark.parametrize("length", [257, 300, 1100])
@each_kernel
def test_rows_longer_than_a_strip(length, backend, device):
    """Beside rows of 0, 1 and 20 tokens, with holes; a strip of the kernel has 256 columns otherwise."""
    values = window_parameters(layers=5, dendrites=24)
    mask = torch.arange(length) < torch.tensor([length, 0, 1, 20])[:, None]
    mask &= torch.rand(mask.shape, generator=generator(4)) < 0.9
    arguments = {"input_ids": torch.randint(VOCAB_SIZE, mask.shape, generator=generator(5)), "attention_mask": mask}
    results, eager = (differentiated(function, values, **arguments) for function in (ops.window_pool, window_pool_ref))
    exact = differentiated(window_pool_ref, tracked(values), **arguments)
    for name in results:
        assert_within_rounding(results[name], eager[name], exact[name])


@each_kernel
def test_the_error_does_not_grow_with_the_row(backend, device):
    """Where all tokens are equal all roundings of a sum have one sign: one sum over 20,000 columns was off by 1e-4."""
    values = window_parameters(layers=2)
    ids = torch.full((1, 20_000), 3)
    pooled = ops.window_pool(ids, **values, backend=backend)
    exact = window_pool_ref(ids, **tracked(values))
    torch.testing.assert_close(pooled.double(), exact.value, rtol=2e-5, atol=2e-5)


@each_kernel
def test_the_bits_do_not_depend_on_the_number_of_threads(backend, device):
    """5,000 tokens, which are four ranges of the kernel's backward pass."""
    values = window_parameters(layers=4, dendrites=40, has_norm=True)
    arguments = tokens("packed int64", 100, 100, token_types=True)
    assert arguments["input_ids"].numel() > 4096
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            results.append(differentiated(ops.window_pool, values, **arguments, **DROPOUT, seed=SEED, backend=backend))
    finally:
        torch.set_num_threads(threads)
    for name, one in results[0].items():
        assert torch.equal(one, results[1][name]), name


@each_kernel
def test_a_row_has_the_same_bits_in_every_batch(backend, device):
    values = window_parameters(layers=5)
    arguments = tokens("padded with holes", 40, 30)
    pooled = ops.window_pool(**arguments, **values, backend=backend)
    for row in (0, 7, 39):
        alone = ops.window_pool(**{name: value[row:row + 1] for name, value in arguments.items()}, **values,
                                backend=backend)
        assert torch.equal(alone[0], pooled[row])


@pytest.mark.parametrize("wanted", [("word_embeddings",), ("window_weight", "gate_bias"), ("ln_bias",)], ids=str)
@each_backend
def test_only_the_gradients_that_are_wanted(wanted, backend, device):
    values, arguments = window_parameters(has_norm=True), tokens("padded", 5, 9)
    expected = differentiated(ops.window_pool, values, **arguments, backend=backend)
    leaves = {name: value.clone().requires_grad_(name in wanted) for name, value in values.items()}
    pooled = ops.window_pool(**arguments, **leaves, backend=backend)
    pooled.backward(random_gradient(pooled))
    for name, leaf in leaves.items():
        assert leaf.grad is None if name not in wanted else torch.equal(leaf.grad, expected[name])


@pytest.mark.parametrize(("rows", "length"), [(0, 5), (3, 0), (0, 0), (4, 6)])
@pytest.mark.parametrize("layout", LAYOUTS)
@each_backend
def test_rows_without_a_token_are_zero(layout, rows, length, backend, device):
    arguments = tokens(layout, rows, length)
    if rows and length:
        if "cu_seqlens" in arguments:
            arguments = {"input_ids": arguments["input_ids"][:0], "cu_seqlens": torch.zeros(rows + 1).long()}
        else:
            arguments["attention_mask"] = torch.zeros(rows, length, dtype=torch.bool)
    results = differentiated(ops.window_pool, window_parameters(), **arguments, backend=backend)
    assert results["pooled"].shape[1] == 28
    assert not any(value.any() for value in results.values())


@each_kernel
def test_a_second_derivative_is_an_error_and_not_zero(backend, device):
    values = window_parameters()
    leaf = values["word_embeddings"].requires_grad_()
    pooled = ops.window_pool(**values, **tokens("padded", 3, 5), backend=backend)
    (grad,) = torch.autograd.grad(pooled.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="window_pool is differentiable once"):
        grad.square().sum().backward()


def test_a_forced_backend_without_a_kernel_leaves_it_to_the_reference(monkeypatch):
    values, arguments = window_parameters(), tokens("padded", 3, 5)
    monkeypatch.setattr(ops.backends, "FORCED", "triton")
    pooled = ops.window_pool(**values, **arguments)
    assert torch.equal(pooled, ops.window_pool(**values, **arguments, backend="reference"))
    with pytest.raises(RuntimeError, match="backend 'triton' cannot serve this call"):
        ops.window_pool(**values, **arguments, backend="triton")


def by_convolution(ids, types, values):
    """One row ``[L]`` without padding, by ``conv1d``: pooled ``[H + M]``."""
    if len(ids) == 0:
        return values["word_embeddings"].new_zeros(values["word_embeddings"].shape[1] + values["window_bias"].shape[1])
    x = values["word_embeddings"][ids] + values["token_type_embeddings"][types]
    if values["ln_weight"] is not None:
        x = F.layer_norm(x, x.shape[-1:], values["ln_weight"], values["ln_bias"], 1e-12)
    h = u = x
    for layer, bias in enumerate(values["window_bias"]):
        weight = values["window_input_weight"] if layer == 0 else values["window_weight"][layer - 1]
        padding = weight.shape[0] // 2 * 2**layer
        after = F.conv1d(u.T[None], weight.permute(2, 1, 0), bias, padding=padding, dilation=2**layer)[0].T.relu()
        u = after if layer == 0 else u + after
        h = torch.cat([x, u], dim=1)
    if values["gate_weight"] is None:
        return h.mean(dim=0)
    gate = (h @ values["gate_weight"] + values["gate_bias"][ids]).clamp(-8, 8).exp()
    return gate @ h / gate.sum()


def rows_of(arguments):
    """(ids, types) of every row; a mask must have no holes, which are no part of a convolution."""
    ids, types = arguments["input_ids"], arguments.get("token_type_ids", torch.zeros_like(arguments["input_ids"]))
    if "cu_seqlens" in arguments:
        ends = arguments["cu_seqlens"].tolist()
        return [(ids[begin:end], types[begin:end]) for begin, end in pairwise(ends)]
    valid = arguments.get("attention_mask", torch.ones_like(ids)) != 0
    return [(row[is_valid], kinds[is_valid]) for row, kinds, is_valid in zip(ids, types, valid)]


@pytest.mark.parametrize("case", [case for case in covering_sample(AXES, 60, seed=5)
                                  if case["layout"] != "padded with holes"], ids=case_id)
def test_pooled(case):
    arguments, values, _ = workload(case)
    values = {name: None if value is None else value.double() for name, value in values.items()}
    pooled = ops.window_pool(**arguments, **values)
    expected = [by_convolution(ids.long(), types.long(), values) for ids, types in rows_of(arguments)]
    assert len(pooled) == len(expected)
    for row, by_torch in zip(pooled, expected):
        torch.testing.assert_close(row, by_torch, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spoilt", [float("nan"), 3e38])
def test_a_token_that_is_not_valid_keeps_its_column_and_nothing_else(spoilt, dtype):
    """Holes in a mask are zeros in a convolution over all columns, and whatever the masked token holds stays there."""
    values = {name: value if value is None else value.to(dtype) for name, value in window_parameters(layers=4).items()}
    ids = torch.arange(40).view(2, 20) % (VOCAB_SIZE - 1)
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)) < 0.6
    x = values["word_embeddings"][ids] + values["token_type_embeddings"][0]
    x = torch.where(mask[..., None], x, 0)
    u = x
    for layer, bias in enumerate(values["window_bias"]):
        weight = values["window_input_weight"] if layer == 0 else values["window_weight"][layer - 1]
        after = F.conv1d(u.mT, weight.permute(2, 1, 0), bias, padding=2**layer, dilation=2**layer).mT.relu()
        u = torch.where(mask[..., None], after if layer == 0 else u + after, 0)
    h = torch.cat([x, u], dim=-1)
    gate = torch.where(mask, (h @ values["gate_weight"] + values["gate_bias"][ids]).clamp(-8, 8).exp(), 0)
    expected = torch.einsum("bl,blh->bh", gate, h) / gate.sum(dim=1, keepdim=True)
    values["word_embeddings"][VOCAB_SIZE - 1] = spoilt
    values["gate_bias"][VOCAB_SIZE - 1] = spoilt
    ids = torch.where(mask, ids, VOCAB_SIZE - 1)
    torch.testing.assert_close(ops.window_pool(ids, **values, attention_mask=mask), expected)
    ids = torch.where(mask, ids, -7)  # it is not even looked up
    torch.testing.assert_close(ops.window_pool(ids, **values, attention_mask=mask), expected)


@each_backend
def test_a_nan_of_a_valid_token_passes_the_clip(backend, device):
    values, ids = window_parameters(), torch.tensor([[1, 5], [1, 2]])
    values["gate_bias"][5] = float("nan")
    assert ops.window_pool(ids, **values, backend=backend).isnan().all(dim=1).tolist() == [True, False]


@each_backend
def test_the_gradients_of_a_masked_token_are_zero(backend, device):
    """Whatever it holds; and those of the valid tokens are as if it were not there."""
    values, ids = window_parameters(layers=4, has_norm=True), torch.arange(40).view(2, 20) % (VOCAB_SIZE - 1)
    mask = torch.rand(2, 20, generator=generator(0)) < 0.6
    clean = differentiated(ops.window_pool, values, input_ids=ids, attention_mask=mask, backend=backend)
    values["word_embeddings"][VOCAB_SIZE - 1] = values["gate_bias"][VOCAB_SIZE - 1] = float("nan")
    ids = torch.where(mask, ids, VOCAB_SIZE - 1)
    spoilt = differentiated(ops.window_pool, values, input_ids=ids, attention_mask=mask, backend=backend)
    for name, value in spoilt.items():
        assert torch.equal(value, clean[name]), name


@pytest.mark.parametrize("options", [{}, {"p_embed": 0.2, "p_window": 0.3, "p_pool": 0.1, "seed": 4}], ids=str)
@pytest.mark.parametrize("layout", ["padded with holes", "packed int64"])
def test_gradients(layout, options):
    values = window_parameters(3, 2, 3, has_norm=True, dtype=torch.float64)
    values["word_embeddings"] = values["word_embeddings"][:9]
    values["gate_bias"] = values["gate_bias"][:9]
    arguments = tokens(layout, 3, 5, token_types=True)
    arguments["input_ids"] %= 9
    leaves = [value.requires_grad_() for value in values.values()]
    assert torch.autograd.gradcheck(lambda *leaves: ops.window_pool(
        **arguments, **dict(zip(values, leaves)), **options), leaves)


@pytest.mark.parametrize("clipped", [20.0, -20.0])
@each_backend
def test_the_gradient_stops_where_the_gate_is_clipped(clipped, backend, device):
    values = window_parameters(layers=0)
    values["gate_bias"][:3] = clipped
    values["gate_bias"].requires_grad_()
    ops.window_pool(torch.tensor([[1, 2, 7, 8]]), **values, backend=backend).sum().backward()
    assert values["gate_bias"].grad.nonzero()[:, 0].tolist() == [7, 8]


def test_each_layer_draws_dropout_from_a_stream_of_its_own():
    """With one token and biases alone, u of layer j is the sum of what each layer's dropout keeps."""
    dendrites, p, seed = 37, 0.4, torch.tensor(11)
    place = torch.zeros(1, 1, dtype=torch.int64)
    bias = torch.arange(1.0, 1 + 3 * dendrites, dtype=torch.float64).view(3, dendrites)
    u = window_layers_ref(torch.zeros(1, 1, 5, dtype=torch.float64), place, place, None,
                          torch.zeros(3, 5, dendrites, dtype=torch.float64),
                          torch.zeros(2, 3, dendrites, dendrites, dtype=torch.float64), bias, p, seed)
    kept = torch.stack([dropout_keep(seed, place, place, dendrites, p, stream)[0, 0] for stream in (2, 3, 4)])
    torch.testing.assert_close(u[0, 0], (kept * bias / (1 - p)).sum(dim=0))
    assert (POOL_STREAM, WINDOW_STREAM) == (1, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_is_the_same_in_every_layout(layout):
    """Row and column decide what is dropped, so that padded and packed rows give the same, and so does each alone."""
    values = {name: value if value is None else value.double() for name, value in window_parameters().items()}
    rates = {"p_embed": 0.3, "p_window": 0.3, "p_pool": 0.3, "seed": 3}
    arguments = tokens("padded", 4, 9, mask_dtype=torch.bool)
    pooled = ops.window_pool(**arguments, **values, **rates)
    mask = arguments["attention_mask"]
    packed = {"input_ids": arguments["input_ids"][mask], "cu_seqlens": F.pad(mask.sum(dim=1).cumsum(0), (1, 0))}
    torch.testing.assert_close(ops.window_pool(**packed, **values, **rates), pooled)
    assert not torch.allclose(ops.window_pool(**packed, **values), pooled)


@pytest.mark.parametrize(("changes", "message"), [
    ({"word_embeddings": torch.zeros(9)}, r"word_embeddings has shape \[9\], expected \[V, H\]"),
    ({"word_embeddings": torch.zeros(9, 12, dtype=torch.int64)}, "word_embeddings has dtype torch.int64"),
    ({"ln_bias": torch.zeros(12)}, "one of ln_weight and ln_bias is missing"),
    ({"gate_weight": None}, "one of gate_weight and gate_bias is missing"),
    ({"gate_weight": torch.zeros(12)}, r"gate_weight has shape \[12\], expected \[28\]"),
    ({"gate_bias": torch.zeros(3)}, rf"gate_bias has shape \[3\], expected \[{VOCAB_SIZE}\]"),
    ({"token_type_embeddings": torch.zeros(0, 12)}, r"token_type_embeddings has shape \[0, 12\], expected \[\*, 12\]"),
    ({"window_input_weight": torch.zeros(2, 12, 16)}, r"window_input_weight has shape \[2, 12, 16\].* odd R"),
    ({"window_weight": torch.zeros(1, 3, 16, 16)}, r"window_weight has shape \[1, 3, 16, 16\], expected \[2,"),
    ({"window_bias": torch.zeros(0, 16)}, r"window_bias has shape \[0, 16\].* no layer of no dendrite"),
    ({"window_bias": torch.zeros(3, 16, dtype=torch.float64)}, "window_bias has .*dtype.* word_embeddings"),
    ({"p_window": 1.0}, "p_window is 1.0, expected 0 <= p_window < 1"),
    ({"eps": -1.0}, "eps is -1.0"),
    ({"input_ids": torch.tensor([[1, VOCAB_SIZE]])}, f"input_ids holds {VOCAB_SIZE} in row 0"),
    ({"token_type_ids": torch.tensor([[0, 2]])}, "token_type_ids holds 2 in row 0, expected 0 to 1"),
    ({"attention_mask": torch.ones(2, 2)}, r"attention_mask has shape \[2, 2\], expected \[1, 2\]"),
    ({"input_ids": torch.tensor([[1, 2], [3, -1]])}, "input_ids holds -1 in row 1"),
    ({"cu_seqlens": torch.tensor([0, 2])}, r"input_ids has shape \[1, 2\], expected"),
], ids=str)
@pytest.mark.parametrize("backend", ["reference", None])
def test_bad_input(changes, message, backend):
    arguments = {"input_ids": torch.tensor([[1, 2]])} | window_parameters() | changes
    with pytest.raises(RuntimeError, match=message) as caught:
        ops.window_pool(**arguments, backend=backend)
    assert "\n" not in str(caught.value)
