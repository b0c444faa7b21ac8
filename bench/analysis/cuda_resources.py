"""Reads what nvcc made of the CUDA kernels, for GPUs that need not be there.

    python bench/analysis/cuda_resources.py [EXTENSION] [--targets sm_80 sm_90] [--json]

prints registers, local and shared memory, occupancy, and the instructions per token of the gather loop, for every
kernel in the extension (by default the installed ``dendritic_bert._cuda``). ``budgets.json`` has the figures of the
usual sizes under "cuda"; tests/kernels/backends/cuda/test_cuda_build.py compares a build with them, and ``--json``
prints new ones.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

BUDGETS = Path(__file__).with_name("budgets.json")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120")
# CUDA C++ programming guide, "Compute capabilities": bytes of shared memory, and warps, of a multiprocessor. All have
# 65,536 registers, which a warp gets in units of 256; a block takes 1 KiB of shared memory in addition.
SHARED_BYTES = {"sm_80": 164 * 1024, "sm_90": 228 * 1024, "sm_100": 228 * 1024, "sm_120": 100 * 1024}
WARPS = {"sm_80": 64, "sm_90": 64, "sm_100": 64, "sm_120": 48}
BLOCK_WARPS = 4
WORDS = {"float": "float32", "__nv_bfloat16": "bfloat16", "__half": "float16", "signed char": "int8",
         "__nv_fp8_e4m3": "float8_e4m3fn"}
# How many 16-byte loads a lane needs for eight channels of a word; the context takes two.
WIDE_WORD_LOADS = {"float32": 2, "bfloat16": 1, "float16": 1, "int8": 0, "float8_e4m3fn": 0}
WIDTHS = ("exact", "multiple of 8", "any")  # Width of rows.cuh
NAMESPACE = "dendritic_bert::"
SHAPE = re.compile(r"(\w+)<([\w ]+), Shape<(\d+), (\d+), \(Width\)(\d), \d+> ?>")
WINDOWS = re.compile(r"(dsn_window_logits_kernel)<([\w ]+), (\d+)>")
# The kernels whose loop gathers tokens and does little else, so that its instructions are counted per token.
GATHERS = ("dsn_logits_kernel", "embed_pool_kernel")
# The multipliers of Philox, as they are or negated: an instruction with one of them draws the bits of dropout.
PHILOX = re.compile("0x(d2511f53|2daee0ad|cd9e8d57|326172a9)", re.IGNORECASE)


@dataclass(frozen=True)
class Work:
    """Instructions of a warp: once for its row, for each list of at most 32 tokens, and for each step of the gather
    loop. Those that draw the bits of dropout are not counted."""

    once: int
    each_list: int
    each_step: int


@dataclass(frozen=True)
class Products:
    """The loop of the window layers in which a warp multiplies 32 columns by a matrix, or by a part of it: its
    instructions, and those among them that tensor cores execute, each 16 x 8 x 16 multiply-adds, and fused
    multiply-adds of a lane."""

    instructions: int
    tensor: int
    fused: int


@dataclass(frozen=True)
class Kernel:
    """One kernel for one target. ``shape``: lanes x vectors of rows.cuh; the channels of a window's kernel.
    ``local_bytes``: of a thread, where registers spill. ``shared_bytes``: static, of a block. ``occupancy``: the share
    of a multiprocessor's warps that fit at once, without dynamic shared memory."""

    kernel: str
    word: str
    shape: str
    width: str
    target: str
    registers: int
    local_bytes: int
    shared_bytes: int
    occupancy: float
    wide_loads: int
    instructions_per_token: float | None
    work: Work | None
    products: "Products | None" = None

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.kernel, self.word, self.shape, self.width) if part)


