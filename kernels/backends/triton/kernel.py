"""``@kernel``: ``triton.jit`` for what is launched. Triton launches on the current device, wherever the tensors lie; a
kernel made here goes to their device, from an op and from a graph that holds the launch alike."""

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction


class _OnItsTensors(JITFunction):
    def run(self, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.cuda.device_of(next(tensors)):  # does nothing for a tensor that is on no GPU
            return super().run(*args, grid=grid, warmup=warmup, **kwargs)


def kernel(*, do_not_specialize: list[str]) -> Callable[[Callable[..., None]], Any]:
    """``do_not_specialize``: integers of which a kernel serves all values."""

    def made(function: Callable[..., None]) -> Any:
        if triton.knobs.runtime.interpret:
            return triton.jit(function, do_not_specialize=do_not_specialize)
        return _OnItsTensors(function, do_not_specialize=do_not_specialize)

    return made
