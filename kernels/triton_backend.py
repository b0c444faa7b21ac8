"""The door to the Triton kernels: can they run here, what they refuse, and their registration with torch.library.

Triton is imported only where the kernels can run.
"""

import importlib
import importlib.util
import os
from functools import partial
from typing import Any

import torch

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_TABLES = (*_FLOATS, torch.int8, torch.float8_e4m3fn)
# What the word table of each op may be.
DTYPES = {"embed_pool": _FLOATS, "dsn_logits": _TABLES, "dsn_token_logits": _TABLES}
SPARSE_WORD_GRAD = 2  # of ops.py
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


def _broken() -> str | None:
    try:
        importlib.import_module("triton")
    except Exception as error:  # whatever a package says of itself at its import
        return f"triton cannot be imported ({error}); install the one that this torch asks for"
    return None


MISSING = _missing() or _broken()
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


def define(op: str, schema: str) -> tuple[str, ...]:
    """Define ``dendritic_bert::<op>_triton`` with its kernels and return the names of what was defined: none where they
    cannot run here or where there are none.

    Inductor sees the launches and compiles them into its own code. Not those of the interpreter, and not those of the
    sparse word gradient, whose size only the data tell: an op of its own, which inductor calls as it is.
    """
    if MISSING is not None:
        return ()
    implementation = getattr(importlib.import_module(".triton_launch", __package__), op, None)
    if implementation is None:
        return ()
    name = f"{op}_triton"
    define_opaque = partial(torch.library.custom_op, mutates_args=(), schema=schema)
    if INTERPRETED:
        define_opaque(f"dendritic_bert::{name}", implementation)
        return (name,)
    define_visible = partial(torch.library.triton_op, mutates_args=(), schema=schema)
    if op != "embed_pool_backward":
        define_visible(f"dendritic_bert::{name}", implementation)
        return (name,)
    sparse = define_opaque("dendritic_bert::embed_pool_backward_sparse_triton", implementation)

    def by_word_grad(*arguments: Any) -> Any:
        return (sparse if arguments[-1] == SPARSE_WORD_GRAD else implementation)(*arguments)

    define_visible(f"dendritic_bert::{name}", by_word_grad)
    return name, "embed_pool_backward_sparse_triton"
