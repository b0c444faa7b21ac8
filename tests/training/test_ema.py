"""The average of the weights follows its recurrence, and is what a training keeps."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from trained_files import same, weights

from dendritic_bert.training import train
from dendritic_bert.training.ema import AveragedWeights


@pytest.mark.parametrize(("max_steps", "decay"), [(100, 0.9), (10, 0.75), (2, 0.0)])
def test_the_average_of_the_weights(max_steps, decay):
    """Compared with the recurrence step by step, which starts from the weights after the first step. It looks back over
    at most 40 % of a short training: four of ten steps."""
    model, state = nn.Linear(3, 2), SimpleNamespace(global_step=0, max_steps=max_steps, is_world_process_zero=False)
    callback, args = AveragedWeights(0.9), SimpleNamespace(output_dir="nowhere")
    callback.on_train_begin(args, state, None, model=model)
    expected = None
    for step in range(6):
        with torch.no_grad():
            model.weight += torch.full((2, 3), float(step))
        callback.on_step_end(args, state, None, model=model)
        weight = model.weight.detach().clone()
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    callback.on_train_end(args, state, None, model=model)
    torch.testing.assert_close(model.weight.detach(), expected)


def test_the_average_of_the_weights_is_kept(options, tmp_path):
    """After one step it equals the weights; after more steps it lags behind them."""
    for epochs, batch_size, is_last in ((1, 600, True), (2, 60, False)):
        for ema in (0.0, 0.9):
            train(options(epochs=epochs, batch_size=batch_size, ema=ema, output_dir=str(tmp_path / str(ema))))
        assert same(weights(tmp_path / "0.0"), weights(tmp_path / "0.9")) == is_last
