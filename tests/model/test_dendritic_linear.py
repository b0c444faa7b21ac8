"""The dendritic layer against its formula in float64, and against PerforatedAI's own modules."""

import copy

import pytest
import torch
from torch import nn

from dendritic_bert import DendriticLinear
from dendritic_bert.model.dendritic_linear import NEW_DENDRITE_STD

ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "gelu": nn.functional.gelu}


def random_layer(in_features, out_features, num_dendrites, activation="sigmoid") -> DendriticLinear:
    """A layer as training leaves it: nothing is zero, not even the entries of lateral that nothing reads."""
    layer = DendriticLinear(in_features, out_features, num_dendrites, activation)
    with torch.no_grad():
        for tensor in layer.state_dict(keep_vars=True).values():
            tensor.normal_()
    return layer


def by_the_formula(layer: DendriticLinear, x: torch.Tensor) -> torch.Tensor:
    """y + sum_k T_k a_k, a_k = f(A_k x + b_k + sum_{j<k} D_kj a_j): one output and one scalar at a time, in float64."""
    size, f = layer.out_features, ACTIVATIONS[layer.activation]
    weight, bias = layer.weight.double(), layer.bias.double()
    rows = []
    for row in x.double().reshape(-1, layer.in_features):
        outputs = []
        for c in range(size):
            total, activations = weight[c] @ row + bias[c], []
            for k in range(layer.num_dendrites):
                place = (1 + k) * size + c
                z = weight[place] @ row + bias[place]
                z = z + sum(layer.lateral[k, j, c].double() * activations[j] for j in range(k))
                activations.append(f(z))
                total = total + layer.top[k, c].double() * activations[k]
            outputs.append(total)
        rows.append(torch.stack(outputs))
    return torch.stack(rows).view(*x.shape[:-1], size)


