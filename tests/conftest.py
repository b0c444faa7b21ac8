"""Settings of all tests, and fixtures of several test files."""

import gc
import itertools
import os

# Read when torch is imported, here and in the processes that tests start. xdist has a worker for each core; with more
# threads in each they would spin, waiting for one another. Tests of threads set the number themselves.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

import pytest
from perforated_networks import PerforatedAI

if os.environ.get("TRITON_INTERPRET") == "1":
    if not os.environ.get("MEMORY_UNCHECKED"):
        import memory_checker  # noqa: F401  before the next, whose thread it is to run in
    import quick_interpreter  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first in the share of every worker, which xdist cuts from one end of the list to the other: so that
    none begins one when the others have nothing left to take over. Those of a file stay together, for what they share
    is made once a worker; files with the longest tests come first."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    files = [list(group) for _, group in itertools.groupby(slow, key=lambda item: item.path)]
    files.sort(key=lambda group: -max(item.get_closest_marker("slow").kwargs.get("seconds", 0) for item in group))
    others = [item for item in items if not item.get_closest_marker("slow")]
    items.clear()
    for worker in range(workers):
        items += itertools.chain.from_iterable(files[worker::workers])
        items += others[len(others) * worker // workers:len(others) * (worker + 1) // workers]


def pytest_collection_finish() -> None:
    """What is there by now, half a million objects of modules and tests, stays to the end: looking through it takes
    0.3 s whenever garbage is collected, which accelerate asks for several times in every training."""
    gc.freeze()


@pytest.fixture
def perforatedai(tmp_path, monkeypatch) -> PerforatedAI:
    """The library as a fresh process has it, in an empty folder: its settings are global, and it writes where it is."""
    globals_pai = pytest.importorskip("perforatedai.globals_perforatedai", reason="perforatedai is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(globals_pai, "pc", globals_pai.PAIConfig())
    monkeypatch.setattr(globals_pai, "pai_tracker", [])
    return PerforatedAI()
