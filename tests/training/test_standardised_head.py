"""Training on standardised rows: the steps of a plain head on (p - m) / s, whatever the model's head holds."""

import copy

import numpy as np
import pytest
import torch
from windowed_models import KINDS, windowed_model

from dendritic_bert.datasets.rows import EncodedRows, pad_rows
from dendritic_bert.training.standardised_head import (
    INVERSE_REGULARISATION,
    LEAST_DEVIATION,
    PooledScale,
    measure,
    pooled_rows,
    standardise_steps,
    standardised_head,
)

STEPS, RATE = 30, 0.01


def make_rows(num_rows: int = 40, seed: int = 0) -> EncodedRows:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, num_rows)
    return EncodedRows(rng.integers(5, 600, lengths.sum()).astype(np.int32), np.concatenate([[0], lengths.cumsum()]),
                       None, rng.integers(0, 3, num_rows), 0)


def body_outputs(model, rows: EncodedRows) -> torch.Tensor:
    """What the head reads, float64, one row at a time by PyTorch's modules."""
    body, found = copy.deepcopy(model.bert).double().eval(), []
    for start, end in zip(rows.cu_seqlens, rows.cu_seqlens[1:]):
        ids = torch.from_numpy(rows.input_ids[start:end].astype(np.int64))[None]
        mask = torch.ones_like(ids)
        found.append(body.pool(body(ids, mask).last_hidden_state, ids, mask, None, model.config.pooling))
    return torch.cat(found).detach()


@pytest.mark.parametrize("kind", ["recipe", "plain_gate", "no_positions"])
def test_measured_is_what_the_head_reads(kind):
    model, rows = windowed_model(**KINDS[kind], hidden_dropout_prob=0.3).train(), make_rows()
    scale = measure(pooled_rows(model, rows, pad_rows)[0])
    pooled = body_outputs(model, rows)
    deviation = pooled.std(dim=0, correction=0)
    floor = LEAST_DEVIATION * deviation.median()
    # Sums of 40 float32 numbers of about 10 each, off by less than 1e-5 of that.
    torch.testing.assert_close(scale.mean.double(), pooled.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scale.deviation.double(), deviation.clamp_min(floor), rtol=1e-4, atol=1e-4)
    assert model.training
    assert not model.classifier._forward_pre_hooks


def test_one_row_has_a_deviation_to_divide_by():
    scale = measure(pooled_rows(windowed_model(**KINDS["recipe"]), make_rows(1), pad_rows)[0])
    assert (scale.deviation > 0).all()


