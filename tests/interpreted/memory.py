"""What memory_checker sees, shown on kernels of a few lines; run by the tests of Triton's forward pass."""

import memory_checker
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError


@triton.jit
def copy_kernel(source, target, size, shift, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i + shift, mask=i < size, other=0.0), mask=i < size)


@triton.jit
def unmasked_load_kernel(source, target, size, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i), mask=i < size)


@triton.jit
def unmasked_store_kernel(source, target, size, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i, mask=i < size, other=0.0))


@triton.jit
def unmasked_add_kernel(target, BLOCK: tl.constexpr):
    tl.atomic_add(target + tl.arange(0, BLOCK), 1.0)


@triton.jit
def scalar_kernel(source, target, shift):
    tl.store(target, tl.load(source + shift))


@triton.jit
def add_kernel(target, ATOMIC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    if ATOMIC:
        tl.atomic_add(target + i, 1.0)
    else:
        tl.store(target + i, tl.load(target + i) + 1.0)


@triton.jit
def meeting_kernel(target, other, FIRST: tl.constexpr, SECOND: tl.constexpr):
    """Program 0 does the first to the only element, program 1 the second."""
    action = FIRST if tl.program_id(0) == 0 else SECOND
    if action == "store":
        tl.store(target, 1.0)
    elif action == "load":
        tl.store(other + tl.program_id(0), tl.load(target))
    elif action == "atomic":
        tl.atomic_add(target, 1.0)


@triton.jit
def one_place_kernel(target, BLOCK: tl.constexpr):
    tl.store(target + tl.arange(0, BLOCK) // 2, tl.arange(0, BLOCK).to(tl.float32))


@triton.jit
def own_place_kernel(target):
    place = target + tl.program_id(0)
    tl.store(place, tl.load(place) + 1.0)


def middle_of(values: int) -> torch.Tensor:
    """Memory is mapped on both sides."""
    return torch.zeros(values + 64)[32:32 + values]


def test_what_stays_inside_passes():
    source, target = torch.arange(20.0), middle_of(20)
    copy_kernel[(3,)](source, target, 20, 0, BLOCK=8)
    assert torch.equal(source, target)
    own_place_kernel[(20,)](target)
    assert torch.equal(source + 1, target)
    own_place_kernel[(20,)](target)
    add_kernel[(5,)](target, ATOMIC=True, BLOCK=4)
    assert target[:5].tolist() == [7.0, 8.0, 9.0, 10.0, 6.0]


@pytest.mark.parametrize(("shift", "element"), [(-1, -1), (1, 20), (2**33, 2**33), (-(2**33), -(2**33))])
def test_an_element_before_or_behind_is_none(shift, element):
    with pytest.raises(InterpreterError, match=rf"source \[20\] is used at element {element}, which it does not have"):
        copy_kernel[(3,)](middle_of(20), middle_of(20), 20, shift, BLOCK=8)
    with pytest.raises(InterpreterError, match=r"scalar_kernel, program 0: source \[20\] is used at element"):
        scalar_kernel[(1,)](middle_of(20), middle_of(1), element)


def test_what_is_behind_a_strided_view_or_an_empty_tensor():
    wide = torch.zeros(40)
    scalar_kernel[(1,)](wide[::2][:10], middle_of(1), 18)
    with pytest.raises(InterpreterError, match="used at element 19"):
        scalar_kernel[(1,)](wide[::2][:10], middle_of(1), 19)
    with pytest.raises(InterpreterError, match="used at element 0"):
        scalar_kernel[(1,)](middle_of(0), middle_of(1), 0)


def test_masks_are_left_out():
    with pytest.raises(InterpreterError, match=r"source \[20\] is used at element 20"):
        unmasked_load_kernel[(1,)](middle_of(20), middle_of(20), 20, BLOCK=32)
    with pytest.raises(InterpreterError, match=r"target \[20\] is used at element 20"):
        unmasked_store_kernel[(1,)](middle_of(20), middle_of(20), 20, BLOCK=32)
    with pytest.raises(InterpreterError, match=r"target \[20\] is used at element 20"):
        unmasked_add_kernel[(1,)](middle_of(20), BLOCK=32)


def test_two_programs_add_to_one_place():
    add_kernel[(1,)](middle_of(4), ATOMIC=False, BLOCK=4)
    with pytest.raises(InterpreterError, match=r"program 1: target .* is loaded where the launch has stored before"):
        add_kernel[(2,)](middle_of(4), ATOMIC=False, BLOCK=4)


@pytest.mark.parametrize("first", ["load", "store", "atomic"])
@pytest.mark.parametrize("second", ["load", "store", "atomic"])
def test_two_programs_meet(first, second):
    """Whichever comes first; and in every launch, not in the first of its kind alone."""
    for _ in range(2):
        if first == second != "store":
            meeting_kernel[(2,)](middle_of(1), middle_of(2), FIRST=first, SECOND=second)
        else:
            with pytest.raises(InterpreterError, match=r"program 1: target .* where the launch has"):
                meeting_kernel[(2,)](middle_of(1), middle_of(2), FIRST=first, SECOND=second)


def test_lanes_of_one_program_store_to_one_place():
    with pytest.raises(InterpreterError, match="stored to twice at one place"):
        one_place_kernel[(1,)](middle_of(4), BLOCK=8)


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setitem(memory_checker.REPLACED, "_implicit_cvt", ["argument"])
    with pytest.raises(ImportError, match=r"written for the interpreter of Triton 3\.8; _implicit_cvt of Triton"):
        memory_checker._check_version()
