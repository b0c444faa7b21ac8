"""The convolutions that train a windowed model, against the reference: in float64 to its rounding, values and gradients
of every parameter; in float32 within the bound of its sums."""

import pytest
import torch
from cases import case_id, covering_sample, generator

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.reference import token_places, window_layers_ref, window_pool_ref
from dendritic_bert.kernels.window_pool import _window_layers, window_pool_padded

VOCAB = 20
AXES = {
    "lengths": [[7, 1, 0, 4], [1], [0], [33, 40, 3]], "holes": [False, True], "layers": [0, 1, 2, 5],
    "sizes": [(5, 16), (8, 3), (1, 24)], "radius": [1, 2], "norm": [False, True], "gate": [False, True],
    "types": [False, True], "dropout": [(0, 0, 0), (0.3, 0, 0.2), (0, 0.4, 0)],
}
CASES = covering_sample(AXES, 14)


def parameters(hidden_size: int, dendrites: int, layers: int, radius: int, norm: bool, gate: bool,
               seed: int = 0) -> list[torch.Tensor | None]:
    """Those of ``ops.window_pool`` behind the ids, in float64."""
    source, taps = generator(seed), 2 * radius + 1
    dendrites = dendrites if layers else 0

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64).requires_grad_()

    return [draw(VOCAB, hidden_size), draw(2, hidden_size),
            *([draw(hidden_size), draw(hidden_size)] if norm else [None] * 2),
            draw(taps, hidden_size, dendrites), draw(max(0, layers - 1), taps, dendrites, dendrites),
            draw(layers, dendrites), *([draw(hidden_size + dendrites), draw(VOCAB)] if gate else [None] * 2)]


def padded_rows(lengths: list[int], holes: bool, types: bool, seed: int = 1) -> dict[str, torch.Tensor]:
    """Rows of these lengths, with ids outside of the vocabulary wherever the mask is 0."""
    source, longest = generator(seed), max(1, *lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    if holes:
        mask &= torch.rand(mask.shape, generator=source) > 0.3
    ids = torch.randint(VOCAB, mask.shape, generator=source).where(mask, 10**6)
    tokens = {"input_ids": ids, "attention_mask": mask.long()}
    if types:
        tokens["token_type_ids"] = torch.randint(2, mask.shape, generator=source).where(mask, 99)
    return tokens


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_values_and_gradients_are_those_of_the_reference(case):
    hidden_size, dendrites = case["sizes"]
    values = parameters(hidden_size, dendrites, case["layers"], case["radius"], case["norm"], case["gate"])
    tokens = padded_rows(case["lengths"], case["holes"], case["types"])
    p_embed, p_window, p_pool = case["dropout"]
    options = {"p_embed": p_embed, "p_window": p_window, "p_pool": p_pool, "seed": torch.tensor([11])}
    given = [value for value in values if value is not None]
    results = []
    for function in (window_pool_padded, window_pool_ref):
        pooled = function(tokens["input_ids"], *values, **{name: value for name, value in tokens.items()
                                                           if name != "input_ids"}, **options)
        towards = torch.randn(pooled.shape, generator=generator(2), dtype=torch.float64)
        results.append([pooled, *torch.autograd.grad((pooled * towards).sum(), given, allow_unused=True)])
    for found, expected in zip(*results):
        if expected is None or found is None:  # a gate of one token, or no token at all: one may prove it, one may not
            assert all(gradient is None or not gradient.any() for gradient in (found, expected))
        else:
            # Both round to 2^-53 of sums of at most 5 * 5 * 24 products of numbers below 1e4 in these cases.
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize(("dendrites", "layers"), [(32, 5), (24, 2), (7, 1)])
def test_float32_is_within_the_bound_of_its_sums(dendrites, layers):
    """A layer adds R * max(H, M) products, a bias and itself, so that its relative rounding is below their number times
    2^-24 of the same sums of absolute values (Higham 2002, section 3.1); ReLU makes no difference larger."""
    hidden_size = 32
    values = parameters(hidden_size, dendrites, layers, 1, False, False, seed=3)
    windows = [value.detach() for value in values[4:7]]
    tokens = padded_rows([50, 17, 1, 0, 3], True, False)
    mask = tokens["attention_mask"]
    x = torch.randn(*mask.shape, hidden_size, generator=generator(4), dtype=torch.float64) * mask[..., None]
    places = token_places(tokens["input_ids"], None)
    exact, sizes = (window_layers_ref(size(x), *places, mask, *(size(window) for window in windows))
                    for size in (torch.Tensor.clone, torch.abs))
    found = _window_layers(x.float(), mask != 0, *(window.float() for window in windows), 0.0, places, None)
    operations = layers * (3 * max(hidden_size, dendrites) + 3)
    assert ((found - exact).abs() <= operations * 2**-24 * sizes).all()


def test_ops_serve_padded_rows_on_a_cpu_by_it(monkeypatch):
    """Packed rows by the reference, to the same values."""
    values = [value if value is None else value.detach() for value in parameters(6, 5, 3, 1, True, True)]
    tokens = padded_rows([4, 2, 0], False, False)
    calls = []
    monkeypatch.setattr(ops, "window_pool_padded", lambda *given, **options: calls.append(1)
                        or window_pool_padded(*given, **options))
    padded = ops.window_pool(tokens["input_ids"], *values, attention_mask=tokens["attention_mask"])
    ids = tokens["input_ids"][tokens["attention_mask"] != 0]
    packed = ops.window_pool(ids, *values, cu_seqlens=torch.tensor([0, 4, 6, 6]))
    assert len(calls) == 1
    torch.testing.assert_close(padded, packed, rtol=1e-12, atol=1e-12)


def test_nan_in_a_masked_token_stays_there():
    values = parameters(4, 3, 2, 1, False, True)
    words = values[0].detach().clone()
    words[0] = torch.nan  # the row that is looked up in the place of tokens that are not valid
    ids = torch.tensor([[5, 0, 7], [3, 0, 0]])
    mask = torch.tensor([[1, 0, 1], [1, 0, 0]])
    assert window_pool_padded(ids, words, *values[1:], attention_mask=mask).isfinite().all()
    mask[0, 1] = 1
    assert window_pool_padded(ids, words, *values[1:], attention_mask=mask)[0].isnan().all()
