"""How long a program takes to start, from the interpreter's own start to its end, beside one that imports numpy.

Every run is a process of its own; the system has the files in its cache.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import Implementation, Target
from workload import SMALL

REPOSITORY = Path(__file__).resolve().parents[1]
NUMPY = "import numpy"
TORCH = "import torch"
# What a command line or a program runs.
PROGRAMS = {
    NUMPY: ["-c", "import numpy"],
    "import dendritic_bert": ["-c", "import dendritic_bert"],
    "dendritic-bert --help": ["-m", "dendritic_bert", "--help"],
    "dendritic-bert classify --help": ["-m", "dendritic_bert", "classify", "--help"],
    TORCH: ["-c", "import torch"],
    "import transformers' modeling code": ["-c", "import transformers.modeling_utils"],
    "dendritic-bert classify TEXT": ["-m", "dendritic_bert", "classify", "a charming journey"],
}
LIGHT = ("import dendritic_bert", "dendritic-bert --help", "dendritic-bert classify --help")
if SMALL:
    PROGRAMS = {name: PROGRAMS[name] for name in (NUMPY, *LIGHT)}
ROUNDS = 1 if SMALL else 11


def start(arguments: list[str]) -> None:
    """Run one program to its end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [
        str(REPOSITORY), os.environ.get("PYTHONPATH")]))}
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)


def test_startup(compare: Callable[..., None]) -> None:
    compare({name: Implementation(partial(start, arguments)) for name, arguments in PROGRAMS.items()},
            title="Start of a program", unit="start", baseline=NUMPY, rounds=ROUNDS,
            targets=[*(Target(name, NUMPY, at_most=1.5) for name in LIGHT),
                     Target("dendritic-bert classify TEXT", TORCH, at_most=2)],
            conditions="a process for each start, from its start to its end, with the embedded model")
