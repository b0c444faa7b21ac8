"""The model against transformers' own BERT embeddings in float64, on every path and input that BERT takes."""

import pytest
import torch
import torch.nn.functional as F
from helpers import shared_path, tiny_bert
from transformers import BertForSequenceClassification, BertModel

from dendritic_bert import DendriticBertForSequenceClassification, DendriticBertModel

LENGTHS = [5, 1, 9, 0]  # the last row is all padding
NUM_LABELS = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(num_labels=NUM_LABELS).save_pretrained(folder)
    return folder


@pytest.fixture
def load(checkpoint):
    """A DSN of the checkpoint, in evaluation; with dendrites their weights are random too."""

    def load(**options):
        model = DendriticBertForSequenceClassification.from_pretrained(checkpoint, **options)
        if model.config.num_dendrites:
            torch.manual_seed(1)
            with torch.no_grad():
                for parameter in model.classifier.parameters():
                    parameter.normal_()
        return model

    return load


@pytest.fixture
def batch():
    torch.manual_seed(2)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": torch.randint(50, mask.shape), "attention_mask": mask}


def expected_logits(model, checkpoint, input_ids=None, attention_mask=None, pooling="mean_masked", **inputs):
    """Devlin et al.'s embeddings as transformers computes them, pooled and through the head, all in float64."""
    embeddings = BertModel.from_pretrained(checkpoint, dtype=torch.float64).embeddings
    x = embeddings(input_ids, **inputs)
    mask = torch.ones(x.shape[:2]) if attention_mask is None else attention_mask
    weights = (mask if pooling == "mean_masked" else torch.ones_like(mask)).double()[..., None]
    total = (x * weights).sum(dim=1)
    pooled = total if pooling == "sum_all" else total / weights.sum(dim=1).clamp_min(1)
    return model.classifier.double()(pooled)


def run(model, path: str, **inputs) -> torch.Tensor:
    """Logits on the fused path (evaluation without gradients) or on the differentiable one."""
    with torch.set_grad_enabled(path == "differentiable"):
        return model(**inputs).logits


PATHS = pytest.mark.parametrize("path", ["fused", "differentiable"])


def assert_close(actual, expected, tolerance=2e-5):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)


@PATHS
@pytest.mark.parametrize("num_dendrites", [0, 2])
@pytest.mark.parametrize("pooling", ["mean_masked", "mean_all", "sum_all"])
def test_padded(load, checkpoint, batch, path, num_dendrites, pooling):
    model = load(pooling=pooling, num_dendrites=num_dendrites)
    logits = run(model, path, **batch)
    assert logits.shape == (len(LENGTHS), NUM_LABELS)
    assert_close(logits, expected_logits(model, checkpoint, pooling=pooling, **batch))


@PATHS
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed(load, checkpoint, batch, path, dtype):
    model = load(num_dendrites=1)
    ids = batch["input_ids"][batch["attention_mask"].bool()].to(dtype)
    cu_seqlens = F.pad(torch.tensor(LENGTHS).cumsum(0), (1, 0)).to(dtype)
    logits = run(model, path, input_ids=ids, cu_seqlens=cu_seqlens)
    assert_close(logits, expected_logits(model, checkpoint, **batch))


@PATHS
@pytest.mark.parametrize("rows", [1, len(LENGTHS)], ids=["one_row_for_all", "every_row"])
def test_token_types_and_positions(load, checkpoint, batch, path, rows):
    shape = (rows, max(LENGTHS))
    extra = {"token_type_ids": torch.randint(2, shape), "position_ids": torch.randint(20, shape)}
    model = load()
    full = {name: value.expand(len(LENGTHS), -1) for name, value in extra.items()}
    expected = expected_logits(model, checkpoint, **batch, **full)
    assert_close(run(load(), path, **batch, **extra), expected)
    assert not torch.allclose(expected, expected_logits(model, checkpoint, **batch))  # or the arguments do nothing


@PATHS
def test_without_a_mask_every_token_counts(load, checkpoint, batch, path):
    model = load()
    logits = run(model, path, input_ids=batch["input_ids"])
    assert_close(logits, expected_logits(model, checkpoint, input_ids=batch["input_ids"]))


@PATHS
def test_inputs_embeds(load, checkpoint, batch, path):
    model = load()
    inputs = {
        "inputs_embeds": torch.randn(*batch["input_ids"].shape, 32, requires_grad=path == "differentiable"),
        "attention_mask": batch["attention_mask"],
        "token_type_ids": torch.randint(2, batch["input_ids"].shape),
        "position_ids": torch.arange(max(LENGTHS))[None].flip(1),
    }
    logits = run(model, path, **inputs)
    wide = inputs | {"inputs_embeds": inputs["inputs_embeds"].detach().double().requires_grad_()}
    expected = expected_logits(model, checkpoint, **wide)
    assert_close(logits, expected)
    if path == "differentiable":
        (gradient,) = torch.autograd.grad(logits.square().sum(), inputs["inputs_embeds"])
        (expected_gradient,) = torch.autograd.grad(expected.square().sum(), wide["inputs_embeds"])
        assert_close(gradient, expected_gradient, 1e-4)


