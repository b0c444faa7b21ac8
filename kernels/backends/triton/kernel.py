"""Kernels and their launches: ``@kernel``, ``launch``, and what both must know about the GPU.

Triton launches on the current device, wherever the tensors lie. A kernel made here goes to the device of its tensors,
from an op and from a graph that holds the launch alike.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from .configs import Config

INTERPRETED = triton.knobs.runtime.interpret
if INTERPRETED:

    def wrap_triton(kernel: Any) -> Any:
        return kernel

else:
    from torch.library import wrap_triton  # type: ignore[assignment]


class _OnItsTensors(JITFunction):
    def run(self, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.cuda.device_of(next(tensors)):  # does nothing for a tensor that is on no GPU
            return super().run(*args, grid=grid, warmup=warmup, **kwargs)


def kernel(*, do_not_specialize: list[str]) -> Callable[[Callable[..., None]], Any]:
    """``triton.jit`` for a function that is launched. ``do_not_specialize`` names the integers for all values of which
    one compiled kernel serves."""

    def made(function: Callable[..., None]) -> Any:
        if INTERPRETED:
            return triton.jit(function, do_not_specialize=do_not_specialize)
        return _OnItsTensors(function, do_not_specialize=do_not_specialize)

    return made


def launch(kernel: Any, num_programs: int, *arguments: Any, **constants: Any) -> None:
    """Launch ``num_programs`` programs of a kernel, visibly to torch.compile."""
    wrap_triton(kernel)[(num_programs,)](*arguments, **constants)


def architecture(tensor: Tensor) -> str:
    """The architecture of the tensor's device: "sm_90", "gfx942" and the like, or "interpreter"."""
    if INTERPRETED:
        return "interpreter"
    with current_device(tensor):
        target = triton.runtime.driver.active.get_current_target()
    return f"sm_{target.arch}" if target.backend == "cuda" else target.arch


def current_device(tensor: Tensor) -> Any:
    """A context that makes the tensor's device the current one. It does nothing where this machine has no GPU: then
    code is traced for a GPU elsewhere."""
    here = torch.cuda.is_initialized() or torch.cuda.is_available()
    return torch.cuda.device_of(tensor) if here else contextlib.nullcontext()


def launch_options(config: Config, tensor: Tensor, *, dropout: bool = False) -> dict[str, int]:
    """The number of warps and, on NVIDIA's GPUs, at most 128 registers per thread, for 16 warps on a multiprocessor
    (with dropout 168, for 12): left to itself, ptxas spills a word or two to fit in more. A graph that is being traced
    cannot hold that option."""
    options = {"num_warps": config.num_warps}
    if architecture(tensor).startswith("sm_") and type(tensor) in (Tensor, torch.nn.Parameter):
        options["maxnreg"] = 168 if dropout else 128
    return options
