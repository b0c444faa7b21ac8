"""Which backend serves a call: an explicit choice raises where it cannot, the automatic one goes on to the next."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import head, moved, parameters, tokens
from helpers import BACKENDS, REPOSITORY, OperatorCalls, change_backend, each_backend, each_kernel
from window_workload import prepared, window_head, window_parameters

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.backends import cpu
from dendritic_bert.kernels.prepare import prepare_head, prepare_table
from dendritic_bert.kernels.reference import dsn_logits_ref, embed_pool_ref

HIDE_THE_EXTENSION = "import sys; sys.modules['dendritic_bert._cpu'] = None; "
USE_BOTH_OPS = """
import torch
from dendritic_bert.kernels import backends, ops, prepare
from dendritic_bert.kernels.backends import cpu
tables = [torch.randn(shape) for shape in ((9, 16), (4, 16), (2, 16), (16,), (16,))]
leaf = tables[0].requires_grad_()
ids = torch.tensor([[1, 2], [3, 4]])
ops.embed_pool(ids, *tables).sum().backward()
assert leaf.grad is not None
head = prepare.prepare_head(*tables[3:], torch.ones(2, 16), torch.zeros(2))
print(ops.dsn_logits(ids, prepare.prepare_table(*tables[:3]), head).shape)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs ``code`` in a new process, which prints every warning and has no backend forced but that of
    ``environment``."""
    inherited = {name: value for name, value in os.environ.items() if name != backends.ENVIRONMENT_VARIABLE}
    return subprocess.run([sys.executable, "-W", "always::UserWarning", "-c", code], cwd=REPOSITORY,
                          env=inherited | environment, capture_output=True, text=True)


def served(backend=None, device="cpu", dtype=torch.float32) -> list[str]:
    """The backends that serve a call of ``embed_pool`` with parameters of ``dtype``, and one of ``dsn_logits``."""
    values, dsn_head = moved(parameters(16, dtype), device), moved(head(16, 2, 1), device)
    table = prepare_table(*list(moved(parameters(16), device).values())[:3])
    ones = torch.ones(16, device=device)
    arguments = moved(tokens("padded", 2, 3), device)
    return [serving_backend("embed_pool", **arguments, **values, backend=backend),
            serving_backend("dsn_logits", **arguments, table=table, head=prepare_head(ones, ones, **dsn_head),
                            backend=backend)]


def serving_backend(op: str, **arguments) -> str:
    """The one whose operator is called; the reference has none."""
    with OperatorCalls() as recorded:
        getattr(ops, op)(**arguments)
    names = [operator.name().removeprefix(f"dendritic_bert::{op}_") for operator, _ in recorded.calls]
    assert len(names) <= 1
    return names[0] if names else "reference"


def test_every_backend_is_named_once_and_the_reference_last():
    assert len(set(backends.BACKENDS)) == len(backends.BACKENDS)
    assert backends.BACKENDS[-1] == "reference"
    assert set(backends.availability()) == set(backends.BACKENDS)
    assert ("reference", "cpu") in BACKENDS
    assert all(backends.availability()[name] is None for name, _ in BACKENDS)


@each_backend
def test_an_explicit_choice_serves(backend, device):
    assert served(backend, device) == [backend, backend]


@pytest.mark.parametrize("device", sorted({device for _, device in BACKENDS}))
def test_the_first_backend_that_can_serve_does(device):
    first = next(name for name in backends.BACKENDS if (name, device) in BACKENDS)
    assert served(device=device) == [first, first]


@each_kernel
def test_automatic_falls_back_where_a_kernel_has_no_such_dtype(backend, device):
    assert backends.refusal(backend, "embed_pool", device, torch.float64) is not None
    assert served(device=device, dtype=torch.float64)[0] == "reference"


@each_kernel
def test_an_explicit_choice_raises_where_it_cannot_serve(backend, device):
    values = moved(parameters(16, torch.float64), device)
    with pytest.raises(RuntimeError, match=rf"backend '{backend}' cannot serve this call: the word table is .*float64"):
        ops.embed_pool(**moved(tokens("padded", 2, 3), device), **values, backend=backend)
    with pytest.raises(RuntimeError, match=rf"backend '{backend}' cannot serve this call: .* on meta"):
        ops.embed_pool(**moved(tokens("padded", 2, 3), "meta"), **moved(parameters(16), "meta"), backend=backend)


def test_a_backend_that_takes_fewer_channels_is_passed_over(monkeypatch):
    """The CPU's kernels take any number: here they are given a limit."""
    limited = dataclasses.replace(backends.KERNEL_BACKENDS["cpu"], largest={"embed_pool": 16})
    monkeypatch.setitem(backends.KERNEL_BACKENDS, "cpu", limited)
    monkeypatch.setattr(backends, "FORCED", None)
    chosen = [backends.choose(None, "embed_pool", "cpu", torch.float32, channels) for channels in (16, 17)]
    assert chosen == ["cpu", "reference"]
    assert backends.choose(None, "dsn_logits", "cpu", torch.float32, 17) == "cpu"
    with pytest.raises(RuntimeError, match="embed_pool has 17 channels, the cpu backend takes 16 at most"):
        ops.embed_pool(**tokens("padded", 2, 3), **parameters(17), backend="cpu")


