"""Errors in one line, warnings, tracebacks, and a program without arguments."""

import os
import runpy
import sys
import warnings

import pytest
from command_line import environment_of

import dendritic_bert
from dendritic_bert.cli import environment


@pytest.mark.parametrize(("options", "message"), [
    (["--file", "missing.txt"], "input missing.txt does not exist."),
    (["--file", "in.csv"], "in.csv has no column 'text': pass column (--column), one of title, review."),
    (["--file", "in.csv", "--input-format", "jsonl"], "in.csv, line 1: not valid JSON"),
    (["--output", "missing/out.csv"], "missing/out.csv cannot be written"),
    (["--output", "."], "output . is a directory, name a file."),
    (["--model", "./missing"], "model ./missing does not exist: pass a folder or a hub id."),
    (["--model", "."], "model . cannot be loaded"),
])
def test_errors_take_one_line(run, model_path, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("title,review\nb,a\n")
    status, out, err = run("classify", "--model", model_path, *options, stdin=b"a\n")
    assert (status, out) == (1, "")
    assert err.startswith("dendritic-bert: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("argv", [
    ["--debug", "classify", "--file", "missing.txt"], ["classify", "--debug", "--file", "missing.txt"]])
def test_debug_shows_the_traceback(run, model_path, argv):
    status, out, err = run(*argv, "--model", model_path)
    assert (status, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.endswith("\ndendritic-bert: error: input missing.txt does not exist.\n")


def test_what_goes_wrong_unforeseen_and_warnings(run, monkeypatch):
    def describe():
        warnings.warn("take care", stacklevel=1)
        raise KeyError("key")

    monkeypatch.setattr(environment, "describe", describe)
    status, out, err = run("env")
    assert (status, out) == (1, "")
    assert err == "dendritic-bert: warning: take care\ndendritic-bert: error: KeyError: 'key'\n"


def test_without_a_command(capsys, monkeypatch):
    """`python -m dendritic_bert` prints the environment; the program itself asks for a command."""
    monkeypatch.setattr(sys, "argv", ["dendritic_bert"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("dendritic_bert", run_name="__main__")
    assert end.value.code == 0
    assert environment_of(capsys.readouterr().out)["dendritic-bert"].startswith(dendritic_bert.__version__)


@pytest.mark.parametrize(("set_before", "expected"), [(None, "10000"), ("300000", "300000")])
def test_waiting_threads_sleep_soon_unless_told_otherwise(run, monkeypatch, set_before, expected):
    """What libgomp reads when torch loads it; with its own default, trainings side by side wait for one another."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if set_before:
        monkeypatch.setenv("GOMP_SPINCOUNT", set_before)
    run("--version")
    assert os.environ["GOMP_SPINCOUNT"] == expected
