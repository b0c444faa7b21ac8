"""The door to the C++ extension ``dendritic_bert._cpu``: is it there, which instruction set, what it refuses."""

import importlib

import torch

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# What the word table of each op may be.
DTYPES = {"embed_pool": _FLOATS, "dsn_logits": (*_FLOATS, torch.int8), "dsn_logits_folded": (torch.float32,)}


def _load() -> str | None:
    """Load the extension, which registers the ops' CPU kernels; return why not where that fails."""
    try:
        importlib.import_module("dendritic_bert._cpu")
    except ImportError as error:
        return (f"the extension dendritic_bert._cpu is not there ({error}); "
                "install a C++ compiler and run `pip install --no-build-isolation --force-reinstall --no-deps .`")
    return None


MISSING = _load()


def missing() -> str | None:
    """Why the kernels cannot run on this machine, or None."""
    return MISSING


def instruction_set() -> str:
    """The variant of the kernel that serves this processor: "avx512", "avx2" or "baseline"."""
    return importlib.import_module("dendritic_bert._cpu").instruction_set()


def refusal(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the C++ kernel cannot serve ``op`` with a word table of ``dtype`` on ``device``; None where it can."""
    if MISSING is not None:
        return MISSING
    if device.type != "cpu":
        return f"the tensors are on {device.type}, the cpu backend reads host memory"
    if op not in DTYPES:
        return f"the cpu backend has no kernel for {op}"
    if dtype not in DTYPES[op]:
        return f"the word table is {dtype}, the cpu backend reads {', '.join(map(str, DTYPES[op]))}"
    return None
