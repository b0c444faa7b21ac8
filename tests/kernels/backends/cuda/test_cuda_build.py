"""What nvcc made of the CUDA kernels, and what works with it without a GPU. Nothing here launches a kernel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import head, parameters
from helpers import REPOSITORY
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from window_workload import prepared, window_head, window_parameters

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends import cuda
from dendritic_bert.kernels.contract import DsnHead, DsnTable
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

cuda_resources = pytest.importorskip("cuda_resources", reason="the disassemblers come with Triton's wheel")

BUILT = cuda.MISSING is None
built = pytest.mark.skipif(not BUILT, reason=str(cuda.MISSING))
BUDGETS = json.loads(cuda_resources.BUDGETS.read_text(encoding="utf-8"))["cuda"]
OPS = ("dsn_logits", "dsn_token_logits", "dsn_window_logits", "embed_pool", "embed_pool_backward",
       "embed_pool_token_gradients", "embed_pool_segment_sums")


def test_the_extension_is_there_where_nvcc_is():
    if shutil.which("nvcc") is None or torch.version.cuda is None:
        pytest.skip("no nvcc or no torch with CUDA on this machine")
    assert BUILT, cuda.MISSING


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
def test_the_toolkit_s_home_is_found_behind_a_script(tmp_path):
    real = shutil.which("nvcc")
    (tmp_path / "nvcc").write_text(f'#!/bin/sh\nexec {real} "$@"\n', encoding="utf-8")
    (tmp_path / "nvcc").chmod(0o755)
    found = "import setuptools; setuptools.setup = lambda **_: None; import setup; print(setup.CUDA_HOME)"
    done = subprocess.run([sys.executable, "-c", found], cwd=REPOSITORY, capture_output=True, text=True, env={
        name: value for name, value in os.environ.items() if name != "CUDA_HOME"} | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    home = Path(done.stdout.splitlines()[-1])
    assert (home / "bin" / "nvcc").exists(), done.stderr
    assert (home / "include" / "cuda_runtime.h").exists()


@built
def test_the_ops_have_cuda_kernels_and_no_others():
    """In a process of its own: in this one a test may have registered the kernels for CPU tensors too
    (tests/support/cuda_on_cpu)."""
    code = ("import torch, dendritic_bert.kernels.ops\n"
            f"for op in {OPS}:\n"
            "    print(op, *(key for key in ('CUDA', 'CPU') if torch._C._dispatch_has_kernel_for_dispatch_key("
            "f'dendritic_bert::{op}_cuda', key)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{op} CUDA" for op in OPS], done.stderr


@built
def test_tensors_that_are_not_on_a_gpu_are_refused():
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot serve this call: the tensors are on cpu"):
        ops.embed_pool(torch.zeros(1, 1, dtype=torch.int64), **parameters(16), backend="cuda")


def on_cuda(tensors):
    return {name: torch.empty_like(value, device="cuda") if isinstance(value, torch.Tensor) else value
            for name, value in tensors.items()}


@pytest.fixture
def fakes():
    """Parameters, prepared table and head, and ids, as tensors on a GPU that need not be there."""
    values = parameters(128)
    table = prepare_table(*list(values.values())[:3], dtype=torch.bfloat16)
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(128, 3, 2))
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()):  # the size of a sparse gradient is a symbol
        yield (on_cuda(values), DsnTable(**on_cuda(table._asdict())), DsnHead(**on_cuda(dsn_head._asdict())),
               torch.zeros(4, 6, dtype=torch.int64, device="cuda"))


@built
def test_fakes_have_the_shapes_of_the_results(fakes):
    values, table, dsn_head, ids = fakes
    for result, shape, dtype in (
            (ops.dsn_logits(ids, table, dsn_head, backend="cuda"), (4, 3), torch.float32),
            (ops.dsn_token_logits(ids, table, dsn_head, backend="cuda"), (4, 6, 3), torch.float32),
            (ops.embed_pool(ids, **values, backend="cuda"), (4, 128), torch.float32)):
        assert (result.shape, result.dtype, result.device.type) == (shape, dtype, "cuda")


@built
def test_the_fake_of_windows_has_the_shape_of_the_logits():
    values = window_parameters()
    windowed = prepared(values, window_head(values), dtype=torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        windowed = type(windowed)(**on_cuda(windowed._asdict()))
        logits = ops.dsn_window_logits(torch.zeros(4, 6, dtype=torch.int64, device="cuda"), windowed, backend="cuda")
    assert (logits.shape, logits.dtype, logits.device.type) == ((4, 3), torch.float32, "cuda")


@built
def test_fakes_go_through_compile(fakes):
    values, table, dsn_head, ids = fakes
    seed = ids.new_zeros(1)

    def both(ids):
        pooled = ops.embed_pool(ids, **values, p_embed=0.1, seed=seed, backend="cuda")
        return pooled, ops.dsn_logits(ids, table, dsn_head, backend="cuda")

    torch._dynamo.reset()
    with torch.inference_mode():
        pooled, logits = torch.compile(both, fullgraph=True, backend="aot_eager")(ids)
    assert (pooled.shape, logits.shape) == ((4, 128), (4, 3))
    assert pooled.device.type == logits.device.type == "cuda"


@built
@pytest.mark.parametrize("word_grad", [0, 1, 2], ids=["none", "dense", "sparse"])
def test_fakes_of_the_gradients_have_the_shapes_of_the_parameters(fakes, word_grad):
    """Calls the op itself, because torch's autograd asks the CUDA driver for its streams."""
    values, _, _, ids = fakes
    rows = values["word_embeddings"].new_empty(4, 128)
    gradients = torch.ops.dendritic_bert.embed_pool_backward_cuda(
        rows, rows, rows.new_empty(24), ids, *values.values(), None, None, None, None, 1e-12, 0, 0.0, 0.0, None,
        word_grad)
    assert [tuple(gradient.shape) for gradient in gradients[2:]] == [
        tuple(value.shape) for value in list(values.values())[1:]]
    assert gradients[0].shape[1:] == (128,)
    assert all(gradient.device.type == "cuda" for gradient in gradients)


