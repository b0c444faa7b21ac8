"""Settings of all tests, and fixtures of several test files."""

from __future__ import annotations

import gc
import itertools
import os
from typing import TYPE_CHECKING

# torch reads these when it is imported, here and in the processes that tests start. xdist has one worker per core,
# and with several threads per worker the threads would wait for one another. Tests of threads set their own number.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

import pytest

# A process for tests of kernels alone starts 2.5 s sooner without transformers, which this module imports.
if TYPE_CHECKING:
    from perforated_networks import PerforatedAI

if os.environ.get("TRITON_INTERPRET") == "1":
    if not os.environ.get("MEMORY_UNCHECKED"):
        import memory_checker  # noqa: F401  before quick_interpreter, in whose thread it has to run
    import quick_interpreter  # noqa: F401


@pytest.hookimpl(trylast=True)  # after pytest has taken out what -m and -k do not select
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first in the share of each worker, and the files with the longest tests before the others.

    xdist cuts the list into one share per worker, from one end to the other, so no worker begins a slow test when the
    others have nothing left to take over. The tests of a file stay together, since a worker makes what they share once.
    Shares are equal in number, as xdist cuts them, whether a worker has few slow tests or many.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    files = [list(group) for _, group in itertools.groupby(slow, key=lambda item: item.path)]
    files.sort(key=lambda group: -max(item.get_closest_marker("slow").kwargs.get("seconds", 0) for item in group))
    others, left = iter([item for item in items if not item.get_closest_marker("slow")]), len(items)
    items.clear()
    for worker in range(workers):
        own = list(itertools.chain.from_iterable(files[worker::workers]))
        share = left // (workers - worker)
        left -= share
        items += own + list(itertools.islice(others, max(0, share - len(own))))


def pytest_collection_finish() -> None:
    """Take the half a million objects of modules and tests that exist by now out of garbage collection: they stay until
    the end, and going through them takes 0.3 s per collection, of which accelerate asks for several in each training.
    """
    gc.freeze()


@pytest.fixture
def perforatedai(tmp_path, monkeypatch) -> PerforatedAI:
    """The library as in a fresh process, in an empty folder: its settings are global, and it writes to the current one.
    """
    globals_pai = pytest.importorskip("perforatedai.globals_perforatedai", reason="perforatedai is not installed")
    from perforated_networks import PerforatedAI

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(globals_pai, "pc", globals_pai.PAIConfig())
    monkeypatch.setattr(globals_pai, "pai_tracker", [])
    return PerforatedAI()


@pytest.fixture
def every_epoch(monkeypatch) -> None:
    """Every epoch of a training ends with scores and a checkpoint, however short it is."""
    monkeypatch.setattr("dendritic_bert.training.fit.CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """The folder of a BERT without a head, with its tokenizer."""
    from helpers import tiny_bert
    from small_classifier import hugging_face_tokenizer
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("encoder")
    tiny_bert(BertModel, vocab_size=600, max_position_embeddings=128, num_hidden_layers=1).save_pretrained(folder)
    hugging_face_tokenizer().save_pretrained(folder)
    return str(folder)
