"""What several test files share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from dendritic_bert.kernels import backends

REPOSITORY = Path(__file__).resolve().parent.parent

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def serving(op: str, *dtypes: torch.dtype) -> list[tuple[str, str]]:
    """Every (backend, device) that can run ``op`` here with word tables of all the ``dtypes``."""
    return [(name, device) for name in backends.BACKENDS for device in DEVICES
            if all(backends.refusal(name, op, device, dtype) is None for dtype in dtypes)]


# Every (backend, device) that can run here; a backend that is added to `backends.BACKENDS` joins all tests of the ops.
BACKENDS = serving("embed_pool", torch.float32)
each_backend = pytest.mark.parametrize(("backend", "device"), BACKENDS, ids=["-".join(pair) for pair in BACKENDS])
# These look at every index before they compute. A GPU's kernels would have to be waited for: they return NaN instead.
CHECKING = [pair for pair in BACKENDS if pair[0] not in ("cuda", "triton")]
each_checking_backend = pytest.mark.parametrize(("backend", "device"), CHECKING, ids=map("-".join, CHECKING))
# The kernels promise more than torch does: the same bits whatever stands beside a row and however many threads run.
KERNELS = [pair for pair in BACKENDS if pair[0] != "reference"]
each_kernel = pytest.mark.parametrize(("backend", "device"), KERNELS, ids=["-".join(pair) for pair in KERNELS])

# What a result may be off beside a multiple of torch's own error, relative to the largest exact value: where torch
# happens to round every element the right way (one row, sixteen channels) its error says nothing about the format's.
# Half a unit in the last place for results that are rounded once to 16 bits, four units for sums in float32.
TOLERANCE_FLOOR = {torch.float64: 2.0**-50, torch.float32: 2.0**-21, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def shared_path(name: str) -> Path:
    """A file or folder of the data that is too large for the repository; skips the test where it is not there."""
    roots = [Path(os.environ["DENDRITIC_BERT_DATA"])] if "DENDRITIC_BERT_DATA" in os.environ else []
    roots.append(REPOSITORY.parent / "shared")
    for root in roots:
        if (root / name).exists():
            return root / name
    pytest.skip(f"{name} is not in {' or '.join(map(str, roots))}: set DENDRITIC_BERT_DATA to the folder that holds it")


def run_interpreted(*arguments: str) -> None:
    """pytest on files of the tests in a process of its own, where Triton's kernels run on the CPU: Triton decides that
    when a kernel is defined. Fails where a test fails or is skipped, or where there is none."""
    pytest.importorskip("triton")
    tests = REPOSITORY / "tests"
    paths = [str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("DENDRITIC_BERT_BACKEND", None)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *arguments],
                          cwd=tests, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def tiny_bert(model_class=BertForSequenceClassification, **config) -> PreTrainedModel:
    """A BERT of transformers' own with random weights everywhere, LayerNorm's included (a fresh one has 1 and 0)."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 20}
    model = model_class(BertConfig(**sizes | config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model.eval()


def assert_as_exact_as_torch(actual: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor, factor: float = 2,
                             rounded_to: torch.dtype | None = None) -> None:
    """The tolerance of every test of a kernel: max error <= `factor` times that of eager torch at the same dtype.

    ``exact`` is the float64 result for the same (rounded) tables, ``eager`` the same formula run by torch's own ops at
    the dtype of ``actual``. Errors are absolute: an element that cancels to nearly 0 is as inexact as what it was
    summed from. The floor is relative to the largest exact value, so what must be 0 everywhere must be 0; it is that
    of ``rounded_to`` where something was rounded to fewer bits on the way than the result has.
    """
    assert actual.dtype == eager.dtype
    assert actual.shape == eager.shape == exact.shape
    if exact.numel() == 0:
        return
    exact = exact.double().cpu()
    error, torch_error = ((result.double().cpu() - exact).abs().max().item() for result in (actual, eager))
    bound = factor * torch_error + TOLERANCE_FLOOR[rounded_to or actual.dtype] * exact.abs().max().item()
    assert error <= bound, f"largest error {error:.3g}, torch's own {torch_error:.3g}, allowed {bound:.3g}"
