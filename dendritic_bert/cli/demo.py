"""``dendritic-bert demo``: classifies a few sentences, and times the kernel that did it beside plain PyTorch."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..kernels import backends
from ..kernels.backends import cpu
from ..model.modeling import DendriticBertForSequenceClassification
from .models import load_model

SENTENCES = (
    "It's a charming and often affecting journey.",
    "Unflinchingly bleak and desperate.",
    "A masterpiece: funny, moving, and beautifully acted.",
    "The plot is a mess, the jokes are dull, and it goes on forever.",
    "I laughed, I cried, and I would see it again tomorrow.",
    "Two hours of my life that I will never get back.",
)
ROWS, ROW_LENGTH = 1024, 32  # plain PyTorch takes 20 ms for each repeat
REPEATS = 15


def run() -> None:
    """Print labels and scores of the model of the package, the tokens/s of the kernel and of plain PyTorch, and the
    largest difference between their logits."""
    classifier = load_model("TextClassifier", None)
    for sentence, result in zip(SENTENCES, classifier(SENTENCES)):
        print(f"{result['label']:8}  {result['score']:.3f}  {sentence}")

    model, tokenizer = classifier.model, classifier.tokenizer
    stored = str(model.dtype).removeprefix("torch.")
    form = model.config.table_dtype or ("float32" if model.config.pools_windows else stored)
    op = "dsn_logits" if not model.config.pools_windows else (
        "dsn_window_logits_int8" if form == "int8" else "dsn_window_logits")
    backend = backends.choose(None, op, torch.device("cpu"), getattr(torch, form))
    instruction_set = f", instruction set {cpu.instruction_set()}" if backend == "cpu" else ""
    parameters = sum(p.numel() for p in model.bert.parameters()) + model.classifier.num_live_parameters()
    print(f"\nmodel      {parameters:,} live parameters, stored in {stored}, computed in {form}")
    print(f"tokenizer  {tokenizer.engine}{f' ({tokenizer.reason})' if tokenizer.reason else ''}")
    print(f"backend    {backend}{instruction_set}")
    _compare(model)


@torch.no_grad()
def _compare(model: DendriticBertForSequenceClassification) -> None:
    length = int(min(ROW_LENGTH, model.config.longest_row))
    uniform = torch.rand(ROWS, length, generator=torch.Generator().manual_seed(0))
    input_ids = (model.config.vocab_size ** uniform - 1).int()  # p(id) ~ 1 / (id + 1), like the frequencies of words
    packed, cu_seqlens = input_ids.flatten(), torch.arange(ROWS + 1) * length  # the layout that the tokenizer gives
    in_float32 = copy.deepcopy(model).float()

    def fused() -> Tensor:
        return model(input_ids=packed, cu_seqlens=cu_seqlens).logits

    def reference() -> Tensor:
        # Asked for hidden states, a model calls PyTorch's modules.
        return in_float32(input_ids=input_ids, output_hidden_states=True).logits

    difference = (fused() - reference()).abs().max().item()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fused_seconds, reference_seconds = _medians(fused, reference)
    finally:
        torch.set_num_threads(threads)
    tokens = input_ids.numel() / 1e6
    print(f"\n{ROWS} rows of {length} tokens, one thread, median of {REPEATS} repeats that alternate")
    print(f"PyTorch, float32 {tokens / reference_seconds:8.1f} million tokens/s")
    print(f"fused kernel     {tokens / fused_seconds:8.1f} million tokens/s, "
          f"{reference_seconds / fused_seconds:.1f} times as fast")
    print(f"largest difference between their logits {difference:.1e}")


def _medians(*functions: Callable[[], Tensor]) -> list[float]:
    """Median seconds of each function. They alternate, so that a disturbance of the machine affects all of them."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for function, times in zip(functions, seconds):
            function()  # not timed, because the other functions have displaced its data from the caches
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]
