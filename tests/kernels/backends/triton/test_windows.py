"""The Triton kernels of dendrites on windows, under Triton's interpreter: the tests of tests/interpreted/windows.py."""

import pytest
from helpers import run_interpreted


@pytest.mark.slow(seconds=25)
def test_under_the_interpreter():
    run_interpreted("interpreted/windows.py")
