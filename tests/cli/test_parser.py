"""What a command line looks like: wrong ones, and help that imports nothing heavy."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("argv", "message"), [
    ([], "the following arguments are required: COMMAND"),
    (["clasify"], "invalid choice: 'clasify'"),
    (["classify", "--frmat", "csv"], "unrecognized arguments: --frmat"),
    (["classify", "--form", "csv"], "unrecognized arguments: --form"),
    (["classify", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
    (["classify", "--batch-size", "0"], "argument --batch-size: '0' is not a whole number of at least 1"),
    (["classify", "--threads", "two"], "argument --threads: 'two' is not a whole number of at least 1"),
    (["classify", "text", "--file", "in.txt"], "TEXT and --file are both given"),
    (["classify", "text", "--column", "review"], "--keep-columns and --delimiter describe a file, but TEXT is given"),
    (["classify", "text", "--keep-columns", "id"], "--keep-columns and --delimiter describe a file, but TEXT is given"),
    (["classify", "--column", "review"], "--column is review, but the input is read as lines of text: pass --input-f"),
    (["classify", "--file", "in.txt", "--column", "review"], "--column is review, but the input is read as lines of"),
    (["explain", "a", "b", "--text-pair", "c"], "--text-pair is the second text of a pair, pass exactly one TEXT"),
    (["explain", "a", "--json", "--html", "page.html"], "argument --html: not allowed with argument --json"),
    (["convert", "bert"], "the following arguments are required: OUT"),
])
def test_a_wrong_command_line(run, argv, message):
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("dendritic-bert")
    assert err.endswith("--help)\n")
    assert err.count("\n") == 1


COMMANDS_WITHOUT_OPTIONS = ["classify", "encode", "explain", "evaluate", "convert", "env", "demo"]


def test_help_needs_neither_torch_nor_transformers():
    """They take seconds to import. All command lines run in one process, each after the one before."""
    command_lines = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS_WITHOUT_OPTIONS)]
    code = f"""
import sys
from dendritic_bert.cli import main
for argv in {command_lines!r}:
    assert main(argv) == 0
    heavy = {{"torch", "transformers", "numpy", "tokenizers"}} & set(sys.modules)
    assert not heavy, (argv, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("dendritic-bert") >= len(command_lines)
