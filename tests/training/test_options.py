"""Options that cannot be used are refused with an error that names the field."""

import re
from dataclasses import replace

import pytest
from transformers import HfArgumentParser

from dendritic_bert.datasets.labels import PROBLEM_TYPES
from dendritic_bert.embedded_model import EMBEDDED_ENCODER
from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS
from dendritic_bert.training.command_line import command_line
from dendritic_bert.training.data_options import BENCHMARK_DEFAULTS
from dendritic_bert.training.options import TRACKERS, TrainingOptions


@pytest.mark.parametrize(("changes", "message"), [
    ({"warmup": 1.0}, "warmup is 1.0, expected 0 or more and less than 1."),
    ({"task": "sst3"}, "task is 'sst3', expected one of sst2, cola"),
    ({"benchmark": "superglue"}, "benchmark is 'superglue', expected one of glue, squad, own."),
    ({"benchmark": "squad", "task": "sst2"}, "task is 'sst2', but the benchmark squad has one task only: leave it"),
    ({"fraction": 0.0}, "fraction is 0.0, expected more than 0 and at most 1."),
    ({"model_name": "bert", "tokenizer_name": "x"}, "tokenizer_name is x, but model_name brings its own"),
    ({"tokenizer_name": "x", "vocab_size": 300}, "vocab_size is 300, but tokenizer_name brings its own"),
    ({"hold_out": 1.0}, "hold_out is 1.0, expected more than 0 and less than 1."),
    ({"num_dendrites": -1}, "num_dendrites is -1, expected 0 or more."),
    ({"head_hidden": 0}, "head_hidden is 0, expected more than 0."),
    ({"report_to": "mlflow"}, "report_to is 'mlflow', expected one of none, wandb, tensorboard."),
    ({"epochs": 0}, "epochs is 0, expected more than 0."),
    ({"batch_size": -1}, "batch_size is -1, expected more than 0."),
    ({"lr": float("nan")}, "lr is nan, expected more than 0."),
    ({"hidden_size": 0}, "hidden_size is 0, expected more than 0."),
    ({"word_dropout": 1.0}, "word_dropout is 1.0, expected 0 or more and less than 1."),
    ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob is -0.1, expected"),
    ({"seeds": []}, "seeds is [], expected one or more, all different."),
    ({"seeds": [1, 1]}, "seeds is [1, 1], expected one or more, all different."),
    ({"seeds": [0, -1]}, "seeds is -1, expected a number from 0 to 4294967295."),
    ({"seeds": [2**32]}, "seeds is 4294967296, expected a number from 0 to 4294967295."),
    ({"weight_decay": -0.1}, "weight_decay is -0.1, expected 0 or more."),
    ({"weight_decay": float("nan")}, "weight_decay is nan, expected 0 or more."),
    ({"save_dtype": "int8"}, "save_dtype is 'int8', expected one of float32, float16, bfloat16."),
    ({"dsn": False}, "dsn is False and model_name is not given"),
    ({"model_name": "bert", "hidden_size": 32}, "hidden_size is 32, but model_name brings its own"),
    ({"max_length": 600}, "max_length is 600, but the position table has 512 rows: lower it."),
    ({"max_position_embeddings": 64}, "max_length is 128, but the position table has 64 rows: lower it."),
    ({"max_position_embeddings": -1}, "max_position_embeddings is -1, expected 0 or more."),
    ({"window_dendrites": 32}, "window_dendrites is 32 and window_layers is 0, expected two numbers above 0, or neith"),
    ({"window_dendrites": -1, "window_layers": -1}, "window_dendrites is -1 and window_layers is -1, expected two"),
    ({"window_radius": 0}, "window_radius is 0, expected 1 or more."),
    ({"window_radius": 0, "train_file": "a.csv"}, "window_radius is 0, expected 1 or more."),
    ({"window_dropout": 1.0}, "window_dropout is 1.0, expected 0 or more and less than 1."),
    ({"init": "zeros"}, "init is 'zeros', expected one of encoder, random."),
    ({"save_dtype": None}, "save_dtype is None, expected one of float32, float16, bfloat16."),
    ({"pooling": "max"}, "pooling is 'max', expected one of mean_masked, gated_mean, mean_all, sum_all."),
    ({"encoder_pooling": "max"}, "encoder_pooling is 'max', expected one of cls, mean."),
    ({"embedding_norm": "batch"}, "embedding_norm is 'batch', expected one of layer_norm, none."),
    ({"dendrite_activation": "swish"}, "dendrite_activation is 'swish', expected one of sigmoid, tanh, relu, gelu."),
    ({"init": "random", "model_name": "bert"}, "init is random and model_name is bert: pass one of the two."),
    ({"init": "encoder", "vocab_size": 300}, "vocab_size is 300, but the encoder that init names brings its own"),
    ({"init": "encoder", "benchmark": "squad"}, "init is encoder, but the benchmark squad asks for a score of every"),
])
def test_training_options_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingOptions(**{"dsn": True} | changes)


