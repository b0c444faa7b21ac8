"""A distillation refuses what a student has no use for, with an error that names the field."""

import re
from dataclasses import replace

import pytest

from dendritic_bert.training.distillation_options import DistillationOptions


@pytest.mark.parametrize(("changes", "message"), [
    ({"teacher": None}, "teacher is not given: name the sequence classifier to learn from."),
    ({"task": "rte"}, "task is 'rte', expected one whose rows are single texts with classes: sst2 or cola."),
    ({"temperature": 0.0}, "temperature is 0.0, expected more than 0."),
    ({"teacher_seed": -1}, "teacher_seed is -1, expected a number from 0 to 4294967295."),
    ({"teacher_share": 1.5}, "teacher_share is 1.5, expected 0 to 1."),
    ({"ema": 1.0}, "ema is 1.0, expected 0 or more and less than 1."),
    ({"num_augmented": -1}, "num_augmented is -1, expected 0 or more."),
    ({"teacher": None, "extra_margins": ["m.tsv"], "num_augmented": 5}, "teacher is not given: name the sequence"),
    ({"teacher": None, "text_file": ["t.txt"]}, "teacher is not given: name the sequence classifier to learn from."),
    ({"class_weights": "balanced"}, "class_weights is balanced, but a student learns the teacher's probabilities as"),
    ({"label_smoothing": 0.1, "train_file": "a.csv"}, "label_smoothing is 0.1, but a student learns the teacher's"),
    ({"text_file": ["t.txt"], "class_weights": "balanced"}, "class_weights is balanced, but a student learns the"),
    ({"text_file": ["t.txt"], "fraction": 0.5}, "fraction is 0.5, but it is for rows with labels, and text_file has"),
    ({"text_file": ["t.txt"], "calibrate": True}, "calibrate is True, but it is for rows with labels, and text_file"),
    ({"text_file": ["t.txt"], "data_dir": "glue"}, "text_file and data_dir are both given: the texts take the place"),
])
def test_distillation_options_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DistillationOptions(**{"dsn": True, "teacher": "t"} | changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"dendrites": 1}, r"dendrites is 1 and ema is 0\.998, but a growing model has no average .*: pass --ema 0\.$"),
    ({"dendrites": 1, "ema": 0.9}, r"dendrites is 1 and ema is 0\.9, .*: pass num_dendrites to have .*, or ema 0\.$"),
    ({"early_stopping": True}, r"early_stopping is True and ema is 0\.998, each of .*: pass --ema 0\.$"),
    ({"early_stopping": True, "ema": 0.9}, r"early_stopping is True and ema is 0\.9, .*: pass one of the two\.$")])
def test_averaged_weights_neither_grow_nor_stop_early(changes, message):
    """A distillation averages them unless it is told not to, so that the error says how."""
    settings = {"teacher": "t", "dsn": True}
    with pytest.raises(ValueError, match=message):
        DistillationOptions(**settings | changes)
    DistillationOptions(**settings | changes | {"ema": 0.0})


def test_texts_start_from_the_encoder_and_have_windows_without_it():
    texts = {"teacher": "t", "text_file": "a.txt"}
    options = DistillationOptions(**texts)
    assert (options.init, options.has_windows) == ("encoder", False)
    without = replace(options, init="random")
    assert (without.window_dendrites, without.window_layers, without.pooling) == (32, 5, "gated_mean")
    assert DistillationOptions(**texts, hidden_size=8).has_windows
