"""What is told of the rows: own rows need their file alone, and what does not fit is named."""

import re

import pytest

from dendritic_bert.training.command_line import changed_fields, command_line
from dendritic_bert.training.options import TrainingOptions


def test_a_file_is_enough():
    """A DSN is trained, the task is named after the file, and what depends on the rows is left open."""
    options = TrainingOptions(train_file="data/reviews.csv.gz")
    assert (options.train_file, options.benchmark, options.task, options.dsn) == (
        ["data/reviews.csv.gz"], "own", "reviews", True)
    assert (options.epochs, options.batch_size, options.lr, options.hidden_size, options.max_length) == (
        None, None, None, None, 512)
    assert TrainingOptions(dataset_name="ag_news").task == "ag_news"
    assert not TrainingOptions(train_file="a.csv", model_name="bert").dsn


def test_a_benchmark_has_the_values_it_always_had():
    options = TrainingOptions(dsn=True)
    assert (options.task, options.epochs, options.batch_size, options.max_length, options.word_dropout,
            options.weight_decay) == ("sst2", 3, 256, 128, 0.2, 0.01)
    assert changed_fields(options).keys() == {"task", "batch_size", "max_length", "word_dropout", "dsn"}
    assert " ".join(command_line(options)) == (
        "dendritic-bert train --benchmark glue --task sst2 --dsn --epochs 3 --batch_size 256 --word_dropout 0.2 "
        "--max_length 128")


@pytest.mark.parametrize("epochs", [4, None])  # None is left to the rows
def test_the_command_line_gives_the_options_again(epochs):
    from transformers import HfArgumentParser

    options = TrainingOptions(train_file=["a.csv", "b.csv"], label_separator=";", baseline=False, epochs=epochs)
    words = command_line(options)
    assert ("--epochs" in words) == (epochs is not None)
    found, = HfArgumentParser(TrainingOptions).parse_args_into_dataclasses(words[2:])
    assert found == options


@pytest.mark.parametrize(("changes", "message"), [
    ({"train_file": "a.csv", "dataset_name": "x"}, "train_file is a.csv and dataset_name is x: pass one of the two."),
    ({"train_file": "a.csv", "benchmark": "squad"}, "train_file is given, but the benchmark is squad"),
    ({"train_file": "a.csv", "data_dir": "glue"}, "data_dir is glue, but the rows are your own: leave it out."),
    ({"train_file": "a.csv", "dev_file": "b.csv", "hold_out": 0.2}, "dev_file is b.csv and hold_out is 0.2: pass one"),
    ({"dataset_name": "x", "dev_file": "b.csv"}, "dataset_name is x and dev_file is b.csv: leave dev_file out, as the"),
    ({"train_file": "a.csv", "problem_type": "x"}, "problem_type is 'x', expected one of single_label_classification"),
    ({"train_file": "a.csv", "on_error": "null"}, "on_error is 'null', expected one of stop, skip."),
    ({"text_column": "body", "dsn": True}, "text_column is body, but train_file is not given: name the file"),
    ({"train_file": "a.csv", "class_weights": "x"}, "class_weights is 'x', expected one of none, balanced."),
    ({"train_file": "a.csv", "label_smoothing": 1.0}, "label_smoothing is 1.0, expected 0 or more and less than 1."),
    ({"train_file": "a.csv", "early_stopping": True, "ema": 0.9}, "early_stopping is True and ema is 0.9, each of"),
    ({"train_file": "a.csv", "vocabulary": "train", "model_name": "b"}, "vocabulary is train and model_name is b"),
])
def test_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingOptions(**changes)
