"""Forward + backward of ``embed_pool`` and of ``window_pool``: the gradients of all parameters, beside eager autograd
and torch.compile."""

from functools import partial

import numpy as np
import pytest
import torch
from baselines import compiled
from convolutions import DENDRITES, HIDDEN_SIZE, LAYERS, RADIUS, WORDS, convolution_pool, make_parameters
from harness import Implementation, Target, gradients, hot, relative_error
from torch import Tensor
from workload import SEED, SMALL, VOCAB_SIZE, make_tokens, make_weights, row_lengths

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.reference import embed_pool_ref

ROUNDS = 2 if SMALL else 25
TARGETS = [Target("cpu packed, dense", "eager autograd", at_least=8)]
WINDOW_TARGETS = [Target("windows, cpu padded", "conv1d, eager", at_least=2)]


@pytest.mark.parametrize(("hidden_size", "lengths"), [(128, "full"), (128, "ragged"), (16, "full"), (384, "full")])
def test_forward_and_backward(compare, hidden_size: int, lengths: str) -> None:
    tokens = make_tokens(row_lengths(lengths))
    embeddings = tuple(tensor.requires_grad_() for tensor in make_weights(hidden_size).embeddings)
    rows, num_tokens = tokens.padded.shape[0], tokens.packed.numel()
    grad_pooled = torch.randn(rows, hidden_size, generator=torch.Generator().manual_seed(SEED))
    packed, padded = {"cu_seqlens": tokens.cu_seqlens}, {"attention_mask": tokens.attention_mask}

    def eager(*parameters: Tensor) -> Tensor:
        return embed_pool_ref(tokens.padded, *parameters, **padded)

    def fused(*parameters: Tensor, backend: str, layout: str, sparse_grad: bool) -> Tensor:
        if layout == "packed":
            return ops.embed_pool(tokens.packed, *parameters, **packed, sparse_grad=sparse_grad, backend=backend)
        return ops.embed_pool(tokens.padded, *parameters, **padded, sparse_grad=sparse_grad, backend=backend)

    embeds = {"eager autograd": eager, "eager autograd, torch.compile": compiled(eager)}
    for backend in backends.KERNEL_BACKENDS:
        if backends.refusal(backend, "embed_pool", "cpu", torch.float32) is None:
            dense = partial(fused, backend=backend, layout="packed", sparse_grad=False)
            embeds |= {f"{backend} packed, dense": dense,
                       f"{backend} packed, dense, torch.compile": compiled(dense),
                       f"{backend} padded, dense": partial(dense, layout="padded"),
                       f"{backend} packed, sparse": partial(dense, sparse_grad=True)}
    runs = {name: partial(gradients, embed, embeddings, grad_pooled) for name, embed in embeds.items()}
    truth = gradients(eager, tuple(tensor.detach().double().requires_grad_() for tensor in embeddings),
                      grad_pooled.double())
    shape = f"{rows} x 32 tokens" if lengths == "full" else f"{rows} rows of {num_tokens / rows:.1f} tokens"
    compare({name: Implementation(run, hot(run), work=num_tokens, error=relative_error(run(), truth))
             for name, run in runs.items()},
            title=f"Forward + backward, H = {hidden_size}, {shape}", unit="token", baseline="eager autograd",
            targets=TARGETS if (hidden_size, lengths) == (128, "full") else [], rounds=ROUNDS,
            conditions=f"V = {VOCAB_SIZE}, Zipf-distributed ids, fp32, gradients of the word, position and type "
                       f"tables, gamma and beta, no dropout, hot cache, one thread, seed {SEED}; the error is the "
                       "largest of any gradient, relative to the largest entry of that gradient; sparse: the gradient "
                       "of the word table is a sparse COO tensor")


def test_windows(compare) -> None:
    tokens = make_tokens(np.full(8 if SMALL else 512, 20), WORDS)
    *parameters, _, _ = (tensor.requires_grad_() for tensor in make_parameters())
    rows, num_tokens = tokens.padded.shape[0], tokens.packed.numel()
    grad_pooled = torch.randn(rows, HIDDEN_SIZE + DENDRITES, generator=torch.Generator().manual_seed(SEED))
    packed, padded = {"cu_seqlens": tokens.cu_seqlens}, {"attention_mask": tokens.attention_mask}

    def by_convolution(*parameters: Tensor) -> Tensor:
        return convolution_pool(tokens.padded, tokens.attention_mask, *parameters)

    def pool(word: Tensor, types: Tensor, *others: Tensor, input_ids: Tensor, backend: str, **layout: Tensor) -> Tensor:
        return ops.window_pool(input_ids, word, types, None, None, *others, **layout, backend=backend)

    pools = {"conv1d, eager": by_convolution, "conv1d, torch.compile": compiled(by_convolution)}
    for backend in backends.BACKENDS:
        if backends.refusal(backend, "window_pool", "cpu", torch.float32) is None:
            on_backend = partial(pool, backend=backend)
            pools |= {f"windows, {backend} padded": partial(on_backend, input_ids=tokens.padded, **padded),
                      f"windows, {backend} packed": partial(on_backend, input_ids=tokens.packed, **packed)}
    runs = {name: partial(gradients, function, tuple(parameters), grad_pooled) for name, function in pools.items()}
    truth = gradients(by_convolution, tuple(tensor.detach().double().requires_grad_() for tensor in parameters),
                      grad_pooled.double())
    compare({name: Implementation(run, hot(run), work=num_tokens, error=relative_error(run(), truth))
             for name, run in runs.items()},
            title=f"Forward + backward with windows, {rows} x 20 tokens", unit="token", baseline="conv1d, eager",
            targets=WINDOW_TARGETS, rounds=ROUNDS,
            conditions=f"V = {WORDS}, H = {HIDDEN_SIZE}, M = {DENDRITES}, J = {LAYERS}, radius {RADIUS}, gated mean, "
                       f"no LayerNorm, no dropout, Zipf-distributed ids, fp32, one thread, hot cache, seed {SEED}; the "
                       "error is the largest of any gradient, relative to the largest entry of that gradient")
