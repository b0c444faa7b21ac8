"""A model as a function of scaled lookups: its rows of ones and of zeros against torch's convolution in float64."""

import copy

import pytest
import torch
from small_classifier import small_model
from windowed_models import KINDS, LENGTHS, expected_logits, padded_rows, windowed_model

from dendritic_bert.inference.explained_model import ExplainedModel
from dendritic_bert.inference.tokenization import PackedBatch
from dendritic_bert.inference.tokenizer_engines import cumulative_lengths


def rows_of(model) -> list[tuple[dict[str, torch.Tensor], PackedBatch]]:
    """Every row of ``padded_rows``, padded and packed."""
    found = []
    for number, length in enumerate(LENGTHS):
        row = {name: values[number:number + 1, :max(1, length)] for name, values in padded_rows().items()}
        ids, types = (row[name][0, :length].int().numpy() for name in ("input_ids", "token_type_ids"))
        found.append((row, PackedBatch(ids, cumulative_lengths([length]), types, 0)))
    return found


def with_zero_lookups(model):
    """The same model, which looks up nothing but zeros."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.bert.embeddings.parameters():
            parameter.zero_()
        if model.bert.gate is not None:
            model.bert.gate.word_bias.zero_()
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_ones_and_of_zeros(kind):
    model = windowed_model(**KINDS[kind])
    explained, zeroed = ExplainedModel(model), with_zero_lookups(model)
    for row, batch in rows_of(model):
        x, gates = explained.embeddings(batch), explained.gates(batch)
        scales = torch.tensor([[1.0], [0.0]], dtype=torch.float64).repeat(1, len(x))
        found = explained.scaled_logits(x, gates, scales)
        expected = torch.cat([expected_logits(model, row), expected_logits(zeroed, row)])
        torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["wide", "gate"])
def test_each_token_has_its_own_factor(kind):
    """Without token types the factor of a token is one of its row in the word table, since no id occurs twice."""
    model = windowed_model(**{**KINDS[kind], "embedding_norm": "none"})
    ids = torch.tensor([5, 7, 11, 300, 2, 80])
    explained, batch = ExplainedModel(model), PackedBatch(ids.int().numpy(), cumulative_lengths([6]), None, 0)
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight.zero_()
        factors = torch.tensor([0.5, 0.0, 2.0, 1.0, -1.0, 0.25])
        x, gates = explained.embeddings(batch), explained.gates(batch)
        model.bert.embeddings.word_embeddings.weight[ids] *= factors[:, None]
        model.bert.gate.word_bias[ids] *= factors
    row = {"input_ids": ids[None], "attention_mask": torch.ones(1, 6), "token_type_ids": torch.zeros(1, 6).long()}
    torch.testing.assert_close(explained.scaled_logits(x, gates, factors[None].double()),
                               expected_logits(model, row).detach(), rtol=1e-6, atol=1e-7)


def test_embeddings_are_berts():
    model = small_model()
    ids, types = torch.tensor([[4, 17, 99, 3]]), torch.tensor([[0, 0, 1, 1]])
    batch = PackedBatch(ids[0].int().numpy(), cumulative_lengths([4]), types[0].int().numpy(), 0)
    found, exact = ExplainedModel(model).embeddings(batch), copy.deepcopy(model.bert.embeddings).double()
    torch.testing.assert_close(found[None], exact(input_ids=ids, token_type_ids=types).detach(), rtol=1e-12,
                               atol=1e-12)


@pytest.mark.parametrize(("fields", "expected"), [
    ({}, True), ({"pooling": "sum_all", "embedding_norm": "none"}, True), ({"pooling": "gated_mean"}, False),
    ({"window_dendrites": 8, "window_layers": 1}, False)], ids=str)
def test_whether_the_pooled_row_is_a_sum(fields, expected):
    assert ExplainedModel(windowed_model(**fields)).pools_a_sum is expected
