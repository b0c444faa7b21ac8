"""The Triton backend: when it is there, what it refuses, what torch.compile sees of it; and its forward kernels.

The kernels run under Triton's interpreter: the tests are those of tests/interpreted/forward.py.
"""

import ast
import builtins
import dis
import importlib.util
import subprocess
import sys

import pytest
import torch
from helpers import REPOSITORY, change_backend, run_interpreted

from dendritic_bert.kernels import backends
from dendritic_bert.kernels.backends import gpu
from dendritic_bert.kernels.backends import triton as triton_backend
from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.configs import ANY, TABLE, Config, candidates, key_of

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.mark.slow(seconds=60)
def test_under_the_interpreter():
    run_interpreted("interpreted/forward.py", "interpreted/memory.py")


@pytest.mark.slow(seconds=35)
def test_the_interpreted_ops_are_ops_of_torch():
    """opcheck, torch.compile, torch.export; the choice of a backend; bad input, all of which a GPU sees but values."""
    run_interpreted("kernels/test_registration.py", "kernels/backends/test_backends.py", "kernels/test_validation.py",
                    "-k", "triton")


@needs_triton
def test_inductor_sees_the_launches():
    """It also knows what each writes: without that, every table would be copied before a launch. Where a helper loads
    what an address is computed from, torch takes that for written too: ids, mask and offsets are copied in the backward
    pass, 5 bytes per token. Only the launches of the sparse gradient are not seen."""
    done = subprocess.run([sys.executable, "triton_in_graphs.py"], cwd=REPOSITORY / "tests" / "support",
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines() == [
        "dsn_logits ['logits']", "dsn_logits of long rows ['split_sums', 'split_valid'] ['logits']",
        "dsn_token_logits ['logits']", "dsn_token_logits of 4 packed rows ['logits']",
        "dsn_token_logits of 300 packed rows ['bounds'] ['logits']", "dsn_window_logits ['logits']",
        "dsn_window_logits of long rows ['split_gates', 'split_values', 'split_windows'] ['logits']",
        "dsn_window_logits of many packed rows ['logits']", "embed_pool ['pooled', 'pooled_hat', 'rstd']",
        "embed_pool of long rows ['rstd', 'split_sums', 'split_valid'] ['pooled', 'pooled_hat']",
        "gradients ['attention_mask', 'd_context', 'd_ln_bias', 'd_ln_weight', 'd_word', 'input_ids']",
        "gradients by id ['attention_mask', 'input_ids', 'offsets'] "
        "['attention_mask', 'input_ids', 'offsets', 'order'] ['d_ln_bias', 'd_ln_weight', 'row_share'] "
        "['chunk_sums', 'd_context', 'offsets', 'sums'] ['offsets', 'sums']",
        "sparse gradients embed_pool_backward_sparse_triton",
        "deterministic gradients ['d_ln_bias', 'd_ln_weight', 'row_share'] ['cells', 'context_keys', 'word_keys'] "
        "['chunk_sums', 'offsets', 'sums'] ['offsets', 'sums'] ['chunk_sums', 'offsets', 'sums'] ['offsets', 'sums']"]


def global_names(code) -> set[str]:
    nested = [constant for constant in code.co_consts if hasattr(constant, "co_consts")]
    return {instruction.argval for function in nested for instruction in dis.Bytecode(function)
            if instruction.opname == "LOAD_GLOBAL"}.union(*map(global_names, nested))


@needs_triton
def test_inductor_copies_all_that_a_kernel_names():
    """It copies the source of a kernel, and of the helpers and constants that the kernel names, into code that defines
    nothing else: a class or a helper of another name would be missing there, which only a GPU would show."""
    from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code as source_of

    from dendritic_bert.kernels.backends.triton import arguments, launch_backward, launch_forward, launch_windows

    kernels = [value for module in (arguments, launch_forward, launch_backward, launch_windows)
               for name, value in vars(module).items() if name.endswith("_kernel")]
    assert len(kernels) == 17
    for kernel in kernels:
        source = source_of(kernel)
        functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        constants = [node.targets[0].id for node in ast.parse(source).body if isinstance(node, ast.Assign)]
        assert len({*functions, *constants}) == len(functions) + len(constants)
        known = {*functions, *constants, *vars(builtins), "tl", "triton"}
        assert global_names(compile(source, "source", "exec")) <= known, kernel.__name__


@needs_triton
@pytest.mark.parametrize(("interpreted", "gpus", "reason"), [
    (False, "torch sees no GPU", "torch sees no GPU; TRITON_INTERPRET=1 runs the kernels on the CPU"),
    (False, "cuda:0 is sm_75", "cuda:0 is sm_75"), (False, None, None), (True, "torch sees no GPU", None)])
def test_why_it_cannot_be_used(interpreted, gpus, reason, monkeypatch):
    monkeypatch.setattr(triton_backend, "INTERPRETED", interpreted)
    monkeypatch.setattr(gpu, "missing", lambda: gpus)
    missing = backends.availability()["triton"]
    assert missing is None if reason is None else missing.startswith(reason)


def refused(device: str) -> str:
    with pytest.raises(RuntimeError, match="backend 'triton' cannot serve this call: ") as error:
        backends.choose("triton", "embed_pool", device, torch.float32)
    return str(error.value)


def test_a_triton_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    change_backend(monkeypatch, "triton", missing=triton_backend._not_installed())
    assert backends.availability()["triton"] == "the package triton is not installed; run `pip install triton`"
    assert "triton is not installed; run" in refused("cuda")


def test_a_triton_that_cannot_be_imported(monkeypatch):
    def fail(name):
        raise ImportError("libtriton.so: undefined symbol")

    monkeypatch.setattr(importlib, "import_module", fail)
    change_backend(monkeypatch, "triton", missing=None, device_type="cuda")
    triton_backend._broken.cache_clear()
    try:
        reason = "triton cannot be imported (libtriton.so: undefined symbol); install the one that this torch asks for"
        assert backends.availability()["triton"] == reason
        assert reason in refused("cuda")
        assert backends.choose(None, "embed_pool", "cuda", torch.float32) != "triton"
        assert triton_backend.define("embed_pool", "") == ()
    finally:
        triton_backend._broken.cache_clear()


@pytest.mark.parametrize(("device", "op", "dtype", "reason"), [
    ("cpu", "dsn_logits", torch.float32, "the tensors are on cpu, the triton backend reads memory on cuda"),
    ("meta", "dsn_logits", torch.float32, "the tensors are on meta"),
    ("cuda", "dsn_logits", torch.float64, "the word table is torch.float64, the triton backend reads torch.float32"),
    ("cuda", "embed_pool", torch.int8, "the word table is torch.int8"),
    ("cuda", "embed_pool", torch.float8_e4m3fn, "the word table is torch.float8_e4m3fn"),
    ("cuda", "dsn_logits_folded", torch.float32, "has no kernel for dsn_logits_folded"),
    ("cuda", "dsn_logits", torch.float8_e4m3fn, None),
    ("cuda", "dsn_window_logits", torch.float16, "the word table is torch.float16"),
    ("cuda", "dsn_window_logits", torch.bfloat16, None),
    ("cuda", "dsn_token_logits", torch.int8, None),
    ("cuda", "embed_pool", torch.bfloat16, None),
])
def test_what_it_refuses(device, op, dtype, reason, monkeypatch):
    change_backend(monkeypatch, "triton", missing=None, device_type="cuda")
    monkeypatch.setattr(triton_backend, "_broken", lambda: None)
    refusal = backends.refusal("triton", op, device, dtype)
    if reason is None:
        assert refusal is None
    else:
        assert refusal.startswith(reason) or reason in refusal
        assert backends.choose(None, op, device, dtype) != "triton"


@pytest.mark.parametrize("arch", ["interpreter", "sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("num_rows", [1, 2**20])
@pytest.mark.parametrize("length", [0, 1, 64, 65, 2**31])
@pytest.mark.parametrize("hidden_size", [1, 128, 129, 768, 1024, 4096])
def test_every_key_has_a_configuration(hidden_size, length, num_rows, arch):
    configs = candidates(key_of("embed_pool", hidden_size, length, num_rows, torch.bfloat16, arch))
    assert configs
    for config in configs:
        for size in config[:3]:
            assert size > 0
            assert size & (size - 1) == 0  # Triton's tiles are powers of two
    assert all(line.reason and line.length <= ANY for line in TABLE)


@pytest.mark.parametrize("arch", ["sm_80", "sm_100", "gfx942"])
@pytest.mark.parametrize("hidden_size", [16, 128, 384, 768, 1024, 2048, 4096])
def test_the_registers_of_a_backward_program_are_there(hidden_size, arch):
    """A multiprocessor has 65,536 registers. With dropout a thread may take 168, and the tile is halved again."""
    for length, num_rows in ((32, 4), (32, 8192), (512, 8192)):
        key = key_of("embed_pool_backward", hidden_size, length, num_rows, torch.float32, arch)
        for config in (configs.choose_segments(key), configs.halve(configs.choose_backward(key))):
            assert 168 * 32 * config.num_warps <= 65536


def test_the_fastest_configuration_is_kept(monkeypatch):
    """Launches are timed only if a clock is given, and once per key."""
    monkeypatch.setattr(configs, "_fastest", {})
    key = key_of("dsn_logits", 128, 32, 64, torch.bfloat16, "sm_90")
    timed = []

    def milliseconds(config: Config) -> float:
        timed.append(config)
        return -config.rows

    assert configs.choose(key) == candidates(key)[0]
    best = configs.choose(key, milliseconds)
    assert best == max(candidates(key), key=lambda config: config.rows)
    assert configs.choose(key, milliseconds) == best
    assert timed == candidates(key)
    assert configs.choose(key) == best
    assert len(candidates(key)) > 1
    interpreted = key._replace(arch="interpreter")
    assert configs.choose(interpreted, milliseconds) == candidates(interpreted)[0]
    assert timed == candidates(key)
