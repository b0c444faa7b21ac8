"""Compiles Triton kernels for GPUs that need not be there, and reads from the code what they take.

    python bench/analysis/compile_ahead.py [--targets sm_90 gfx942] [--code_of KERNEL...] [--json FILE]

prints what the kernels of the calls in ``budgets.json`` take. In code:

    with launches_compiled_for("sm_90") as compiled:
        <any code that launches Triton kernels>
    for kernel in compiled:
        print(resources(kernel, "sm_90"))

A launch is compiled as it would be on the device, specialised on its real arguments, but not performed. The
disassembler comes with Triton's wheel.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import triton
from launches import Call
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32), "sm_100": GPUTarget("cuda", 100, 32),
           "gfx942": GPUTarget("hip", "gfx942", 64)}
BUDGETS = Path(__file__).with_name("budgets.json")
NVIDIA_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

# CUDA C++ programming guide, "Compute capabilities": bytes of shared memory in a multiprocessor. All three targets have
# 64 warps, 32 blocks and 65,536 registers, allotted to a warp by 256; a block takes 1 KiB of shared memory more.
SHARED_BYTES = {"sm_80": 164 * 1024, "sm_90": 228 * 1024, "sm_100": 228 * 1024}
# CDNA 3 ISA: a SIMD has 512 vector registers per lane, allotted by 8, for at most 8 waves; 4 SIMDs share 64 KiB of LDS.
GFX942_REGISTERS, GFX942_WAVES, GFX942_LDS_BYTES = 512, 8, 64 * 1024

# A load of 16 bytes per thread from global memory, in SASS, PTX and AMD's assembly.
WIDE_LOAD = re.compile(r"LDG(STS)?\..*\b128\b|ld\.global.*\.v4\.[bf]32|(global|buffer)_load_dwordx4")


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions, and the bytes that a thread loads from global memory 16 at a time."""

    opcodes: Counter[str]
    wide_load_bytes: int

    @property
    def num_instructions(self) -> int:
        return sum(self.opcodes.values())


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes. ``registers``: per thread. ``occupancy``: the share of a device's warps that it
    can hold. ``spilled_bytes``: of local (NVIDIA) or scratch (AMD) memory per thread.

    ``instructions`` counts those of the whole kernel once; ``loops`` holds its innermost loops in the order of the
    code, and ``ptx_loops`` those of the PTX. A kernel that was not disassembled has none of them.
    """

    kernel: str
    target: str
    num_warps: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    occupancy: float
    instructions: int
    loops: tuple[Loop, ...]
    ptx_loops: tuple[Loop, ...]

    @property
    def gather_loop(self) -> Loop:
        """The first loop with 16-byte loads; if none has them, the longest; if there is none, an empty one."""
        wide = [loop for loop in self.loops if loop.wide_load_bytes > 0]
        return wide[0] if wide else max(self.loops, key=lambda loop: loop.num_instructions, default=Loop(Counter(), 0))


class _AbsentDevice:
    """Answers what Triton's launcher asks of a driver before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.get_current_target = lambda: target
        self.get_current_device = lambda: str(target)  # the key of the launcher's cache of compiled kernels
        self.get_current_stream = lambda device: 0


@contextmanager
def launches_compiled_for(target: str) -> Iterator[list[Any]]:
    """Inside, every launch of a Triton kernel is compiled for ``target``, and its ``CompiledKernel`` is appended."""
    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled.append(run(self, *arguments, grid=grid, warmup=True, **options))
        return compiled[-1]

    device = _AbsentDevice(TARGETS[target])
    with patch.object(driver, "_active", device), patch.object(JITFunction, "run", compile_only):
        yield compiled


def resources(kernel: Any, target: str, code: bool = True) -> Resources:
    """What Triton's ``CompiledKernel`` for one of ``TARGETS`` takes. ``code``: disassemble it too, for 0.4 s."""
    shared_bytes, num_warps = kernel.metadata.shared, kernel.metadata.num_warps
    if target.startswith("sm_"):
        usage = _output_of("cuobjdump", "-res-usage", kernel.asm["cubin"])
        registers, spilled_bytes = _number(r"REG:(\d+)", usage), _number(r"STACK:(\d+)", usage)
        occupancy = _nvidia_occupancy(target, registers, shared_bytes, num_warps)
        instructions = list(_sass(_output_of("nvdisasm", "-c", kernel.asm["cubin"]))) if code else []
    else:
        text = kernel.asm["amdgcn"]
        registers, spilled_bytes = (_number(rf"\.{name}:\s+(\d+)", text)
                                    for name in ("vgpr_count", "private_segment_fixed_size"))
        occupancy = _gfx942_occupancy(registers, shared_bytes, num_warps)
        instructions = list(_gcn(text)) if code else []
    ptx = list(_ptx(kernel.asm.get("ptx", ""))) if code else []
    return Resources(kernel.metadata.name, target, num_warps, registers, spilled_bytes, shared_bytes, occupancy,
                     sum(opcode != "" for opcode, _, _ in instructions), tuple(_innermost_loops(instructions)),
                     tuple(_innermost_loops(ptx)))


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"{pattern!r} is not in what the compiler reported: its format has changed.")
    return int(match[1])


