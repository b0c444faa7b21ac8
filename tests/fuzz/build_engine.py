"""Compiles the engine, its kernels for all instruction sets, and what reads and writes records, into an archive:

    python tests/fuzz/build_engine.py COMPILER ARCHIVE FLAG...

for ``make fuzz`` and ``make tsan``, whose flags put checks into it. The object files lie beside the archive.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "csrc" / "cpu"))
from instruction_sets import engine_kernels  # noqa: E402


def main(compiler: str, archive: str, *flags: str) -> int:
    """Compile and archive; 1 if a source does not compile, after the compiler has said why."""
    own = [path for folder, module in (("engine", "python_*"), ("files", "python_module"))
           for path in (TREE / "csrc" / folder).glob("*.cpp") if not path.match(f"{module}.cpp")]
    jobs = [(TREE / source, name, of_set) for source, name, of_set in engine_kernels(platform.machine())]
    jobs += [(path, "any", []) for path in own]
    folder = Path(archive).with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    objects = [folder / f"{name}_{path.stem}.o" for path, name, _ in jobs]

    def compiles(job: tuple[Path, str, list[str]], target: Path) -> bool:
        path, _, of_set = job
        return subprocess.run([compiler, *flags, *of_set, "-c", path, "-o", target]).returncode == 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not all(list(pool.map(compiles, jobs, objects))):
            return 1
    Path(archive).unlink(missing_ok=True)
    return subprocess.run(["ar", "rcs", archive, *objects]).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