def test_inputs_embeds_are_no_ids(checkpoint):
    """Of the module path as well, which checks ids."""
    embeds = torch.randn(2, 5, 32) - 5
    with torch.no_grad():
        expected = BertModel.from_pretrained(checkpoint).eval().embeddings(inputs_embeds=embeds)
        found = DendriticBertModel.from_pretrained(checkpoint).eval()(inputs_embeds=embeds).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_gradients_of_every_parameter(load, checkpoint, batch):
    model = load(num_dendrites=2)
    batch["token_type_ids"] = torch.randint(2, batch["input_ids"].shape)
    model(**batch).logits.square().sum().backward()

    expected = load(num_dendrites=2).double()
    x = BertModel.from_pretrained(checkpoint, dtype=torch.float64).embeddings
    mask = batch["attention_mask"].double()[..., None]
    tokens = x(batch["input_ids"], batch["token_type_ids"])
    pooled = (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
    expected.classifier(pooled).square().sum().backward()
    gradients = {f"bert.embeddings.{name}": p.grad for name, p in x.named_parameters()}
    gradients |= {f"classifier.{name}": p.grad for name, p in expected.classifier.named_parameters()}
    assert not gradients["bert.embeddings.word_embeddings.weight"][0].any()  # that of the padding token
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, gradients[name], 1e-4)


@pytest.mark.parametrize(
    ("options", "labels", "loss"),
    [
        ({"num_labels": 3}, torch.tensor([0, 2, 1, 1]), F.cross_entropy),
        ({"num_labels": 3}, torch.rand(4, 3).round(), F.binary_cross_entropy_with_logits),
        ({"num_labels": 1}, torch.randn(4), lambda logits, labels: F.mse_loss(logits[:, 0], labels)),
        ({"num_labels": 3, "problem_type": "regression"}, torch.randn(4, 3), F.mse_loss),
        (
            {"num_labels": 3, "problem_type": "single_label_classification"},
            torch.tensor([0, 2, -100, 1]),  # -100 does not count, as everywhere in transformers
            lambda logits, labels: F.cross_entropy(logits[[0, 1, 3]], labels[[0, 1, 3]]),
        ),
    ],
    ids=["classes", "several_labels", "one_target", "several_targets", "ignored_row"],
)
@PATHS
def test_loss(load, batch, path, options, labels, loss):
    model = load(**options)
    logits = run(model, path, **batch)
    with torch.set_grad_enabled(path == "differentiable"):
        output = model(**batch, labels=labels)
    torch.testing.assert_close(output.loss, loss(output.logits, labels))
    torch.testing.assert_close(output.logits, logits)
    assert output.loss.requires_grad == (path == "differentiable")


@PATHS
@pytest.mark.parametrize("labels", [None, torch.tensor([0, 2, 1, 1])], ids=["logits", "loss"])
def test_output_is_what_transformers_makes(load, batch, path, labels):
    model = load()
    with torch.set_grad_enabled(path == "differentiable"):
        output = model(**batch, labels=labels)
        flat = model(**batch, labels=labels, return_dict=False)
        model.config.return_dict = False
        from_config = model(**batch, labels=labels)
    made = type(output)(loss=output.loss, logits=output.logits)
    assert list(output.keys()) == list(made.keys())
    assert vars(output).keys() <= vars(made).keys()
    assert output.hidden_states is None
    for one, other, third, fourth in zip(output.to_tuple(), made.to_tuple(), flat, from_config, strict=True):
        assert one is other
        assert torch.equal(one, third)
        assert torch.equal(one, fourth)


@PATHS
@pytest.mark.parametrize(("dtype", "tolerance"),
                         [(torch.bfloat16, 3e-2), (torch.float16, 4e-3), (torch.float64, 1e-12)])
def test_dtypes(load, checkpoint, batch, path, dtype, tolerance):
    model = load(num_dendrites=2).to(dtype)
    logits = run(model, path, **batch)
    assert logits.dtype == (torch.float32 if path == "fused" and dtype != torch.float64 else dtype)
    rounded = load(num_dendrites=2).to(dtype).double()
    assert_close(logits, run(rounded, "differentiable", **batch), tolerance)
    assert_close(logits, expected_logits(load(num_dendrites=2), checkpoint, **batch), 10 * max(tolerance, 1e-6))


