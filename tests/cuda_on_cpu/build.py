"""Compiles C++ into shared libraries under build/cuda_on_cpu, once for each content of the sources."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
BUILD = REPOSITORY / "build" / "cuda_on_cpu"
COMPILER = os.environ.get("CXX", "c++")
EXECUTOR = HERE / "executor.cpp"
FLAGS = ["-std=c++17", "-fPIC", "-Wall", "-Wextra", "-DCUDA_ON_CPU", f"-I{HERE}"]
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
# The kernels alone are compiled so, and linked to RACES.
FIND_RACES = ["-O1", "-g", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]
RACES = HERE / "races.cpp"


def missing() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler ({COMPILER}) on this machine"
    return None


def compiled(source: Path, flags: Sequence[str], depends: Sequence[Path]) -> Path:
    """The object file of ``source``; made anew where its text, that of ``depends`` or the flags have changed."""
    command = [COMPILER, *FLAGS, *flags]
    path = BUILD / f"{source.stem}-{_digest(command, [source, *depends])}.o"
    if not path.exists():
        _run([*command, "-c", str(source)], path)
    return path


def linked(name: str, objects: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """The shared library of ``objects``."""
    command = [COMPILER, "-shared", "-Wl,-z,defs", *map(str, objects), *flags]
    path = BUILD / f"{name}-{_digest(command, [])}.so"
    if not path.exists():
        _run(command, path)
    return path


def shim_sources() -> list[Path]:
    """Everything of this folder that a kernel's object file depends on."""
    return sorted(HERE.glob("*.h"))


def sanitizer_environment() -> dict[str, str]:
    """What a Python process needs to load a library compiled with SANITIZE. Fresh memory is filled with 0xFF."""
    libraries = [subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True,
                                check=True).stdout.strip() for name in ("libasan.so", "libubsan.so", "libstdc++.so")]
    return {"LD_PRELOAD": " ".join(libraries), "UBSAN_OPTIONS": "print_stacktrace=1",
            "ASAN_OPTIONS": "detect_leaks=0:max_malloc_fill_size=1000000000:malloc_fill_byte=255"}


def _digest(command: Sequence[str], sources: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: Sequence[str], output: Path) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.name}.{os.getpid()}")
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-5000:]}")
    partial.rename(output)  # several processes may build the same at once
