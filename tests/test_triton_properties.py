"""The properties of any batch hold on the Triton kernels too, under Triton's interpreter in a process of its own."""

import pytest
from helpers import run_interpreted


@pytest.mark.slow
def test_properties():
    run_interpreted("interpreted/properties.py", "-k", "triton-cpu")
