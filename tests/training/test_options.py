"""Options that cannot be used are refused with an error that names the field."""

import re

import pytest

from dendritic_bert.training.options import DistillationOptions, SweepOptions, TrainingOptions


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
    ({"save_dtype": "int8"}, "save_dtype is 'int8', expected one of float32, float16, bfloat16."),
    ({"dsn": False}, "dsn is False and model_name is not given"),
    ({"model_name": "bert", "hidden_size": 32}, "hidden_size is 32, but model_name brings its own"),
    ({"max_length": 600}, "max_length is 600, but the position table has 512 rows: lower it."),
    ({"max_position_embeddings": 64}, "max_length is 128, but the position table has 64 rows: lower it."),
])
def test_training_options_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingOptions(**{"dsn": True} | changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"teacher": None}, "teacher is not given: name the sequence classifier to learn from."),
    ({"task": "rte"}, "task is 'rte', expected one whose rows are single texts with classes: sst2 or cola."),
    ({"student": "cat"}, "student is 'cat', expected one of dsn."),
    ({"temperature": 0.0}, "temperature is 0.0, expected more than 0."),
    ({"teacher_share": 1.5}, "teacher_share is 1.5, expected 0 to 1."),
    ({"ema": 1.0}, "ema is 1.0, expected 0 or more and less than 1."),
    ({"num_augmented": -1}, "num_augmented is -1, expected 0 or more."),
])
def test_distillation_options_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DistillationOptions(**{"dsn": True, "teacher": "t"} | changes)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"dendrits": {"values": [1]}}, "has the parameter 'dendrits', which a training does not have: leave it out."),
    ({"lr": {"distribution": "normal", "mu": 0}}, "has the parameter 'lr' in an unknown form, expected values"),
])
def test_a_space_that_does_not_fit(space, parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SweepOptions(dsn=True, space=space(**parameters))


def test_sweep_options_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"^trials is 0, expected 1 or more\.$"):
        SweepOptions(dsn=True, trials=0)
    with pytest.raises(ValueError, match=r"^space .*none\.yaml cannot be read \(No such file or directory\): name a"):
        SweepOptions(dsn=True, space=str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(ValueError, match=r"^space .*list\.yaml is not a sweep file with parameters: see "):
        SweepOptions(dsn=True, space=str(tmp_path / "list.yaml"))


def test_averaged_weights_do_not_grow():
    with pytest.raises(ValueError, match=r"dendrites is 1 and ema is 0\.998, but a growing model has no average"):
        DistillationOptions(teacher="t", dsn=True, dendrites=1)
