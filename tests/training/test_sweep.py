"""The search: a study continues, and its table is what the trials were."""

import csv
import json
import re
import shlex
import shutil

import numpy as np
import optuna
import pytest
from glue_files import write_task
from transformers import HfArgumentParser

from dendritic_bert import cli
from dendritic_bert.file_lock import locked
from dendritic_bert.training import TrainingOptions
from dendritic_bert.training.defaults import fit_to_rows, space_around_rule
from dendritic_bert.training.sweep import sweep
from dendritic_bert.training.sweep_options import SweepOptions


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glue")
    write_task(folder, "sst2", {"train": 60, "dev": 30})
    return str(folder)


SMALL = {"num_dendrites": {"values": [0, 2]}, "lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.05},
         "word_dropout": {"min": 0.0, "max": 0.3}, "hidden_size": {"distribution": "int_uniform", "min": 2, "max": 6}}


def test_a_search_and_its_files(glue, space, tmp_path, capsys):
    output = tmp_path / "sweep"
    command = ["sweep", "--dsn", "--data_dir", glue, "--output_dir", str(output), "--epochs", "1", "--batch_size", "20",
               "--space", space(**SMALL)]
    assert cli.main([*command, "--trials", "2"]) == 0
    assert cli.main([*command, "--trials", "4"]) == 0
    out, err = capsys.readouterr()
    assert re.findall("trial . of .", err) == ["trial 1 of 2", "trial 2 of 2", "trial 3 of 4", "trial 4 of 4"]
    results = json.loads(out[out.rindex("\n{") if "\n{" in out else 0:])
    assert sorted(path.name for path in output.iterdir()) == [
        "parallel_coordinates.png", "study.db", "sweep.csv", "sweep.md"]
    trials = optuna.load_study(study_name="sst2", storage=f"sqlite:///{output / 'study.db'}").trials
    assert len(trials) == results["trials"] == 4
    assert len({str(trial.params) for trial in trials}) == 4, "what goes on does not begin anew"
    assert results["value"] == max(trial.value for trial in trials)
    with open(output / "sweep.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == sorted((trial.value for trial in trials), reverse=True)
    for row in rows:
        trial = trials[int(row["trial"])]
        assert {name: row[name] for name in SMALL} == {name: str(trial.params[name]) for name in SMALL}
        assert 0.001 <= float(row["lr"]) <= 0.05
        assert 2 <= int(row["hidden_size"]) <= 6
    text = (output / "sweep.md").read_text(encoding="utf-8")
    best = re.search(r"```\n(dendritic-bert train .*)\n```", text)[1].split()
    assert best[best.index("--lr") + 1] == rows[0]["lr"]
    assert len(re.findall(r"^\| \d", text, re.MULTILINE)) == 4


def test_a_trial_that_fails_is_no_end(glue, space, tmp_path):
    """The loss is not finite in about every second trial."""
    wild = {"lr": {"values": [0.01, 1e30]}}
    results = sweep(SweepOptions(dsn=True, data_dir=glue, output_dir=str(tmp_path / "out"), epochs=1, batch_size=20,
                                 space=space(**wild), trials=6))
    assert results["best"] == {"lr": 0.01}
    assert re.search("; [1-5] trainings failed, and 0 were ended early", (tmp_path / "out" / "sweep.md").read_text())
    with pytest.raises(RuntimeError, match=r"^none of 1 trials has a score, as every loss"):
        sweep(SweepOptions(dsn=True, data_dir=glue, output_dir=str(tmp_path / "none"), epochs=1, batch_size=20,
                           space=space(lr={"value": 1e30}), trials=1))


def test_a_trial_behind_the_median_ends_early(glue, space, tmp_path, monkeypatch):
    """From the sixth trial on; with two seeds the scores of the second have steps of their own."""
    monkeypatch.setattr("dendritic_bert.training.fit.CHECKPOINT_SECONDS", 0)
    sweep(SweepOptions(dsn=True, data_dir=glue, output_dir=str(tmp_path / "out"), epochs=4, batch_size=20, seeds=[0, 1],
                       space=space(lr={"values": [0.02, 1e-9]}), trials=14))
    trials = optuna.load_study(study_name="sst2", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}").trials
    whole = [trial for trial in trials if trial.state.name == "COMPLETE"]
    ended = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert all(sorted(trial.intermediate_values) == [1, 2, 3, 5, 6, 7] for trial in whole)
    assert len(whole) + len(ended) == 14
    assert min(trial.number for trial in ended) >= 5
    for trial in ended:
        step = max(trial.intermediate_values)
        before = [other.intermediate_values[step] for other in whole if other.number < trial.number]
        assert max(trial.intermediate_values.values()) < np.median(before)
    text = (tmp_path / "out" / "sweep.md").read_text()
    assert f"0 trainings failed, and {len(ended)} were ended early" in text
    assert len(re.findall(r"^\| \d", text, re.MULTILINE)) == len(whole)


@pytest.fixture
def own_search(reviews, tmp_path, space):
    """Makes the options of a search on rows.csv, a copy of reviews.csv; keyword arguments override them."""
    def make(**changes) -> SweepOptions:
        if "space" not in changes:
            changes["space"] = space(lr={"values": [0.01, 0.02]})
        defaults = {"train_file": str(tmp_path / "rows.csv"), "label_column": "tone", "epochs": 1, "batch_size": 40,
                    "hidden_size": 8, "vocab_size": 400, "output_dir": str(tmp_path / "out"), "trials": 1}
        return SweepOptions(**defaults | changes)

    shutil.copy(reviews / "reviews.csv", tmp_path / "rows.csv")
    return make


def test_a_search_of_other_rows_or_options_is_refused(own_search, tmp_path, space, capsys):
    """What changes no score may change, and so may the name of the space's file."""
    sweep(own_search())
    refused = re.escape(f"output_dir {tmp_path / 'out'} holds a search of other rows or options")
    for changes, differing in (({"fraction": 0.5}, "fraction, num_train, digest"), ({"seeds": [1]}, "seeds"),
                               ({"task": "others"}, "task")):
        with pytest.raises(FileExistsError, match=rf"^{refused} \({differing}\): name another folder, or delete this"):
            sweep(own_search(**changes))
    with pytest.raises(FileExistsError, match=rf"^{refused} \(space\): "):
        sweep(own_search(space=space(lr={"values": [0.03]})))
    rows = tmp_path / "rows.csv"
    text = rows.read_text()
    rows.write_text(text.replace(",good,", ",x,").replace(",bad,", ",good,").replace(",x,", ",bad,"))
    with pytest.raises(FileExistsError, match=rf"^{refused} \(digest\): "):
        sweep(own_search(trials=2))
    rows.write_text(text)
    shutil.copy(own_search().space, tmp_path / "copy.yaml")
    capsys.readouterr()
    sweep(own_search(trials=2, space=str(tmp_path / "copy.yaml"), baseline=False))
    assert re.findall("trial . of .", capsys.readouterr().err) == ["trial 2 of 2"]


def test_two_searches_in_one_folder_at_once_are_refused(own_search, tmp_path):
    (tmp_path / "out").mkdir()
    with (locked(tmp_path / "out" / "sweep.lock", "the folder"),
          pytest.raises(BlockingIOError, match=r"^output_dir .*out is in use by another training: wait for it or")):
        sweep(own_search())
    assert sweep(own_search())["trials"] == 1
    assert not (tmp_path / "out" / "sweep.lock").exists()


def test_a_folder_of_the_users_stays(own_search, tmp_path):
    """What the trials write is deleted after each, and nothing else is."""
    (tmp_path / "out" / "trial").mkdir(parents=True)
    (tmp_path / "out" / "trial" / "notes.txt").write_text("mine")
    sweep(own_search())
    assert [path.name for path in (tmp_path / "out" / "trial").iterdir()] == ["notes.txt"]
    assert not list((tmp_path / "out").glob(".unfinished*"))


@pytest.mark.parametrize("name", ["sweep.csv", "sweep.md", "parallel_coordinates.png"])
def test_a_file_of_the_users_is_not_replaced(own_search, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(FileExistsError, match=rf"^output_dir .*out holds {name} but no study.db of a search, which "):
        sweep(own_search())
    assert [(path.name, path.read_text()) for path in (tmp_path / "out").iterdir()] == [(name, "mine")]


def test_a_search_of_a_version_that_kept_no_settings_is_refused(own_search, tmp_path):
    (tmp_path / "out").mkdir()
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}", study_name="rows",
                                direction="maximize")
    study.add_trial(optuna.create_trial(value=0.5))
    with pytest.raises(FileExistsError, match=r"^output_dir .*out holds a search of an older version: name another"):
        sweep(own_search())


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_trial_that_was_interrupted_counts_as_none(own_search, tmp_path, monkeypatch, interruption):
    """After a SystemExit the study has it as running, as after a kill."""
    def interrupted(*_, **__):
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr("dendritic_bert.training.sweep.train", interrupted)
        with pytest.raises(interruption):
            sweep(own_search())
    assert sweep(own_search(trials=2))["trials"] == 2
    states = [trial.state.name for trial in optuna.load_study(
        study_name="rows", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}").trials]
    assert states == ["RUNNING" if interruption is SystemExit else "FAIL", "COMPLETE", "COMPLETE"]
    text = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
    assert text.startswith("# A search over 2 trainings")
    assert "0 trainings failed, and 0 were ended early" in text


def test_what_the_space_fixes_is_in_every_result(own_search, tmp_path, space):
    """The command gives the best training; its epochs are in the space alone."""
    fixed = {"epochs": 2, "word_dropout": 0.33, "early_stopping": True, "head_hidden": None}
    results = sweep(own_search(epochs=None, space=space(lr={"min": 0.01, "max": 0.02}, **{
        name: {"value": value} for name, value in fixed.items()})))
    lr = results["best"].pop("lr")
    assert results["best"] == fixed
    with open(tmp_path / "out" / "sweep.csv", newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    assert (row["epochs"], row["word_dropout"], row["early_stopping"], row["lr"]) == ("2", "0.33", "True", str(lr))
    text = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
    words = shlex.split(re.search(r"```\ndendritic-bert train (.*)\n```", text)[1])
    assert "None" not in words
    best, = HfArgumentParser(TrainingOptions).parse_args_into_dataclasses(words)
    assert {name: getattr(best, name) for name in fixed} == fixed
    assert (best.lr, best.hidden_size, best.train_file) == (lr, 8, [str(tmp_path / "rows.csv")])


def test_a_search_on_own_rows(reviews, tmp_path, space, capsys):
    """The file is read once, for all trials."""
    results = sweep(SweepOptions(train_file=str(reviews / "reviews.csv"), label_column="tone", epochs=1, batch_size=40,
                                 hidden_size=8, vocab_size=400, output_dir=str(tmp_path / "out"), trials=2,
                                 space=space(lr={"values": [0.01, 0.02]})))
    assert results["task"] == "reviews"
    assert results["trials"] == 2
    assert capsys.readouterr().err.count("135 training rows") == 1
    assert "dendritic-bert train --train_file" in (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")


def test_without_a_space_own_rows_are_searched_around_what_fits_them(reviews, tmp_path, own_options):
    """The default is in the space, and what is given is not searched."""
    output = tmp_path / "sweep"
    results = sweep(SweepOptions(train_file=str(reviews / "reviews.csv"), label_column="tone", epochs=1, batch_size=40,
                                 output_dir=str(output), trials=1))
    fitting = fit_to_rows(own_options(epochs=1, batch_size=40, hidden_size=None, vocab_size=None), 135, 3)
    assert fitting.lr / 4 <= results["best"].pop("lr") <= fitting.lr * 4
    assert results["best"].keys() == {"head_lr_factor", "word_dropout", "classifier_dropout", "label_smoothing",
                                      "encoder_windows"}
    assert "--encoder_windows" in (output / "sweep.md").read_text(encoding="utf-8")
    space = space_around_rule(own_options(init="random", epochs=None, batch_size=None, label_smoothing=0.1), 15_000,
                              150)
    assert not {"label_smoothing", "encoder_windows"} & space.keys()
    assert (space["batch_size"]["values"], space["epochs"]["values"]) == ([64, 128, 256], [4, 9, 18])
