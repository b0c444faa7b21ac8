"""Checks every address that a kernel uses under Triton's interpreter; importing this file turns the check on.

The interpreter reads and writes wherever a pointer leads, and runs one program after another. It therefore hides two
faults that a GPU shows:

* An address outside the tensor from which it was computed, in memory that happens to be mapped. A pointer's type goes
  with it through the whole kernel, so every tensor argument is given a type of its own, which knows its bounds.
* A race: one program of a launch stores to a place, and another stores to it, adds to it or loads from it. Atomics may
  meet atomics. Two lanes of one program race too, unless the second loads what the first stored.

The first launch of a kind records what it loads from all tensors. Later launches record only what they load from
tensors to which their kind has stored: our kernels load nothing that they store, and loads are most of the accesses.

It replaces functions of Triton 3.8's interpreter; where another version has others, the import fails and says so.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

REPLACED = {
    "_implicit_cvt": ["arg"],
    "GridExecutor.__call__": ["self", "args_dev", "kwargs"],
    "InterpreterBuilder.create_masked_load": ["self", "ptrs", "mask", "other", "cache_modifier", "eviction_policy",
                                              "is_volatile"],
    "InterpreterBuilder.create_masked_store": ["self", "ptrs", "value", "mask", "cache_modifier", "eviction_policy"],
    "InterpreterBuilder.create_atomic_rmw": ["self", "rmwOp", "ptr", "val", "mask", "sem", "scope"],
    "InterpreterBuilder.create_atomic_cas": ["self", "ptr", "cmp", "val", "sem", "scope"],
}


class MemoryFault(Exception):
    """An access outside a tensor, or a race."""


class TensorPointer(tl.pointer_type):
    """The type of the pointers into one tensor argument, and what the programs of the launch did there.

    ``marks["stored"]``, "added" and "loaded" hold for every element the number of the program that did so, counted from
    1: 0 for none, ``SEVERAL`` for more than one.
    """

    SEVERAL = -1

    def __init__(self, name: str, tensor: torch.Tensor, element_ty: tl.dtype) -> None:
        super().__init__(element_ty)
        self.argument, self.shape = name, list(tensor.shape)
        self.base, self.itemsize = np.uint64(tensor.data_ptr()), tensor.element_size()
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
        self.numel = 0 if tensor.numel() == 0 else last + 1
        self.marks: dict[str, np.ndarray] = {}

    def of(self, kind: str) -> np.ndarray:
        if kind not in self.marks:
            self.marks[kind] = np.zeros(self.numel, np.int32)  # takes no memory until it is touched
        return self.marks[kind]


@dataclass
class _Launch:
    """The running launch: its kernel, the arguments still to be converted, the tensors to which its kind stores, and
    whether it is the first of its kind, which records all loads."""

    kernel: str
    arguments: Iterator[str]
    stores: set[str]
    keeps_all_loads: bool


_launch = _Launch("", iter(()), set(), False)
_kinds: dict[tuple, set[str]] = {}


def _run_grid(self: Any, *args: Any, **kwargs: Any) -> None:
    given = inspect.getcallargs(self.fn, *args, **{name: value for name, value in kwargs.items()
                                                   if name in self.arg_names})
    kind = (self.fn, *(value if name in self.constexprs else value is None for name, value in given.items()))
    first = kind not in _kinds
    global _launch
    _launch = _Launch(self.fn.__name__, iter([name for name in given if name not in self.constexprs]),
                      _kinds.setdefault(kind, set()), first)
    _run(self, *args, **kwargs)


def _converted(arg: Any) -> Any:
    if isinstance(arg, tuple):
        raise NotImplementedError("a kernel with a tuple for an argument: its pointers would have no bounds")
    name, result = next(_launch.arguments), _convert(arg)
    if isinstance(arg, torch.Tensor):
        result.handle.dtype = TensorPointer(name, arg, result.handle.dtype.element_ty)
    return result


def _fault(tensor: TensorPointer, what: str) -> MemoryFault:
    return MemoryFault(f"{_launch.kernel}, program {_program() - 1}: {tensor.argument} {tensor.shape} is {what}")


def _program() -> int:
    (x, y, z), (num_x, num_y, _) = interpreter.interpreter_builder.grid_idx, interpreter.interpreter_builder.grid_dim
    return 1 + x + num_x * (y + num_y * z)


def _places(pointers: interpreter.TensorHandle, mask: np.ndarray | None, kept: bool) -> np.ndarray | None:
    """Check the bounds and, if the elements are to be recorded (``kept``), return their places."""
    tensor = pointers.dtype
    if not isinstance(tensor, TensorPointer):
        raise MemoryFault(f"{_launch.kernel}: a pointer that was computed from no tensor argument")
    offsets = pointers.data - tensor.base  # below the base, more than any tensor has
    limit = tensor.numel * tensor.itemsize
    if offsets.size and int(offsets.max()) >= limit:
        outside = offsets >= np.uint64(limit)
        if mask is not None:
            outside &= mask
        if outside.any():
            element = int(offsets[outside].view(np.int64)[0]) // tensor.itemsize
            raise _fault(tensor, f"used at element {element}, which it does not have")
    if not kept:
        return None
    used = offsets if mask is None else offsets[mask]
    return used.ravel().astype(np.int64) // tensor.itemsize


def _meets(tensor: TensorPointer, kind: str, places: np.ndarray, own: bool) -> bool:
    """Whether another program, or with ``own`` any program, was at one of the places before."""
    if kind not in tensor.marks:
        return False
    found = tensor.marks[kind][places]
    return bool((found != 0).any() if own else ((found != 0) & (found != _program())).any())


def _seen(pointers: interpreter.TensorHandle, mask: interpreter.TensorHandle | None, kind: str) -> None:
    tensor, flags = pointers.dtype, None if mask is None else np.broadcast_to(mask.data, pointers.data.shape)
    name = getattr(tensor, "argument", "")
    places = _places(pointers, flags, kind != "loaded" or _launch.keeps_all_loads or name in _launch.stores)
    if places is None:
        return
    if kind != "loaded":
        _launch.stores.add(name)
    if kind == "stored" and np.unique(places).size < places.size:
        raise _fault(tensor, "stored to twice at one place by one store")
    for other, own in {"stored": (("stored", True), ("added", True), ("loaded", False)),
                       "added": (("stored", True), ("loaded", False)),
                       "loaded": (("stored", False), ("added", False))}[kind]:
        if _meets(tensor, other, places, own):
            raise _fault(tensor, f"{kind}{'' if kind == 'loaded' else ' to'} where the launch has {other} before")
    marks = tensor.of(kind)
    before = marks[places]
    marks[places] = np.where((before == 0) | (before == _program()), _program(), TensorPointer.SEVERAL)


def _masked_load(self: Any, ptrs: Any, mask: Any, *rest: Any, **named: Any) -> Any:
    _seen(ptrs, mask, "loaded")
    return _load(self, ptrs, mask, *rest, **named)


def _masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
    _seen(ptrs, mask, "stored")
    return _store(self, ptrs, value, mask, *rest, **named)


def _atomic_rmw(self: Any, operation: Any, ptr: Any, val: Any, mask: Any, *rest: Any) -> Any:
    _seen(ptr, mask, "added")
    return _rmw(self, operation, ptr, val, mask, *rest)


def _atomic_cas(self: Any, ptr: Any, *rest: Any) -> Any:
    _seen(ptr, None, "added")
    return _cas(self, ptr, *rest)


def _check_version() -> None:
    for path, parameters in REPLACED.items():
        found: Any = interpreter
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is None or list(inspect.signature(inspect.unwrap(found)).parameters) != parameters:
            raise ImportError(f"the memory checker was written for the interpreter of Triton 3.8; {path} of Triton "
                              f"{triton.__version__} is another: compare tests/support/memory_checker.py with it")


_check_version()
_builder = interpreter.InterpreterBuilder
_convert, _run = interpreter._implicit_cvt, interpreter.GridExecutor.__call__
_load, _store = _builder.create_masked_load, _builder.create_masked_store
_rmw, _cas = _builder.create_atomic_rmw, _builder.create_atomic_cas
interpreter._implicit_cvt, interpreter.GridExecutor.__call__ = _converted, _run_grid
_builder.create_masked_load, _builder.create_masked_store = _masked_load, _masked_store
_builder.create_atomic_rmw, _builder.create_atomic_cas = _atomic_rmw, _atomic_cas
