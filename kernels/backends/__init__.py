"""Which backend serves a call. An explicit choice raises where it cannot serve; the automatic one goes on to the next.

The choice looks at devices and dtypes alone and is made before anything is computed or recorded, so that autograd and
torch.compile see one op.
"""

import os
import warnings

import torch
from torch.autograd import forward_ad

from . import cpu, cuda
from . import triton as triton_backend

# In the order of preference. A module has MISSING (why it is not there at all, or None: all that an import may find
# out), missing() (that, or why no device of this machine will do) and refusal(op, device, dtype); its ops are
# dendritic_bert::<op>_<name>. The reference comes last and serves everything.
_MODULES = {"cpu": cpu, "cuda": cuda, "triton": triton_backend}
BACKENDS = (*_MODULES, "reference")
ENVIRONMENT_VARIABLE = "DENDRITIC_BERT_BACKEND"


def refusal(name: str, op: str, device: torch.device | str, dtype: torch.dtype) -> str | None:
    """Why backend ``name`` cannot serve ``op`` with a word table of ``dtype`` on ``device``; None where it can."""
    if name == "reference":
        return None
    if name in _MODULES:
        return _MODULES[name].refusal(op, torch.device(device), dtype)
    return f"there is no such backend, known are {', '.join(BACKENDS)}"


def choose(requested: str | None, op: str, device: torch.device | str, dtype: torch.dtype) -> str:
    """The backend for a call of ``op``: ``requested``, else the environment's, else the first that can serve it.

    A trace and an ONNX graph are for machines that do not have our ops: without a request they get the reference.

    Raises RuntimeError where a requested backend cannot serve the call, and in a functorch transform or forward-mode
    differentiation, which know plain operators alone.
    """
    is_onnx = torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export()
    if requested is None and (is_onnx or torch.jit.is_tracing()):
        return "reference"
    requested = requested or FORCED
    if requested != "reference" and (torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0):
        raise RuntimeError(f"{op} has no kernel for functorch transforms (vmap, grad, jvp) and forward-mode "
                           f"derivatives: pass backend=\"reference\" or set {ENVIRONMENT_VARIABLE}=reference.")
    if requested is None:
        for name in BACKENDS:
            if refusal(name, op, device, dtype) is None:
                return name
    reason = refusal(str(requested), op, device, dtype)
    if reason is not None:
        raise RuntimeError(f"backend {requested!r} cannot serve this call: {reason}.")
    return str(requested)


def availability() -> dict[str, str | None]:
    """Every backend with the reason why it cannot be used on this machine, or None where it can. Starts CUDA."""
    return {name: module.missing() for name, module in _MODULES.items()} | {"reference": None}


def _forced() -> str | None:
    name = os.environ.get(ENVIRONMENT_VARIABLE) or None
    if name is None:
        if cpu.MISSING is not None:
            warnings.warn(f"dendritic_bert runs on the PyTorch reference: {cpu.MISSING}.", stacklevel=2)
        return None
    known = {name: module.MISSING for name, module in _MODULES.items()} | {"reference": None}
    reason = known.get(name, f"there is no such backend, known are {', '.join(BACKENDS)}")
    if reason is not None:
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE} is {name!r}, which cannot be used: {reason}.")
    return name


FORCED = _forced()
