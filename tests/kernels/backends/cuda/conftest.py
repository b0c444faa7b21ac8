"""What the tests that run the CUDA kernels on the CPU need."""

from collections.abc import Iterator

import pytest
import torch
from cuda_on_cpu import as_backend


@pytest.fixture(scope="module")
def kernels_on_cpu() -> Iterator[None]:
    """The backend "cuda" takes CPU tensors."""
    with as_backend.served():
        yield


@pytest.fixture
def outputs_start_as_nan() -> Iterator[None]:
    """Under this switch torch fills new tensors with NaN or the largest integer, which show what a kernel leaves out.
    The switch also asks for gradients whose sums have a fixed order."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
