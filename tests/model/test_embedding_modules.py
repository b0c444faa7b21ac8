"""Where a module does more than its weights say it is called, in training and in inference, and the numbers stay.

Hooks, adapters, parametrizations, pruning, noise: what they do to the embeddings of BERT they do to those of a DSN. The
expected values come from transformers' BERT embeddings, called by hand.
"""

import copy

import pytest
import torch
import torch.nn.utils.parametrize
from helpers import tiny_bert
from torch import nn
from torch.nn.utils import prune
from transformers import Trainer, TrainingArguments
from transformers.integrations.neftune import neftune_post_forward_hook

from dendritic_bert import (
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
    DendriticBertModel,
)
from dendritic_bert.model import embedding_modules

LENGTHS = [5, 1, 9, 3]
EMBEDDINGS = ["word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm", "dropout"]
PARTS = ["bert", "bert.embeddings", *(f"bert.embeddings.{name}" for name in EMBEDDINGS)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(num_labels=2, hidden_size=64).save_pretrained(folder)
    return folder


@pytest.fixture(params=[DendriticBertForSequenceClassification, DendriticBertForQuestionAnswering],
                ids=["classification", "qa"])
def model(checkpoint, request):
    torch.manual_seed(0)
    return request.param.from_pretrained(checkpoint, num_labels=2, num_dendrites=1)


@pytest.fixture
def classifier(checkpoint):
    return DendriticBertForSequenceClassification.from_pretrained(checkpoint)


def layouts() -> dict[str, dict[str, torch.Tensor]]:
    """The same rows padded and packed."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    ids, types = (torch.randint(limit, mask.shape, generator=generator) for limit in (50, 2))
    kept = mask.bool()
    return {"padded": {"input_ids": ids, "attention_mask": mask, "token_type_ids": types},
            "packed": {"input_ids": ids[kept], "token_type_ids": types[kept],
                       "cu_seqlens": torch.tensor([0, *LENGTHS]).cumsum(0).int()}}


def logits_of(model, layout: str, grad: bool = False) -> torch.Tensor:
    with torch.set_grad_enabled(grad):
        output = model(**layouts()[layout])
    if "logits" in output:
        return output.logits
    logits = torch.stack([output.start_logits, output.end_logits], dim=-1)
    return logits if layout == "packed" else logits[layouts()["padded"]["attention_mask"].bool()]


def expected_logits(model) -> torch.Tensor:
    """transformers' embeddings, called as modules, pooled by hand."""
    inputs = layouts()["padded"]
    x = model.bert.embeddings(inputs["input_ids"], inputs["token_type_ids"])
    mask = inputs["attention_mask"][..., None]
    if isinstance(model, DendriticBertForQuestionAnswering):
        return model.qa_outputs(x)[inputs["attention_mask"].bool()]
    return model.classifier((x * mask).sum(dim=1) / mask.sum(dim=1))


def check(model, before: torch.Tensor) -> None:
    """Both layouts, with gradients and without, are what the modules give, which is not what they were."""
    expected = expected_logits(model)
    assert not torch.allclose(expected, before, atol=1e-3)
    for layout in layouts():
        for grad in (False, True):
            torch.testing.assert_close(logits_of(model, layout, grad), expected, rtol=1e-4, atol=1e-4)


def part_of(model, name: str) -> nn.Module:
    return model.get_submodule(name if name != "head" else model.head_name)


def scale(output):
    if not isinstance(output, torch.Tensor):
        output["last_hidden_state"] = scale(output["last_hidden_state"])
        return output
    return output * 0.5


@pytest.mark.parametrize("name", [*PARTS, "head"])
def test_forward_hooks(model, name):
    before = logits_of(model, "padded")
    calls = []
    handle = part_of(model, name).register_forward_hook(
        lambda module, arguments, output: calls.append(name) or scale(output))
    after = {layout: logits_of(model, layout) for layout in layouts()}
    assert len(calls) == 2
    assert not torch.allclose(after["padded"], before, atol=1e-3)
    torch.testing.assert_close(after["packed"], after["padded"], rtol=1e-4, atol=1e-4)
    if name != "bert":
        check(model, before)
    handle.remove()
    assert torch.equal(logits_of(model, "padded"), before)


def through_module_forward_hook(module):
    return nn.modules.module.register_module_forward_hook(lambda m, arguments, output: None)


REGISTRATIONS = {
    "forward_pre": lambda m, called: m.register_forward_pre_hook(lambda *_: called.append(1)),
    "forward_pre_kwargs": lambda m, called: m.register_forward_pre_hook(lambda *_: called.append(1), with_kwargs=True),
    "forward": lambda m, called: m.register_forward_hook(lambda *_: called.append(1)),
    "forward_always": lambda m, called: m.register_forward_hook(lambda *_: called.append(1), always_call=True),
    "full_backward": lambda m, called: m.register_full_backward_hook(lambda *_: called.append(1)),
    "full_backward_pre": lambda m, called: m.register_full_backward_pre_hook(lambda *_: called.append(1)),
    "global_forward": lambda m, called: nn.modules.module.register_module_forward_hook(
        lambda module, *_: called.append(1) if module is m else None),
    "global_forward_pre": lambda m, called: nn.modules.module.register_module_forward_pre_hook(
        lambda module, *_: called.append(1) if module is m else None),
    "global_backward": lambda m, called: nn.modules.module.register_module_full_backward_hook(
        lambda module, *_: called.append(1) if module is m else None),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", REGISTRATIONS)
@pytest.mark.parametrize("name", [*EMBEDDINGS, "head"])
def test_every_kind_of_hook_is_called(classifier, kind, name, training):
    logits_of(classifier, "padded")
    part = part_of(classifier, name if name == "head" else f"bert.embeddings.{name}")
    called = []
    handle = REGISTRATIONS[kind](part, called)
    try:
        logits_of(classifier.train(training), "padded", grad=True).sum().backward()
        assert called
        if "backward" not in kind:
            called.clear()
            logits_of(classifier, "packed")
            assert called
    finally:
        handle.remove()


def test_gradients_are_those_of_the_kernel(classifier):
    """Through a hook that does nothing: the same loss and gradients as without it."""
    twin = copy.deepcopy(classifier)
    twin.bert.embeddings.word_embeddings.register_forward_hook(lambda *_: None)
    for layout in layouts():
        for each in (classifier, twin):
            each.zero_grad()
            logits_of(each, layout, grad=True).square().sum().backward()
        for (name, one), other in zip(classifier.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("pooling", ["mean_masked", "mean_all", "sum_all"])
@pytest.mark.parametrize("num_tokens", [0, 1, 9, 20])
def test_poolings_and_lengths(checkpoint, pooling, num_tokens):
    classifier = DendriticBertForSequenceClassification.from_pretrained(checkpoint, pooling=pooling)
    twin = copy.deepcopy(classifier)
    twin.bert.embeddings.LayerNorm.register_forward_hook(lambda *_: None)
    ids = torch.randint(50, (3, num_tokens))
    packed = {"input_ids": ids.flatten(), "cu_seqlens": torch.arange(4) * num_tokens}
    for inputs in ({"input_ids": ids}, {"input_ids": ids.int(), "attention_mask": torch.randint(2, ids.shape)}, packed):
        with torch.no_grad():
            torch.testing.assert_close(twin(**inputs).logits, classifier(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_said_there_too(classifier):
    classifier.bert.embeddings.dropout.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="row 0 has 21 tokens, the position table 20"):
        classifier(torch.ones(2, 21, dtype=torch.long))
    with pytest.raises(RuntimeError, match="row 1 has 21 tokens, the position table 20"):
        classifier(torch.ones(22, dtype=torch.long), cu_seqlens=torch.tensor([0, 1, 22]))
    with pytest.raises(RuntimeError, match="attention_mask has shape"):
        classifier(torch.ones(2, 5, dtype=torch.long), attention_mask=torch.ones(3, 5))


class Scaled(nn.Embedding):
    """A subclass, as of Gemma's or of an adapter's."""

    def forward(self, ids):
        return super().forward(ids) * 3


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def own_forward(model):
    layer = model.bert.embeddings.LayerNorm
    layer.forward = lambda x, forward=layer.forward: forward(x) * 2


CHANGES = {
    "subclass": lambda m: setattr(m.bert.embeddings, "word_embeddings", Scaled(50, 64)),
    "parametrization": lambda m: torch.nn.utils.parametrize.register_parametrization(
        m.bert.embeddings.word_embeddings, "weight", Halved()),
    "weight_norm": lambda m: nn.utils.parametrizations.weight_norm(m.bert.embeddings.position_embeddings) and (
        m.bert.embeddings.position_embeddings.parametrizations.weight.original0.data.mul_(2)),
    "own_forward": own_forward,
    "no_bias": lambda m: setattr(m.bert.embeddings, "LayerNorm", nn.LayerNorm(64, bias=False)),
    "no_affine": lambda m: setattr(m.bert.embeddings, "LayerNorm", nn.LayerNorm(64, elementwise_affine=False)),
    "identity": lambda m: setattr(m.bert.embeddings, "LayerNorm", nn.Identity()),
    "max_norm": lambda m: setattr(m.bert.embeddings.word_embeddings, "max_norm", 0.1),
    "pruned": lambda m: prune.l1_unstructured(m.bert.embeddings.word_embeddings, "weight", amount=0.5),
    "pruned_norm": lambda m: prune.random_unstructured(m.bert.embeddings.LayerNorm, "bias", amount=0.5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_modules_that_are_others(model, change):
    before = logits_of(model, "padded")
    CHANGES[change](model)
    check(model, before)
    with torch.no_grad():  # and what they hold may change
        for parameter in model.parameters():
            parameter.add_(0.1)
    check(model, before)


@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings", "bert.embeddings.LayerNorm", "head"])
def test_pruned_parameters_are_trained(model, name):
    part = part_of(model, name)
    prune.l1_unstructured(part, "weight", amount=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        logits_of(model.train(), "padded", grad=True).square().sum().backward()
        optimizer.step()
    model.eval()
    torch.testing.assert_close(logits_of(model, "packed"), expected_logits(model), rtol=1e-4, atol=1e-4)
    prune.remove(part, "weight")
    torch.testing.assert_close(logits_of(model, "packed"), expected_logits(model), rtol=1e-4, atol=1e-4)
    assert model._table_cache is not None  # as fast as before


@pytest.mark.parametrize("option", ["sparse", "scale_grad_by_freq"])
def test_options_of_the_gradient(classifier, option):
    words = classifier.bert.embeddings.word_embeddings
    setattr(words, option, True)
    logits_of(classifier, "padded", grad=True).square().sum().backward()
    found = words.weight.grad
    words.weight.grad = None
    expected_logits(classifier).square().sum().backward()
    assert found.is_sparse == words.weight.grad.is_sparse == (option == "sparse")
    torch.testing.assert_close(found.to_dense(), words.weight.grad.to_dense(), rtol=1e-4, atol=1e-4)


# ---- dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hooked", [False, True])
def test_dropout_of_the_modules_counts(classifier, hooked):
    """Its p, and its own mode: dropout that is switched off while training, or on in evaluation (Monte Carlo)."""
    if hooked:
        classifier.bert.embeddings.register_forward_hook(lambda *_: None)
    dropouts = [module for module in classifier.modules() if isinstance(module, nn.Dropout)]
    exact = logits_of(classifier, "padded")
    for dropout in dropouts:
        dropout.p = 0.0
    torch.testing.assert_close(logits_of(classifier.train(), "padded", grad=True), exact, rtol=1e-4, atol=1e-4)
    for dropout in dropouts:
        dropout.p = 0.5
        dropout.eval()
    torch.testing.assert_close(logits_of(classifier, "padded", grad=True), exact, rtol=1e-4, atol=1e-4)
    for dropout in dropouts:
        classifier.eval()
        assert torch.equal(logits_of(classifier, "padded"), logits_of(classifier, "padded"))
        dropout.train()
        assert not torch.equal(logits_of(classifier, "padded"), logits_of(classifier, "padded"))


@pytest.mark.parametrize("hooked", [False, True])
def test_dropout_drops_channels_of_tokens_and_of_the_row(classifier, hooked):
    """Its mean over many draws is the result without it, and p_pool leaves zeros in the pooled row."""
    if hooked:
        classifier.bert.embeddings.word_embeddings.register_forward_hook(lambda *_: None)
    embeddings, pooled = classifier.bert.embeddings, []
    classifier.classifier.register_forward_hook(lambda module, arguments, output: pooled.append(arguments[0]))
    embeddings.dropout.p, classifier.dropout.p = 0.3, 0.2
    ids = torch.randint(50, (1, 6)).expand(20_000, -1)
    with torch.no_grad():
        classifier(ids[:1])
        classifier.train()(ids)
    exact, drawn = pooled
    assert (drawn == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(drawn.mean(dim=0), exact[0], rtol=0.05, atol=0.02)
    kept = (drawn != 0).float()
    spread = (drawn * 0.8).square().sum(dim=0) / kept.sum(dim=0) - exact[0].square()
    x = expected_tokens(classifier, ids[0])
    torch.testing.assert_close(spread, x.square().sum(dim=0) * 0.3 / 0.7 / 36, rtol=0.1, atol=0.01)


def expected_tokens(model, ids):
    embeddings = copy.deepcopy(model.bert.embeddings).eval()
    with torch.no_grad():
        return embeddings(ids[None])[0]


# ---- those who attach them -------------------------------------------------------------------------------------------


def test_neftune(classifier, tmp_path):
    words = classifier.get_input_embeddings()
    words.neftune_noise_alpha = 50.0
    handle = words.register_forward_hook(neftune_post_forward_hook)
    classifier.bert.embeddings.dropout.p = classifier.dropout.p = 0.0
    exact = logits_of(classifier, "padded")
    first, second = (logits_of(classifier.train(), "padded", grad=True) for _ in range(2))
    assert not torch.allclose(first, exact, atol=1e-2)
    assert not torch.allclose(first, second, atol=1e-2)
    torch.testing.assert_close(logits_of(classifier.eval(), "padded"), exact)
    handle.remove()

    rows = [{"input_ids": [3, 4, 5], "labels": label} for label in (0, 1)]
    losses = []
    for alpha in (None, 500.0):
        arguments = TrainingArguments(tmp_path, num_train_epochs=1, report_to="none", use_cpu=True, disable_tqdm=True,
                                      save_strategy="no", neftune_noise_alpha=alpha, seed=3)
        losses.append(Trainer(copy.deepcopy(classifier), arguments, train_dataset=rows).train().training_loss)
    assert losses[0] != losses[1]


def test_data_parallel_replicas(model):
    """A replica's modules hold its parameters as attributes."""
    before = logits_of(model, "padded")
    replica = model._replicate_for_data_parallel()
    torch.testing.assert_close(logits_of(replica, "padded"), before, rtol=1e-4, atol=1e-4)


def test_embeddings_alone(checkpoint):
    model = DendriticBertModel.from_pretrained(checkpoint)
    padded, packed = layouts().values()
    model.bert.embeddings.word_embeddings.register_forward_hook(lambda module, arguments, output: output * 2)
    one, other = model(**padded), model(**packed)
    torch.testing.assert_close(one.pooler_output, other.pooler_output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.last_hidden_state[padded["attention_mask"].bool()], other.last_hidden_state)


def test_plain_modules_are_not_called(classifier, monkeypatch):
    """Or all of the above would hold, slowly."""
    monkeypatch.setattr(embedding_modules.DsnBody, "forward", None)
    for layout in layouts():
        for grad in (False, True):
            assert logits_of(classifier, layout, grad).isfinite().all()
