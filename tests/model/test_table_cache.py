"""Inference follows the parameters whatever changed them: every optimizer, and writes that torch does not count.

The expected values come from a fresh model that is given the parameters as they are.
"""

import copy
import inspect
import time

import pytest
import torch
from helpers import tiny_bert
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dendritic_bert import DendriticBertForQuestionAnswering, DendriticBertForSequenceClassification
from dendritic_bert.model.table_cache import Contents, _as_integers

INPUTS = {"input_ids": torch.arange(36).view(4, 9) % 50, "attention_mask": torch.ones(4, 9, dtype=torch.long)}
OPTIMIZERS = {name: kind for name, kind in vars(torch.optim).items()
              if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and name != "Optimizer"}
# Each with every way that torch has of running it.
STEPS = [(name, options) for name, kind in OPTIMIZERS.items()
         for options in ({}, {"foreach": True}, {"foreach": False}, {"fused": True})
         if options.keys() <= inspect.signature(kind).parameters.keys()]
SETTINGS = {"LBFGS": {"lr": 1, "max_iter": 2}, "Rprop": {"lr": 0.1}, "Adadelta": {"lr": 10}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(num_labels=2, hidden_size=64).save_pretrained(folder)  # with 64 channels the head is folded
    return folder


@pytest.fixture
def model(checkpoint):
    return DendriticBertForSequenceClassification.from_pretrained(checkpoint, num_dendrites=1)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """There the parameters' bytes are not compared, and every other sign has to do."""
    monkeypatch.setattr(Contents, "are_same", lambda self: True)


def served(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**INPUTS).logits


def assert_follows(model, before: torch.Tensor | None = None) -> None:
    """``before``, what was served earlier, must be another result, or the test shows nothing."""
    fresh = type(model)(model.config).to(model.dtype).eval()
    fresh.load_state_dict(model.state_dict())
    expected = served(fresh)
    torch.testing.assert_close(served(model), expected)
    assert before is None or not torch.allclose(expected, before, atol=1e-4)


def test_every_optimizer_is_here():
    assert {"Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop",
            "Rprop", "SGD", "SparseAdam"} <= OPTIMIZERS.keys()
    assert {name for name, options in STEPS if "fused" in options} >= {"Adam", "AdamW", "SGD", "Adagrad"}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("name", "options"), STEPS, ids=lambda value: str(value))
def test_steps(model, name, options, training, as_on_a_gpu):
    """Gradients written by hand, so that nothing but the step itself shows that parameters change."""
    parameters = [p for p in model.parameters() if name != "Muon" or p.dim() == 2]
    optimizer = OPTIMIZERS[name](parameters, **{"lr": 0.3} | SETTINGS.get(name, {}) | options)
    for _ in range(3):
        model.eval()
        before = served(model)
        model.train(training)
        for parameter in parameters:
            grad = torch.randn_like(parameter)
            parameter.grad = grad.to_sparse() if name == "SparseAdam" else grad
        optimizer.step(lambda: sum(p.detach().square().sum() for p in parameters))
        model.eval()
        assert_follows(model, before)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_fine_tuning_with_a_look_between_every_two_calls(model, kind, training, as_on_a_gpu):
    optimizer = kind(model.parameters(), lr=0.3, fused=True)
    before = served(model)
    for _ in range(3):
        model.train(training)
        loss = model(**INPUTS, labels=torch.tensor([0, 1, 1, 0])).loss
        assert_follows(model.eval())
        loss.backward()
        assert_follows(model)
        optimizer.step()
        assert_follows(model)
        optimizer.zero_grad()
    assert_follows(model, before)


@pytest.mark.parametrize("look", ["before the forward pass", "after it", "after both"])
def test_steps_through_data(model, look, as_on_a_gpu):
    """By hand, as the first tutorials have it: the gradients are the only sign."""
    for _ in range(3):
        before = served(model)
        loss = model(**INPUTS, labels=torch.tensor([0, 1, 1, 0])).loss
        if look == "after it":
            served(model)
        loss.backward()
        for parameter in model.parameters():
            parameter.data.sub_(0.5 * parameter.grad)
            parameter.grad.zero_()
        assert_follows(model, before)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step(model, as_on_a_gpu):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3, fused=True)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for _ in range(2):
        before = served(model)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        step()
        assert_follows(model, before)
    torch._dynamo.reset()


def test_question_answering(checkpoint, as_on_a_gpu):
    model = DendriticBertForQuestionAnswering.from_pretrained(checkpoint, num_labels=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    with torch.no_grad():
        before = model(**INPUTS).start_logits
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    with torch.no_grad():
        after = model(**INPUTS).start_logits
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, copy.deepcopy(model)(**INPUTS).start_logits)