@pytest.mark.parametrize("num_dendrites", [0, 1, 2, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 7), (7,)])
def test_formula(num_dendrites, activation, shape):
    torch.manual_seed(num_dendrites)
    layer, x = random_layer(7, 4, num_dendrites, activation), torch.randn(shape)
    torch.testing.assert_close(layer.double()(x.double()), by_the_formula(layer, x), rtol=0, atol=1e-13)
    torch.testing.assert_close(layer.float()(x).double(), by_the_formula(layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_dendrites", [1, 3])
def test_gradients(num_dendrites):
    torch.manual_seed(0)
    layer, x = random_layer(3, 2, num_dendrites, "tanh").double(), torch.randn(2, 3, dtype=torch.float64)
    names, values = zip(*layer.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(call, (x.requires_grad_(), *values))


def test_without_dendrites_it_is_a_linear_layer():
    linear, layer = nn.Linear(7, 4), DendriticLinear(7, 4)
    assert layer.load_state_dict(linear.state_dict())
    x = torch.randn(5, 7)
    assert torch.equal(layer(x), linear(x))


def test_new_dendrites_change_nothing():
    torch.manual_seed(0)
    linear, layer = nn.Linear(64, 3), DendriticLinear(64, 3, num_dendrites=2)
    with torch.no_grad():
        layer.weight[:3], layer.bias[:3] = linear.weight, linear.bias
    x = torch.randn(5, 64)
    assert torch.equal(layer(x), linear(x))
    assert layer.weight[3:].std().item() == pytest.approx(NEW_DENDRITE_STD, rel=0.2)
    assert layer.bias[3:].any()


@pytest.mark.parametrize("num_dendrites", [0, 1, 4])
def test_live_parameters_are_those_with_a_gradient(num_dendrites):
    layer = random_layer(7, 4, num_dendrites)
    layer(torch.randn(50, 7)).square().sum().backward()
    assert layer.num_live_parameters() == sum(int(parameter.grad.count_nonzero()) for parameter in layer.parameters())


def test_state_dict_names():
    assert list(DendriticLinear(7, 4).state_dict()) == ["weight", "bias"]
    for num_dendrites in (1, 2):
        shapes = {name: tuple(value.shape) for name, value in DendriticLinear(7, 4, num_dendrites).state_dict().items()}
        rows = (1 + num_dendrites) * 4
        assert shapes == {"weight": (rows, 7), "bias": (rows,), "lateral": (num_dendrites, num_dendrites, 4),
                          "top": (num_dendrites, 4)}


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_dendrites is -1, expected 0 or more"):
        DendriticLinear(7, 4, num_dendrites=-1)
    with pytest.raises(ValueError, match="activation is 'swish', expected one of sigmoid, tanh, relu, gelu"):
        DendriticLinear(7, 4, activation="swish")


@pytest.fixture
def perforated(perforatedai):
    """PerforatedAI's own wrapper of a Linear, grown to N dendrites with random weights everywhere."""

    def grow(num_dendrites: int, activation: str) -> nn.Module:
        network = perforatedai.perforate(nn.Sequential(nn.Linear(7, 4)), activation)
        network(torch.randn(2, 7)).sum().backward()  # it learns the shapes from a backward pass
        # Each dendrite takes two cycles: one that grows it, one that trains it.
        perforatedai.utils.simulate_cycles(network[0], 2 * num_dendrites, True)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
        network.zero_grad()
        return network[0]

    return grow


@pytest.mark.parametrize("num_dendrites", [0, 1, 2, 3])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu"])
def test_bit_identical_to_perforatedai(perforated, num_dendrites, activation):
    torch.manual_seed(num_dendrites)
    theirs = perforated(num_dendrites, activation)
    dendrites = [theirs.dendrite_module.layers[k] for k in range(num_dendrites)]
    ours = DendriticLinear(7, 4, num_dendrites, activation)
    with torch.no_grad():
        ours.weight.copy_(torch.cat([layer.weight for layer in [theirs.main_module, *dendrites]]))
        ours.bias.copy_(torch.cat([layer.bias for layer in [theirs.main_module, *dendrites]]))
        if num_dendrites:
            ours.top.copy_(theirs.dendrites_to_top[num_dendrites - 1])
        for k in range(1, num_dendrites):
            ours.lateral[k, :k] = theirs.dendrite_module.dendrites_to_dendrites[k]
    x = torch.randn(6, 7)
    output, expected = ours(x), theirs(x)
    assert torch.equal(output, expected)

    output.square().sum().backward()
    expected.square().sum().backward()
    gradients = torch.cat([layer.weight.grad for layer in [theirs.main_module, *dendrites]])
    torch.testing.assert_close(ours.weight.grad, gradients, rtol=1e-5, atol=1e-5)
    if num_dendrites:
        torch.testing.assert_close(ours.top.grad, theirs.dendrites_to_top[-1].grad, rtol=1e-5, atol=1e-5)


def test_deepcopy_is_independent():
    layer = random_layer(7, 4, 2)
    twin, x = copy.deepcopy(layer), torch.randn(3, 7)
    assert torch.equal(twin(x), layer(x))
    with torch.no_grad():
        twin.top.zero_()
    assert not torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("num_dendrites", [0, 1, 2, 3])
def test_outputs_are_kept_by_number(num_dendrites):
    """Outputs that are moved, left out and added: those that are kept compute what they did, in training too."""
    torch.manual_seed(0)
    layer, x = random_layer(5, 3, num_dendrites), torch.randn(4, 5)
    before = layer(x)
    layer.set_outputs([2, None, 0, None])
    after = layer(x)
    assert after.shape == (4, 4)
    torch.testing.assert_close(after[:, [0, 2]], before[:, [2, 0]])
    fresh = DendriticLinear(5, 4, num_dendrites)
    assert {name: tensor.shape for name, tensor in layer.state_dict().items()} == {
        name: tensor.shape for name, tensor in fresh.state_dict().items()}
    after.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
