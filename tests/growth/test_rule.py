"""The rule for growing dendrites decides as PerforatedAI itself does, on scores and on a task that needs dendrites."""

import random

import pytest
import torch
from parity import accuracy, adam, parity_model, parity_rows, train_epoch
from torch import nn

from dendritic_bert import DendriticLinear
from dendritic_bert.growth.rule import Growth, Outcome
from dendritic_bert.model.dendritic_linear import NEW_DENDRITE_STD, dendritic_layers
from dendritic_bert.model.perforatedai_checkpoint import read_perforated


def random_scores(seed: int, maximize: bool) -> list[float]:
    """Scores that climb, stall, fall and come close to the thresholds."""
    rng = random.Random(seed)
    score, scores = 0.5, []
    for _ in range(60):
        score *= 1 + rng.choice([0, 0, 0, 2e-5, 2e-4, 2e-3, 0.02, -0.05])
        scores.append(score if maximize else 1 / score)
    return scores


@pytest.mark.parametrize("seed", range(12))
def test_the_same_decisions_as_perforatedai(perforatedai, seed):
    """In every epoch: the outcome, the number of dendrites, and the weights from which training continues."""
    rng = random.Random(seed)
    maximize, most = rng.random() < 0.8, rng.choice([1, 3])
    patience, tries = rng.choice([1, 2, 3]), rng.choice([1, 2, 3])
    settings = perforatedai.settings
    settings.set_n_epochs_to_switch(patience)
    settings.set_max_dendrite_tries(tries)
    settings.set_max_dendrites(most)
    settings.set_maximizing_score(maximize)
    network = perforatedai.perforate(nn.Sequential(nn.Linear(4, 2)))
    network(torch.randn(3, 4)).sum().backward()
    model = nn.Sequential(DendriticLinear(4, 2))
    growth = Growth(model, most, patience=patience, tries=tries, maximize=maximize)
    outcomes = []
    for epoch, score in enumerate(random_scores(seed, maximize)):
        for bias in (network[0].main_module.bias, model[0].bias):
            bias.data.fill_(epoch)  # by which to see which epoch's weights come back
        over = rng.random() < 0.05
        perforatedai.tracker.set_optimizer_instance(torch.optim.SGD(network.parameters(), 0.1))
        network, restructured, done = perforatedai.tracker.add_validation_score(score, network, over)
        outcomes.append(growth.add_score(score, over))
        assert outcomes[-1] == (Outcome.DONE if done else Outcome.GREW if restructured else Outcome.UNCHANGED)
        assert model[0].num_dendrites == len(network[0].dendrite_module.layers)
        assert model[0].bias[0].item() == network[0].main_module.bias[0].item()
        if done:
            break
    assert Outcome.GREW in outcomes


# ---- parity ----------------------------------------------------------------------------------------------------------


def grow_with_ours(model, num_dendrites: int, train, dev) -> list[tuple[int, float]]:
    """(dendrites, score) of every epoch."""
    growth, optimizer, history = Growth(model, num_dendrites), adam(model), []
    torch.manual_seed(0)
    for _ in range(300):
        train_epoch(model, optimizer, train)
        history.append((model.config.num_dendrites, accuracy(model, dev)))
        outcome = growth.add_score(history[-1][1])
        optimizer = optimizer if outcome is Outcome.UNCHANGED else adam(model)
        if outcome is Outcome.DONE:
            return history
    raise AssertionError("the rule came to no end")


def grow_with_theirs(perforatedai, model, num_dendrites: int, train, dev) -> list[tuple[int, float]]:
    """The same, but PerforatedAI's tracker decides and its modules compute."""
    for name, layer in dendritic_layers(model).items():
        linear = nn.Linear(layer.in_features, layer.out_features, dtype=layer.weight.dtype)
        linear.load_state_dict(layer.state_dict())
        model.set_submodule(name, linear)
    perforatedai.settings.set_max_dendrites(num_dendrites)
    perforatedai.settings.set_d_type(torch.float64)
    model, history, done = perforatedai.perforate(model), [], False
    perforatedai.tracker.set_optimizer_instance(adam(model))
    torch.manual_seed(0)
    while not done:
        train_epoch(model, perforatedai.tracker.member_vars["optimizer_instance"], train)
        dendrites = perforatedai.utils.get_pai_modules(model, 0)[0].dendrite_module.layers
        history.append((len(dendrites), accuracy(model, dev)))
        model, restructured, done = perforatedai.tracker.add_validation_score(history[-1][1], model)
        if restructured:
            perforatedai.tracker.set_optimizer_instance(adam(model))
    return history


