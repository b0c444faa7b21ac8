"""Which backend serves a call. An explicit choice raises where it cannot serve; the automatic one goes on to the next.

The choice looks at devices, dtypes, numbers of channels and the reach of windows alone, and is made before anything is
computed or recorded, so that autograd and torch.compile see one operator."""

import os
import warnings
from importlib import import_module

import torch
from torch.autograd import forward_ad

from .backend import Backend

# The one list of backends, in the order of preference: each is a module beside this one, and ends in its BACKEND.
# docs/adding_a_backend.md says what a new line needs.
_MODULES = (
    "cpu",
    "cuda",
    "triton",
)
KERNEL_BACKENDS: dict[str, Backend] = {name: import_module(f".{name}", __name__).BACKEND for name in _MODULES}
# The names that the argument ``backend`` takes. The reference comes last and serves everything.
BACKENDS = (*KERNEL_BACKENDS, "reference")
ENVIRONMENT_VARIABLE = "DENDRITIC_BERT_BACKEND"


def refusal(name: str, op: str, device: torch.device | str, dtype: torch.dtype, channels: int = 0, reach: int = 0
            ) -> str | None:
    """Why backend ``name`` cannot serve ``op`` with a table of ``dtype`` on ``device``, or None where it can.
    ``channels`` are those that ``Backend.largest`` limits, ``reach`` is what ``largest_reach`` does."""
    if name == "reference":
        return None
    if name in KERNEL_BACKENDS:
        return KERNEL_BACKENDS[name].refusal(op, torch.device(device), dtype, channels, reach)
    return _unknown()


def choose(requested: str | None, op: str, device: torch.device | str, dtype: torch.dtype, channels: int = 0,
           reach: int = 0) -> str:
    """The backend for a call of ``op``: ``requested``, else the environment's, else the first that can serve it.

    ``channels`` are those of the word table, or of a window layer in ``dsn_window_logits``, whose windows see ``reach``
    columns to each side.

    A trace and an ONNX graph are for machines that do not have our operators: unless one was requested, they get the
    reference.

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
        device = torch.device(device)
        for name, backend in KERNEL_BACKENDS.items():
            if backend.refusal(op, device, dtype, channels, reach) is None:
                return name
        return "reference"
    reason = refusal(str(requested), op, device, dtype, channels, reach)
    if reason is not None:
        raise RuntimeError(f"backend {requested!r} cannot serve this call: {reason}.")
    return str(requested)


def availability() -> dict[str, str | None]:
    """Why each backend cannot be used on this machine, or None where it can. Starts CUDA."""
    return {name: backend.unavailable() for name, backend in KERNEL_BACKENDS.items()} | {"reference": None}


def _unknown() -> str:
    return f"there is no such backend, known are {', '.join(BACKENDS)}"


def _forced_by_environment() -> str | None:
    name = os.environ.get(ENVIRONMENT_VARIABLE) or None
    if name is None:
        missing = KERNEL_BACKENDS["cpu"].missing
        if missing is not None:
            warnings.warn(f"dendritic_bert runs on the PyTorch reference: {missing}.", stacklevel=2)
        return None
    if name not in BACKENDS:
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE} is {name!r}, which cannot be used: {_unknown()}.")
    missing = None if name == "reference" else KERNEL_BACKENDS[name].missing
    if missing is not None:
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE} is {name!r}, which cannot be used: {missing}.")
    return name


# The backend that the environment forces on every call that names none, or None. Every choice reads it; a test that
# needs another one sets it here.
FORCED = _forced_by_environment()
