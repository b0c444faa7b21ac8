"""What a new model's windows and gate hold. What they compute is in modeling/test_windows.py."""

import pytest
import torch

from dendritic_bert import DendriticBertConfig, DendriticBertForSequenceClassification
from dendritic_bert.model.window_modules import WindowDendrites, no_windows


def make(**fields):
    torch.manual_seed(0)
    return DendriticBertForSequenceClassification(DendriticBertConfig(**{
        "vocab_size": 50, "hidden_size": 100, "max_position_embeddings": 0, "window_dendrites": 64, "window_layers": 4,
        "pooling": "gated_mean", **fields}))


def test_a_new_model():
    """He's variance 2 / fan_in for ReLU, and a J-th of it in the layers that add to others; 5 standard deviations of
    the estimate are 5 / sqrt(2 n) of it. The gate is that of a plain mean."""
    windows = make().bert.windows
    assert [tuple(parameter.shape) for parameter in windows.weights()] == [(3, 100, 64), (3, 3, 64, 64), (4, 64)]
    for weight, variance in ((windows.input_weight, 2 / 300), (windows.weight, 2 / (3 * 64 * 4))):
        assert weight.std().item() == pytest.approx(variance**0.5, rel=5 / (2 * weight.numel()) ** 0.5)
    gate = make().bert.gate
    assert (tuple(gate.weight.shape), tuple(gate.word_bias.shape)) == ((164,), (50,))
    for parameter in (windows.bias, gate.weight, gate.word_bias):
        assert not parameter.any()


def test_a_window_of_another_radius():
    windows = make(window_radius=2, window_layers=1).bert.windows
    assert [tuple(parameter.shape) for parameter in windows.weights()] == [(5, 100, 64), (0, 5, 64, 64), (1, 64)]
    assert "in_features=100, dendrites=64, layers=1, taps=5" in repr(windows)


def test_no_windows_have_the_shapes_of_windows():
    empty = no_windows(DendriticBertConfig(max_position_embeddings=0), torch.zeros(7, 5, dtype=torch.float64))
    assert [tuple(weight.shape) for weight in empty] == [(3, 5, 0), (0, 3, 0, 0), (0, 0)]
    assert {weight.dtype for weight in empty} == {torch.float64}


def test_the_module_is_the_op_without_dropout():
    """Called by itself, one row after another gives what both rows side by side give."""
    torch.manual_seed(0)
    windows = WindowDendrites(make(window_dropout_prob=0.5).config).eval()
    with torch.no_grad():
        for parameter in windows.parameters():
            parameter.normal_(std=0.2)
        x = torch.randn(2, 6, 100)
        row, column = torch.tensor([[0], [1]]).expand(2, 6), torch.arange(6).expand(2, 6)
        both = windows(x, row, column, None)
        alone = torch.cat([windows(x[i:i + 1], row[:1], column[:1], None) for i in range(2)])
        torch.testing.assert_close(both, alone, rtol=1e-5, atol=1e-5)
        assert torch.equal(windows(x, row, column, None), both)
        assert not torch.equal(windows.train()(x, row, column, None), both)