def _nvidia_occupancy(target: str, registers: int, shared_bytes: int, num_warps: int) -> float:
    warps_by_registers = 65536 // (-(-registers * 32 // 256) * 256)
    blocks = min(warps_by_registers // num_warps, SHARED_BYTES[target] // (shared_bytes + 1024), 64 // num_warps, 32)
    return blocks * num_warps / 64


def _gfx942_occupancy(registers: int, shared_bytes: int, num_warps: int) -> float:
    waves = min(GFX942_WAVES, GFX942_REGISTERS // (-(-registers // 8) * 8))  # on each of the 4 SIMDs
    blocks = min(4 * waves // num_warps, GFX942_LDS_BYTES // shared_bytes if shared_bytes else 4 * waves)
    return blocks * num_warps / (4 * GFX942_WAVES)


def _output_of(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([str(NVIDIA_TOOLS / tool), option, file.name], capture_output=True, text=True,
                              check=True).stdout


# The parsers yield (opcode, operands, label). The opcode of a label is "".
def _sass(code: str) -> Iterator[tuple[str, str, str]]:
    for line in code.splitlines():
        if line.startswith(".L_"):
            yield "", "", line.partition(":")[0]
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", line):
            yield match[1], match[2], ""


def _gcn(code: str) -> Iterator[tuple[str, str, str]]:
    for line in code.splitlines():
        if match := re.match(r"(\.L\w+):", line):
            yield "", "", match[1]
        elif match := re.match(r"\s+([sv]_\w+|(?:global|buffer|flat|scratch|ds)_\w+)\s?([^;]*)", line):
            yield match[1], match[2], ""


def _ptx(code: str) -> Iterator[tuple[str, str, str]]:
    for line in code.splitlines():
        if match := re.match(r"(\$L\w+):", line):
            yield "", "", match[1]
        elif match := re.match(r"\s+(?:@!?%p\d+ )?([a-z][a-z0-9_.:]*)\s?([^;]*);", line):
            yield match[1], match[2], ""


def _innermost_loops(instructions: list[tuple[str, str, str]]) -> Iterator[Loop]:
    """The stretches from a label to a branch back to it that contain no other such stretch."""
    places = {label: place for place, (_, _, label) in enumerate(instructions) if label}
    ends: dict[int, int] = {}
    for place, (opcode, operands, _) in enumerate(instructions):
        branches = opcode.lower().startswith(("bra", "s_cbranch", "s_branch"))
        target = re.search(r"[.$]L\w+", operands) if branches else None
        if target and places.get(target[0], place) < place - 1:  # ptxas fills a kernel's end with a branch to itself
            ends[places[target[0]]] = place
    for start, end in sorted(ends.items()):
        if not any(start <= other and ends[other] <= end for other in ends if other != start):
            opcodes = Counter(opcode for opcode, _, _ in instructions[start:end + 1] if opcode)
            yield Loop(opcodes, 16 * sum(count for opcode, count in opcodes.items() if WIDE_LOAD.match(opcode)))


def compiled_budgets(targets: list[str], code_of: list[str] | None = None) -> Iterator[tuple[Call, Resources]]:
    """Every kernel that a call of ``budgets.json`` launches, for every target. ``code_of``: those to be disassembled,
    or None for all."""
    calls = [Call.from_json(values) for values in json.loads(BUDGETS.read_text(encoding="utf-8"))["calls"]]
    for target in targets:
        for call in calls:
            with launches_compiled_for(target) as compiled:
                call.launch(call.tensors())
            for kernel in compiled:
                yield call, resources(kernel, target, code_of is None or kernel.metadata.name in code_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--code_of", nargs="+", metavar="KERNEL", help="disassemble only these")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    for call, found in compiled_budgets(arguments.targets, arguments.code_of):
        print(f"{call}: {found.kernel} on {found.target}: {found.registers} registers, {found.spilled_bytes} bytes "
              f"spilled, {found.shared_bytes} shared, occupancy {found.occupancy:.2f}, {found.instructions} "
              f"instructions, {found.gather_loop.num_instructions} in the gathering loop", flush=True)
        results.append({"call": vars(call) | {"dtype": str(call.dtype)}, **vars(found)})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, default=vars), encoding="utf-8")


if __name__ == "__main__":
    main()