@built
def test_fakes_are_exported_with_the_cuda_op_in_the_graph(fakes):
    _, table, dsn_head, ids = fakes

    class Classifier(torch.nn.Module):
        def forward(self, ids, word, context):
            return ops.dsn_logits(ids, table._replace(word=word, context=context), dsn_head, backend="cuda")

    rows = torch.export.Dim("rows", min=1, max=512)
    exported = torch.export.export(Classifier(), (ids, table.word, table.context),
                                   dynamic_shapes=({0: rows}, None, None))
    assert torch.ops.dendritic_bert.dsn_logits_cuda.default in {node.target for node in exported.graph.nodes}


@pytest.fixture(scope="module")
def usage():
    """The resources of every kernel on every target, without the figures of loops."""
    return list(cuda_resources.kernels_of(cuda_resources.extension_path(), loops=False))


@built
def test_every_target_has_every_kernel(usage):
    kernels = {target: {k.name for k in usage if k.target == target} for target in cuda_resources.TARGETS}
    assert len(kernels["sm_90"]) > 100
    assert all(names == kernels["sm_90"] for names in kernels.values())


@built
def test_no_kernel_spills_to_local_memory(usage):
    assert [k for k in usage if k.local_bytes] == []


@built
@pytest.mark.parametrize("target", cuda_resources.TARGETS)
def test_registers_shared_memory_and_occupancy_are_within_the_budget(usage, target):
    found = {k.name: k for k in usage if k.target == target}
    for name, budget in BUDGETS.items():
        kernel, allowed = found[name], budget[target]
        assert kernel.registers <= allowed["registers"], (name, target)
        assert kernel.shared_bytes <= allowed["shared_bytes"], (name, target)
        assert kernel.occupancy >= allowed["occupancy"], (name, target)


@built
def test_the_hot_loops_are_within_the_budget():
    found = {k.name: k for k in cuda_resources.kernels_of(cuda_resources.extension_path(), ("sm_90",))}
    for name, budget in BUDGETS.items():
        kernel, allowed = found[name], budget["sm_90"].get("instructions_per_token")
        if allowed is None:
            continue
        assert kernel.instructions_per_token <= allowed, name
        assert kernel.wide_loads > 0, name
    assert found["dsn_logits_kernel bfloat16 16x1 exact"].instructions_per_token <= 30
    for name, budget in BUDGETS.items():
        if "product_instructions" not in budget["sm_90"]:
            continue
        channels, products = int(found[name].shape), found[name].products
        assert products.instructions <= budget["sm_90"]["product_instructions"], name
        if found[name].word == "bfloat16":  # all of a tap's products of 32 columns, or those of 16 inputs
            assert products.tensor == (channels**2 // 64 if channels < 64 else channels // 4)
        else:  # those of two inputs
            assert (products.tensor, products.fused) == (0, 2 * channels)
