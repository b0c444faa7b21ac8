"""Runs Python in a process in which AMX's instructions work on a processor without them (amx_emulator.cpp)."""

import ctypes
import os
import shlex
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
REPOSITORY = SUPPORT.parents[1]
KINDS = ("ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored", "tdpbf16ps")


def build(folder: Path) -> Path:
    """Compile the emulator into ``folder``. Every product is rounded where the manual says so, and the loops take the
    vectors of this machine."""
    library = folder / "amx_emulator.so"
    subprocess.run([*(shlex.split(os.environ.get("CXX", "")) or ["c++"]), "-std=c++17", "-O3", "-march=native",
                    "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                    str(SUPPORT / "amx_emulator.cpp"), "-o", str(library)], check=True)
    return library


def run_emulated(library: Path, code: str, *arguments: str, at_most: str = "amx") -> subprocess.CompletedProcess:
    """Run ``code`` in a new process whose kernels are those of the instruction set ``at_most``, AMX's included."""
    preloaded = ":".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    paths = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"LD_PRELOAD": preloaded, "DENDRITIC_BERT_CPU": at_most, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPOSITORY, env=environment,
                          capture_output=True, text=True)


def executed() -> dict[str, int]:
    """How many instructions of each kind the emulator has executed in this process, which it was loaded into."""
    count = ctypes.CDLL(None).executed_amx_instructions
    count.restype = ctypes.c_int64
    return {name: count(kind) for kind, name in enumerate(KINDS)}
