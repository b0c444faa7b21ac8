"""The kernels as setup.py has compiled them, for tests that link them."""

import platform
import sys
from pathlib import Path

from helpers import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "csrc" / "cpu"))
from instruction_sets import DISPATCH_SOURCES, kernel_sources


def compiled_kernels() -> list[Path]:
    """The object files of csrc/cpu, those of each instruction set and those of what chooses among them."""
    folder = REPOSITORY / "build" / "temp"
    paths = [folder / name / source for source, sets in kernel_sources(platform.machine()).items() for name in sets]
    return [path.with_suffix(".o") for path in (*paths, *map(folder.joinpath, DISPATCH_SOURCES))]