def test_a_backend_whose_windows_see_less_is_passed_over(monkeypatch):
    """Three layers of a radius of 2 see 2 + 4 + 8 columns to each side."""
    values = window_parameters(12, 16, 3, 2)
    windowed, ids = prepared(values, window_head(values)), torch.arange(9)[None]
    monkeypatch.setattr(backends, "FORCED", None)
    for reach, name in ((14, "cpu"), (13, "reference")):
        change_backend(monkeypatch, "cpu", largest_reach=reach)
        with OperatorCalls() as served:
            ops.dsn_window_logits(ids, windowed)
        assert len(served.calls) == (name == "cpu")
    with pytest.raises(RuntimeError, match="windows see 14 columns to each side, those of the cpu backend 13 at most"):
        ops.dsn_window_logits(ids, windowed, backend="cpu")


def test_the_limits_of_cuda_are_those_of_its_sources():
    plan = (Path(REPOSITORY) / "csrc" / "cuda" / "plan.h").read_text()
    numbers = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)[;,]", plan)}
    largest = backends.KERNEL_BACKENDS["cuda"].largest
    assert 2 * backends.KERNEL_BACKENDS["cuda"].largest_reach == numbers["most_window_tile"] - 32
    assert largest["dsn_window_logits"] == numbers["most_window_channels"]
    assert {largest[op] for op in ("embed_pool", "dsn_logits", "dsn_token_logits")} == {
        numbers["max_slices"] * numbers["slice_channels"]}


def test_an_unknown_backend_raises():
    with pytest.raises(RuntimeError, match="backend 'cdua' cannot serve this call: there is no such backend"):
        served("cdua")


def test_int8_is_served_for_inference_alone():
    for backend, device in BACKENDS:
        assert backends.refusal(backend, "dsn_logits", device, torch.int8) is None
        if backend != "reference":
            assert backends.refusal(backend, "embed_pool", device, torch.int8) is not None


@each_backend
def test_an_op_is_its_backend(backend, device):
    """No backend is the reference under another name: only the reference's results have the reference's bits."""
    values, arguments = parameters(768), tokens("padded without a mask", 8, 7)
    table = prepare_table(*list(values.values())[:3])
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(768, 3, 1))
    if device != "cpu":
        pytest.skip("another device rounds differently by itself")
    same = [torch.equal(ops.embed_pool(**arguments, **values, backend=backend), embed_pool_ref(**arguments, **values)),
            torch.equal(ops.dsn_logits(**arguments, table=table, head=dsn_head, backend=backend),
                        dsn_logits_ref(**arguments, table=table, head=dsn_head))]
    assert same == [backend == "reference"] * 2


@pytest.mark.parametrize("name", sorted({name for name, _ in BACKENDS}))
def test_the_environment_forces_a_backend(name):
    done = run("from dendritic_bert.kernels import backends, ops; import torch; "
               "print(backends.choose(None, 'embed_pool', 'cpu', torch.float32), backends.FORCED)",
               **{backends.ENVIRONMENT_VARIABLE: name})
    assert done.stdout.split() == [name, name], done.stderr
    assert "Warning" not in done.stderr


@each_kernel
def test_a_forced_backend_does_not_fall_back(backend, device, monkeypatch):
    monkeypatch.setattr(backends, "FORCED", backend)
    with pytest.raises(RuntimeError, match=rf"backend '{backend}' cannot serve this call"):
        served(device=device, dtype=torch.float64)


def test_an_argument_outranks_the_environment(monkeypatch):
    monkeypatch.setattr(backends, "FORCED", "reference")
    for backend, device in BACKENDS:
        assert backends.choose(backend, "embed_pool", device, torch.float32) == backend
    assert backends.choose(None, "embed_pool", "cpu", torch.float32) == "reference"


def test_the_environment_names_an_unknown_backend():
    done = run("from dendritic_bert.kernels import ops", **{backends.ENVIRONMENT_VARIABLE: "cdua"})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: DENDRITIC_BERT_BACKEND is 'cdua', which cannot be used: there is no such backend, known are "
        f"{', '.join(backends.BACKENDS)}.")


def test_an_empty_environment_variable_is_none():
    done = run("from dendritic_bert.kernels import backends; print(backends.FORCED)",
               **{backends.ENVIRONMENT_VARIABLE: ""})
    assert done.stdout.split() == ["None"], done.stderr


def test_the_environment_asks_for_an_extension_that_is_not_there():
    done = run(HIDE_THE_EXTENSION + "from dendritic_bert.kernels import ops", **{backends.ENVIRONMENT_VARIABLE: "cpu"})
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: DENDRITIC_BERT_BACKEND is 'cpu', which cannot be used: the extension")
    assert "pip install" in last


def test_without_the_extension_the_reference_serves_and_says_so_once():
    """A backend that is requested by name and is missing is still an error."""
    done = run(HIDE_THE_EXTENSION + USE_BOTH_OPS + USE_BOTH_OPS
               + "print(backends.choose(None, 'embed_pool', 'cpu', torch.float32), cpu.MISSING is not None)\n"
               + "ops.embed_pool(ids, *tables, backend='cpu')")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "RuntimeError: backend 'cpu' cannot serve this call: the extension dendritic_bert._cpu")
    assert done.stdout.splitlines() == ["torch.Size([2, 2])", "torch.Size([2, 2])", "reference True"]
    assert done.stderr.count("dendritic_bert runs on the PyTorch reference: the extension dendritic_bert._cpu") == 1
    assert done.stderr.count("Warning: ") == 1


@pytest.mark.skipif(cpu.MISSING is not None, reason="the extension was not built")
def test_with_the_extension_nothing_is_printed():
    done = run(USE_BOTH_OPS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