@PATHS
def test_autocast(load, checkpoint, batch, path):
    model = load(num_dendrites=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = run(model, path, **batch)
    assert_close(logits, expected_logits(model, checkpoint, **batch), 5e-2)
    if path == "differentiable":
        logits.float().square().sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_embedding_dropout_is_that_of_the_configuration(load, batch):
    model = load(hidden_dropout_prob=0.5, classifier_dropout=0.0)
    evaluated = model(**batch).logits
    torch.testing.assert_close(model(**batch).logits, evaluated)  # no dropout in evaluation
    model.train()
    torch.manual_seed(3)
    first, second = model(**batch).logits, model(**batch).logits
    assert not torch.allclose(first[:3], second[:3])
    torch.manual_seed(3)
    assert torch.equal(model(**batch).logits, first)
    many = model(**{name: value.repeat(4000, 1) for name, value in batch.items()}).logits
    torch.testing.assert_close(many.view(4000, *evaluated.shape).mean(dim=0), evaluated, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dsn", [True, False])
@pytest.mark.parametrize(("p_embed", "p_pool", "dropped"), [(0.0, 0.5, 0.5), (0.1, None, 0.1), (0.1, 0.0, 0.0)])
def test_classifier_dropout_drops_pooled_channels(load, dsn, p_embed, p_pool, dropped):
    model = load(dsn=dsn, num_labels=32, hidden_dropout_prob=p_embed, classifier_dropout=p_pool,
                 attention_probs_dropout_prob=0.0, ignore_mismatched_sizes=True).train()
    with torch.no_grad():  # the head shows pooled as it is
        model.classifier.weight.copy_(torch.eye(32))
        model.classifier.bias.zero_()
    torch.manual_seed(5)
    ids = torch.randint(50, (200, 20))
    logits = model(ids).logits
    assert (logits == 0).float().mean().item() == pytest.approx(dropped, abs=0.02)
    if p_embed == 0:
        kept = run(model.eval(), "differentiable", input_ids=ids) * 2
        torch.testing.assert_close(logits[logits != 0], kept[logits != 0])


def test_encoder_kept_is_bert(load, checkpoint, batch):
    """The original project's other mode; without dendrites it is BERT itself."""
    inputs = {name: value[:3] for name, value in batch.items()}
    bert = BertForSequenceClassification.from_pretrained(checkpoint)
    model = load(dsn=False)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, bert(**inputs).logits)
        dendritic = load(dsn=False, num_dendrites=2, ignore_mismatched_sizes=True)
        pooled = bert.bert(**inputs).pooler_output
        torch.testing.assert_close(dendritic(**inputs).logits, dendritic.classifier(pooled))
        embedded = bert.bert.embeddings.word_embeddings(inputs["input_ids"])
        torch.testing.assert_close(
            model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits, bert(**inputs).logits)
    with pytest.raises(ValueError, match="cu_seqlens is given, but dsn is False"):
        model(input_ids=torch.tensor([1, 2]), cu_seqlens=torch.tensor([0, 2]))


def test_bad_inputs(load, batch):
    model = load()
    with pytest.raises(ValueError, match="input_ids and inputs_embeds are both given or both missing"):
        model(attention_mask=batch["attention_mask"])
    with pytest.raises(ValueError, match="input_ids and inputs_embeds are both given or both missing"):
        model(**batch, inputs_embeds=torch.randn(4, 9, 32))
    for path in ("fused", "differentiable"):
        with pytest.raises(RuntimeError, match=r"input_ids holds 50 in row 1"):
            run(model, path, input_ids=torch.tensor([[3], [50]]))
        with pytest.raises(RuntimeError, match=r"21 tokens, the position table 20"):
            run(model, path, input_ids=torch.ones(1, 21, dtype=torch.long))
        with pytest.raises(RuntimeError, match="attention_mask has shape"):
            run(model, path, input_ids=batch["input_ids"], attention_mask=torch.ones(3, 9))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile(load, batch, training, grad):
    model = load(num_dendrites=2, hidden_dropout_prob=0.0).train(training)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    batch["labels"] = torch.tensor([0, 2, 1, 1])
    with torch.set_grad_enabled(grad):
        output, expected = compiled(**batch), model(**batch)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.loss, expected.loss)
    if grad:
        output.loss.backward()
        gradients = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        expected.loss.backward()
        for gradient, parameter in zip(gradients, model.parameters()):
            torch.testing.assert_close(gradient, parameter.grad)


def test_export(load, batch):
    model = load(num_dendrites=1)
    shape = {0: torch.export.Dim("rows", min=2), 1: torch.export.Dim("length", min=2, max=20)}
    program = torch.export.export(model, (), dict(batch), dynamic_shapes=dict.fromkeys(batch, shape))
    other = {"input_ids": torch.randint(50, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    for inputs in (batch, other):
        torch.testing.assert_close(program.module()(**inputs).logits, run(model, "fused", **inputs))


def test_the_real_bert_tiny():
    folder = shared_path("models/bert-tiny")
    model = DendriticBertForSequenceClassification.from_pretrained(folder, num_labels=2)
    torch.manual_seed(4)
    mask = (torch.arange(64) < torch.randint(1, 65, (32, 1))).long()
    inputs = {"input_ids": torch.randint(30522, (32, 64)), "attention_mask": mask}
    expected = expected_logits(model, folder, **inputs)
    model = model.float()
    for path in ("fused", "differentiable"):
        assert_close(run(model, path, **inputs), expected, 1e-6)
