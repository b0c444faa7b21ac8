"""The door to the C++ extension ``dendritic_bert._cpu``: is it there, which instruction set, what it refuses."""

import importlib

import torch

EMBED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TABLE_DTYPES = (*EMBED_DTYPES, torch.int8)


def _load() -> str | None:
    """Load the extension, which registers the ops' CPU kernels; return why not where that fails."""
    try:
        importlib.import_module("dendritic_bert._cpu")
    except ImportError as error:
        return (f"the extension dendritic_bert._cpu is not there ({error}); "
                "install a C++ compiler and run `pip install --no-build-isolation --force-reinstall --no-deps .`")
    return None


MISSING = _load()


def instruction_set() -> str:
    """The variant of the kernel that serves this processor: "avx512", "avx2" or "baseline"."""
    return importlib.import_module("dendritic_bert._cpu").instruction_set()


def refusal(device_type: str, dtype: torch.dtype, inference: bool) -> str | None:
    """Why the C++ kernel cannot serve tables of ``dtype`` on ``device_type``; None where it can."""
    if MISSING is not None:
        return MISSING
    if device_type != "cpu":
        return f"the tensors are on {device_type}, the cpu backend reads host memory"
    if dtype not in (TABLE_DTYPES if inference else EMBED_DTYPES):
        return f"the word table is {dtype}, the cpu backend reads {', '.join(map(str, EMBED_DTYPES))}" + (
            " or torch.int8" if inference else "")
    return None
