"""What holds for any batch: a row's result depends on no other row, nor on the layout or the padding.

The kernels give the same bits. The reference sums a packed row in another order than a padded one, and BLAS rounds a
row in a way that depends on the batch, so that the reference is held to the bound of rounding. So are the Triton
kernels where the shape differs, since another shape is cut into other tiles, which sum in another order;
tests/interpreted/properties.py runs them.

The rows here are short. Longer ones are summed in parts that are cut by column: on a CPU every 256 columns
(csrc/cpu/tokens.h), so that beyond them holes in a mask, or padding in front of a row, move the cuts and change the
last bits; in CUDA by a plan that follows from the batch's shape as well (csrc/cuda/plan.h).
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from cases import VOCAB_SIZE, exact_logits, exact_pooled, head, moved, parameters, pooled_and_gradients
from helpers import each_backend, rounding_bound, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rounding import Rounded, tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends import triton as triton_backend
from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS, DsnHead, DsnTable
from dendritic_bert.kernels.prepare import prepare_head, prepare_table
from dendritic_bert.kernels.reference import EMBED_STREAM, POOL_STREAM, dropout_keep

NUM_POSITIONS = 40
# Few examples under Triton's interpreter, where one program takes milliseconds.
any_case = settings(max_examples=5 if triton_backend.INTERPRETED else 60, deadline=None, derandomize=True,
                    suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Call:
    """An op with everything but its tokens."""

    op: str
    hidden_size: int
    dtype: torch.dtype
    pooling: str
    p_embed: float
    p_pool: float
    activation: str
    seed: int = 99

    def parameters(self, device: str) -> dict[str, torch.Tensor]:
        dtype = torch.float32 if self.dtype == torch.int8 else self.dtype
        return moved(parameters(self.hidden_size, dtype, num_positions=NUM_POSITIONS), device)

    def prepared(self, device: str) -> tuple[DsnTable, DsnHead]:
        values = self.parameters(device)
        return (prepare_table(*list(values.values())[:3], dtype=self.dtype),
                prepare_head(values["ln_weight"], values["ln_bias"], activation=self.activation,
                             **moved(head(self.hidden_size, 3, 2), device)))

    def __call__(self, backend: str, device: str, arguments: dict) -> torch.Tensor:
        arguments = moved(arguments, device)
        if self.op == "embed_pool":
            return ops.embed_pool(**arguments, **self.parameters(device), pooling=self.pooling, p_embed=self.p_embed,
                                  p_pool=self.p_pool, seed=self.seed, backend=backend)
        table, dsn_head = self.prepared(device)
        return ops.dsn_logits(**arguments, table=table, head=dsn_head, pooling=self.pooling, backend=backend)

    def exactly(self, arguments: dict) -> Rounded:
        if self.op == "embed_pool":
            return exact_pooled(**arguments, **tracked(self.parameters("cpu")), pooling=self.pooling,
                                p_embed=self.p_embed, p_pool=self.p_pool, seed=torch.tensor(self.seed))
        return exact_logits(arguments, *self.prepared("cpu"), self.pooling)

    def exact_gradients(self, arguments: dict) -> dict[str, Rounded]:
        return pooled_and_gradients(exact_pooled, tracked(self.parameters("cpu")), **arguments, pooling="mean_masked",
                                    p_embed=self.p_embed, p_pool=self.p_pool, seed=torch.tensor(3))


def calls(dropout: bool = False, poolings: tuple[str, ...] = POOLINGS) -> st.SearchStrategy[Call]:
    ops_and_dtypes = [(op, dtype) for op in ("embed_pool", "dsn_logits")
                      for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int8)
                      if (op, dtype) != ("embed_pool", torch.int8) and (op == "embed_pool" or not dropout)]
    rates = st.sampled_from([0.2, 0.7]) if dropout else st.just(0.0)
    return st.builds(lambda op_and_dtype, **options: Call(*op_and_dtype[:1], dtype=op_and_dtype[1], **options),
                     st.sampled_from(ops_and_dtypes), hidden_size=st.sampled_from([3, 16, 20, 64, 96, 128, 129, 200]),
                     pooling=st.sampled_from(poolings), p_embed=rates, p_pool=rates,
                     activation=st.sampled_from(list(ACTIVATIONS)))


@st.composite
def rows_of_tokens(draw, min_rows: int = 1, max_length: int = 20) -> list[list[tuple[int, int]]]:
    """Rows of (id, token type), some of them empty."""
    lengths = draw(st.lists(st.integers(0, max_length), min_size=min_rows, max_size=20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return [list(zip(torch.randint(VOCAB_SIZE, (length,), generator=generator).tolist(),
                     torch.randint(2, (length,), generator=generator).tolist())) for length in lengths]


def packed(rows: list[list[tuple[int, int]]]) -> dict[str, torch.Tensor]:
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int64).view(-1, 2)
    lengths = torch.tensor([0, *map(len, rows)])
    return {"input_ids": tokens[:, 0], "token_type_ids": tokens[:, 1], "cu_seqlens": lengths.cumsum(0)}


def padded(rows: list[list[tuple[int, int]]], extra: int = 0, garbage: tuple[int, int] = (0, 0)
           ) -> dict[str, torch.Tensor]:
    """Padded on the right to ``extra`` columns more than the longest row has; padding holds ``garbage``."""
    length = max(map(len, rows), default=0) + extra
    tokens = torch.tensor([row + [garbage] * (length - len(row)) for row in rows], dtype=torch.int64)
    tokens = tokens.view(len(rows), length, 2)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]).view(len(rows), length)
    return {"input_ids": tokens[..., 0], "token_type_ids": tokens[..., 1], "attention_mask": mask}


def assert_same(actual: torch.Tensor, expected: torch.Tensor, backend: str, exactly: Callable[[], Rounded], *,
                same_shape: bool = False) -> None:
    """``same_shape``: whether the two batches have equal numbers of rows, tokens and columns. ``exactly`` is the
    reference on tracked values: results that agree only up to rounding may differ by twice its bound."""
    if backend == "reference" or (backend == "triton" and not same_shape):
        assert actual.dtype == expected.dtype
        bound = rounding_bound(exactly(), actual.dtype)
        assert ((actual.double() - expected.double()).abs().cpu() <= 2 * bound).all()
    else:
        assert torch.equal(actual, expected)


@any_case
@given(call=calls(), rows=rows_of_tokens(), order=st.randoms(use_true_random=False))
@each_backend
def test_permuted_rows_give_permuted_results(backend, device, call, rows, order):
    permutation = list(range(len(rows)))
    order.shuffle(permutation)
    for layout in (padded, packed):
        expected = call(backend, device, layout(rows))[permutation]
        batch = layout([rows[b] for b in permutation])
        actual = call(backend, device, batch)
        assert_same(actual, expected, backend, lambda batch=batch: call.exactly(batch), same_shape=True)


@any_case
@given(call=calls(), first=rows_of_tokens(), second=rows_of_tokens())
@each_backend
def test_concatenated_batches_give_concatenated_results(backend, device, call, first, second):
    together = call(backend, device, packed(first + second))
    apart = torch.cat([call(backend, device, packed(rows)) for rows in (first, second)])
    assert_same(together, apart, backend, lambda: call.exactly(packed(first + second)))


@any_case
@given(call=st.one_of(calls(), calls(dropout=True)), rows=rows_of_tokens(), extra=st.integers(0, 9))
@each_backend
def test_padded_is_packed(backend, device, call, rows, extra):
    """With dropout too: a token draws the same mask in either layout."""
    if call.pooling == "mean_masked":
        actual, expected = (call(backend, device, batch) for batch in (padded(rows, extra), packed(rows)))
        assert_same(actual, expected, backend, lambda: call.exactly(packed(rows)))
    else:  # the other poolings count padding, so that the batch must have none
        same_length = [row[:min(map(len, rows))] for row in rows]
        unmasked = {name: value for name, value in padded(same_length).items() if name != "attention_mask"}
        assert_same(call(backend, device, unmasked), call(backend, device, packed(same_length)), backend,
                    lambda: call.exactly(packed(same_length)))


@any_case
@given(call=calls(poolings=("mean_masked",)), rows=rows_of_tokens(),
       seed=st.integers(0, 2**31), mask_dtype=st.sampled_from([torch.bool, torch.int32, torch.float32]))
@each_backend
def test_holes_in_the_mask_are_tokens_that_are_not_there(backend, device, call, rows, seed, mask_dtype):
    batch = padded(rows)
    batch["attention_mask"] *= torch.rand(batch["input_ids"].shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    is_valid = batch["attention_mask"] != 0
    columns = torch.arange(is_valid.shape[1]).expand(is_valid.shape)
    squeezed = {name: batch[name][is_valid] for name in ("input_ids", "token_type_ids")}
    squeezed |= {"position_ids": columns[is_valid],
                 "cu_seqlens": torch.cat([torch.zeros(1, dtype=torch.int64), is_valid.sum(dim=1).cumsum(0)])}
    batch["attention_mask"] = batch["attention_mask"].to(mask_dtype)
    assert_same(call(backend, device, batch), call(backend, device, squeezed), backend, lambda: call.exactly(squeezed))


@any_case
@given(call=st.one_of(calls(poolings=("mean_masked",)), calls(dropout=True, poolings=("mean_masked",))),
       rows=rows_of_tokens(), extra=st.integers(0, 5),
       garbage=st.sampled_from([(VOCAB_SIZE, 0), (-1, -1), (2**62, 2**62), (-(2**62), 5), (7, 1)]))
@each_backend
def test_what_stands_at_padding_never_matters(backend, device, call, rows, extra, garbage):
    clean, dirty = padded(rows, extra), padded(rows, extra, garbage)
    positions = torch.arange(clean["input_ids"].shape[1]).expand(clean["input_ids"].shape)
    dirty["position_ids"] = torch.where(dirty["attention_mask"] != 0, positions, garbage[0])
    assert torch.equal(call(backend, device, dirty), call(backend, device, clean))


@any_case
@given(call=st.one_of(calls(), calls(dropout=True)), rows=rows_of_tokens())
@each_backend
def test_int32_is_int64(backend, device, call, rows):
    for batch in (padded(rows), packed(rows)):
        narrow = {name: value.to(torch.int32) for name, value in batch.items()}
        assert torch.equal(call(backend, device, narrow), call(backend, device, batch))


@any_case
@given(call=calls(), rows=rows_of_tokens())
@each_backend
def test_defaults_are_type_0_and_the_column(backend, device, call, rows):
    for batch in (padded(rows), packed(rows)):
        plain = {name: value for name, value in batch.items() if name != "token_type_ids"}
        if "cu_seqlens" in batch:
            columns = torch.tensor([column for row in rows for column in range(len(row))], dtype=torch.int64)
        else:
            columns = torch.arange(batch["input_ids"].shape[1]).expand(batch["input_ids"].shape)
        explicit = plain | {"token_type_ids": torch.zeros_like(batch["input_ids"]), "position_ids": columns}
        assert torch.equal(call(backend, device, explicit), call(backend, device, plain))


@any_case
@given(call=st.one_of(calls(), calls(dropout=True)), rows=rows_of_tokens(), extra=st.integers(1, 5))
@each_backend
def test_what_no_token_asks_for_gets_no_gradient(backend, device, call, rows, extra):
    """The gradient is exactly 0 for ids, positions and types that no valid token has."""
    if call.op == "dsn_logits":
        call = Call(**(call.__dict__ | {"op": "embed_pool", "dtype": torch.float32}))
    batch = padded([[(i % 40, k) for i, k in row] for row in rows], extra, garbage=(60, 1))
    options = {"pooling": "mean_masked", "p_embed": call.p_embed, "p_pool": call.p_pool, "seed": 3, "backend": backend}
    gradients = pooled_and_gradients(ops.embed_pool, call.parameters(device), **moved(batch, device), **options)
    is_valid = batch["attention_mask"] != 0
    columns = torch.arange(is_valid.shape[1]).expand(is_valid.shape)
    for name, indices in (("word_embeddings", batch["input_ids"]), ("position_embeddings", columns),
                          ("token_type_embeddings", batch["token_type_ids"])):
        occurring = set(indices[is_valid].tolist())
        touched = gradients[name].cpu().any(dim=1)
        assert not touched[[i for i in range(touched.numel()) if i not in occurring]].any()
    sparse = pooled_and_gradients(ops.embed_pool, call.parameters(device), **moved(batch, device), **options,
                                  sparse_grad=True)
    exact = call.exact_gradients(batch)["word_embeddings"]
    if backend == "reference":  # autograd adds a sparse gradient up in its own dtype
        exact.squares *= (torch.finfo(call.dtype).eps / torch.finfo(torch.float32).eps)**2
    assert_same(sparse["word_embeddings"].to_dense(), gradients["word_embeddings"], backend, lambda: exact)


@any_case
@given(call=calls(dropout=True), rows=rows_of_tokens())
@each_backend
def test_gradients_of_padded_are_those_of_packed(backend, device, call, rows):
    options = {"pooling": "mean_masked", "p_embed": call.p_embed, "p_pool": call.p_pool, "seed": 3, "backend": backend}
    first, second = (pooled_and_gradients(ops.embed_pool, call.parameters(device), **moved(batch, device), **options)
                     for batch in (padded(rows, 3), packed(rows)))
    for name in first:
        assert_same(first[name], second[name], backend, lambda name=name: call.exact_gradients(packed(rows))[name])


@pytest.mark.parametrize("p", [0.25, 0.5])
@pytest.mark.parametrize(("argument", "stream"), [("p_embed", EMBED_STREAM), ("p_pool", POOL_STREAM)])
@each_backend
def test_every_backend_draws_the_same_mask(argument, stream, p, backend, device):
    """With gamma 0 and beta 1 every x_t is 1, so that the pooled row of one token is its mask."""
    values = moved(parameters(52), device)
    values |= {"ln_weight": torch.zeros(52, device=device), "ln_bias": torch.ones(52, device=device)}
    seed = -(2**41) - 5
    pooled = ops.embed_pool(torch.zeros(6, 1, dtype=torch.int64, device=device), **values, **{argument: p}, seed=seed,
                            backend=backend)
    keep = dropout_keep(torch.tensor(seed), torch.arange(6), torch.zeros(6, dtype=torch.int64), 52, p, stream)
    torch.testing.assert_close(pooled.cpu(), keep / (1 - p))


ZEROS = [(op, *pair) for op in ("embed_pool", "dsn_logits", "dsn_token_logits") for pair in serving(op, torch.float32)]


@pytest.mark.parametrize(("op", "backend", "device"), ZEROS, ids=map("-".join, ZEROS))
def test_a_token_of_zeros(op, backend, device):
    """Its variance is 0, so that without eps it would be 0 / 0."""
    values = {name: torch.zeros_like(value) for name, value in parameters(20).items()}
    values = moved(values | {"ln_bias": torch.arange(20.0)}, device)
    input_ids = torch.tensor([[3, 5]], device=device)
    if op == "embed_pool":
        assert torch.equal(ops.embed_pool(input_ids, **values, backend=backend)[0], values["ln_bias"])
        return
    head_values = moved(head(20, 3, 0), device)
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head_values)
    actual = getattr(ops, op)(input_ids, prepare_table(*list(values.values())[:3]), dsn_head, backend=backend)
    expected = head_values["weight"] @ values["ln_bias"] + head_values["bias"]
    torch.testing.assert_close(actual.reshape(-1, 3), expected.expand(actual.numel() // 3, 3))
