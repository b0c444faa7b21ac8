"""The backend "cpu": the C++ extension ``dendritic_bert._cpu``, whose sources are in csrc/cpu."""

import importlib

import torch

from ..contract import PARAMETER_DTYPES, WINDOW_DTYPES
from .backend import Backend


def _load() -> str | None:
    """Load the extension, which registers the operators' CPU kernels; return why not where that fails."""
    try:
        importlib.import_module("dendritic_bert._cpu")
    except ImportError as error:
        return (f"the extension dendritic_bert._cpu is not there ({error}); "
                "install a C++ compiler and run `pip install --no-build-isolation --force-reinstall --no-deps .`")
    return None


def instruction_set() -> str:
    """The variant of the kernels that serves this processor: "amx", "avx512", "avx2" or "baseline"."""
    return importlib.import_module("dendritic_bert._cpu").instruction_set()


def int8_instruction_set() -> str:
    """The variant of the kernel of int8 windows that serves this processor: "amx", "avx512_vnni", "avx512",
    "avx2_vnni" or "avx2", "neon_dot" on ARM, or "baseline"."""
    return importlib.import_module("dendritic_bert._cpu").int8_instruction_set()


MISSING = _load()
BACKEND = Backend(
    name="cpu",
    device_type="cpu",
    table_dtypes={"embed_pool": PARAMETER_DTYPES, "window_pool": PARAMETER_DTYPES,
                  "dsn_logits": (*PARAMETER_DTYPES, torch.int8), "dsn_logits_folded": (torch.float32,),
                  "dsn_window_logits": WINDOW_DTYPES, "dsn_window_logits_int8": (torch.int8,)},
    missing=MISSING,
)
