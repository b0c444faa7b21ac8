"""One seed of a training: under torchrun it is that of one process with the same rows in a step."""

import re

import pytest
import torch
from transformers import TrainerCallback
from two_ranks import run_two_ranks

from dendritic_bert.training import train


@pytest.mark.parametrize("changes", [{"label_smoothing": 0.1}, {}])
def test_the_loss_is_that_of_one_process(own_options, reviews, tmp_path, capsys, changes):
    """At a rate of 1e-9 and without dropout it is the mean over the rows, whoever computes it."""
    options = {"epochs": 1, "lr": 1e-9, "word_dropout": 0.0, "classifier_dropout": 0.0, "batch_size": 30} | changes
    with pytest.warns(UserWarning, match="nothing was learnt"):
        train(own_options(**options))
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    err = run_two_ranks("-m", "dendritic_bert", "train", "--train_file", reviews / "reviews.csv", "--label_column",
                        "tone", "--hidden_size", 8, "--vocab_size", 400, "--no_baseline", "--output_dir",
                        tmp_path / "two", *flags)
    one, two = (float(re.search(r"epoch 1 of 1: loss (\d+\.\d+)", text)[1])
                for text in (capsys.readouterr().err, err))
    assert two == pytest.approx(one, rel=0.02)


class NumThreads(TrainerCallback):
    """Those of torch in each step."""

    def __init__(self):
        self.seen = set()

    def on_step_begin(self, *_, **__):
        self.seen.add(torch.get_num_threads())


@pytest.mark.parametrize(("changes", "largest", "expected"), [
    ({}, 2_000_000, 1), ({"window_dendrites": 16, "window_layers": 2}, 2_000_000, 3), ({}, 100, 3)])
def test_a_small_bag_of_words_trains_on_one_thread(own_options, monkeypatch, changes, largest, expected):
    monkeypatch.setattr("dendritic_bert.training.fit.LARGEST_ON_ONE_THREAD", largest)
    before, threads = torch.get_num_threads(), NumThreads()
    torch.set_num_threads(3)
    try:
        train(own_options(epochs=1, **changes), callbacks=[threads])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threads.seen == {expected}
