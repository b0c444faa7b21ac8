"""Runs Python in a process in which AMX's instructions work on a processor without them (amx_emulator.cpp)."""

import ctypes
import os
import shlex
import subprocess
import sys
from pathlib import Path

import dendritic_bert

SUPPORT = Path(__file__).resolve().parent
KINDS = ("ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored", "tdpbf16ps", "tdpbusd")


def build(folder: Path) -> Path:
    """Compile the emulator into ``folder``. Every product is rounded where the manual says so, and the loops take the
    vectors of this machine. Under AddressSanitizer what the tiles read and write is checked, too."""
    library = folder / "amx_emulator.so"
    sanitize = ["-fsanitize=address"] if "libasan" in os.environ.get("LD_PRELOAD", "") else []
    subprocess.run([*(shlex.split(os.environ.get("CXX", "")) or ["c++"]), "-std=c++17", "-O3", "-march=native",
                    "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *sanitize,
                    str(SUPPORT / "amx_emulator.cpp"), "-o", str(library)], check=True)
    return library


def run_emulated(library: Path, code: str, *arguments: str, at_most: str = "amx") -> subprocess.CompletedProcess:
    """Run ``code`` in a new process, in tests/, with this process's package and the kernels of ``at_most``."""
    preloaded = ":".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    paths = [SUPPORT, Path(dendritic_bert.__file__).resolve().parents[1]]
    environment = os.environ | {"LD_PRELOAD": preloaded, "DENDRITIC_BERT_CPU": at_most,
                                "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=SUPPORT.parent, env=environment,
                          capture_output=True, text=True)


def executed() -> dict[str, int]:
    """How many instructions of each kind the emulator has executed in this process, which it was loaded into."""
    count = ctypes.CDLL(None).executed_amx_instructions
    count.restype = ctypes.c_int64
    return {name: count(kind) for kind, name in enumerate(KINDS)}
