"""The mean gradient of a head, against the mean of Jacobians by torch.func and against the head's own logits.

Shares along a path, against integrals by hand.
"""

import pytest
import torch
from cases import case_id, covering_sample, generator
from torch import nn

from dendritic_bert.inference import integrated_gradients
from dendritic_bert.inference.integrated_gradients import head_logits, mean_gradient, path_shares
from dendritic_bert.model.dendritic_linear import DendriticLinear, DendriticMLP

HIDDEN_SIZE = 12
CASES = covering_sample({
    "activation": ["sigmoid", "tanh", "relu", "gelu"], "num_dendrites": [0, 1, 3], "num_labels": [1, 2, 7],
    "hidden": [None, None, 5], "between": [nn.GELU, nn.ReLU], "tokens": [1, 9]}, 12)


def a_head(activation: str, num_dendrites: int, num_labels: int, hidden: int | None = None, between=nn.GELU):
    sizes = (HIDDEN_SIZE, num_labels) if hidden is None else (HIDDEN_SIZE, hidden, num_labels)
    head = (DendriticLinear if hidden is None else DendriticMLP)(
        *sizes, num_dendrites, activation, **{} if hidden is None else {"hidden_activation": between()})
    rng = generator(3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=rng)
    return head


def some_tokens(count: int) -> torch.Tensor:
    return torch.randn(count, HIDDEN_SIZE, generator=generator(4), dtype=torch.float64) / count


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_shares_add_up_and_are_mean_gradients(case):
    x = some_tokens(case.pop("tokens"))
    head = a_head(**case)
    mean = mean_gradient(head, x)
    exact = head.double()
    pooled, shares = x.sum(dim=0), x @ mean.T
    with torch.no_grad():
        rise = exact(pooled) - exact(torch.zeros_like(pooled))
        torch.testing.assert_close(head_logits(head, pooled), exact(pooled))
    assert ((shares.sum(dim=0) - rise).abs() <= 1e-6 * shares.abs().sum(dim=0)).all()
    along = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000  # the midpoint rule, off by a step of 1e-3 at a kink
    jacobians = torch.func.vmap(torch.func.jacrev(exact))(along[:, None] * pooled)
    steps = "relu" in case["activation"] or (case["hidden"] and case["between"] is nn.ReLU)
    tolerance = (5e-3 if steps else 1e-5) * jacobians.abs().amax().item()
    torch.testing.assert_close(mean, jacobians.mean(dim=0), rtol=0, atol=tolerance)


def test_a_linear_head_is_its_own_gradient():
    head = a_head("sigmoid", 0, 3)
    assert torch.allclose(mean_gradient(head, some_tokens(4)), head.weight.double(), rtol=1e-15, atol=0)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_a_step_between_all_nodes(activation):
    """A sigmoid that rises within 1e-7 of the way, which no node of the first intervals meets."""
    head, x = a_head(activation, 1, 2), some_tokens(5)
    with torch.no_grad():
        head.weight[2:] *= 1e8
        head.bias[2:] = -0.3456 * (head.weight[2:].double() @ x.sum(dim=0)).float()
    shares, exact = x @ mean_gradient(head, x).T, head.double()
    rise = (exact(x.sum(dim=0)) - exact(torch.zeros(HIDDEN_SIZE, dtype=torch.float64))).detach()
    assert ((shares.sum(dim=0) - rise).abs() <= 1e-6 * shares.abs().sum(dim=0)).all()


def test_weights_that_leave_no_digit_end(monkeypatch):
    """Two saturated dendrites of 1e20 that cancel: no interval can be found to be exact."""
    head, x = a_head("sigmoid", 2, 1), some_tokens(5)
    with torch.no_grad():
        head.bias[1:] = 30.0
        head.top[:] = torch.tensor([[1e20], [-1e20]])
    monkeypatch.setattr(integrated_gradients, "MOST_STEPS", 20)
    assert mean_gradient(head, x).isfinite().all()


def test_no_token():
    mean = mean_gradient(a_head("sigmoid", 2, 3), some_tokens(1)[:0])
    assert mean.shape == (3, HIDDEN_SIZE)
    assert mean.isfinite().all()


def test_in_inference_mode():
    with torch.inference_mode():
        head = a_head("sigmoid", 2, 3)
        mean = mean_gradient(head, some_tokens(3))
    assert torch.equal(mean, mean_gradient(a_head("sigmoid", 2, 3), some_tokens(3)))


@pytest.mark.parametrize("times", [1, 2], ids=["as many parts as labels", "fewer parts than labels"])
def test_shares_along_a_path_by_hand(times):
    """Of x1 x2 x3 at (2, 3, 5) each part has a third; of relu(w x - c), which starts at s = c / w x, each has w_t x_t
    times the rest of the way; a logit that no factor moves has none."""
    x, w = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)

    def logits(factors: torch.Tensor) -> torch.Tensor:
        moved = factors * x
        return torch.stack([moved.prod(dim=1), (moved @ w - 4).relu(), 7 + 0 * moved[:, 0]], dim=1).repeat(1, times)

    found = path_shares(logits, 3, rows=5)
    assert found.shape == (3, 3 * times)
    assert torch.equal(found[:, -3:], found[:, :3])
    size = (w * x).abs().sum() * (1 - 4 / 11)
    torch.testing.assert_close(found[:, 1], w * x * (1 - 4 / 11), rtol=0, atol=1e-3 * size.item())
    torch.testing.assert_close(found[:, 0], torch.full_like(x, 10.0), rtol=1e-3, atol=0)
    assert not found[:, 2].any()
    assert (found[:, 1].sum() - 7).abs() <= 1e-3 * found[:, 1].abs().sum()


@pytest.mark.parametrize("where", [0.0, 0.3456, 1.0])
def test_a_narrow_step_along_a_path(where):
    """A rise of 4 within 1e-3 of the way, at its start, between its first nodes or at its end."""
    def logits(factors: torch.Tensor) -> torch.Tensor:
        s = factors.mean(dim=1, keepdim=True)
        return s + 4 * ((s - where) * 1e4).sigmoid()

    rise = (logits(torch.ones(1, 2).double()) - logits(torch.zeros(1, 2).double())).item()
    found = path_shares(logits, 2, rows=1000)
    assert abs(found.sum().item() - rise) <= 1e-3 * rise
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)


def test_shares_along_a_path_end_without_a_digit(monkeypatch):
    monkeypatch.setattr(integrated_gradients, "MOST_STEPS", 20)
    rows = []

    def logits(factors: torch.Tensor) -> torch.Tensor:
        rows.append(len(factors))
        return 1e20 * (factors * 1e20).sin()

    assert path_shares(logits, 1, rows=16).isfinite().all()
    assert max(rows) == 16


def test_shares_along_a_path_in_inference_mode():
    with torch.inference_mode():
        assert (path_shares(lambda factors: factors @ torch.ones(2, 1).double(), 2, rows=9) == 1).all()
