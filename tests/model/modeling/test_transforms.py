"""functorch's transforms and forward-mode derivatives: on the reference they work, elsewhere one sentence names it."""

import subprocess
import sys

import pytest
import torch
from cases import head, parameters, tokens
from helpers import KERNELS
from torch.autograd import forward_ad

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.prepare import fold, prepare_head, prepare_table

BACKENDS = [pair[0] for pair in KERNELS if pair[1] == "cpu"]
VALUES = parameters(16)
INPUTS = tokens("padded with holes", 3, 5)
WORDS = VALUES["word_embeddings"]


def pooled(words, backend=None, **inputs):
    return ops.embed_pool(**INPUTS | inputs, **VALUES | {"word_embeddings": words}, backend=backend)


def loss(words, backend=None):
    return pooled(words, backend).square().sum()


def dual(backend):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(pooled(forward_ad.make_dual(WORDS, WORDS), backend)).tangent


TRANSFORMS = {
    "grad": lambda backend: torch.func.grad(loss)(WORDS, backend),
    "vjp": lambda backend: torch.func.vjp(lambda words: pooled(words, backend), WORDS)[1](torch.ones(3, 16))[0],
    "jvp": lambda backend: torch.func.jvp(lambda words: pooled(words, backend), (WORDS,), (WORDS,))[1],
    "vmap": lambda backend: torch.vmap(lambda words: pooled(words, backend))(torch.stack([WORDS, 2 * WORDS])),
    "vmap of ids": lambda backend: torch.vmap(lambda ids: pooled(WORDS, backend, input_ids=ids))(
        torch.stack([INPUTS["input_ids"]] * 2)),
    "dual": dual,
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("backend", [None, *BACKENDS])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_transforms_name_the_backend(name, backend):
    with pytest.raises(RuntimeError) as error:
        TRANSFORMS[name](backend)
    assert str(error.value) == (
        "embed_pool has no kernel for functorch transforms (vmap, grad, jvp) and forward-mode derivatives: "
        'pass backend="reference" or set DENDRITIC_BERT_BACKEND=reference.')


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_reference_has_them_all():
    """Beside reverse mode, and for the Jacobian-vector product differences of float64."""
    leaf = WORDS.clone().requires_grad_()
    found = {name: transform("reference") for name, transform in TRANSFORMS.items()}
    (grad,) = torch.autograd.grad(loss(leaf, "reference"), leaf)
    torch.testing.assert_close(found["grad"], grad)
    (grad,) = torch.autograd.grad(pooled(leaf, "reference").sum(), leaf)
    torch.testing.assert_close(found["vjp"], grad)
    for number, stacked in enumerate([WORDS, 2 * WORDS]):
        torch.testing.assert_close(found["vmap"][number], pooled(stacked, "reference"))
        torch.testing.assert_close(found["vmap of ids"][number], pooled(WORDS, "reference"))
    wide = {name: value.double() for name, value in VALUES.items()}
    ends = [ops.embed_pool(**INPUTS, **wide | {"word_embeddings": (1 + step) * wide["word_embeddings"]},
                           backend="reference") for step in (1e-6, -1e-6)]
    slope = ((ends[0] - ends[1]) / 2e-6).float()
    torch.testing.assert_close(found["jvp"], slope, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["dual"], slope, rtol=1e-3, atol=1e-4)


def test_inference_ops_name_it_too():
    table = prepare_table(*list(VALUES.values())[:3])
    dsn_head = prepare_head(VALUES["ln_weight"], VALUES["ln_bias"], **head(16, 2, 1))
    folded = fold(table, dsn_head)
    calls = {"dsn_logits": lambda ids, backend: ops.dsn_logits(ids, table, dsn_head, backend=backend),
             "dsn_logits_folded": lambda ids, backend: ops.dsn_logits_folded(ids, folded, backend=backend),
             "dsn_token_logits": lambda ids, backend: ops.dsn_token_logits(ids, table, dsn_head, backend=backend)}
    ids = torch.stack([INPUTS["input_ids"], INPUTS["input_ids"].flip(0)])
    for name, call in calls.items():
        with pytest.raises(RuntimeError, match=f"^{name} has no kernel for functorch transforms"):
            torch.vmap(lambda one, call=call: call(one, None))(ids)
        for one, expected in zip(torch.vmap(lambda one, call=call: call(one, "reference"))(ids), ids, strict=True):
            torch.testing.assert_close(one, call(expected, "reference"))


MODEL = """
import sys, torch
from dendritic_bert import DendriticBertConfig, DendriticBertForSequenceClassification
torch.manual_seed(0)
config = DendriticBertConfig(vocab_size=50, hidden_size=16, max_position_embeddings=20, hidden_dropout_prob=0.0)
model = DendriticBertForSequenceClassification(config)
ids = torch.randint(50, (3, 5))
weights = dict(model.named_parameters())
def loss(weights):
    return torch.func.functional_call(model, weights, (ids,)).logits.square().sum()
gradients = torch.func.grad(loss)(weights)
loss(weights).backward()
for name, weight in weights.items():
    torch.testing.assert_close(gradients[name], weight.grad)
torch.func.jvp(loss, (weights,), (weights,))
many = {name: torch.stack([weight, weight]) for name, weight in weights.items()}
with torch.no_grad():
    assert torch.vmap(loss)(many).shape == (2,)
    torch.testing.assert_close(torch.vmap(loss)(many)[1], loss(weights))
"""


@pytest.mark.parametrize("backend", ["reference", None])
def test_through_the_model(backend, monkeypatch):
    monkeypatch.delenv("DENDRITIC_BERT_BACKEND", raising=False)
    if backend is not None:
        monkeypatch.setenv("DENDRITIC_BERT_BACKEND", backend)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MODEL], capture_output=True, text=True)
    if backend is None and BACKENDS:
        assert "embed_pool has no kernel for functorch transforms" in done.stderr.splitlines()[-1]
    else:
        assert done.returncode == 0, done.stderr
