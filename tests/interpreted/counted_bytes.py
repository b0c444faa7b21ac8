"""The bytes that bench/analysis/traffic.py counts are those that pass through Triton's interpreter.

Run by tests/bench/analysis/test_roofline.py.
"""

import sys

import launches
import pytest
import torch
import traffic
from launches import VOCAB_SIZE, Call
from memory_trace import traced_memory
from traffic import traffic_of
from window_traffic import window_traffic_of

from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.configs import Config, WindowConfig

HEAD = ("weight", "bias", "beta_bias", "lateral", "top")
# Streams whose tensors a launcher allocates itself: its outputs, and what its kernels hand to each other.
ALLOCATED = ("splits", "logits", "rstd", "pooled", "pooled_hat", "d_word", "d_context", "d_ln")
# Streams that torch moves and not a kernel.
OF_TORCH = ("cleared", "converted", "d_word read again")


def written(call: Call) -> dict[str, torch.Tensor]:
    tensors = {name: torch.zeros_like(tensor) for name, tensor in call.tensors().items()}
    ids = torch.randint(VOCAB_SIZE, (call.rows, call.length), generator=torch.Generator().manual_seed(0))
    return tensors | {"input_ids": ids.int(), "attention_mask": torch.ones(call.rows, call.length, dtype=torch.bool)}


def call_key() -> configs.Key:
    return configs.key_of("dsn_logits", 16, 32, 4, torch.float32, "interpreter")


@pytest.mark.parametrize(("config", "rows", "length"), [
    (Config(4, 4), 4, 32), (Config(2, 8), 5, 37), (Config(2, 4, split_columns=16), 5, 37)], ids=str)
@pytest.mark.parametrize(("op", "dtype"), [
    ("dsn_logits", torch.bfloat16), ("dsn_logits", torch.int8), ("dsn_token_logits", torch.float32),
    ("embed_pool", torch.float32), ("embed_pool_backward", torch.float32)], ids=str)
def test_traffic(op, dtype, rows, length, config, monkeypatch):
    call = Call(op, 16, dtype, rows, length)
    monkeypatch.setattr(configs, "candidates", lambda key: [config])
    cut = configs.choose_backward(call_key()) if op == "embed_pool_backward" else config
    tensors = written(call)
    with traced_memory(tensors) as trace:
        call.launch(tensors)
    streams = {stream.name: stream for stream in traffic_of(call, cut).streams}
    passed = {name: trace.read[name] + trace.written[name] for name in [*tensors, "other"]}
    distinct = {name: trace.distinct(name) for name in tensors}
    for group, names in {"head": HEAD, "ln": ("ln_weight", "ln_bias")}.items():
        passed[group] = sum(passed.pop(name, 0) for name in names)
        distinct[group] = sum(distinct.pop(name, 0) for name in names)
    made = {name for name in ALLOCATED if name in streams and name not in tensors}
    assert passed.pop("other") == sum(streams[name].requested for name in made)
    for name, stream in streams.items():
        if name not in made and name not in OF_TORCH:
            assert passed[name] == stream.requested, name
            if stream.kind == "table" and name != "word_scale":
                assert distinct[name] == stream.distinct, name


@pytest.fixture
def few_words(monkeypatch):
    """A dense gradient has a program for every few words, which takes the interpreter minutes for all of BERT's."""
    for module in (launches, traffic, sys.modules[__name__]):
        monkeypatch.setattr(module, "VOCAB_SIZE", 300)


@pytest.mark.parametrize("config", [Config(4, 4), Config(2, 8)], ids=str)
@pytest.mark.parametrize("word_grad", ["by id", "sparse", "sorted"])
def test_traffic_in_the_order_of_ids(word_grad, config, few_words, monkeypatch):
    """What the kernels read of the tensors they are given. No id comes twice, so as many words are read as the model
    takes for uniform ids."""
    call = Call("embed_pool_backward", 16, torch.float32, 5, 37, word_grad=word_grad)
    monkeypatch.setattr(configs, "candidates", lambda key: [config])
    tensors = written(call)
    ids = torch.randperm(VOCAB_SIZE, generator=torch.Generator().manual_seed(0))[:call.num_tokens]
    tensors["input_ids"].copy_(ids.view(call.rows, call.length))
    with traced_memory(tensors) as trace:
        call.launch(tensors)
    streams = {stream.name: stream for stream in traffic_of(call, configs.choose_backward(call_key())).streams}
    words = [streams[name].requested for name in ("words in their order", "words again") if name in streams]
    assert trace.read["word"] == sum(words)
    for name in ("input_ids", "attention_mask", "position", "token_type", "grad_pooled", "pooled_hat", "rstd"):
        assert trace.read[name] == streams[name].requested, name
        if streams[name].kind == "table":
            assert trace.distinct(name) == streams[name].distinct, name
    assert trace.read["ln_weight"] == streams["ln"].requested


@pytest.mark.parametrize(("config", "rows", "length"), [
    (WindowConfig(2, 32, 32, 1), 5, 25), (WindowConfig(1, 32, 8, 1), 3, 70)], ids=["rows of a tile", "splits"])
def test_traffic_of_windows(rows, length, config, monkeypatch):
    """Of columns that lie in a tile for their neighbours too, and of taps outside a row, which are not read."""
    call = Call("dsn_window_logits", 32, torch.float32, rows, length, window_dendrites=16, window_layers=3,
                num_dendrites=3)
    monkeypatch.setattr(configs, "choose_windows", lambda *_: config)
    tensors = written(call)
    with traced_memory(tensors) as trace:
        call.launch(tensors)
    streams = {stream.name: stream for stream in window_traffic_of(call, config).streams}
    assert trace.written["other"] + trace.read["other"] == sum(
        streams[name].requested for name in ("logits", "splits") if name in streams)
    for name in tensors:
        assert trace.read[name] + trace.written[name] == streams[name].requested, name
        if streams[name].kind != "words":  # an id may occur twice
            assert trace.distinct(name) == streams[name].distinct, name
