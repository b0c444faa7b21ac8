"""A regression on words in a network: its logits are the mean of the network's and of scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from small_encoder import BAG, WINDOWS, small_encoder

from dendritic_bert.datasets.rows import EncodedRows, RowDataset, pad_rows
from dendritic_bert.training.word_regression import (
    INVERSE_REGULARISATION,
    can_be_folded,
    fold_word_regression,
)

SHARE = 0.3


def make_rows(num_labels: int, with_types: bool = False, num_rows: int = 60) -> EncodedRows:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, num_rows)
    types = rng.integers(0, 2, lengths.sum()) if with_types else None
    return EncodedRows(rng.integers(5, 50, lengths.sum()).astype(np.int32), np.concatenate([[0], lengths.cumsum()]),
                       types, np.arange(num_rows) % num_labels, 0)


def bag(num_labels: int, **config):
    model = small_encoder(**(BAG | {"num_labels": num_labels, "problem_type": "single_label_classification"} | config))
    return model.eval()


@torch.no_grad()
def logits_of(model, rows: EncodedRows) -> np.ndarray:
    data = RowDataset(rows)
    batch = pad_rows([data[place] for place in range(len(data))])
    return model(**{name: value for name, value in batch.items() if name != "labels"}).logits.double().numpy()


def mean_weights(model, rows: EncodedRows) -> np.ndarray:
    """The weight of each word in each row's mean, ``[n, V]``, by the definition of the gate in float64, row by row."""
    words, types, of_row, of_word = (tensor.detach().double().numpy() for tensor in (
        model.get_input_embeddings().weight, model.bert.embeddings.token_type_embeddings.weight, model.bert.gate.weight,
        model.bert.gate.word_bias))
    features = np.zeros((len(rows.labels), len(words)))
    for row, (start, end) in enumerate(zip(rows.cu_seqlens, rows.cu_seqlens[1:])):
        ids = rows.input_ids[start:end]
        kinds = np.zeros(len(ids), int) if rows.token_type_ids is None else rows.token_type_ids[start:end]
        gates = np.exp((words[ids] + types[kinds]) @ of_row + of_word[ids])
        np.add.at(features[row], ids, gates / gates.sum())
    return features


@pytest.mark.parametrize(("num_labels", "with_types"), [(2, False), (3, False), (3, True), (7, True)])
def test_logits_are_those_of_both(num_labels, with_types):
    model, rows = bag(num_labels), make_rows(num_labels, with_types)
    before, features = logits_of(model, rows), mean_weights(model, rows)
    theirs = LogisticRegression(C=INVERSE_REGULARISATION).fit(features, rows.labels)
    of_words = theirs.decision_function(features).reshape(len(features), -1)
    if num_labels == 2:
        of_words = np.concatenate([-of_words, of_words], axis=1) / 2
    wanted = (1 - SHARE) * before + SHARE * of_words
    assert can_be_folded(model, rows)
    fold_word_regression(model, rows, SHARE)
    found = logits_of(model, rows)
    # scikit-learn ends its search where the gradient is 1e-4.
    np.testing.assert_allclose(*(logits - logits.mean(axis=1, keepdims=True) for logits in (found, wanted)), atol=2e-2)
    assert np.abs(wanted - before).max() > 0.5
    np.testing.assert_allclose(mean_weights(model, rows), features, atol=1e-5)


@pytest.mark.parametrize("model", [
    bag(3, **WINDOWS), bag(3, num_dendrites=1), bag(3, head_hidden=4), bag(3, pooling="mean_masked"), bag(4),
    bag(3, embedding_norm="layer_norm"), bag(20, hidden_size=19)], ids=range(7))
def test_what_is_no_bag_of_words_with_rows_of_every_class_stays(model):
    assert not can_be_folded(model, make_rows(20 if model.config.num_labels == 20 else 3))
    assert can_be_folded(bag(3), make_rows(3))


def test_words_that_are_not_trained_stay():
    model = bag(3)
    model.get_input_embeddings().weight.requires_grad_(False)
    assert not can_be_folded(model, make_rows(3))
