"""GPUs: untouched by an import, asked one by one and late, and launched on where the tensors are."""

import importlib.util
import subprocess
import sys
from collections import Counter

import pytest
import torch
from cases import head, parameters, pooled_and_gradients, tokens
from helpers import REPOSITORY, change_backend

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.backends import cuda, gpu
from dendritic_bert.kernels.backends import triton as triton_backend
from dendritic_bert.kernels.backends.triton import backward as triton_backward
from dendritic_bert.kernels.backends.triton import forward as triton_forward
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU is needed beside the current one")

FORKS = """
import os, torch
{code}
assert not torch.cuda.is_initialized()
child = os.fork()
if child == 0:
    os._exit(torch.cuda._is_in_bad_fork())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
CLASSIFY = """
import dendritic_bert
from dendritic_bert.kernels import backends, ops
assert dendritic_bert.TextClassifier.from_pretrained()("a charming journey")[0]["label"]
"""
FORBIDDEN = """
import torch
def touched(*_, **__):
    raise AssertionError("CUDA was touched")
for name in ("is_available", "_lazy_init", "init", "current_device", "device_count", "get_device_capability",
             "get_device_properties"):
    setattr(torch.cuda, name, touched)
torch._C._cuda_getDeviceCount = touched
import dendritic_bert
from dendritic_bert.kernels import backends, ops
dendritic_bert.DendriticBertForSequenceClassification, dendritic_bert.TextClassifier
"""


def run(code: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True,
                          env=backends.os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("code", [CLASSIFY, "from dendritic_bert.kernels import ops"], ids=["classify", "import"])
def test_a_forked_child_can_use_cuda(code):
    """torch remembers whether the driver was started before the fork, with or without a GPU."""
    assert run(FORKS.format(code=code)) == "0"


def test_what_would_spoil_a_fork_is_noticed():
    assert run(FORKS.format(code="torch.cuda.is_available()")) == "1"


@pytest.mark.parametrize("forced", ["", "cuda", "triton"])
def test_an_import_asks_nothing_of_cuda(forced):
    missing = {"cuda": cuda.MISSING, "triton": triton_backend.MISSING}.get(forced)
    if missing is not None:
        pytest.skip(missing)
    run(FORBIDDEN, DENDRITIC_BERT_BACKEND=forced)


def test_env_says_what_a_forced_backend_does_not_serve():
    if cuda.MISSING is not None:
        pytest.skip(cuda.MISSING)
    code = "from dendritic_bert.cli import environment; print(dict(environment.describe())['backend in use'])"
    assert run(code, DENDRITIC_BERT_BACKEND="cuda") == (
        "none on a CPU: backend 'cuda' cannot serve this call: the tensors are on cpu, the cuda backend reads memory "
        "on cuda. (forced by DENDRITIC_BERT_BACKEND)")


def test_triton_is_not_imported_before_it_may_serve():
    assert run("import sys\nfrom dendritic_bert.kernels import ops\nprint('triton' in sys.modules)") == "False"


@pytest.fixture
def capabilities(monkeypatch):
    """A machine whose GPUs have the capabilities in the list."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(found))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: bool(found))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: found[index])
    monkeypatch.setattr(torch.version, "hip", None)
    change_backend(monkeypatch, "cuda", missing=None)
    gpu._too_old.cache_clear()
    yield found
    gpu._too_old.cache_clear()


@pytest.mark.parametrize("backend", ["cuda", pytest.param("triton", marks=needs_triton)])
def test_each_gpu_is_asked_for_itself(backend, capabilities):
    capabilities += [(7, 5), (9, 0)]
    old, new, current = (torch.device(name) for name in ("cuda:0", "cuda:1", "cuda"))
    reason = "cuda:0 is sm_75, the kernels are made for sm_80 and later"
    assert [backends.refusal(backend, "dsn_logits", device, torch.float32) for device in (old, new, current)] == [
        reason, None, reason]
    assert backends.choose(None, "dsn_logits", old, torch.float32) == "reference"
    assert backends.choose(None, "dsn_logits", new, torch.float32) == "cuda"
    with pytest.raises(RuntimeError, match=f"backend '{backend}' cannot serve this call: {reason}"):
        backends.choose(backend, "embed_pool", old, torch.float32)
    assert backends.availability()[backend] is None  # one of them will do


def test_why_no_gpu_will_do(capabilities, monkeypatch):
    assert backends.availability()["cuda"] == "torch sees no GPU"
    capabilities += [(7, 5), (7, 0)]
    assert backends.availability()["cuda"] == "cuda:0 is sm_75, the kernels are made for sm_80 and later"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    gpu._too_old.cache_clear()
    assert gpu.missing() is None


@needs_triton
@pytest.mark.parametrize("device", [0, 1])
def test_triton_launches_where_the_tensors_are(device):
    """And as that GPU wants it: an H100's cache holds the words that an A100's does not."""
    done = subprocess.run([sys.executable, "two_gpus.py", str(device)], cwd=REPOSITORY / "tests" / "support",
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    *launches, current = done.stdout.splitlines()
    assert current == "current 0"
    assert {line.partition(" ")[2] for line in launches} == {f"{device} {100 + device}"}
    counted = Counter(line.partition(" ")[0] for line in launches)
    assert counted["scatter_gradients_kernel"] == (1 if device == 1 else 0)
    assert counted["order_tokens_kernel"] == (0 if device == 1 else 2)
    assert len(counted) == 13


@needs_triton
def test_every_kernel_is_made_to_go_to_its_tensors():
    """From a graph too, which keeps the kernel and none of the code that would have launched it."""
    kernels = [value for module in (triton_forward, triton_backward) for name, value in vars(module).items()
               if name.endswith("_kernel")]
    assert len(kernels) >= 14
    assert {type(kernel).__name__ for kernel in kernels} == {"_OnItsTensors"}


@needs_two_gpus
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_the_second_gpu_gives_what_the_first_does(backend):
    if backends.availability()[backend] is not None:
        pytest.skip(backends.availability()[backend])
    results = []
    for device in ("cuda:0", "cuda:1"):
        values = {name: value.to(device) for name, value in parameters(128, num_positions=600).items()}
        table = prepare_table(*list(values.values())[:3])
        dsn_head = prepare_head(values["ln_weight"], values["ln_bias"],
                                **{name: value.to(device) for name, value in head(128, 3, 1).items()})
        for batch in (tokens("padded", 5, 9), tokens("padded", 2, 600), tokens("packed int32", 300, 4)):
            batch = {name: value.to(device) for name, value in batch.items()}
            with torch.cuda.device(0):
                made = [getattr(ops, op)(**batch, table=table, head=dsn_head, backend=backend)
                        for op in ("dsn_logits", "dsn_token_logits")]
                made += pooled_and_gradients(ops.embed_pool, values, backend=backend, **batch).values()
                assert torch.cuda.current_device() == 0
            assert all(str(result.device) == device for result in made)
            results.append([result.cpu() for result in made])
    for first, second in zip(results[:3], results[3:]):
        for one, other in zip(first, second):
            torch.testing.assert_close(one, other)
