"""window_pool against torch's own convolution in float64, its gradients and dropout, and bad input to it."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from cases import LAYOUTS, VOCAB_SIZE, case_id, covering_sample, tokens
from window_workload import AXES, window_parameters, workload

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.reference import POOL_STREAM, WINDOW_STREAM, dropout_keep, window_layers_ref


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


@pytest.mark.parametrize("spoilt", [float("nan"), 3e38])
def test_a_token_that_is_not_valid_keeps_its_column_and_nothing_else(spoilt):
    """Holes in a mask are zeros in a convolution over all columns, and whatever the masked token holds stays there."""
    values = {name: value if value is None else value.double() for name, value in window_parameters(layers=4).items()}
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


def test_a_nan_of_a_valid_token_passes_the_clip():
    values = window_parameters()
    values["gate_bias"][5] = float("nan")
    assert ops.window_pool(torch.tensor([[1, 5], [1, 2]]), **values).isnan().all(dim=1).tolist() == [True, False]


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


def test_the_gradient_stops_where_the_gate_is_clipped():
    values = window_parameters(layers=0)
    values["gate_bias"][:] = 20
    values["gate_bias"].requires_grad_()
    ops.window_pool(torch.tensor([[1, 2, 3]]), **values).sum().backward()
    assert torch.equal(values["gate_bias"].grad, torch.zeros(VOCAB_SIZE))


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
    ({"window_bias": torch.zeros(3, 16, dtype=torch.float64)}, "window_bias has dtype torch.float64, expected"),
    ({"p_window": 1.0}, "p_window is 1.0, expected 0 <= p_window < 1"),
    ({"eps": -1.0}, "eps is -1.0"),
    ({"input_ids": torch.tensor([[1, VOCAB_SIZE]])}, f"input_ids holds {VOCAB_SIZE} in row 0"),
    ({"token_type_ids": torch.tensor([[0, 2]])}, "token_type_ids holds 2 in row 0, expected 0 to 1"),
    ({"attention_mask": torch.ones(2, 2)}, r"attention_mask has shape \[2, 2\], expected \[1, 2\]"),
], ids=str)
def test_bad_input(changes, message):
    arguments = {"input_ids": torch.tensor([[1, 2]])} | window_parameters() | changes
    with pytest.raises(RuntimeError, match=message) as caught:
        ops.window_pool(**arguments)
    assert "\n" not in str(caught.value)
