"""Every Triton kernel, compiled for absent GPUs, stays within bench/analysis/budgets.json and gathers 16-byte words.

These tests cannot tell whether a kernel runs, or how fast.
"""

import json
import os
import re
import subprocess
import sys

import pytest
from helpers import REPOSITORY

pytest.importorskip("triton")
BENCH = REPOSITORY / "bench" / "analysis"
BUDGETS = json.loads((BENCH / "budgets.json").read_text(encoding="utf-8"))
# A target takes 50 seconds: one of each maker in `make test`, the others in `make exhaustive`.
TARGETS = ["sm_90", "gfx942", *(pytest.param(target, marks=pytest.mark.exhaustive) for target in ("sm_80", "sm_100"))]


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request, tmp_path_factory) -> list[dict]:
    """One entry per kernel that a call launches, from a process in which Triton compiles instead of interpreting."""
    folder = tmp_path_factory.mktemp("compiled")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, BENCH / "compile_ahead.py", "--targets", request.param, "--code_of",
                           "dsn_logits_kernel", "window_logits_kernel", "--json", folder / "found.json"],
                          env=environment | {"TRITON_CACHE_DIR": str(folder / "cache")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


def budget(found: dict) -> dict:
    return BUDGETS["kernels"][named_budget(found)]


def named_budget(found: dict) -> str:
    """A head is large unless it has two labels and two dendrites. Kernels that sum splits have no head. In a packed
    batch of many rows, windows go tile by tile in a loop."""
    call = found["call"]
    if found["kernel"] == "window_logits_kernel":
        return found["kernel"] + ", packed" * (call["layout"] == "packed")
    large = (call["num_labels"], call["num_dendrites"]) != (2, 2) and "splits" not in found["kernel"]
    return found["kernel"] + ", dropout" * (call["dropout"] > 0) + ", large head" * large


def named(found: dict) -> str:
    return f"{found['kernel']} of {found['call']} on {found['target']}"


def hot_loop(found: dict, loops: str) -> dict:
    """The loop that gathers: the first with 16-byte loads or, if there is none, the longest."""
    wide = [loop for loop in found[loops] if loop["wide_load_bytes"] > 0]
    return wide[0] if wide else max(found[loops], key=lambda loop: sum(loop["opcodes"].values()))


@pytest.mark.slow(seconds=120)
def test_within_the_budgets(compiled):
    for found in compiled:
        allowed, family = budget(found), "gfx942" if found["target"] == "gfx942" else "sm"
        assert found["spilled_bytes"] == 0, named(found)
        assert found["registers"] <= allowed["registers"][family], named(found)
        assert found["shared_bytes"] <= allowed["shared_bytes"], named(found)
        assert found["occupancy"] >= allowed["occupancy"][family], named(found)


@pytest.mark.slow
def test_every_kernel_is_compiled_and_every_budget_is_used(compiled):
    sources = [path.read_text(encoding="utf-8")
               for path in (REPOSITORY / "kernels" / "backends" / "triton").glob("*.py")]
    kernels = {name for source in sources for name in re.findall(r"^def (\w+_kernel)\(", source, re.MULTILINE)}
    assert len(kernels) >= 9
    assert {found["kernel"] for found in compiled} == kernels
    assert set(map(named_budget, compiled)) == set(BUDGETS["kernels"])
    assert all(entry["why"] for entry in BUDGETS["kernels"].values())
    assert {call["dtype"] for call in BUDGETS["calls"]} >= {"float32", "bfloat16", "int8"}


@pytest.mark.slow
def test_the_gather_loads_16_bytes_at_once(compiled):
    """In bfloat16 at H = 128, with four tokens per warp and eight per wave, a thread has two loads of words and four of
    contexts in each iteration."""
    found = next(found for found in compiled if found["kernel"] == "dsn_logits_kernel"
                 and found["call"]["hidden_size"] == 128 and found["call"]["dtype"] == "torch.bfloat16")
    tile_bytes = (8 if found["target"] == "gfx942" else 4) * 128 * (2 + 4)
    if found["target"] == "gfx942":
        assert hot_loop(found, "loops")["wide_load_bytes"] * 64 * found["num_warps"] >= tile_bytes, named(found)
    else:
        for loops in ("loops", "ptx_loops"):
            loop = hot_loop(found, loops)
            assert loop["wide_load_bytes"] * 32 * found["num_warps"] >= tile_bytes, named(found)
        opcodes = hot_loop(found, "ptx_loops")["opcodes"]
        assert any(re.fullmatch(r"ld\.global.*\.v4\.b32", opcode) for opcode in opcodes), named(found)


@pytest.mark.slow
def test_windows_are_multiplied_on_tensor_cores(compiled):
    """A layer's three products [64, 32] x [32, 32] in bfloat16 are as many instructions of a warp as their shape says:
    16 x 8 x 16 on sm_80; a group of four warps takes 64 x 32 x 16 at a time on sm_90 and sm_100."""
    found = next(found for found in compiled if named_budget(found) == "window_logits_kernel")
    names = {"sm_80": "HMMA.16816.F32.BF16", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "v_mfma_f32_"}
    expected = {"sm_80": 3 * (64 // 16) * (32 // 8) * (32 // 16) // 4, "sm_90": 3 * 32 // 16, "sm_100": 3 * 32 // 16}
    name = names[found["target"]]
    counts = [sum(count for opcode, count in loop["opcodes"].items() if opcode.startswith(name))
              for loop in found["loops"]]
    assert max(counts) > 0, named(found)
    if found["target"] in expected:
        assert sum(counts) == expected[found["target"]], named(found)