@pytest.mark.parametrize(("name", "known"), [
    ("problem_type", PROBLEM_TYPES), ("benchmark", BENCHMARK_DEFAULTS), ("report_to", TRACKERS),
    ("pooling", [*POOLINGS, "gated_mean"]), ("dendrite_activation", ACTIVATIONS)])
def test_the_choices_are_those_that_are_known(name, known):
    with pytest.raises(ValueError, match=f"^{name} is 'x', expected one of ") as caught:
        TrainingOptions(dsn=True, **{name: "x"})
    assert set(str(caught.value).rstrip(".").partition(" one of ")[2].split(", ")) == set(known)


def test_a_windowed_model_has_a_form_of_its_own():
    """It is a DSN without being told, and the command that makes it again does not repeat what follows from windows."""
    options = TrainingOptions(window_dendrites=8, window_layers=2, max_length=600)
    assert options.dsn
    assert (options.pooling, options.embedding_norm, options.max_position_embeddings) == ("gated_mean", "none", 0)
    words = command_line(options)
    assert not {"--pooling", "--embedding_norm", "--max_position_embeddings"} & set(words)
    plain = TrainingOptions(dsn=True, pooling="gated_mean", max_position_embeddings=0)
    assert (plain.window_layers, plain.embedding_norm) == (0, "layer_norm")
    assert {"--pooling", "--max_position_embeddings"} <= set(command_line(plain))
    assert "--window_layers" not in command_line(plain)
    of_checkpoint = TrainingOptions(model_name="bert", window_dendrites=8, window_layers=2)
    assert (of_checkpoint.embedding_norm, of_checkpoint.max_position_embeddings) == (None, None)


@pytest.mark.parametrize(("changes", "init", "checkpoint", "start"), [
    ({"train_file": "a.csv"}, "encoder", EMBEDDED_ENCODER, "the pretrained encoder of the package"),
    ({"dataset_name": "a"}, "encoder", EMBEDDED_ENCODER, "the pretrained encoder of the package"),
    ({"train_file": "a.csv", "head_hidden": 8, "dendrites": 2}, "encoder", EMBEDDED_ENCODER, None),
    ({"train_file": "a.csv", "init": "random"}, "random", None, "random numbers"),
    ({"train_file": "a.csv", "vocabulary": "train"}, "random", None, "random numbers"),
    ({"train_file": "a.csv", "vocabulary": "bert"}, "random", None, None),
    ({"train_file": "a.csv", "tokenizer_name": "t"}, "random", None, None),
    ({"train_file": "a.csv", "hidden_size": 8}, "random", None, None),
    ({"train_file": "a.csv", "cased": True}, "random", None, None),
    ({"train_file": "a.csv", "window_dendrites": 8, "window_layers": 2}, "random", None, None),
    ({"train_file": "a.csv", "model_name": "bert"}, None, "bert", "the checkpoint `bert`"),
    ({"train_file": "a.csv", "model_name": "e", "init": "encoder"}, "encoder", "e", "the pretrained encoder `e`"),
    ({"dsn": True}, "random", None, "random numbers"),
    ({"benchmark": "squad", "dsn": True}, "random", None, None),
    ({"init": "encoder"}, "encoder", EMBEDDED_ENCODER, None),
])
def test_where_training_starts(changes, init, checkpoint, start):
    """A copy with other values keeps it, and so does the command line."""
    options = TrainingOptions(**changes, epochs=3)
    assert (options.init, options.checkpoint) == (init, checkpoint)
    assert start in (None, options.start)
    assert replace(options, lr=0.1).init == init
    found, = HfArgumentParser(TrainingOptions).parse_args_into_dataclasses(command_line(options)[2:])
    assert (found.init, found.checkpoint) == (init, checkpoint)
