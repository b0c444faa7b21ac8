"""The door to the Triton kernels: are they there, what they refuse, and their registration with torch.library.

Triton is imported by the first call that it may serve: what it needs of torch for a graph to hold its launches takes
three seconds.
"""

import importlib
import importlib.util
import os
from functools import cache, partial
from typing import Any

import torch

from .. import gpu

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_TABLES = (*_FLOATS, torch.int8, torch.float8_e4m3fn)
# What the word table of each op may be.
DTYPES = {"embed_pool": _FLOATS, "dsn_logits": _TABLES, "dsn_token_logits": _TABLES}
SPARSE_WORD_GRAD = 2  # of ops.py
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _not_installed() -> str | None:
    there = importlib.util.find_spec("triton") is not None
    return None if there else "the package triton is not installed; run `pip install triton`"


@gpu.constant
def broken() -> str | None:
    """Import Triton; return why not where that fails."""
    return _broken()


@cache
def _broken() -> str | None:
    try:
        importlib.import_module("triton")
    except Exception as error:  # whatever a package says of itself at its import
        return f"triton cannot be imported ({error}); install the one that this torch asks for"
    return None


MISSING = _not_installed()
DEVICE_TYPE = "cpu" if INTERPRETED else "cuda"


def missing() -> str | None:
    """Why the kernels cannot run on this machine, or None. Starts CUDA, unless they are interpreted."""
    reason = MISSING or broken()
    if reason is not None or INTERPRETED:
        return reason
    reason = gpu.missing()
    remedy = "; TRITON_INTERPRET=1 runs the kernels on the CPU, slowly, to debug them"
    return reason + remedy if reason == gpu.NO_GPU else reason


def refusal(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot serve ``op`` with a word table of ``dtype`` on ``device``, or None."""
    if MISSING is not None:
        return MISSING
    if device.type != DEVICE_TYPE:
        return f"the tensors are on {device.type}, the triton backend reads memory on {DEVICE_TYPE}"
    if op not in DTYPES:
        return f"the triton backend has no kernel for {op}"
    if dtype not in DTYPES[op]:
        return f"the word table is {dtype}, the triton backend reads {', '.join(map(str, DTYPES[op]))}"
    return gpu.refusal(device) or broken()


def define(op: str, schema: str) -> tuple[str, ...]:
    """Define ``dendritic_bert::<op>_triton`` with its kernels and return the names of what was defined: none where
    Triton is not there or has no kernel for it.

    Inductor sees the launches and compiles them into its own code. Not those of the interpreter, and not those of the
    sparse word gradient, whose size only the data tell: an op of its own, which inductor calls as it is.
    """
    if MISSING is not None or broken() is not None:
        return ()
    module = ".launch_backward" if op == "embed_pool_backward" else ".launch_forward"
    implementation = getattr(importlib.import_module(module, __package__), op, None)
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
