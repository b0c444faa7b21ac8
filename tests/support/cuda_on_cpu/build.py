"""Compiles the CUDA kernels for the CPU, into build/cuda_on_cpu; what is unchanged is not compiled again."""

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
BUILD = REPOSITORY / "build" / "cuda_on_cpu"
KERNELS = REPOSITORY / "csrc" / "cuda"
EXECUTOR, RACES, COUNTING = HERE / "executor.cpp", HERE / "races.cpp", HERE / "counting.cpp"

COMPILER = shlex.split(os.environ.get("CXX", "")) or ["c++"]
JOBS = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
FLAGS = ["-std=c++20", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-DCUDA_ON_CPU", f"-I{HERE}"]
PLAIN = ["-O1"]
# With optimisation the checks would take three minutes to compile.
SANITIZE = ["-O0", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
# For the sources of kernels, which are then linked to RACES or COUNTING.
FIND_RACES = ["-O1", "-g", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]
# Beside one of the two, for tests that use no other shapes of kernels: five of nine are left, and half the compilation.
FEWER_SHAPES = ["-DFEWER_SHAPES"]


def missing() -> str | None:
    """Why nothing can be compiled on this machine, or None."""
    if shutil.which(COMPILER[0]) is None:
        return f"no C++ compiler ({' '.join(COMPILER)}) on this machine"
    return None


def kernels(flags: Sequence[str] = PLAIN, folder: Path = KERNELS, watcher: Path = RACES) -> Path:
    """The library whose ops serve CPU tensors: the binding and the kernels of ``folder``, and the executor."""
    torch_flags = [*(f"-isystem{path}" for path in include_paths()), f"-isystem{sysconfig.get_path('include')}",
                   "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    binding = compiled(folder / "binding.cpp", [*(PLAIN if "-fsanitize=thread" in flags else flags), *torch_flags])
    torch_folder = Path(torch.__file__).parent / "lib"
    return library("kernels", sorted(folder.glob("*.cu")), flags,
                   [str(binding), f"-L{torch_folder}", "-ltorch", "-ltorch_cpu", "-lc10"], watcher)


def library(name: str, sources: Sequence[Path], flags: Sequence[str] = PLAIN, libraries: Sequence[str] = (),
            watcher: Path = RACES) -> Path:
    """``sources`` and the executor in one shared library, linked to ``libraries``, which may be objects too. With the
    flags of FIND_RACES, ``watcher`` is told of every access."""
    with ThreadPoolExecutor(JOBS) as pool:
        objects = list(pool.map(compiled, sources, [flags] * len(sources)))
    if "-fsanitize=thread" in flags:
        # These come first, so that the linker keeps their copies of the standard library's inline functions, which are
        # not watched.
        objects = [compiled(source, ["-O2"]) for source in (EXECUTOR, watcher)] + objects
        flags = ()
    else:
        # At -O0 a third of the watched tests' time is the executor's, one file that takes 6 s to compile at -O2.
        objects.append(compiled(EXECUTOR, [*flags, "-O2"]))
    command = [*COMPILER, "-shared", *map(str, objects), *(flag for flag in flags if flag.startswith("-fsanitize")),
               *libraries]
    return _made(f"{name}-{_digest(command, [])}.so", command)


def compiled(source: Path, flags: Sequence[str]) -> Path:
    """The object file of ``source``; made anew if the flags, its text, or a file that it includes has changed."""
    command = [*COMPILER, *FLAGS, *flags]
    return _made(f"{source.stem}-{_digest(command, _with_includes(source))}.o",
                 [*command, "-x", "c++", "-c", str(source)])


@cache
def sanitizer_environment() -> dict[str, str]:
    """What a Python process needs to load a library compiled with SANITIZE. Fresh memory is filled with 0xFF."""
    libraries = [subprocess.run([*COMPILER, f"-print-file-name={name}"], capture_output=True, text=True,
                                check=True).stdout.strip() for name in ("libasan.so", "libubsan.so", "libstdc++.so")]
    return {"LD_PRELOAD": " ".join(libraries), "UBSAN_OPTIONS": "print_stacktrace=1",
            "ASAN_OPTIONS": "detect_leaks=0:max_malloc_fill_size=1000000000:malloc_fill_byte=255"}


def _with_includes(source: Path) -> list[Path]:
    """``source`` and every file that it includes in quotes, from its own folder or from this one."""
    found, waiting = [], [source]
    while waiting:
        path = waiting.pop()
        found.append(path)
        for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE):
            included = next((folder / name for folder in (path.parent, HERE) if (folder / name).exists()), None)
            if included is not None and included not in found + waiting:
                waiting.append(included)
    return sorted(found)


def _digest(command: Sequence[str], sources: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _made(name: str, command: Sequence[str]) -> Path:
    output = BUILD / name
    if output.exists():
        return output
    BUILD.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{name}.partial")
    with open(f"{partial}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of several processes makes what all of them want
        if output.exists():
            return output
        done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-5000:]}")
        partial.rename(output)
    return output
