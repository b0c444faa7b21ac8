"""What a search is told: the sweep file fits the command line, and a space is read as Weights & Biases reads it."""

import re

import pytest
import yaml
from transformers import HfArgumentParser

from dendritic_bert.training.options import TrainingOptions
from dendritic_bert.training.sweep_options import SWEEP_FILE, SweepOptions, read_space


def test_the_sweep_file_fits_the_command_line():
    """An agent of Weights & Biases puts --name=value for each parameter in the place of ${args}."""
    content = yaml.safe_load(SWEEP_FILE.read_text(encoding="utf-8"))
    assert {"num_dendrites", "dendrite_activation"} <= read_space(str(SWEEP_FILE)).keys()
    program, command, *flags = content["command"]
    assert (program, command, flags.pop()) == ("dendritic-bert", "train", "${args}")
    for end in (0, -1):
        args = [f"--{name}={[*entry['values']][end] if 'values' in entry else entry[('min', 'max')[end]]}"
                for name, entry in content["parameters"].items()]
        options, = HfArgumentParser(TrainingOptions).parse_args_into_dataclasses(flags + args)
        assert options.num_dendrites == (0, 4)[end]
        assert options.report_to == "wandb"
    assert content["metric"] == {"name": "eval/accuracy", "goal": "maximize"}


def test_numbers_as_weights_and_biases_reads_them(tmp_path):
    """Whole bounds are those of whole numbers; YAML 1.1 takes 1e-4, which has no point, for a string."""
    (tmp_path / "space.yaml").write_text("""parameters:
      batch_size: {min: 8, max: 64}
      word_dropout: {min: 0.0, max: 1}
      hidden_size: {min: 2, max: 9, distribution: uniform}
      lr: {min: 1e-4, max: +2E-2, distribution: log_uniform_values}
      weight_decay: {values: [1e-3, .5e-2, 3.e+1]}
      label_smoothing: {value: 1e-1}
      task: {value: 1e}
    """)
    assert read_space(str(tmp_path / "space.yaml")) == {
        "batch_size": {"min": 8, "max": 64, "distribution": "int_uniform"},
        "word_dropout": {"min": 0.0, "max": 1},
        "hidden_size": {"min": 2, "max": 9, "distribution": "uniform"},
        "lr": {"min": 0.0001, "max": 0.02, "distribution": "log_uniform_values"},
        "weight_decay": {"values": [0.001, 0.005, 30.0]},
        "label_smoothing": {"value": 0.1},
        "task": {"value": "1e"}}


@pytest.mark.parametrize(("parameters", "message"), [
    ({"dendrits": {"values": [1]}}, "has the parameter 'dendrits', which a training does not have: leave it out."),
    ({"lr": {"distribution": "normal", "mu": 0}}, "has the parameter 'lr' in an unknown form, expected values"),
    ({"lr": 0.001}, "has the parameter 'lr' in an unknown form, expected values"),
    ({"lr": {"values": 0.001}}, "has the parameter 'lr' in an unknown form, expected values"),
    ({"lr": {"min": "low", "max": 1}}, "has the parameter 'lr' in an unknown form, expected values"),
])
def test_a_space_that_does_not_fit(space, parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SweepOptions(dsn=True, space=space(**parameters))


def test_sweep_options_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"^trials is 0, expected 1 or more\.$"):
        SweepOptions(dsn=True, trials=0)
    with pytest.raises(ValueError, match=r"^space .*none\.yaml cannot be read \(No such file or directory\): name a"):
        SweepOptions(dsn=True, space=str(tmp_path / "none.yaml"))
    for text in ("- a\n- b\n", "parameters:\n", "parameters: [lr]\n"):
        (tmp_path / "list.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"^space .*list\.yaml is not a sweep file with parameters: see "):
            SweepOptions(dsn=True, space=str(tmp_path / "list.yaml"))


def test_a_search_over_sizes_starts_from_random_numbers(space):
    assert SweepOptions(train_file="a.csv").init == "encoder"
    assert SweepOptions(train_file="a.csv", space=space(hidden_size={"values": [8, 16]})).init == "random"
