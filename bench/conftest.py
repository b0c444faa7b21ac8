"""For every bench: one thread, no compiled graphs of the bench before, the machine written into the results."""

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

# Otherwise numpy and scikit-learn multiply on every core. OpenBLAS reads this when numpy is first imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Read at every call; bench_end_to_end changes it where it measures two threads.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
import workload
from harness import compare as compare_in_turn

from dendritic_bert.kernels.backends import cpu

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "model2vec", "fasttext-community",
            "scikit-learn")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_compiled_graphs() -> None:
    torch.compiler.reset()


@pytest.fixture
def compare(benchmark: Any) -> Callable[..., None]:
    """``harness.compare`` with the benchmark of this test."""
    return partial(compare_in_turn, benchmark)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.update(
        versions={name: version for name in PACKAGES if (version := _version(name))},
        instruction_set=cpu.instruction_set() if cpu.MISSING is None else f"none: {cpu.MISSING}",
        torch_cpu_capability=torch.backends.cpu.get_cpu_capability(),
        command=" ".join(["python -m pytest", *config.invocation_params.args]),
        seed=workload.SEED,
        small=workload.SMALL,
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