def extension_path() -> Path | None:
    """The installed extension, found without an import; None if there is none."""
    spec = importlib.util.find_spec("dendritic_bert._cuda")
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def kernels_of(extension: Path, targets: tuple[str, ...] = TARGETS, loops: bool = True) -> Iterator[Kernel]:
    """Every kernel of ``extension``. Without ``loops``, nothing is disassembled, and they have no such figures."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([str(TOOLS / "cuobjdump"), "-xelf", "all", str(extension.resolve())], cwd=folder, check=True,
                       capture_output=True)
        for cubin in sorted(Path(folder).glob("*.cubin")):
            match = re.search(r"sm_\d+", cubin.name)
            if match is not None and match[0] in targets:
                yield from _kernels_of_cubin(cubin, match[0], loops)


def _kernels_of_cubin(cubin: Path, target: str, loops: bool) -> Iterator[Kernel]:
    usage = _output(str(TOOLS / "cuobjdump"), "-res-usage", str(cubin))
    found = re.findall(r"Function (\S+?):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    code = _functions(_output(str(TOOLS / "nvdisasm"), "-c", str(cubin))) if loops and found else {}
    for mangled, registers, stack, shared, local in found:
        plain = _output("c++filt", mangled).strip().replace(NAMESPACE, "")
        match = SHAPE.search(plain)
        kernel, word, shape, width, loads, groups = re.sub(r"^void |[<(].*", "", plain), "", "", "", 1, 1
        if match is not None:
            lanes, vectors, number = map(int, match.groups()[2:])
            kernel, word, shape, width = match[1], WORDS[match[2]], f"{lanes}x{vectors}", WIDTHS[number]
            loads, groups = vectors * (2 + WIDE_WORD_LOADS[word]), 32 // lanes
        windows = WINDOWS.search(plain)
        if windows is not None:
            kernel, word, shape = windows[1], WORDS[windows[2]], windows[3]
        lines = code.get(mangled, [])
        place = _gather_loop(lines)
        loop = [opcode for opcode, _ in lines[slice(*place)] if opcode] if place and kernel in GATHERS else None
        wide = 0 if loop is None else sum(opcode.startswith("LDG") and ".128" in opcode for opcode in loop)
        yield Kernel(kernel, word, shape, width, target, int(registers), int(stack) + int(local), int(shared),
                     _occupancy(target, int(registers), int(shared)), wide,
                     round(len(loop) * loads / (wide * groups), 1) if loop and wide else None,
                     _work(lines, place) if place else None, _products(lines) if windows and shape != "0" else None)


def _products(lines: list[tuple[str, str]]) -> Products | None:
    """Of the loops with the most tensor-core instructions, the shortest; where there are none, of the loops with the
    largest share of fused multiply-adds. None where there is no loop."""
    found = []
    for loop in _loops(lines):
        opcodes = [opcode for opcode, _ in lines[slice(*loop)] if opcode]
        found.append(Products(len(opcodes), sum(opcode.startswith("HMMA") for opcode in opcodes),
                              sum(opcode.startswith("FFMA") for opcode in opcodes)))
    return max(found, key=lambda loop: (loop.tensor, (loop.tensor or loop.fused) / loop.instructions), default=None)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _occupancy(target: str, registers: int, shared_bytes: int) -> float:
    blocks = min(65536 // (-(-registers * 32 // 256) * 256) // BLOCK_WARPS,
                 SHARED_BYTES[target] // (shared_bytes + 1024), WARPS[target] // BLOCK_WARPS)
    return round(blocks * BLOCK_WARPS / WARPS[target], 3)


def _functions(disassembly: str) -> dict[str, list[tuple[str, str]]]:
    """The lines of each function, as (opcode, operands) or ("", label)."""
    functions: dict[str, list[tuple[str, str]]] = {}
    lines: list[tuple[str, str]] = []
    for line in disassembly.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\S+?),", line):
            lines = functions.setdefault(section[1], [])
        elif line.startswith(".L_"):
            lines.append(("", line.partition(":")[0]))
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", line):
            lines.append((match[1], match[2]))
    return functions


def _loops(lines: list[tuple[str, str]]) -> list[tuple[int, int]]:
    """Each loop as the place of its label and the place behind the branch back to it."""
    places = {label: place for place, (opcode, label) in enumerate(lines) if not opcode}
    loops = []
    for end, (opcode, operands) in enumerate(lines):
        target = re.search(r"\.L\w+", operands) if opcode.startswith("BRA") else None
        if target and places.get(target[0], end) < end - 1:
            loops.append((places[target[0]], end + 1))
    return loops


def _gather_loop(lines: list[tuple[str, str]]) -> tuple[int, int] | None:
    """Of the innermost loops with the most 16-byte loads from global memory, the longest; None if there is no loop."""
    loops = _loops(lines)
    inner = [loop for loop in loops if not any(
        other != loop and loop[0] <= other[0] and other[1] <= loop[1] for other in loops)]

    def size(loop: tuple[int, int]) -> tuple[int, int]:
        opcodes = [opcode for opcode, _ in lines[slice(*loop)] if opcode]
        return sum(".128" in opcode and opcode.startswith("LDG") for opcode in opcodes), len(opcodes)

    return max(inner, key=size, default=None)


def _work(lines: list[tuple[str, str]], step: tuple[int, int]) -> Work:
    around = [loop for loop in _loops(lines) if loop != step and loop[0] <= step[0] and step[1] <= loop[1]]
    tile = min(around, key=lambda loop: loop[1] - loop[0], default=step)
    counted = _without_dropout(lines)
    whole, in_tile, in_step = (sum(counted[slice(*part)]) for part in ((0, len(lines)), tile, step))
    return Work(whole - in_tile, in_tile - in_step, in_step)


def _without_dropout(lines: list[tuple[str, str]]) -> list[bool]:
    """Which lines are instructions that are executed without dropout. A basic block that draws bits has none."""
    counted: list[bool] = []
    block: list[tuple[str, str]] = []
    for line in [*lines, ("", "")]:
        if not line[0] or (block and block[-1][0].startswith("BRA")):
            draws = any(PHILOX.search(operands) for opcode, operands in block if opcode)
            counted += [bool(opcode) and not draws for opcode, _ in block]
            block = []
        block.append(line)
    return counted


def budgets(kernels: list[Kernel]) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of ``budgets.json``, by name and target, for H = 128 (16x1) and H = 768 (32x3): every kernel in
    bfloat16, and dsn_logits in every word type; and for windows of 32 and 64 channels."""
    kept: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for k in kernels:
        wanted = k.word == "bfloat16" or k.kernel == "dsn_logits_kernel"
        usual = (k.width == "exact" and k.shape in ("16x1", "32x3")) if k.products is None else k.shape in ("32", "64")
        if usual and (wanted or k.products is not None):
            kept[k.name][k.target] = {"registers": k.registers, "shared_bytes": k.shared_bytes,
                                      "occupancy": k.occupancy} | (
                {} if k.instructions_per_token is None else {"instructions_per_token": k.instructions_per_token}) | (
                {} if k.products is None else {"product_instructions": k.products.instructions})
    return dict(sorted(kept.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extension", type=Path, nargs="?", default=extension_path())
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.extension is None:
        parser.error("dendritic_bert._cuda was not built: build it, or name a library that holds the kernels")
    kernels = list(kernels_of(arguments.extension, tuple(arguments.targets)))
    if arguments.json:
        print(json.dumps(budgets(kernels), indent=1))
        return
    for k in kernels:
        gather = "" if k.instructions_per_token is None else f"  {k.instructions_per_token} instructions per token"
        if k.products is not None:
            of_loop = k.products.tensor or k.products.fused
            gather = f"  {of_loop} of {k.products.instructions} instructions multiply matrices"
        print(f"{k.target:7} {k.name:50} {k.registers:3} registers  {k.local_bytes} local  {k.shared_bytes:5} shared  "
              f"{k.occupancy:.0%} occupancy{gather}")


if __name__ == "__main__":
    main()
