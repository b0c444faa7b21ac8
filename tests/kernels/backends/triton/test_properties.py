"""The properties of any batch hold on the Triton kernels too, under Triton's interpreter in a process of its own."""

import pytest
from helpers import run_interpreted


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["whole rows", "pieces"])
def test_properties(cut):
    run_interpreted("interpreted/properties.py", "-k", f"triton-cpu and {cut.split()[0]}")
