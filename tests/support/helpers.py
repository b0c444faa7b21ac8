"""What several test files share; tests of kernels too, whose processes start 2.5 s sooner without transformers."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from rounding import Rounded
from torch.overrides import TorchFunctionMode

from dendritic_bert.kernels import backends

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPOSITORY = Path(__file__).resolve().parents[2]

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
if "cuda" in DEVICES:
    torch.cuda.init()  # a backend asks what a GPU can do only once CUDA was started


def serving(op: str, *dtypes: torch.dtype) -> list[tuple[str, str]]:
    """Every (backend, device) that can run ``op`` on this machine with word tables of all the ``dtypes``."""
    return [(name, device) for name in backends.BACKENDS for device in DEVICES
            if all(backends.refusal(name, op, device, dtype) is None for dtype in dtypes)]


def raises_on_values(backend: str) -> bool:
    return backend == "reference" or backends.KERNEL_BACKENDS[backend].raises_on_values


# Every (backend, device) that can run here. A backend that joins the list in kernels/backends joins all tests of ops.
BACKENDS = serving("embed_pool", torch.float32)
each_backend = pytest.mark.parametrize(("backend", "device"), BACKENDS, ids=["-".join(pair) for pair in BACKENDS])
# Those that look at every index before they compute. A GPU's kernels return NaN instead, so as not to be waited for.
CHECKING = [pair for pair in BACKENDS if raises_on_values(pair[0])]
each_checking_backend = pytest.mark.parametrize(("backend", "device"), CHECKING, ids=map("-".join, CHECKING))
# Kernels promise more than torch does: a row has the same bits whatever rows are beside it, on any number of threads.
KERNELS = [pair for pair in BACKENDS if pair[0] != "reference"]
each_kernel = pytest.mark.parametrize(("backend", "device"), KERNELS, ids=["-".join(pair) for pair in KERNELS])

# How many times the root of the sum of squares a result may be off. A rounding error lies anywhere in [-u, u], so that
# its standard deviation is at most u / sqrt(3), and these are seven of them. The largest error among twenty million
# elements was three of them.
CERTAINTY = 4


class OperatorCalls(TorchFunctionMode):
    """Within its ``with`` block, keeps every call of one of the package's operators: the operator and its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch._ops.OpOverload, tuple]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if isinstance(func, torch._ops.OpOverload) and func.namespace == "dendritic_bert":
            self.calls.append((func, args))
        return func(*args, **kwargs or {})


def change_backend(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    """The choice of backends sees ``name`` with these fields changed."""
    monkeypatch.setitem(backends.KERNEL_BACKENDS, name, dataclasses.replace(backends.KERNEL_BACKENDS[name], **changes))


def shared_path(name: str) -> Path:
    """A file or folder of the data that is too large for the repository. Skips the test where it is not there."""
    roots = [Path(os.environ["DENDRITIC_BERT_DATA"])] if "DENDRITIC_BERT_DATA" in os.environ else []
    roots.append(REPOSITORY.parent / "shared")
    for root in roots:
        if (root / name).exists():
            return root / name
    pytest.skip(f"{name} is not in {' or '.join(map(str, roots))}: set DENDRITIC_BERT_DATA to the folder that holds it")


def run_interpreted(*arguments: str) -> None:
    """Runs pytest on files of the tests in a process of its own, where Triton's kernels run on the CPU: Triton decides
    that when a kernel is defined. Fails where a test fails or is skipped, and where no test is found."""
    pytest.importorskip("triton")
    tests = REPOSITORY / "tests"
    paths = [str(tests / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("DENDRITIC_BERT_BACKEND", None)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *arguments],
                          cwd=tests, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def tiny_bert(model_class: type[PreTrainedModel] | None = None, **config) -> PreTrainedModel:
    """A BERT of transformers, for classification unless ``model_class`` says otherwise, with random weights everywhere,
    also in LayerNorm, where a new model has 1 and 0."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 20}
    model = (model_class or BertForSequenceClassification)(BertConfig(**sizes | config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model.eval()


def assert_within_rounding(actual: torch.Tensor, eager: torch.Tensor, exact: Rounded) -> None:
    """The tolerance of every test of a kernel: each element is off by no more than rounding explains.

    ``exact`` is what the reference computes from ``rounding.tracked`` values: the float64 result for the same (rounded)
    tables, and for each element the sum of the squares of everything that is rounded on the way. CERTAINTY times the
    unit roundoff of float32 times the root of that sum bounds the error before the result is rounded to the dtype of
    ``actual``. An element to which nothing is added must be 0. ``eager`` is the same formula run by torch's own ops in
    the dtype of ``actual``. It does not enter the bound, since its error depends on the processor; that error is
    reported beside the kernel's.
    """
    assert actual.dtype == eager.dtype
    assert actual.shape == eager.shape == exact.shape
    error, torch_error = ((result.detach().double().cpu() - exact.value).abs() for result in (actual, eager))
    bound = rounding_bound(exact, actual.dtype)
    wrong = ~(error <= bound)
    if wrong.any():
        worst = torch.where(wrong, error / bound, 0).nan_to_num(float("inf")).argmax()
        place = tuple(index.item() for index in torch.unravel_index(worst, exact.shape))
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.numel()} elements are off by more than rounding explains, {place} the most: "
            f"error {error[place]:.3g}, torch's own {torch_error[place]:.3g}, allowed {bound[place]:.3g}")


def rounding_bound(exact: Rounded, dtype: torch.dtype) -> torch.Tensor:
    """How far each element may be off where everything was computed in float32 and rounded once to ``dtype``."""
    bound = CERTAINTY * torch.finfo(torch.float32).eps / 2 * exact.squares.sqrt()
    if dtype == torch.float32:
        return bound
    number = torch.finfo(dtype)
    return bound + (bound > 0) * number.eps / 2 * exact.value.abs().clamp_min(number.smallest_normal)
