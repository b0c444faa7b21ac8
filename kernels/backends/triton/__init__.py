"""The backend "triton": whether Triton is there, and the registration of its kernels with torch.library.

The first call that Triton may serve imports it: what it needs of torch, for a graph to hold its launches, takes three
seconds.
"""

import importlib
import importlib.util
import os
from functools import cache, partial
from typing import Any

import torch

from ...contract import PARAMETER_DTYPES, TABLE_DTYPES, WINDOW_DTYPES, WordGrad
from .. import gpu
from ..backend import Backend, constant

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _not_installed() -> str | None:
    there = importlib.util.find_spec("triton") is not None
    return None if there else "the package triton is not installed; run `pip install triton`"


@constant
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


def _no_device() -> str | None:
    """Why no device of this machine can run the kernels, or None. Starts CUDA, unless they are interpreted."""
    reason = broken()
    if reason is not None or INTERPRETED:
        return reason
    reason = gpu.missing()
    remedy = "; TRITON_INTERPRET=1 runs the kernels on the CPU, slowly, to debug them"
    return reason + remedy if reason == gpu.NO_GPU else reason


def _device_refusal(device: torch.device) -> str | None:
    return gpu.refusal(device) or broken()


def define(op: str, schema: str) -> tuple[str, ...]:
    """Define ``dendritic_bert::<op>_triton`` with its kernels and return the names of what was defined: none where
    Triton is not there or has no kernel for it.

    Inductor sees the launches and compiles them into its own code. It does not see those of the interpreter, nor those
    of the sparse word gradient, whose size depends on the data: that is an operator of its own, which inductor calls as
    it is.
    """
    if broken() is not None:
        return ()
    module = {"embed_pool_backward": ".launch_backward", "dsn_window_logits": ".launch_windows"}.get(
        op, ".launch_forward")
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
        return (sparse if arguments[-1] == WordGrad.SPARSE else implementation)(*arguments)

    define_visible(f"dendritic_bert::{name}", by_word_grad)
    return name, "embed_pool_backward_sparse_triton"


MISSING = _not_installed()
BACKEND = Backend(
    name="triton",
    device_type="cpu" if INTERPRETED else "cuda",
    table_dtypes={"embed_pool": PARAMETER_DTYPES, "dsn_logits": TABLE_DTYPES, "dsn_token_logits": TABLE_DTYPES,
                  "dsn_window_logits": WINDOW_DTYPES},
    missing=MISSING,
    no_device=_no_device,
    device_refusal=_device_refusal,
    raises_on_values=False,
    define=define,
    is_lazy=MISSING is None and not INTERPRETED,
)
