"""Compiles Triton kernels for GPUs that need not be there, and reads what the compilers made of them.

    with launches_compiled_for("sm_90") as compiled:
        <any code that launches Triton kernels>
    for kernel in compiled:
        print(resources(kernel, "sm_90"))

A launch is compiled as it would be on the device, with the specialisation of its real arguments, and not performed.
The disassembler comes with Triton's wheel.
"""

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
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32), "sm_100": GPUTarget("cuda", 100, 32),
           "gfx942": GPUTarget("hip", "gfx942", 64)}
NVIDIA_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

# CUDA C++ programming guide, "Compute capabilities": bytes of shared memory in a multiprocessor. All three targets have
# 64 warps, 32 blocks and 65,536 registers, handed out to a warp by 256; a block costs 1 KiB of shared memory more.
SHARED_BYTES = {"sm_80": 164 * 1024, "sm_90": 228 * 1024, "sm_100": 228 * 1024}
# CDNA 3 ISA: 512 vector registers a lane in a SIMD, handed out by 8, for at most 8 waves; 64 KiB of LDS for 4 SIMDs.
GFX942_REGISTERS, GFX942_WAVES, GFX942_LDS_BYTES = 512, 8, 64 * 1024


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions, and the widest load from global memory, in bytes a thread."""

    opcodes: Counter[str]
    widest_load: int


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes; ``registers`` of a thread, ``occupancy`` the share of warps a device can hold.

    ``spilled_bytes`` is the local (NVIDIA) or scratch (AMD) memory of a thread. ``instructions`` counts those of the
    whole kernel once; ``loops`` holds its innermost loops in the order of the code.
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


class _AbsentDevice:
    """What Triton's launcher asks of a driver before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.get_current_target = lambda: target
        self.get_current_device = lambda: str(target)  # the key of the launcher's cache of compiled kernels
        self.get_current_stream = lambda device: 0


@contextmanager
def launches_compiled_for(target: str) -> Iterator[list[Any]]:
    """Inside, every launch of a Triton kernel is compiled for ``target`` and its ``CompiledKernel`` put in the list."""
    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled.append(run(self, *arguments, grid=grid, warmup=True, **options))
        return compiled[-1]

    device = _AbsentDevice(TARGETS[target])
    with patch.object(driver, "_active", device), patch.object(JITFunction, "run", compile_only):
        yield compiled


def resources(kernel: Any, target: str) -> Resources:
    """Of a ``CompiledKernel`` of Triton's for one of ``TARGETS``."""
    shared_bytes, num_warps = kernel.metadata.shared, kernel.metadata.num_warps
    if target.startswith("sm_"):
        usage, code = _disassembled(kernel.asm["cubin"])
        registers, spilled_bytes = _number(r"REG:(\d+)", usage), _number(r"STACK:(\d+)", usage)
        occupancy = _nvidia_occupancy(target, registers, shared_bytes, num_warps)
        instructions = list(_sass(code))
    else:
        code = kernel.asm["amdgcn"]
        registers, spilled_bytes = (_number(rf"\.{name}:\s+(\d+)", code)
                                    for name in ("vgpr_count", "private_segment_fixed_size"))
        occupancy = _gfx942_occupancy(registers, shared_bytes, num_warps)
        instructions = list(_gcn(code))
    return Resources(kernel.metadata.name, target, num_warps, registers, spilled_bytes, shared_bytes, occupancy,
                     sum(opcode != "" for opcode, _, _ in instructions), tuple(_innermost_loops(instructions)))


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


def _disassembled(cubin: bytes) -> tuple[str, str]:
    """Resource usage and SASS."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (subprocess.run([str(NVIDIA_TOOLS / tool), option, file.name], capture_output=True, text=True,
                                      check=True).stdout
                       for tool, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c")))
    return usage, code


# Both parsers yield (opcode, operands, label); the opcode is "" where only a label stands.
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


def _innermost_loops(instructions: list[tuple[str, str, str]]) -> Iterator[Loop]:
    """From a label to the branch back to it, where no other such stretch lies inside."""
    places = {label: place for place, (_, _, label) in enumerate(instructions) if label}
    ends: dict[int, int] = {}
    for place, (opcode, operands, _) in enumerate(instructions):
        target = re.search(r"\.L\w+", operands) if opcode.startswith(("BRA", "s_cbranch", "s_branch")) else None
        if target and places.get(target[0], place) < place:
            ends[places[target[0]]] = place
    for start, end in sorted(ends.items()):
        if not any(start <= other and ends[other] <= end for other in ends if other != start):
            opcodes = Counter(opcode for opcode, _, _ in instructions[start:end + 1] if opcode)
            yield Loop(opcodes, max(map(_load_bytes, opcodes), default=0))


def _load_bytes(opcode: str) -> int:
    """Bytes a thread loads from global memory: 16 for LDG.E.128 and global_load_dwordx4, 0 for any other thing."""
    if opcode.startswith(("LDG", "LDGSTS")):
        return next((bits // 8 for bits in (128, 64, 16, 8) if re.search(rf"\.[US]?{bits}\b", opcode)), 4)
    if match := re.match(r"(?:global|buffer|flat)_load_(?:lds_)?(\w+)", opcode):
        return {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4}.get(match[1], 2)
    return 0
