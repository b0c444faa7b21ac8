"""Interrupted trainings continue to the same result, and the files of others are left alone."""

import errno
import json
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import tiny_bert
from small_classifier import hugging_face_tokenizer
from trained_files import FILES, same, scores_alone, weights
from transformers import AutoTokenizer, BertModel, Trainer

from dendritic_bert.atomic_write import atomic_path
from dendritic_bert.datasets.rows import RowDataset
from dendritic_bert.training import train
from dendritic_bert.training.workspace import FOLDER, RUNS_FILE, Workspace, expect_usable, open_workspace


def test_an_output_folder_that_cannot_be_written(options, tmp_path, monkeypatch):
    """It is found before anything is trained, and nothing is left behind."""
    monkeypatch.setattr(Trainer, "train", lambda self, **_: pytest.fail("trained all the same"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^output_dir .*/file/out cannot be written \(Not a directory\): name a folder"):
        train(options(output_dir=str(tmp_path / "file" / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("is_new", [True, False])
def test_an_interrupted_run_leaves_no_trace(options, tmp_path, monkeypatch, is_new):
    output = tmp_path / "out"
    if not is_new:
        train(options(epochs=1))
        (output / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in output.iterdir()} if output.exists() else None

    monkeypatch.setattr(Trainer, "train", lambda self, **_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        train(options(seeds=[1]))
    after = {path.name: path.read_bytes() for path in output.iterdir()} if output.exists() else None
    assert after == before


@pytest.fixture
def stop(monkeypatch, every_epoch):
    """``stop(seed, epoch, how)``: call ``how`` when that epoch of that seed begins."""
    def install(seed: int, epoch: int, how):
        whole = RowDataset.set_epoch

        def set_epoch(dataset, number):
            if dataset.word_dropout and (dataset.seed, number) == (seed, epoch):
                how()
            whole(dataset, number)

        monkeypatch.setattr(RowDataset, "set_epoch", set_epoch)
        return lambda: monkeypatch.setattr(RowDataset, "set_epoch", whole)

    return install


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("is_bert", [True, False])
def test_an_interrupted_training_goes_on_to_the_same_result(options, tmp_path, stop, is_bert):
    """After an interruption in the third epoch of the second seed, the first is not trained again."""
    settings = {"seeds": [0, 1], "hidden_dropout_prob": 0.1, "num_dendrites": 2, "save_dtype": "float16"}
    if is_bert:
        tiny_bert(BertModel, vocab_size=600, max_position_embeddings=40).save_pretrained(tmp_path / "bert")
        hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
        settings |= {"model_name": str(tmp_path / "bert"), "dsn": False, "max_length": 40, "lr": 1e-3}
    whole = train(options(**settings, output_dir=str(tmp_path / "whole")))
    unstop = stop(1, 2, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^\(the model of the last whole epoch is in .*out, the same command "
                                                r"goes on where this one ended\)$"):
        train(options(**settings))
    unstop()
    assert sorted(os.listdir(tmp_path / "out")) == sorted([".unfinished", *FILES[1:]])  # the card comes with results
    stop(0, 0, lambda: pytest.fail("the first seed is trained again"))
    stop(1, 1, lambda: pytest.fail("the second seed begins anew"))
    resumed = train(options(**settings))
    assert scores_alone(resumed) == scores_alone(whole)
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    assert sorted(os.listdir(tmp_path / "out")) == FILES


def test_a_second_interruption_keeps_the_newer_model_and_none_replaces_a_finished_one(options, tmp_path, stop):
    found = []
    for changes in ({}, {}, {"lr": 0.01}, {"lr": 0.01}):  # another command starts over
        unstop = stop(0, 1 + len(found) % 2, interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"^\(the model of the last whole epoch is in "):
            train(options(**changes))
        unstop()
        found.append((tmp_path / "out" / "model.safetensors").read_bytes())
    assert len(set(found)) == 4
    train(options(lr=0.01))
    finished = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    stop(0, 1, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^\(the same command goes on where this one ended\)$"):
        train(options())
    assert finished == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}


def test_another_command_starts_over(options, stop):
    unstop = stop(0, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(options())
    unstop()
    results = train(options(lr=0.01))
    assert scores_alone(results) == scores_alone(train(options(lr=0.01, output_dir=options().output_dir + " 2")))


def test_a_start_that_was_replaced_starts_over(options, tmp_path, stop):
    """The name of the model stays, but its weights are others."""
    for lr, name in ((0.02, "start"), (0.01, "other")):
        train(options(epochs=1, lr=lr, output_dir=str(tmp_path / name)))
    given = {"model_name": str(tmp_path / "start"), "max_length": 40}
    unstop = stop(0, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(options(**given))
    unstop()
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "start" / "model.safetensors")
    results = train(options(**given))
    whole = train(options(**given, output_dir=str(tmp_path / "whole")))
    assert scores_alone(results) == scores_alone(whole)
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_a_training_in_use(options, stop):
    def second():
        with pytest.raises(BlockingIOError, match=r"^output_dir .*out is in use by another training: wait for it or"):
            train(options())

    stop(0, 1, second)
    assert len(train(options())["runs"]) == 1


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", "confusion_matrix.png",
                                  "without_windows/notes.txt", "PAI/best_model.pt", ".unfinished/notes.txt"])
def test_files_of_others_are_left_alone(options, tmp_path, name):
    """A project's own README.md, another program's model, a folder of our name: all are found before the training."""
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"model_type": "bert"}')
    with pytest.raises(FileExistsError, match=r"(holds .* but no model|is not a folder) of this program"):
        train(options())
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == [path]
    assert path.read_text() == '{"model_type": "bert"}'


def test_files_of_others_in_the_folders_of_a_model(tmp_path):
    """A folder that a model brings along takes the place of the older one's file by file."""
    for content in ("old", "new"):
        with open_workspace(str(tmp_path / "out"), {}) as workspace:
            for folder in (workspace.folder, workspace.folder / "without_windows", workspace.folder / "PAI"):
                folder.mkdir(exist_ok=True)
                (folder / "config.json").write_text('{"model_type": "dendritic_bert"}')
                (folder / "model.safetensors").write_text(content)
        if content == "old":
            (tmp_path / "out" / "without_windows" / "notes.txt").write_text("mine")
    assert sorted(os.listdir(tmp_path / "out")) == ["PAI", "config.json", "model.safetensors", "without_windows"]
    for folder in ("", "PAI", "without_windows"):
        assert (tmp_path / "out" / folder / "model.safetensors").read_text() == "new"
    assert (tmp_path / "out" / "without_windows" / "notes.txt").read_text() == "mine"


def test_a_file_that_came_after_an_interruption(tmp_path):
    """A training that was interrupted without a model has put nothing beside it that it could replace."""
    with suppress(ZeroDivisionError), open_workspace(str(tmp_path / "out"), {"lr": 1}) as workspace:
        workspace.finish_run({"seed": 0})
        raise ZeroDivisionError
    (tmp_path / "out" / "README.md").write_text("mine")
    with (pytest.raises(FileExistsError, match=r"holds README\.md but no model of this program"),
          open_workspace(str(tmp_path / "out"), {"lr": 1})):
        pass
    assert (tmp_path / "out" / "README.md").read_text() == "mine"


def test_beside_other_files(options, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for _ in range(2):  # a model of this program is replaced
        train(options())
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*FILES, "notes.txt"])
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_move_that_was_interrupted(options, tmp_path, monkeypatch, name):
    """Some files have moved up and others have not: nothing passes for a model, and whatever command comes next ends
    the move, if it is to train another model, too."""
    train(options(epochs=1))
    (tmp_path / "out" / "vocab.txt").write_text("of the first model")
    train(options(output_dir=str(tmp_path / "whole")))
    replace = os.replace

    def replace_some(source, target):
        if Path(source).name == name and Path(target).parent.name == "out":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_some)
        with pytest.raises(KeyboardInterrupt):
            train(options())
    assert not (tmp_path / "out" / "config.json").exists()
    monkeypatch.setattr(Trainer, "train", lambda self, **_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        train(options(lr=0.01))
    assert sorted(os.listdir(tmp_path / "out")) == FILES
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_run_that_was_killed_while_it_wrote_its_list(tmp_path, has_begun):
    """What it has not finished is this program's, also where nothing else is there, and is no part of the result."""
    if has_begun:
        with suppress(ZeroDivisionError), open_workspace(str(tmp_path / "out"), {"lr": 1}) as workspace:
            workspace.finish_run({"seed": 0})
            raise ZeroDivisionError
    folder = tmp_path / "out" / ".unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError), atomic_path(folder / "runs.json") as unfinished:
        pass  # and so there is nothing to take its place
    unfinished.write_text("{")
    with open_workspace(str(tmp_path / "out"), {"lr": 1}) as workspace:
        assert os.listdir(folder) == ["runs.json"]
        assert workspace.runs == [{"seed": 0}] * has_begun
    assert not os.listdir(tmp_path / "out")


def test_a_run_that_was_killed_while_it_deleted_another_one_s(tmp_path, monkeypatch):
    """What is left is still this program's, and no checkpoint of the other is gone on from."""
    folder = tmp_path / FOLDER
    (folder / "seed-0" / "checkpoint-7").mkdir(parents=True)
    (folder / "seed-0" / "checkpoint-7" / "trainer_state.json").write_text("{}")
    (folder / RUNS_FILE).write_text(json.dumps({"training": {"lr": 1}, "runs": [{"seed": 1}]}))

    def killed(path):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(SystemExit):
            Workspace(folder, {"lr": 2}, is_main=True)
    expect_usable(str(tmp_path))
    for lr in (1, 2):
        workspace = Workspace(folder, {"lr": lr}, is_main=True)
        assert not workspace.can_be_resumed
        assert [path.name for path in folder.iterdir()] == [RUNS_FILE]


def test_a_file_system_without_locks(options, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match=r"^the file system of output_dir .* has no locks") as caught:
        train(options(epochs=1))
    assert sum("has no locks" in str(warning.message) for warning in caught) == 1


def test_a_disk_without_room(options, tmp_path, stop, capsys):
    """The system refuses the second checkpoint: the error is one line, an older model stays, training can resume."""
    resource = pytest.importorskip("resource")
    train(options(epochs=1))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    unstop = stop(1, 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1])))
    try:
        with pytest.raises(OSError, match=r"^output_dir .*out has no room for the next checkpoint; the last good "
                                          r"checkpoint is in .*out/\.unfinished: free some space and run"):
            train(options(seeds=[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
    unstop()
    capsys.readouterr()
    resumed = train(options(seeds=[1]))
    assert re.findall(r"epoch (\d)", capsys.readouterr().err) == ["2", "3"]
    whole = train(options(seeds=[1], output_dir=str(tmp_path / "whole")))
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    assert scores_alone(resumed) == scores_alone(whole)


def test_a_second_run_replaces_the_first(options, tmp_path):
    first = train(options(epochs=1))
    old = weights(first["output_dir"])
    for name in ("notes.txt", "projection.safetensors"):  # the second as if the first model were a packed encoder
        (tmp_path / "out" / name).write_text("mine")
    train(options(epochs=1, seeds=[1]))
    assert not same(old, weights(first["output_dir"]))
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*FILES, "notes.txt"])
