"""The door to the Triton kernels: can they run here, what they refuse, and their registration with torch.library.

Triton is imported only where the kernels can run.
"""

import importlib
import importlib.util
import os

import torch

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_TABLES = (*_FLOATS, torch.int8, torch.float8_e4m3fn)
# What the word table of each op may be.
DTYPES = {"embed_pool": _FLOATS, "dsn_logits": _TABLES, "dsn_token_logits": _TABLES}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed; run `pip install triton`"
    if INTERPRETED:
        return None
    if not torch.cuda.is_available():
        return "torch sees no GPU; TRITON_INTERPRET=1 runs the kernels on the CPU, slowly, to debug them"
    capability = torch.cuda.get_device_capability()
    if torch.version.hip is None and capability < (8, 0):
        return f"the GPU is sm_{capability[0]}{capability[1]}, the kernels are made for sm_80 and later"
    return None


MISSING = _missing()
DEVICE_TYPE = "cpu" if INTERPRETED else "cuda"


def refusal(op: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot serve ``op`` with a word table of ``dtype`` on ``device_type``, or None."""
    if MISSING is not None:
        return MISSING
    if device_type != DEVICE_TYPE:
        return f"the tensors are on {device_type}, the triton backend reads memory on {DEVICE_TYPE}"
    if op not in DTYPES:
        return f"the triton backend has no kernel for {op}"
    if dtype not in DTYPES[op]:
        return f"the word table is {dtype}, the triton backend reads {', '.join(map(str, DTYPES[op]))}"
    return None


def define(op: str, schema: str) -> bool:
    """Define ``dendritic_bert::<op>_triton`` with its kernels; False where they cannot run here or there are none.

    Inductor sees the launches of the forward ops and compiles them into its own code. The interpreter's kernels, and
    the backward op, whose sparse form has a size that only the data tell, it calls as they are.
    """
    if MISSING is not None:
        return False
    implementation = getattr(importlib.import_module(".triton_launch", __package__), op, None)
    if implementation is None:
        return False
    register = torch.library.custom_op if INTERPRETED or op == "embed_pool_backward" else torch.library.triton_op
    register(f"dendritic_bert::{op}_triton", implementation, mutates_args=(), schema=schema)
    return True
