"""``train --dendrites``: growth on held-out rows, our own format, resumption, and failures in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import REPOSITORY
from trained_files import FILES, weights
from transformers import TrainerCallback

from dendritic_bert import DendriticBertForSequenceClassification, cli
from dendritic_bert.datasets.rows import EncodedRows, RowDataset
from dendritic_bert.growth import training
from dendritic_bert.growth.training import hold_out_rows
from dendritic_bert.model.perforatedai_checkpoint import read_perforated
from dendritic_bert.training import TrainingOptions, evaluate, train

pytest.importorskip("perforatedai.globals_perforatedai", reason="perforatedai is not installed")


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A sentence is positive if exactly one of two words is in it, which no linear head can learn."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / "SST-2").mkdir()
    rng = np.random.default_rng(0)
    for split, size in (("train", 500), ("dev", 100)):
        bits = rng.integers(0, 2, (size, 2))
        rows = "".join(f"the {'warm' if a else 'cold'} film , a {'short' if b else 'long'} one\t{a ^ b}\n"
                       for a, b in bits)
        (folder / "SST-2" / f"{split}.tsv").write_text(f"sentence\tlabel\n{rows}")
    return str(folder)


@pytest.fixture
def options(glue, tmp_path, monkeypatch):
    """Options of a training of seconds, in a folder in which nothing may appear."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def make(**changes) -> TrainingOptions:
        defaults = {"dsn": True, "data_dir": glue, "output_dir": str(tmp_path / "out"), "lr": 0.05, "batch_size": 50,
                    "epochs": 2, "dendrites": 2, "dendrite_activation": "tanh", "word_dropout": 0.0}
        return TrainingOptions(**defaults | changes)

    yield make
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("schedule", ["perforatedai", "plain"])
@pytest.mark.parametrize("head_hidden", [None, 4])
def test_grown_model(options, glue, capsys, schedule, head_hidden):
    results = train(options(dendrite_schedule=schedule, head_hidden=head_hidden))
    output, run = Path(results["output_dir"]), results["runs"][0]
    assert capsys.readouterr().out == ""
    kept = ["PAI"] if schedule == "perforatedai" else []
    assert sorted(path.name for path in output.iterdir()) == sorted([*FILES, *kept])
    model = DendriticBertForSequenceClassification.from_pretrained(output)
    assert model.config.num_dendrites == run["num_dendrites"] <= 2
    assert (model.config.dendrite_activation, model.config.head_hidden) == ("tanh", head_hidden)
    assert evaluate(str(output), "sst2", glue)["accuracy"] == run["accuracy"]
    if schedule == "perforatedai":
        files = {path.name for path in (output / "PAI").iterdir()}
        assert {"PAI.png", "PAI_config.json", "best_model.pt"} <= files
        best = read_perforated(output / "PAI" / "best_model.pt").state_dict
        assert all(torch.equal(tensor, best[name]) for name, tensor in weights(output).items())


def test_both_schedules_are_one(options, tmp_path):
    folders = [str(tmp_path / name) for name in ("perforatedai", "plain")]
    runs = [train(options(dendrite_schedule=Path(folder).name, output_dir=folder, seeds=[1, 2]))["runs"]
            for folder in folders]
    assert [run["num_dendrites"] for run in runs[0]] == [run["num_dendrites"] for run in runs[1]]
    ours, theirs = map(weights, folders)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("schedule", ["perforatedai", "plain"])
def test_an_interrupted_training_goes_on(options, tmp_path, monkeypatch, schedule):
    whole = train(options(dendrite_schedule=schedule, output_dir=str(tmp_path / "whole")))

    def interrupt(self, args, state, control, **_):
        if round(state.epoch) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TrainerCallback, "on_step_begin", interrupt)
        with pytest.raises(KeyboardInterrupt, match="goes on where this one ended"):
            train(options(dendrite_schedule=schedule, output_dir="../out"))  # PerforatedAI runs in another directory
    results = train(options(dendrite_schedule=schedule, output_dir="../out"))
    assert results["mean"] == whole["mean"]
    before, after = weights(whole["output_dir"]), weights(results["output_dir"])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list((tmp_path / "out").glob(".unfinished*"))


@pytest.mark.parametrize("schedule", ["perforatedai", "plain"])
def test_a_growing_head_learns_at_its_own_rate(options, schedule):
    found = set()

    class Rates(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, optimizer=None, **_):
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            rate = optimizer.param_groups[0]["lr"]  # the words'
            found.update((names[id(parameter)].startswith("classifier."), round(group["lr"] / rate, 3))
                         for group in optimizer.param_groups for parameter in group["params"] if rate)

    train(options(dendrite_schedule=schedule, head_lr_factor=4.0), callbacks=[Rates()])
    assert found == {(False, 1), (True, 4)}


