"""Token ids -> logits: ``dsn_logits``, whole and folded, beside eager PyTorch, torch.compile and ``embedding_bag``."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from baselines import compiled, eager_logits, transformers_logits
from harness import Implementation, Target, hot, largest_error
from torch import Tensor
from workload import (
    NUM_LABELS,
    SEED,
    SMALL,
    VOCAB_SIZE,
    Tokens,
    Weights,
    flush_caches,
    make_tokens,
    make_weights,
    row_lengths,
)

from dendritic_bert.kernels import backends, ops, prepare

# An eager call takes 10 ms at H = 128 and 400 ms at H = 768.
ROUNDS = {hidden_size: 2 if SMALL else rounds for hidden_size, rounds in ((16, 40), (128, 40), (384, 15), (768, 9))}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
CASES = [(128, "full", "hot"), (128, "full", "cold"), (128, "ragged", "hot"), (128, "ragged", "cold"),
         (16, "full", "hot"), (16, "full", "cold"), (384, "full", "hot"), (384, "full", "cold"),
         (768, "full", "hot"), (768, "full", "cold")]
LIBRARY = torch.library.Library("dendritic_bert_bench", "DEF")  # its op exists as long as this object
# A model runs on the folded op; the other reads full-width rows, for heads and positions that do not fold.
TARGETS = [Target("cpu folded packed", "eager reference", at_least=15),
           Target("cpu folded packed", "reference, torch.compile", at_least=8),
           Target("cpu folded packed", "embedding_bag fp32", at_least=0.6),
           Target("cpu folded fp16 packed", "embedding_bag fp32", at_least=0.8),
           Target("cpu folded padded", "cpu folded padded, no mask", at_most=1.1),
           Target("cpu fp32 packed", "eager reference", at_least=15),
           Target("cpu fp32 packed", "reference, torch.compile", at_least=8),
           Target("cpu fp32 packed", "embedding_bag fp32", at_least=0.6),
           Target("cpu fp16 packed", "embedding_bag fp32", at_least=0.8)]


def fused(tokens: Tokens, model: Weights, dtype: torch.dtype, layout: str, backend: str,
          folded: bool = False) -> Callable[[], Tensor]:
    """``dsn_logits`` or ``dsn_logits_folded`` on tables that are prepared beforehand, as the model keeps them."""
    gamma, beta = model.embeddings[3:]
    table = prepare.prepare_table(*model.embeddings[:3], dtype=dtype)
    head = prepare.prepare_head(gamma, beta, *model.head)
    logits = partial(ops.dsn_logits, table=table, head=head, backend=backend)
    if folded:
        tables = prepare.fold(table, head, tokens.padded.shape[1], num_types=1)
        logits = partial(ops.dsn_logits_folded, folded=tables, backend=backend)
    if layout == "packed":
        return partial(logits, tokens.packed, cu_seqlens=tokens.cu_seqlens)
    if layout == "padded, no mask":
        return partial(logits, tokens.padded)
    return partial(logits, tokens.padded, attention_mask=tokens.attention_mask)


def runs_with_errors(tokens: Tokens, model: Weights) -> dict[str, tuple[Callable[[], Tensor], float | None]]:
    padded = (tokens.padded, tokens.attention_mask)
    bag = partial(F.embedding_bag, tokens.packed, offsets=tokens.cu_seqlens.int(), mode="sum",
                  include_last_offset=True)
    compile_run = partial(compiled(eager_logits), *padded, model)
    compile_run()
    runs: dict[str, Callable[[], Tensor]] = {
        "eager reference": partial(eager_logits, *padded, model),
        "eager, transformers' BertEmbeddings": transformers_logits(tokens, model),
        "reference, torch.compile": compile_run,
    }
    for backend in backends.BACKENDS:
        if backends.refusal(backend, "dsn_logits", "cpu", torch.float32) is None:
            for name, dtype in DTYPES.items() if backend != "reference" else [("fp32", torch.float32)]:
                for layout in ("packed", "padded"):
                    runs[f"{backend} {name} {layout}"] = fused(tokens, model, dtype, layout, backend)
        if backends.refusal(backend, "dsn_logits_folded", "cpu", torch.float32) is None:
            cases = [("folded", torch.float32, "packed"), ("folded", torch.float32, "padded"),
                     ("folded fp16", torch.float16, "packed")]
            if tokens.attention_mask.all():
                cases.append(("folded", torch.float32, "padded, no mask"))
            for name, dtype, layout in cases:
                runs[f"{backend} {name} {layout}"] = fused(tokens, model, dtype, layout, backend, folded=True)
    truth = eager_logits(*padded, model.double())
    measured = {name: (run, largest_error(run(), truth)) for name, run in runs.items()}
    # Not the same result, but how fast a gather can be: it sums rows of the same table, without LayerNorm and head.
    word = model.embeddings[0]
    return measured | {"embedding_bag fp32": (partial(bag, weight=word), None),
                       "embedding_bag fp16": (partial(bag, weight=word.half()), None)}


@pytest.mark.parametrize(("hidden_size", "lengths", "cache"), CASES)
@torch.inference_mode()
def test_batch(compare, hidden_size: int, lengths: str, cache: str) -> None:
    tokens, model = make_tokens(row_lengths(lengths)), make_weights(hidden_size)
    num_tokens, rows = tokens.packed.numel(), tokens.padded.shape[0]

    def prepare(run: Callable[[], Tensor]) -> Callable[[], tuple]:
        return hot(run) if cache == "hot" else lambda: flush_caches() or ()

    implementations = {name: Implementation(run, prepare(run), work=num_tokens, error=error)
                       for name, (run, error) in runs_with_errors(tokens, model).items()}
    shape = f"{rows} x 32 tokens" if lengths == "full" else f"{rows} rows of {num_tokens / rows:.1f} tokens"
    compare(implementations, title=f"H = {hidden_size}, {shape}, {cache} cache", unit="token",
            baseline="eager reference", rounds=ROUNDS[hidden_size],
            targets=TARGETS if (hidden_size, lengths, cache) == CASES[0] else [],
            conditions=f"V = {VOCAB_SIZE}, Zipf-distributed ids, 2 labels, no dendrite, one thread, seed {SEED}; "
                       "packed: int32 ids; padded: int64 ids and mask; folded: the head is in the tables, which are "
                       "full-width otherwise; the error is that of the logits; embedding_bag: mode sum, packed int32 "
                       "ids, no LayerNorm and no head")


@pytest.mark.parametrize("num_dendrites", [0, 1, 3])
@torch.inference_mode()
def test_dendrites(compare, num_dendrites: int) -> None:
    tokens, model = make_tokens(row_lengths("full")), make_weights(128, num_dendrites)
    truth = eager_logits(tokens.padded, tokens.attention_mask, model.double())
    runs: dict[str, Callable[[], Tensor]] = {
        "eager reference": partial(eager_logits, tokens.padded, tokens.attention_mask, model)}
    runs |= {f"{backend} fp32 packed": fused(tokens, model, torch.float32, "packed", backend)
             for backend in backends.BACKENDS if backends.refusal(backend, "dsn_logits", "cpu", torch.float32) is None}
    compare({name: Implementation(run, hot(run), work=tokens.packed.numel(), error=largest_error(run(), truth))
             for name, run in runs.items()},
            title=f"H = 128, 1024 x 32 tokens, {num_dendrites} dendrites", unit="token", baseline="eager reference",
            targets=[], rounds=ROUNDS[128],
            conditions=f"V = {VOCAB_SIZE}, 2 labels, hot cache, one thread, seed {SEED}")


def empty_op() -> Callable[..., Tensor]:
    """An op that does nothing, registered in Python with the schema of ``dsn_logits``."""
    _, parenthesis, signature = str(torch.ops.dendritic_bert.dsn_logits_cpu.default._schema).partition("(")
    LIBRARY.define("empty" + parenthesis + signature)
    logits = torch.zeros(1, NUM_LABELS)
    LIBRARY.impl("empty", lambda *_: logits, "CPU")
    return torch.ops.dendritic_bert_bench.empty.default


@torch.inference_mode()
def test_single_row(compare) -> None:
    """One row of 32 tokens: what a call costs when there is hardly anything to compute."""
    tokens, model = make_tokens(row_lengths("full")[:1]), make_weights(128)
    table = prepare.prepare_table(*model.embeddings[:3])
    head = prepare.prepare_head(*model.embeddings[3:], *model.head)
    arguments = (tokens.packed, table.word, table.word_scale, table.context, table.eps, *head[:5], 0, None,
                 tokens.cu_seqlens, None, None, 0)
    runs = {name: entry for name, entry in runs_with_errors(tokens, model).items()
            if any(kind in name for kind in ("fp32", "eager", "folded"))}
    runs["empty op, registered in Python"] = (partial(empty_op(), *arguments), None)
    empty = "empty op, registered in Python"
    compare({name: Implementation(run, hot(run), calls=2 if SMALL else 200, error=error)
             for name, (run, error) in runs.items()},
            title="H = 128, one row of 32 tokens", unit="call", baseline=empty, rounds=ROUNDS[128],
            targets=[Target("cpu folded packed", empty, at_most=3), Target("cpu fp32 packed", empty, at_most=3)],
            conditions=f"V = {VOCAB_SIZE}, 2 labels, 200 calls in a loop, hot cache, one thread, seed {SEED}; the "
                       "empty op has the schema of dsn_logits and returns a tensor that it already has")
