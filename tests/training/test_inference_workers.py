"""Batches on several cores: their order, their numbers beside one call after another, errors, and torch's threads."""

import threading

import pytest
import torch
from transformers import BertConfig, BertModel

from dendritic_bert.training.inference_workers import batches_of_tokens, infer_batches, round_weights


@pytest.fixture
def num_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("bf16", [False, True])
def test_results_are_those_of_plain_calls(num_threads, bf16):
    torch.manual_seed(0)
    layer = torch.nn.Linear(40, 30)
    batches = [torch.randn(1 + size % 5, 40) for size in range(40)]
    found = list(infer_batches(layer, iter(batches), bf16))
    assert not any(result.requires_grad for result in found)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert all(torch.equal(result, layer(batch)) for result, batch in zip(found, batches, strict=True))
    assert found[0].dtype == (torch.bfloat16 if bf16 else torch.float32)


def test_rounded_weights_change_no_bit():
    """Autocast takes the same numbers, and keeps what is no matrix product in float32."""
    torch.manual_seed(1)
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    model, ids = BertModel(config).eval(), torch.arange(40).reshape(4, 10)

    def hidden():
        return next(infer_batches(lambda batch: model(input_ids=batch).last_hidden_state, [ids], bf16=True))

    before = hidden()
    round_weights(model)
    assert model.encoder.layer[0].output.dense.weight.dtype == torch.bfloat16
    assert model.embeddings.word_embeddings.weight.dtype == torch.float32
    assert torch.equal(hidden(), before)


def test_batches_are_computed_at_once_each_on_one_thread(num_threads):
    together = threading.Barrier(num_threads, timeout=60)

    def count(_):
        together.wait()
        return torch.get_num_threads()

    assert list(infer_batches(count, range(2 * num_threads))) == [1] * 2 * num_threads
    assert torch.get_num_threads() == num_threads
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [num_threads]


def test_an_error_ends_it(num_threads):
    begun = []

    def fail(number):
        begun.append(number)
        if number == 2:
            raise ValueError("batch 2")
        return number

    results = infer_batches(fail, range(1000))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="batch 2"):
        next(results)
    assert len(begun) < 50
    assert torch.get_num_threads() == num_threads


@pytest.mark.parametrize(("lengths", "expected"), [
    ([], []), ([0], [[0]]), ([3, 1, 2], [[2, 0], [1]]), ([9, 1, 1], [[0], [1, 2]]),
    ([2] * 7, [[4, 5, 6], [1, 2, 3], [0]])])
def test_batches_of_tokens(lengths, expected):
    """Of at most six tokens with padding, or one row; the longest first."""
    assert batches_of_tokens([[7] * length for length in lengths], 6) == expected
