"""The inference tables of a model, kept until a parameter changes, and every sign that one may have changed."""

import itertools
import time
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel

from .dendritic_linear import DendriticLinear
from .embedding_modules import GLOBAL_HOOKS, hooks_of
from .inference_tables import InferenceTables, WindowTables

# The options of modules on which the tables depend.
_OPTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Embedding: ("max_norm",), nn.LayerNorm: ("eps",), nn.Dropout: ("training",), DendriticLinear: ("activation",)}
_ALL_CACHES: "weakref.WeakValueDictionary[int, TableCache]" = weakref.WeakValueDictionary()


class TableCache:
    """The inference tables of a model, and every sign that what they were made of may have changed.

    ``plain_modules`` are those that ``embedding_modules.are_plain`` has just found plain. The caller makes ``tables``
    after the cache, so that no change in between is missed; they stay None where no fused op serves the parameters.
    ``with_gradients`` says that a new gradient is a sign of change too.
    """

    tables: InferenceTables | WindowTables | None = None

    def __init__(self, model: PreTrainedModel, plain_modules: list[nn.Module], with_gradients: bool) -> None:
        members: list[Any] = [part for module in model.modules() for part in (module._modules, module._parameters)]
        self._places: list[tuple[dict[str, Any], str, Any]] = [
            (part, name, member) for part in members for name, member in part.items()]
        # Apart from its parameters, a plain module has no forward of its own and keeps its options.
        self._places += [(vars(module), "forward", None) for module in plain_modules]
        self._places += [(vars(module), name, vars(module)[name]) for module in plain_modules
                         for kind, names in _OPTIONS.items() if isinstance(module, kind) for name in names]
        self._places.append((vars(model.config), "output_hidden_states", model.config.output_hidden_states))
        self._hooks = GLOBAL_HOOKS + [hooks for module in plain_modules for hooks in hooks_of(module)]
        parameters = list(model.parameters())
        self._parameters = [(p, p.data_ptr(), _version(p)) for p in parameters]
        self._gradients: list[Any] = [
            (p, p.grad, _version(p.grad)) for p in parameters if with_gradients and p.is_leaf]
        self._contents = Contents(parameters)
        self._ids = {id(p) for p in parameters}
        self._stepped = False
        _ALL_CACHES[id(self)] = self

    def note_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Note that ``optimizer`` has made a step. A fused one does not raise the version of a parameter."""
        if any(id(p) in self._ids for group in optimizer.param_groups for p in group["params"]):
            self._stepped = True

    def is_current(self) -> bool:
        """Whether nothing that the tables were made of has changed. It takes 2.5 us of every call."""
        if self._stepped or any(self._hooks):
            return False
        for members, name, member in self._places:
            if members.get(name) is not member:
                return False
        for parameter, pointer, version in self._parameters:
            if parameter.data_ptr() != pointer or (version is not None and parameter._version != version):
                return False
        for parameter, gradient, version in self._gradients:
            if parameter.grad is not gradient or (version is not None and gradient._version != version):
                return False
        return self._contents.are_same()


class Contents:
    """A copy of the parameters in host memory, with which they are compared as often as it costs next to nothing.

    A write through ``.data``, through numpy or by another process leaves no trace but the changed bytes. Every call
    compares all bytes, until that has taken 50 ms more than a fiftieth of the time. From then on a full comparison
    waits until it fits into a fiftieth of the time again; calls in between compare a sample of one parameter after the
    other, which also takes a fiftieth of the time at most.
    """

    SHARE, AHEAD = 50, 2.5  # seconds
    SAMPLE = 32  # numbers, spread over the parameter

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._pairs = [(numbers, numbers.clone()) for numbers in map(_as_integers, parameters)
                       if numbers.device.type == "cpu" and numbers.numel()]
        self._samples = itertools.cycle([
            (numbers[::step], copy[::step].contiguous()) for numbers, copy in self._pairs
            for step in (max(1, len(numbers) // self.SAMPLE),)])
        # On the clock of perf_counter: until when comparisons have used their share of the time, and when the next one
        # is due.
        self._paid_until = self._next = 0.0

    def are_same(self) -> bool:
        start = time.perf_counter()
        if start < self._next or not self._pairs:
            return True
        if start + self.AHEAD < self._paid_until:
            same = torch.equal(*next(self._samples))
            self._next = start + self.SHARE * (time.perf_counter() - start)
        else:
            same = all(torch.equal(numbers, copy) for numbers, copy in self._pairs)
            self._paid_until = max(self._paid_until, start) + self.SHARE * (time.perf_counter() - start)
        return same


def _version(tensor: Tensor | None) -> int | None:
    """The version that torch counts of a tensor; None for one that was made in inference mode, which has none."""
    return None if tensor is None or tensor.is_inference() else tensor._version


def _as_integers(parameter: Tensor) -> Tensor:
    """The memory of a parameter as integers, so that NaN equals NaN; if possible flat and as int64, which is faster."""
    data = parameter.data  # not detach(), whose result would keep the parameter alive
    if data.is_contiguous() and data.nbytes % 8 == 0 and data.storage_offset() * data.itemsize % 8 == 0:
        return data.view(-1).view(torch.int64)
    return data.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[data.itemsize])


def _after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Called by torch after every step of every optimizer."""
    for reference in _ALL_CACHES.valuerefs():
        cache = reference()
        if cache is not None:
            cache.note_step(optimizer)


register_optimizer_step_post_hook(_after_step)