@pytest.mark.parametrize("num_dendrites", [0, 2])
def test_the_steps_are_those_of_a_head_on_standardised_rows(num_dendrites):
    """Beside it, AdamW on V and c with the inputs standardised, everything in float64."""
    model = windowed_model(**KINDS["plain_gate"], num_dendrites=num_dendrites, num_labels=3).double()
    layer, size = model.classifier, model.config.pooled_size
    generator = torch.Generator().manual_seed(3)
    mean, deviation = 5 * torch.randn(size, generator=generator), 0.1 + torch.rand(size, generator=generator)
    scale = PooledScale(mean, deviation)
    p = (mean + deviation * torch.randn(64, size, generator=generator)).double()
    labels = torch.randint(0, 3, (64,), generator=generator)
    plain = copy.deepcopy(layer)
    with torch.no_grad():
        plain.bias += plain.weight @ mean.double()
        plain.weight *= deviation.double()
    ours, theirs = (torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.1) for head in (layer, plain))
    standardise_steps(ours, model, scale)
    for _ in range(STEPS):
        for optimizer, head, x in ((ours, layer, p), (theirs, plain, (p - mean.double()) / deviation.double())):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(x), labels).backward()
            optimizer.step()
    # Float64: 30 steps of rounding at 2^-53 times the 1e4 by which Adam can blow up a small gradient's error.
    torch.testing.assert_close(layer.weight, plain.weight / deviation.double(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(layer.bias, plain.bias - layer.weight @ mean.double(), rtol=1e-8, atol=1e-8)


def test_a_head_without_gradients_keeps_its_bits():
    model = windowed_model(**KINDS["plain_gate"])
    before = model.classifier.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    size = model.config.pooled_size
    standardise_steps(optimizer, model, PooledScale(torch.ones(size), torch.full((size,), 3.0)))
    optimizer.step()
    assert torch.equal(model.classifier.weight, before)


def test_in_the_block_dropout_puts_the_mean_and_afterwards_nothing_is_left():
    rows = make_rows()
    model = windowed_model(**KINDS["plain_gate"], num_dendrites=0, num_labels=3, hidden_dropout_prob=0.0,
                           classifier_dropout=0.5).train()
    batch = pad_rows([{"input_ids": rows.input_ids[:6], "attention_mask": np.ones(6, np.int64), "labels": 0}])
    read = []
    with standardised_head(model, rows, pad_rows) as scale:
        model.classifier.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
        for _ in range(50):
            model(**batch)
        dropped = torch.stack(read)[:, 0]
        model.eval()
        with torch.no_grad():
            scored = model(**batch).logits
    is_mean = (dropped - scale.mean).abs() < 1e-6
    # 50 draws of each of 48 channels: the share is off from a half by 0.01 as the standard error.
    assert is_mean.float().mean().item() == pytest.approx(0.5, abs=0.05)
    kept = torch.where(is_mean, torch.nan, (dropped - scale.mean) / 2).nanmean(dim=0)
    model.classifier._forward_hooks.clear()
    assert not model.classifier._forward_pre_hooks
    assert model.dropout.p == 0.5
    whole = model.classifier.weight.double() @ (scale.mean + kept).double() + model.classifier.bias.double()
    torch.testing.assert_close(scored[0].double(), whole.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("num_labels", "num_dendrites"), [(2, 0), (3, 0), (4, 2)])
def test_the_head_starts_as_a_logistic_regression(num_labels, num_dendrites):
    """The gradient of C sum CE + |V|^2 / 2 is 0, with two classes in the difference of their rows; in float64, on the
    standardised rows. With four labels one has no row and keeps its start."""
    model = windowed_model(**KINDS["plain_gate"], num_labels=num_labels, num_dendrites=num_dendrites)
    model.config.problem_type = "single_label_classification"
    rows = make_rows()
    classes = min(num_labels, 3)
    rows = rows._replace(labels=np.arange(len(rows.labels)) % classes)
    with standardised_head(model, rows, pad_rows) as scale:
        pass
    x = (body_outputs(model, rows) - scale.mean.double()) / scale.deviation.double()
    layer, labels = model.classifier, torch.from_numpy(rows.labels)
    mean, deviation = scale.mean.double(), scale.deviation.double()
    bias = layer.bias[:classes].double() + layer.weight[:classes].double() @ mean
    weight = layer.weight[:classes].double() * deviation
    if classes == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    weight, bias = (value.detach().requires_grad_() for value in (weight, bias))
    logits = x @ weight.T + bias
    if classes == 2:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    (INVERSE_REGULARISATION * loss + weight.square().sum() / 2).backward()
    # scikit-learn stops where no gradient of the mean loss is above 1e-4: of the sum over 40 rows, 40 C times that.
    for gradient in (weight.grad, bias.grad):
        assert gradient.abs().max() < 40 * INVERSE_REGULARISATION * 1e-4 * 2
    assert weight.abs().max() > 0.01
    if num_labels > classes:
        assert layer.weight[classes].abs().max() > 0


@pytest.mark.filterwarnings("error")
def test_a_head_of_many_classes_of_few_rows():
    model, rows = windowed_model(**KINDS["plain_gate"], num_labels=30), make_rows()
    with standardised_head(model, rows._replace(labels=np.arange(40) % 30), pad_rows):
        pass


@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 4)], ids=["numbers", "logits_of_2", "logits_of_3"])
def test_a_new_head_is_as_large_as_that_of_standardised_rows(shape):
    """Labels that are no classes, as a teacher's logits with the class behind them, leave it as it was drawn."""
    model, rows = windowed_model(**KINDS["plain_gate"]), make_rows()
    model.config.problem_type = "single_label_classification"
    rows = rows._replace(labels=np.random.default_rng(0).normal(0, 9, shape).astype(np.float32))
    with standardised_head(model, rows, pad_rows) as scale:
        pass
    layer = model.classifier
    main = slice(layer.out_features)
    bound = 1 / layer.in_features**0.5
    standardised = layer.weight[main] * scale.deviation
    assert standardised.abs().max() <= bound * 1.0001
    assert standardised.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)
    assert (layer.bias[main] + layer.weight[main] @ scale.mean).abs().max() <= bound * 1.01