def best_scores(history: list[tuple[int, float]]) -> dict[int, float]:
    return {count: max(score for n, score in history if n == count) for count in dict(history)}


@pytest.mark.parametrize(("seed", "head_hidden"), [(0, None), (5, None), (1, 2), (3, 2)])
def test_parity_as_perforatedai_learns_it(perforatedai, seed, head_hidden):
    """Dendrites and scores are the same in every epoch, and the final weights to the last digits of float64."""
    train, dev = parity_rows(0), parity_rows(1)
    model, theirs = parity_model(seed, head_hidden), parity_model(seed, head_hidden)
    history = grow_with_ours(model, 2, train, dev)
    assert history == grow_with_theirs(perforatedai, theirs, 2, train, dev)
    scores = best_scores(history)
    assert scores[0] <= (0.6 if head_hidden is None else 0.8)
    assert scores[model.config.num_dendrites] == max(scores.values()) == 1.0
    assert head_hidden or model.config.num_dendrites == 2
    expected = read_perforated(perforatedai.save(theirs)).state_dict
    assert expected.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-9)


def test_what_is_left_is_the_best():
    """If the last dendrites did not improve the score, the model is the one before them."""
    train, dev = parity_rows(0), parity_rows(1)
    model = parity_model(0)
    history = grow_with_ours(model, 5, train, dev)
    assert history[-1][0] == 3
    assert model.config.num_dendrites == model.classifier.num_dendrites == 2
    assert accuracy(model, dev) == 1.0


def test_an_interrupted_growth_goes_on(tmp_path):
    """Growth can be resumed from any epoch with what was saved there."""
    scores = random_scores(4, maximize=True)
    for stop in (1, 7, 11):
        models = [nn.Sequential(DendriticLinear(4, 2)) for _ in range(2)]
        growth = Growth(models[0], 3, patience=2)
        for epoch, score in enumerate(scores[:stop]):
            models[0][0].bias.data.fill_(epoch)
            growth.add_score(score)
        growth.save(tmp_path / str(stop))
        resumed = Growth(models[1], 3, patience=2)
        resumed.load(tmp_path / str(stop), models[0].state_dict())
        for epoch, score in enumerate(scores[stop:], start=stop):
            for model in models:
                model[0].bias.data.fill_(epoch)
            torch.manual_seed(epoch)
            outcome = growth.add_score(score)
            torch.manual_seed(epoch)
            assert resumed.add_score(score) is outcome
            states = [model.state_dict() for model in models]
            assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
            if outcome is Outcome.DONE:
                break
        assert outcome is Outcome.DONE


# ---- a dendrite ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_dendrites", range(4))
def test_a_new_dendrite_changes_nothing_yet(num_dendrites):
    torch.manual_seed(0)
    layer, x = DendriticLinear(64, 3, num_dendrites, "tanh"), torch.randn(5, 64)
    with torch.no_grad():
        for tensor in layer.state_dict(keep_vars=True).values():
            tensor.normal_()
    before, old = layer(x), {name: value.clone() for name, value in layer.state_dict().items()}
    layer.add_dendrite()
    assert layer.num_dendrites == num_dendrites + 1
    assert torch.equal(layer(x), before)
    assert layer.weight[-3:].std().item() == pytest.approx(NEW_DENDRITE_STD, rel=0.2)
    layer(x).sum().backward()
    assert layer.top.grad[-1].all()
    layer.resize(num_dendrites)
    assert layer.state_dict().keys() == old.keys()
    for name, tensor in layer.state_dict().items():
        below = torch.tril(torch.ones(num_dendrites, num_dendrites), -1)[..., None] if name == "lateral" else 1
        assert torch.equal(tensor * below, old[name] * below)


def test_a_module_with_unequal_layers_is_refused():
    with pytest.raises(ValueError, match=r"have \[0, 1\] dendrites, expected the same number in each"):
        Growth(nn.Sequential(DendriticLinear(3, 2), DendriticLinear(2, 2, 1)), 2)