@pytest.mark.parametrize("schedule", ["perforatedai", "plain"])
def test_a_growing_regression_learns_large_numbers(options, tmp_path, schedule):
    """As one that does not grow; two words decide the number."""
    rng = np.random.default_rng(0)
    for split, size in (("train", 400), ("dev", 100)):
        bits = rng.integers(0, 2, (size, 2))
        rows = "".join(f"the {'warm' if a else 'cold'} film and a {'short' if b else 'long'} one,"
                       f"{10_000 + 300 * a + 50 * b}\n" for a, b in bits)
        (tmp_path / f"{split}.csv").write_text(f"text,price\n{rows}")
    results = train(options(dendrite_schedule=schedule, train_file=str(tmp_path / "train.csv"), data_dir=None, dsn=None,
                            dev_file=str(tmp_path / "dev.csv"), problem_type="regression", baseline=False,
                            epochs=30, hidden_size=8, vocab_size=300))
    assert results["runs"][0]["r2"] > 0.9


def test_the_same_output_again(options):
    """The second training replaces the files of the first, including PerforatedAI's."""
    for epochs in (1, 2):
        results = train(options(epochs=epochs, dendrites=1))
    assert sorted(path.name for path in Path(results["output_dir"]).iterdir()) == sorted([*FILES, "PAI"])


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("taken_at_once", [1, 3, 100])
def test_held_out_rows(monkeypatch, taken_at_once, pairs):
    """Each row is whole and on one side only, whether one part or several are copied; their tokens lie on disk."""
    monkeypatch.setattr(training, "TAKEN_AT_ONCE", taken_at_once)
    lengths = np.array([3, 1, 2, 4, 2, 3, 1, 2, 5, 4])
    cu_seqlens = np.concatenate([[0], lengths.cumsum()])
    ids = np.arange(lengths.sum(), dtype=np.int32)
    rows = EncodedRows(ids, cu_seqlens, ids % 2 if pairs else None, np.arange(10), 4)
    parts = hold_out_rows(rows, TrainingOptions(dsn=True, dendrites=1, validation_share=0.25))
    assert [len(part.labels) for part in parts] == [7, 3]
    assert all(isinstance(part.input_ids.base, np.memmap) and part.num_truncated == 4 for part in parts)
    found = [RowDataset(part)[i] for part in parts for i in range(len(part.labels))]
    assert sorted(int(row["labels"]) for row in found) == list(range(10))
    for row in found:
        label = int(row["labels"])
        expected = list(range(cu_seqlens[label], cu_seqlens[label + 1]))
        assert row["input_ids"].tolist() == expected
        assert not pairs or row["token_type_ids"].tolist() == [number % 2 for number in expected]
    assert hold_out_rows(rows, TrainingOptions(dsn=True)) == (rows, None)


# ---- the command line ------------------------------------------------------------------------------------------------


def command(options, *flags) -> list[str]:
    made = options()
    return ["train", "--task", "sst2", "--dsn", "--data_dir", made.data_dir, "--output_dir", made.output_dir,
            "--lr", "0.05", "--epochs", "1", "--batch_size", "50", *flags]


def test_from_the_command_line(options, capsys):
    flags = ["--dendrites", "1", "--dendrite_activation", "relu", "--head_hidden", "3", "--patience", "3"]
    assert cli.main(command(options, *flags)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["runs"][0]["num_dendrites"] in (0, 1)
    assert "PerforatedAI" not in err


@pytest.mark.parametrize(("flags", "message"), [
    (["--dendrites", "-1"], "dendrites is -1, expected 0 or more"),
    (["--dendrites", "1", "--num_dendrites", "2"], "dendrites is 1 and num_dendrites is 2: pass dendrites to grow"),
    (["--dendrites", "1", "--patience", "0"], "patience is 0, expected 1 or more"),
    (["--dendrites", "1", "--validation_share", "1"], "validation_share is 1.0, expected more than 0 and less than 1"),
    (["--dendrites", "1", "--dendrite_activation", "swish"], "invalid choice: 'swish'"),
])
def test_bad_flags(options, capsys, flags, message):
    assert cli.main(command(options, *flags)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_what_perforatedai_ends_ends_in_an_error(options, capsys, monkeypatch):
    """Its sys.exit(0) becomes an error in one line and a status other than 0."""
    from perforatedai import tracker_perforatedai

    def give_up(*_, **__):
        print("Need exactly one 0 in the input dimensions")
        sys.exit(0)

    monkeypatch.setattr(tracker_perforatedai.PAINeuronModuleTracker, "add_validation_score", give_up)
    assert cli.main(command(options, "--dendrites", "1")) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == ("dendritic-bert: error: PerforatedAI gave up (SystemExit(0)): Need exactly one 0 "
                                    "in the input dimensions")


def test_two_processes(options, tmp_path):
    """torchrun trains one model in two processes, writes all of it, and exits with 0; no process reads what the
    first one has already deleted."""
    flags = command(options, "--dendrites", "1", "--report_to", "none")
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m",
               "dendritic_bert", *flags]
    paths = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False, env=os.environ | paths)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("seed 0, epoch 1 of 3") == 1  # if the two trained separately, each would report
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*FILES, "PAI"])
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "out")
    best = read_perforated(tmp_path / "out" / "PAI" / "best_model.pt").state_dict
    assert all(torch.equal(tensor, best[name]) for name, tensor in model.state_dict().items())
