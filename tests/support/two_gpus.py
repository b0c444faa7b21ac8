"""Launches of the Triton ops on a machine with two GPUs, played without one; run by test_devices.py.

    python two_gpus.py DEVICE

The first GPU is an A100 and current, the second an H100. Calls every op on tensors of ``cuda:DEVICE`` and prints, for
every launch, the kernel and the device and stream that it went to; and at the end which device is current.
"""

import sys
from typing import Any
from unittest.mock import patch

import torch
from cases import head, parameters, tokens
from torch._library.triton import set_wrap_triton_enabled
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from dendritic_bert.kernels.backends.triton import launch
from dendritic_bert.kernels.contract import WordGrad
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

CAPABILITIES = [(8, 0), (9, 0)]
STREAMS = [100, 101]
# Words and float32 sums of theirs take 45 MB, which an H100's cache holds and an A100's does not.
VOCAB_SIZE, HIDDEN_SIZE = 44_000, 128


class TwoGpus:
    """What torch and Triton ask about devices, answered."""

    def __init__(self) -> None:
        self.current = 0

    def exchange(self, device: int) -> int:
        before = self.current
        self.current = device if device >= 0 else before
        return before if device >= 0 else -1

    def get_current_device(self) -> int:
        return self.current

    def get_current_stream(self, device: int) -> int:
        return STREAMS[device]

    def get_current_target(self) -> GPUTarget:
        major, minor = CAPABILITIES[self.current]
        return GPUTarget("cuda", 10 * major + minor, 32)


class Compiled:
    """A kernel that prints where it is launched."""

    function = packed_metadata = None

    def __init__(self, name: str, gpus: TwoGpus) -> None:
        self.name, self.gpus = name, gpus

    def launch_metadata(self, *_: Any) -> None:
        return None

    def run(self, x: int, y: int, z: int, stream: int, *_: Any) -> None:
        print(self.name, self.gpus.current, stream)


def indexed(tensor: torch.Tensor, index: int | slice | torch.Tensor) -> torch.Tensor:
    """``tensor[index]``, which torch would start CUDA for."""
    if isinstance(index, slice):
        return torch.ops.aten.slice.Tensor(tensor, 0, index.start, index.stop)
    if isinstance(index, torch.Tensor):
        return torch.ops.aten.index.Tensor(tensor, [index])
    return torch.ops.aten.select.int(tensor, 0, index)


def call_every_op(values: dict, prepared: list, batches: list, device: str) -> None:
    def there(values: Any) -> Any:
        return [torch.empty(value.shape, dtype=value.dtype, device=device) if isinstance(value, torch.Tensor) else value
                for value in values]

    prepared = there(prepared)
    embed = [torch.empty(VOCAB_SIZE, HIDDEN_SIZE, device=device), *there(list(values.values())[1:])]
    for batch in batches:
        ids, mask = there(batch.values())
        launch.dsn_logits(ids, *prepared, 0, mask, None, None, None, 0)
        launch.dsn_token_logits(ids, *prepared, 0, mask, None, None, None)
        launch.embed_pool(ids, *embed, mask, None, None, None, 1e-12, 0, 0.0, 0.0, None, WordGrad.DENSE)
    many = torch.empty(2001, dtype=torch.int32, device=device)
    launch.dsn_token_logits(ids.flatten(), *prepared, 0, None, many, None, None)
    pooled, rstd = torch.empty(4, HIDDEN_SIZE, device=device), torch.empty(2400, device=device)
    seed = torch.empty(1, dtype=torch.int64, device=device)
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        launch.embed_pool_backward(pooled, pooled, rstd, ids, *embed, mask, None, None, None, 1e-12, 0, 0.1, 0.1,
                                          seed, WordGrad.DENSE)


def main() -> None:
    gpus = TwoGpus()
    values = parameters(HIDDEN_SIZE, num_positions=600)
    table = prepare_table(*list(values.values())[:3])
    prepared = [*table, *prepare_head(values["ln_weight"], values["ln_bias"], **head(HIDDEN_SIZE, 3, 1))[:5]]
    batches = [tokens("padded", 4, length) for length in (6, 600)]  # the second in pieces

    def compiled(kernel: Any, key: Any, signature: Any, device: int, *_: Any) -> Compiled:
        assert device == gpus.current
        return Compiled(kernel.fn.__name__, gpus)

    with (patch.object(driver, "_active", gpus), patch.object(JITFunction, "_do_compile", compiled),
          patch("torch.cuda.is_available", lambda: True), patch("torch.cuda._exchange_device", gpus.exchange),
          patch("torch.cuda._maybe_exchange_device", gpus.exchange),
          patch.object(FakeTensor, "data_ptr", lambda _: 4096), patch.object(FakeTensor, "__getitem__", indexed),
          set_wrap_triton_enabled(False), FakeTensorMode(allow_non_fake_inputs=True)):
        call_every_op(values, prepared, batches, f"cuda:{sys.argv[1]}")
    print("current", gpus.current)


if __name__ == "__main__":
    main()
