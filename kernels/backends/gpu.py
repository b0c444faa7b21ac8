"""What the GPUs of this machine can do: asked by the call that needs it, never by an import.

``torch.cuda.is_available()`` starts the CUDA driver, and a process that is forked after that cannot use it.
"""

import functools

import torch

from .backend import constant

NO_GPU = "torch sees no GPU"


@constant
def refusal(device: torch.device) -> str | None:
    """Why kernels for sm_80 and later cannot run on ``device``, or None.

    It is None too where CUDA has not been started: then no tensor lies on a GPU, and one that only claims to can be
    traced for a GPU that is not here.
    """
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return None
    return _too_old(torch.cuda.current_device() if device.index is None else device.index)


def missing() -> str | None:
    """Why no GPU of this machine can run such kernels, or None where one can. Starts CUDA."""
    if not torch.cuda.is_available():
        return NO_GPU
    reasons = [_too_old(index) for index in range(torch.cuda.device_count())]
    return None if None in reasons else reasons[0]


@functools.cache
def _too_old(index: int) -> str | None:
    major, minor = torch.cuda.get_device_capability(index)
    if torch.version.hip is not None or major >= 8:
        return None
    return f"cuda:{index} is sm_{major}{minor}, the kernels are made for sm_80 and later"
