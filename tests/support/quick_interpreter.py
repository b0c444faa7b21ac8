"""Triton's interpreter at six times its speed, with the same results; importing this file turns it on.

The interpreter loses its time in five ways, each of which is mended here:

* Whenever a jitted function is called, helpers of every program included, it puts its own functions into
  ``triton.language``: 0.4 ms to find there what the launch has put there already. Here a launch does so once.
* It calls so deep that Python 3.11 and later map and unmap 16 kB of the stack of frames at one depth again and again, a
  third of the time. Here a launch runs in a thread of its own and begins at the bottom of a stack.
* It creates types, with lists of their sizes, anew for every value, and compares them element by element.
* It looks for a common type of the operands of every operation, also where they have one, and makes a number an array
  every time that it is an operand. Here operands that agree are taken as they are, and constants are kept: 0.88 of the
  time of the gradients' tests.
* Ten rounds of Philox are a hundred of its operations, two fifths of every test with dropout. Here NumPy computes them.

It replaces functions of Triton 3.8; where another version has others, the import fails and says so.
"""

import inspect
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

REPLACED: list[tuple[Any, list[str]]] = [
    (interpreter._patch_lang, ["fn"]),
    (interpreter._get_np_dtype, ["tt_dtype"]),
    (tl.random.philox_impl, ["c0", "c1", "c2", "c3", "k0", "k1", "n_rounds"]),
    (tl.block_type.__init__, ["self", "element_ty", "shape"]),
    (tl.tensor.__init__, ["self", "handle", "type"]),
    (tl.dtype.__eq__, ["self", "other"]),
    (TritonSemantic.broadcast_impl_value, ["self", "lhs", "rhs"]),
    (TritonSemantic.binary_op_type_checking_impl, ["self", "lhs", "rhs", "allow_lhs_ptr", "allow_rhs_ptr",
                                                   "arithmetic_check", "div_or_mod"]),
]
MOST_CONSTANTS = 1000
# Two operands of one of these types need no other one, whatever the operation.
PLAIN = {id(dtype) for dtype in (tl.int1, tl.int32, tl.int64, tl.uint32, tl.uint64, tl.float32, tl.float64)}


def _check_version() -> None:
    for function, parameters in REPLACED:
        function = getattr(function, "fn", function)  # of a function that is jitted
        if list(inspect.signature(inspect.unwrap(function)).parameters) != parameters:
            raise ImportError(f"the quick interpreter was written for Triton 3.8; {function.__qualname__} of Triton "
                              f"{triton.__version__} is another: compare tests/support/quick_interpreter.py with it")


class _Launch:
    """The patches of a launch: one for each module whose functions it calls, all undone at its end."""

    def __init__(self) -> None:
        self.scopes: dict[int, interpreter._LangPatchScope] = {}

    def patch(self, fn) -> "_Launch | _Inner":
        outermost = not self.scopes
        if id(fn.__globals__) not in self.scopes:
            self.scopes[id(fn.__globals__)] = _patch_lang(fn)
        return self if outermost else _Inner()

    def restore(self) -> None:
        for scope in reversed(self.scopes.values()):
            scope.restore()
        self.scopes.clear()


class _Inner:
    def restore(self) -> None:
        """The outermost call restores everything."""


_check_version()
_patch_lang, _run_grid = interpreter._patch_lang, interpreter.GridExecutor.__call__
_init_block, _get_np_dtype = tl.block_type.__init__, interpreter._get_np_dtype
_same_dtype, _broadcast = tl.dtype.__eq__, TritonSemantic.broadcast_impl_value
_make_compatible = TritonSemantic.binary_op_type_checking_impl
_thread = ThreadPoolExecutor(1)
_blocks: dict[tuple, dict] = {}
_shapes: dict[tuple, tl.tuple] = {}
_sizes: dict[tuple, tuple[tl.tuple, tl.constexpr]] = {}
_np_dtypes: dict[str, np.dtype] = {}
_constants: dict[tuple, tl.tensor] = {}


