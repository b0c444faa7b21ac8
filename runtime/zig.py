"""The engine, compiled for other machines by zig's C++ compiler, which brings the headers and libraries of all of them
(``ziglang`` of PyPI, the extra ``cross``). zig keeps what it has compiled in build/zig."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE / "csrc" / "cpu"))
from instruction_sets import CXX_FLAGS, engine_kernels  # noqa: E402

BUILD = TREE / "build" / "cross"
# zig takes no architecture, and processors by names of its own.
ZIG_FLAGS = {"-march=armv8.2-a+dotprod": "-mcpu=generic+dotprod"}


class Target(NamedTuple):
    """A kind of machine. triple: what zig calls it. flags: what its compiler needs besides. wheel: the platform of a
    wheel for it; None where Python has no such wheels, or those that there are come from elsewhere."""

    triple: str
    flags: tuple[str, ...] = ()
    wheel: str | None = None

    @property
    def machine(self) -> str:
        """The processor, as ``platform.machine()`` names it."""
        return self.triple.partition("-")[0]


_UNIX = ("-fPIC", "-pthread")
# A program for WebAssembly has one thread, no memory of files and no exceptions. Vectors of 16 bytes are in every
# browser since 2023.
_WASI = ("-DDENDRITIC_BERT_NO_THREADS", "-DDENDRITIC_BERT_NO_MMAP", "-fno-exceptions", "-msimd128")
TARGETS = {
    "x86_64-linux-gnu": Target("x86_64-linux-gnu.2.28", _UNIX, "manylinux_2_28_x86_64"),
    "aarch64-linux-gnu": Target("aarch64-linux-gnu.2.28", _UNIX, "manylinux_2_28_aarch64"),
    "x86_64-linux-musl": Target("x86_64-linux-musl", _UNIX),
    "aarch64-linux-musl": Target("aarch64-linux-musl", _UNIX),
    "wasm32-wasi": Target("wasm32-wasi", _WASI),
}


def run_zig(tool: str, target: Target, arguments: Sequence[str | Path]) -> None:
    """Run ``zig cc`` or ``zig c++`` for a target. Raises CalledProcessError after the compiler has said what is
    wrong, and SystemExit where there is no zig."""
    if find_spec("ziglang") is None:
        sys.exit("zig is missing: pip install 'dendritic-bert[cross]'")
    cache = str(TREE / "build" / "zig")
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    subprocess.run([sys.executable, "-m", "ziglang", tool, "-target", target.triple, *target.flags, *arguments],
                   env=environment, cwd=TREE, check=True)


def compile_engine(name: str) -> list[Path]:
    """The object files of the engine for a target of TARGETS, the kernels of csrc/cpu included."""
    sources = [path for path in (TREE / "csrc" / "engine").glob("*.cpp") if not path.stem.startswith("python_")]
    target = TARGETS[name]
    jobs = [(name, TREE / source, folder, flags) for source, folder, flags in engine_kernels(target.machine)]
    jobs += [(name, source, "engine", []) for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: compile_source(*job), jobs))


def compile_python_module(name: str) -> list[Path]:
    """The object files that the extension ``_engine`` has besides. Python's limited API is the same on every Linux of
    64 bits, and so is what it reads of pyconfig.h: the headers of the Python that runs this serve for all of them."""
    return [compile_source(name, path, "engine", ["-isystem", sysconfig.get_path("include")])
            for path in (TREE / "csrc" / "engine").glob("python_*.cpp")]


def compile_source(name: str, source: Path, folder: str, flags: Sequence[str]) -> Path:
    """Compile a source for a target, to a file in the given folder of build/cross/TARGET."""
    object = BUILD / name / folder / f"{source.stem}.o"
    object.parent.mkdir(parents=True, exist_ok=True)
    run_zig("c++", TARGETS[name], [*CXX_FLAGS, "-Wextra", *(ZIG_FLAGS.get(flag, flag) for flag in flags), "-c", source,
                                   "-o", object])
    return object


def link_program(name: str, source: Path, objects: Sequence[Path], output: Path) -> None:
    """Compile a program in C that uses the engine, and link it with the engine's objects: to a file that needs no other
    where the target's C library allows that."""
    target = TARGETS[name]
    output.parent.mkdir(parents=True, exist_ok=True)
    object = BUILD / name / f"{source.stem}.o"
    run_zig("cc", target, ["-O2", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{TREE / 'csrc' / 'engine'}", "-c",
                           source, "-o", object])
    run_zig("c++", target, ["-s", *(["-static"] if "musl" in name else []), object, *objects, "-o", output])


def link_library(name: str, objects: Sequence[Path], output: Path) -> None:
    """Link a shared library, with the C++ library inside, so that it needs the C library alone."""
    output.parent.mkdir(parents=True, exist_ok=True)
    run_zig("c++", TARGETS[name], ["-s", "-shared", *objects, "-o", output])
