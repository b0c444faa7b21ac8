"""The gradients in Triton, under its interpreter: the tests are those of tests/interpreted/backward.py."""

import pytest
from helpers import run_interpreted


@pytest.mark.slow(seconds=60)
def test_under_the_interpreter():
    run_interpreted("interpreted/backward.py")
