"""Forward + backward of ``embed_pool``: gradients of all five parameters, beside eager autograd and torch.compile."""

from functools import partial

import pytest
import torch
from baselines import compiled
from harness import Implementation, Target, gradients, hot, relative_error
from torch import Tensor
from workload import SEED, SMALL, VOCAB_SIZE, make_tokens, make_weights, row_lengths

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.reference import embed_pool_ref

ROUNDS = 2 if SMALL else 25
TARGETS = [Target("cpu packed, dense", "eager autograd", at_least=8)]


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
