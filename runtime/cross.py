"""Builds the engine for other machines, into dist/: for each target of zig.py a shared library with its header, the
example program, which links nothing but the C library, and, where Python has such wheels, dendritic-bert-runtime.
``make cross`` and ``make wasm`` call it with the names of the targets."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from zig import BUILD, TARGETS, TREE, compile_engine, compile_python_module, link_library, link_program

HEADER = TREE / "csrc" / "engine" / "dendritic_bert.h"
EXAMPLE = TREE / "examples" / "engine" / "classify.c"


def build(name: str) -> None:
    """Build everything for a target."""
    folder = TREE / "dist" / "engine" / name
    shutil.rmtree(folder, ignore_errors=True)
    objects = compile_engine(name)
    if name == "wasm32-wasi":
        link_program(name, EXAMPLE, objects, folder / "classify.wasm")
        return
    link_program(name, EXAMPLE, objects, folder / "classify")
    link_library(name, objects, folder / "libdendritic_bert.so")
    shutil.copy(HEADER, folder)
    if TARGETS[name].wheel is not None:
        build_wheel(name, objects)


def build_wheel(name: str, objects: Sequence[Path]) -> None:
    """Build the wheel of the runtime, around an extension for the target, into dist/runtime."""
    extension = BUILD / name / "_engine.abi3.so"
    link_library(name, [*objects, *compile_python_module(name)], extension)
    subprocess.run(
        [sys.executable, "runtime/setup.py", "-q", "bdist_wheel", "--plat-name", TARGETS[name].wheel, "--dist-dir",
         str(TREE / "dist" / "runtime")], cwd=TREE, check=True, env=os.environ | {"ENGINE_EXTENSION": str(extension)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="+", choices=TARGETS)
    for name in parser.parse_args().target:
        build(name)
