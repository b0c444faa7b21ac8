"""Running the command line in a process of its own, and reading what it prints."""

import json
import os
import signal
import subprocess
import sys

from helpers import REPOSITORY

import dendritic_bert

TEXTS = ["the quick brown fox", "Unflinchingly bleak!", 'a "charming", journey', ""]
NO_BACKEND = "DENDRITIC_BERT_BACKEND is 'quantum', which cannot be used: there is no such backend"


def start(*argv: object, **environment: str) -> subprocess.Popen:
    """Start a command line. A shell lets jobs in its background ignore interrupts; here they are not ignored."""
    return subprocess.Popen([sys.executable, "-m", "dendritic_bert", *map(str, argv)], cwd=REPOSITORY,
                            env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def run_apart(*argv: object, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Run a command line in a process of its own: status, standard output, standard error."""
    process = start(*argv, **environment)
    out, err = process.communicate(stdin, timeout=120)
    return process.returncode, out.decode(), err.decode()


def from_json(out: str) -> list[tuple[str, str, float]]:
    """Text, label and score of each line of JSON."""
    return [(record["text"], record["label"], record["score"]) for record in map(json.loads, out.splitlines())]


def labelled(texts, expected):
    """What ``from_json`` should give for ``texts``."""
    return [(text, *result) for text, result in zip(texts, expected)]


def environment_of(out: str) -> dict[str, str]:
    """The names and values that `env` prints."""
    width = out.index(dendritic_bert.__version__)
    return {line[:width].strip(): line[width:] for line in out.splitlines()}
