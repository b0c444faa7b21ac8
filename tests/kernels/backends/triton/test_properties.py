"""The properties of any batch hold on the Triton kernels too, under Triton's interpreter in a process of its own."""

import pytest
from helpers import run_interpreted


@pytest.mark.slow
@pytest.mark.parametrize("tiles", ["whole rows", "splits"])
def test_properties(tiles):
    run_interpreted("kernels/ops/test_properties.py", "interpreted/properties.py", "-p", "small_tiles", "-k",
                    f"triton-cpu and {tiles.split()[0]}")
