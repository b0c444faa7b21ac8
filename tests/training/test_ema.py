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
    """Against the recurrence, step by step; the first step's weights are where it begins. Of a short training it takes
    in 40 %: four of ten steps."""
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
    """After one step it is that step's weights, after more it lags behind the last."""
    for epochs, batch_size, is_last in ((1, 600, True), (2, 60, False)):
        for ema in (0.0, 0.9):
            train(options(epochs=epochs, batch_size=batch_size, ema=ema, output_dir=str(tmp_path / str(ema))))
        assert same(weights(tmp_path / "0.0"), weights(tmp_path / "0.9")) == is_last
