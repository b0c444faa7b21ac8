"""A classifier called from several threads of Python's at once, and what becomes of torch's number of threads."""

import gc
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from small_classifier import WORDS, hugging_face_tokenizer, small_model

from dendritic_bert.inference import threads as dendritic_threads
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.threads import map_in_order
from dendritic_bert.inference.tokenization import PackedTokenizer

TEXTS = [*WORDS, "", "the lazy dog " * 20] * 2
NUM_TRUNCATED = 2
NUM_THREADS = 3  # neither 1 nor what this machine is likely to start with
CALLS = [{"batch_size": 3, "threads": 2}, {"batch_size": 5, "threads": 1}, {"threads": 4}, {"threads": 1}, {},
         {"batch_size": 7}]


@pytest.fixture(autouse=True)
def number_of_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    yield
    assert torch.get_num_threads() == NUM_THREADS
    assert of_a_new_thread() == NUM_THREADS
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def classifier():
    """One that the engine does not serve, so that Python's threads do."""
    return TextClassifier(small_model(num_labels=3), PackedTokenizer(hugging_face_tokenizer(), "tokenizers"))


@pytest.fixture(scope="module", params=["native", "tokenizers"])
def any_classifier(request):
    return TextClassifier(small_model(num_labels=3), PackedTokenizer(hugging_face_tokenizer(), request.param))


def of_a_new_thread() -> int:
    """torch.set_num_threads, on whatever thread, also sets what threads start with that come later."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.fixture
def seen(classifier, monkeypatch):
    """(thread, torch's number there) of every batch."""
    batches = []
    logits = classifier.logits
    monkeypatch.setattr(classifier, "logits", lambda *texts: batches.append(
        (threading.current_thread(), torch.get_num_threads())) or logits(*texts))
    return batches


@pytest.mark.parametrize("options", CALLS, ids=str)
def test_one_call(any_classifier, options):
    expected = [any_classifier(text)[0] for text in TEXTS]
    for result, other in zip(any_classifier(TEXTS, **options), expected, strict=True):
        assert result["label"] == other["label"]
        assert result["score"] == pytest.approx(other["score"], rel=1e-5)


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_batches_go_to_threads_with_one_torch_thread_each(classifier, seen, workers):
    classifier(TEXTS, batch_size=1, threads=workers)
    threads, torch_threads = zip(*seen)
    assert 1 <= len(set(threads)) <= workers
    assert set(torch_threads) == {1}


def test_the_calling_thread_works_where_no_worker_does():
    """With two threads, the only worker is kept in the first item until another item has been worked on."""
    caller, worked_on = threading.current_thread(), threading.Event()

    def work(item):
        if threading.current_thread() is caller:
            worked_on.set()
        else:
            assert worked_on.wait(60)
        return threading.current_thread()

    results = list(map_in_order(work, range(20), 2))
    assert [item for item, _ in results] == list(range(20))
    assert caller in {thread for _, thread in results}
    assert torch.get_num_threads() == NUM_THREADS


def test_no_item_is_made_before_the_result_of_a_large_one():
    made, taken = [], []
    for item, _ in map_in_order(lambda item: item, (made.append(item) or item for item in range(12)), 3,
                                is_large=lambda item: item == 5):
        taken.append(item)
        if item == 5:
            assert made == [0, 1, 2, 3, 4, 5]
    assert taken == made == list(range(12))


@pytest.mark.parametrize("options", [{}, {"threads": NUM_THREADS}])
def test_one_batch_runs_here_on_all_threads(classifier, seen, options):
    classifier(TEXTS, **options)
    assert seen == [(threading.main_thread(), NUM_THREADS)]


@pytest.mark.parametrize(("options", "inside"), [
    ({"threads": 5}, 5), ({"threads": 1}, 1), ({"threads": 1, "batch_size": 4}, 1), ({"threads": 2}, 2)])
def test_another_number_than_torch_has(classifier, seen, options, inside):
    classifier(TEXTS, **options)
    assert set(seen) == {(threading.main_thread(), inside)}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_limit_threads(count):
    """As OpenMP and MKL themselves see it, through torch's report."""
    def limited():
        dendritic_threads.limit_threads(count)
        torch.ones(300, 300) @ torch.ones(300, 300)
        return torch.__config__.parallel_info()

    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(limited).result()
    numbers = re.findall(r"(?:get_num_threads|omp_get_max_threads|mkl_get_max_threads)\(\) : (\d+)", report)
    assert len(numbers) >= 2
    assert set(numbers) == {str(count)}


def test_a_torch_whose_threads_cannot_be_limited(classifier, monkeypatch):
    monkeypatch.setattr(dendritic_threads, "_SETTERS", [])
    assert classifier(TEXTS, batch_size=4, threads=2) == classifier(TEXTS, batch_size=4, threads=1)


def test_overlapping_calls(any_classifier):
    """Six threads, whose calls begin and end in every order, while new threads ask what they start with."""
    expected = {str(options): any_classifier(TEXTS, **options) for options in CALLS}
    start, done, started_with = threading.Barrier(len(CALLS)), threading.Event(), set()

    def call(options):
        before = torch.get_num_threads()
        start.wait()
        for _ in range(15):
            assert any_classifier(TEXTS, **options) == expected[str(options)]
            assert torch.get_num_threads() == before == NUM_THREADS

    def watch():
        while not done.is_set():
            started_with.add(of_a_new_thread())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(len(CALLS)) as pool:
            for future in [pool.submit(call, options) for options in CALLS]:
                future.result()
    finally:
        done.set()
        watcher.join()
    assert started_with == {NUM_THREADS}


@pytest.mark.parametrize("options", CALLS, ids=str)
def test_an_error_in_the_middle(classifier, monkeypatch, options):
    logits = classifier.logits

    def fail(texts, text_pairs):
        if "bleak!" in texts:
            raise RuntimeError("from the kernel")
        return logits(texts, text_pairs)

    monkeypatch.setattr(classifier, "logits", fail)
    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(classifier, TEXTS, **options) for _ in range(6)]:
            with pytest.raises(RuntimeError, match="from the kernel"):
                future.result()
        assert {pool.submit(torch.get_num_threads).result() for _ in range(9)} == {NUM_THREADS}
    with pytest.raises(RuntimeError, match="from the kernel"):
        classifier(TEXTS, **options)


@pytest.mark.parametrize("threads", [1, 2, NUM_THREADS])
def test_abandoned_half_way(threads):
    """As where the writing of a file fails; the generator may be closed by the collector, on whatever thread."""
    work = map_in_order(lambda item: item * 2, iter(range(100)), threads)
    assert next(work) == (0, 0)
    other = map_in_order(lambda item: item * 3, iter(range(100)), threads)
    assert next(other) == (0, 0)
    closing = threading.Thread(target=work.close)
    closing.start()
    closing.join()
    assert [result for _, result in other] == [item * 3 for item in range(1, 100)]
    del work, other
    gc.collect()


class SlowlyCounting(TextClassifier):
    """Between reading and writing the count another thread has its turn, as it may have at any time without a GIL."""

    @property
    def num_truncated(self):
        count = self._count
        time.sleep(1e-4)
        return count

    @num_truncated.setter
    def num_truncated(self, count):
        self._count = count


def test_every_cut_text_is_counted_once(any_classifier):
    counting = SlowlyCounting(any_classifier.model, any_classifier.tokenizer)
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(counting, TEXTS, batch_size=4, threads=1 + call % 2) for call in range(24)]:
            future.result()
    assert counting.num_truncated == 24 * NUM_TRUNCATED
