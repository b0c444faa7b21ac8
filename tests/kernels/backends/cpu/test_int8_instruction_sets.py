"""The int8 kernel of every instruction set that this processor has gives the bits of the reference."""

import functools
import platform

import pytest
from int8_workload import digest

from dendritic_bert.kernels.backends import cpu

pytestmark = pytest.mark.skipif(cpu.MISSING is not None, reason="the extension was not built")
ASCENDING = ["baseline"]
if platform.machine() in ("x86_64", "AMD64"):
    ASCENDING += ["avx2", "avx2_vnni", "avx512", "avx512_vnni", "amx"]
expected_digest = functools.cache(lambda: digest("reference"))


@pytest.mark.parametrize("name", ASCENDING)
def test_a_kernel_gives_the_bits_of_the_reference(name):
    """Where the processor lacks the instruction set, one below it serves."""
    from dendritic_bert import _cpu

    best = cpu.int8_instruction_set()
    try:
        _cpu.limit_int8_instruction_set(name)
        chosen = cpu.int8_instruction_set()
        assert ASCENDING.index(chosen) <= min(ASCENDING.index(name), ASCENDING.index(best))
        assert digest("cpu") == expected_digest()
    finally:
        _cpu.limit_int8_instruction_set(best)
    assert cpu.int8_instruction_set() == best