def _run_in_thread(self, *args, **kwargs) -> None:
    _thread.submit(_run_grid, self, *args, **kwargs).result()


def _init_block_once(self, element_ty, shape) -> None:
    """All types of one shape share one tuple of sizes, so that ``is`` compares them."""
    sizes = tuple(map(int, shape))
    key = (element_ty.name, sizes)
    if key not in _blocks:
        _init_block(self, element_ty, shape)
        self.shape = _shapes.setdefault(sizes, self.shape)
        _blocks[key] = self.__dict__
    self.__dict__.update(_blocks[key])


def _init_tensor(self, handle, type) -> None:
    sizes = tuple(type.shape) if type.is_block() else ()
    if sizes not in _sizes:
        _sizes[sizes] = tl.tuple([tl.constexpr(size) for size in sizes]), tl.constexpr(math.prod(sizes))
    self.handle, self.type, self.dtype = handle, type, type.scalar
    self.shape, self.numel = _sizes[sizes]


def _same_dtype_at_once(self, other) -> bool:
    return self is other or _same_dtype(self, other)


def _broadcast_what_differs(self, lhs, rhs):
    if lhs.type.is_block() and rhs.type.is_block() and lhs.type.shape is rhs.type.shape:
        return lhs, rhs
    return _broadcast(self, lhs, rhs)


def _make_compatible_what_differs(self, lhs, rhs, *options, **named):
    if type(lhs) is tl.tensor and id(lhs.dtype) in PLAIN:
        if type(rhs) is tl.tensor and lhs.dtype is rhs.dtype:
            return self.broadcast_impl_value(lhs, rhs)
        if type(rhs) in (int, float):
            key = repr(rhs), id(lhs.dtype), id(lhs.shape), *options, *named.items()
            if key not in _constants:
                like, constant = _make_compatible(self, lhs, rhs, *options, **named)
                if like is not lhs:  # the number is of another type
                    return like, constant
                if len(_constants) == MOST_CONSTANTS:
                    _constants.clear()
                _constants[key] = constant
            return lhs, _constants[key]
    return _make_compatible(self, lhs, rhs, *options, **named)


def _np_dtype_once(dtype) -> np.dtype:
    if dtype.name not in _np_dtypes:
        _np_dtypes[dtype.name] = _get_np_dtype(dtype)
    return _np_dtypes[dtype.name]


def _philox(c0, c1, c2, c3, k0, k1, n_rounds=10):
    """The result of Triton's function of this name for a counter of four 32-bit words and a key of two."""
    w0, w1, w2, w3 = (word.handle.data.astype(np.uint64) for word in (c0, c1, c2, c3))
    low, key = np.uint64(0xFFFFFFFF), [int(word.handle.data.item()) for word in (k0, k1)]
    for _ in range(n_rounds):
        a, b = w0 * np.uint64(0xD2511F53), w2 * np.uint64(0xCD9E8D57)
        w0, w1, w2, w3 = (b >> 32) ^ w1 ^ np.uint64(key[0]), b & low, (a >> 32) ^ w3 ^ np.uint64(key[1]), a & low
        key = [(word + raised) % 2**32 for word, raised in zip(key, (0x9E3779B9, 0xBB67AE85))]
    return tuple(tl.tensor(interpreter.TensorHandle(word.astype(np.uint32), tl.uint32), c0.type)
                 for word in (w0, w1, w2, w3))


philox_of_triton, tl.random.philox_impl = tl.random.philox_impl, _philox
interpreter._patch_lang = _Launch().patch
interpreter.GridExecutor.__call__ = _run_in_thread
interpreter._get_np_dtype = _np_dtype_once
tl.block_type.__init__ = _init_block_once
tl.tensor.__init__ = _init_tensor
tl.dtype.__eq__ = _same_dtype_at_once
TritonSemantic.broadcast_impl_value = _broadcast_what_differs
TritonSemantic.binary_op_type_checking_impl = _make_compatible_what_differs