def test_another_model_s_optimizer_costs_nothing(model):
    other = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    served(model)
    cache = model._table_cache
    other(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    served(model)
    assert model._table_cache is cache


# ---- writes that torch does not count --------------------------------------------------------------------------------

WRITES = {
    "data": lambda p: p.data.mul_(-1.5),
    "numpy": lambda p: p.detach().numpy().__imul__(3),
    "one_row": lambda p: p.data[len(p) // 2].sub_(5),
    "dlpack": lambda p: torch.from_dlpack(p.detach()).sub_(2),
    "foreach": lambda p: torch._foreach_mul_([p.data], 2),
    "clamp": lambda p: p.data.clamp_(-0.1, 0.1),
    "twice_new": lambda p: [setattr(p, "data", torch.randn_like(p)) for _ in range(4)],
    "no_grad": lambda p: torch.no_grad()(p.mul_)(2),
    "detached": lambda p: p.detach().add_(1),
    "vector": lambda p: nn.utils.vector_to_parameters(torch.randn(p.numel()), [p]),
}
READ = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight",
        "bert.embeddings.token_type_embeddings.weight", "bert.embeddings.LayerNorm.weight",
        "bert.embeddings.LayerNorm.bias", "classifier.weight", "classifier.bias", "classifier.top"]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", READ)
def test_writes(model, name, write):
    with torch.no_grad():
        model.classifier.top.normal_()
    parameter = model.get_parameter(name)
    for _ in range(2):
        served(model)
        before = parameter.detach().clone()
        WRITES[write](parameter)
        assert write == "clamp" or not torch.equal(parameter, before)
        assert_follows(model)


def test_an_alias_that_was_taken_before(model):
    aliases = [parameter.data for parameter in model.parameters()]
    before = served(model)
    torch._foreach_mul_(aliases, 0.5)
    assert_follows(model, before)


def test_a_running_mean_that_is_never_trained(model):
    """The other model of mean teachers and target networks: its parameters are written, and it is only called."""
    mean = copy.deepcopy(model)
    averaged = AveragedModel(model, avg_fn=lambda old, new, count: 0.5 * old + 0.5 * new)
    for _ in range(3):
        before, before_averaged = served(mean), served(averaged.module)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        for kept, new in zip(mean.parameters(), model.parameters(), strict=True):
            kept.data.mul_(0.5).add_(new.data, alpha=0.5)
        averaged.update_parameters(model)
        assert_follows(mean, before)
        assert_follows(averaged.module, before_averaged)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_parameters_of_other_layouts(model, dtype, transposed):
    model.to(dtype)
    weight = model.bert.embeddings.word_embeddings.weight
    if transposed:
        weight.data = weight.data.t().contiguous().t()
    model.classifier.bias.data[0] = float("nan")
    served(model)
    cache = model._table_cache
    served(model)
    assert model._table_cache is cache  # NaN is equal to NaN
    model.classifier.bias.data[0] = 0
    weight.data[4, 3] += 1
    assert_follows(model)


@pytest.mark.parametrize("change", [
    lambda model: setattr(model.bert.embeddings.LayerNorm, "eps", 1.0),
    lambda model: setattr(model.classifier, "activation", "tanh")], ids=["eps", "activation"])
def test_options_of_modules(model, change):
    with torch.no_grad():
        model.classifier.top.normal_()
    before = served(model)
    change(model)
    after = served(model)
    assert not torch.allclose(after, before, atol=1e-4)
    torch.testing.assert_close(after, copy.deepcopy(model)(**INPUTS).logits)


class Clock:
    """perf_counter of a machine on which every look at it takes ``step`` seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_comparing_takes_a_fiftieth_of_the_time(monkeypatch):
    clock = Clock(0.001)  # so a comparison takes 1 ms
    monkeypatch.setattr(time, "perf_counter", clock)
    contents, start, sizes, equal = Contents([torch.randn(1000)]), clock.now, [], torch.equal
    monkeypatch.setattr(torch, "equal", lambda a, b: sizes.append(a.numel()) or equal(a, b))
    for _ in range(100_000):
        assert contents.are_same()
    compared = sum(size == 500 for size in sizes)
    assert compared == pytest.approx(50 + (clock.now - start) / 0.050, rel=0.05)
    assert len(sizes) - compared == pytest.approx((clock.now - start) / 0.050, rel=0.05)


def test_a_busy_loop_sees_writes_to_whole_parameters_at_once(model):
    """What evolution strategies do. Where every comparison is too dear, a sample of the next parameter is taken."""
    served(model)
    names = [name for name, _ in model.named_parameters()]
    for _ in range(3):
        for _ in names:
            served(model)
            contents = model._table_cache._contents
            contents._paid_until, contents._next = time.perf_counter() + 1e6, 0.0
            for parameter in model.parameters():
                parameter.data.add_(torch.randn_like(parameter))
            assert_follows(model)


def test_a_busy_loop_sees_one_number_in_a_while():
    parameter = torch.zeros(1000, 8)
    contents = Contents([parameter])
    while contents._paid_until <= time.perf_counter() + contents.AHEAD:
        assert contents.are_same()
    parameter[500, 3] = 1
    written = time.perf_counter()
    while contents.are_same():
        assert time.perf_counter() < written + 1


def test_as_integers_is_the_same_memory():
    for tensor in (torch.zeros(3), torch.zeros(3, 4), torch.zeros(3, 4).t(), torch.zeros(5, dtype=torch.bfloat16),
                   torch.zeros(()), torch.zeros(9)[1:], torch.zeros(4, dtype=torch.float64)):
        numbers = _as_integers(tensor)
        before = numbers.clone()
        tensor.fill_(1)
        assert not torch.equal(numbers, before)
