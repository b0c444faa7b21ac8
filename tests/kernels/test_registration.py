"""The registered operators: opcheck, gradients by differences, torch.compile and torch.export."""

import itertools

import pytest
import torch
from cases import LAYOUTS, head, in_float64, moved, parameters, pooled_and_gradients, random_gradient, tokens
from dsn_workload import in_view
from helpers import CHECKING, KERNELS, OperatorCalls, each_backend, each_kernel, serving
from torch import nn
from window_workload import prepared as prepare_windowed
from window_workload import window_head, window_parameters

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends import triton as triton_backend
from dendritic_bert.kernels.contract import POOLINGS
from dendritic_bert.kernels.prepare import fold, prepare_head, prepare_table
from dendritic_bert.kernels.prepare_int8 import quantise_windows
from dendritic_bert.kernels.reference import embed_pool_ref

# Two of them under Triton's interpreter, where an opcheck takes two seconds, each with one dtype of the two.
OPCHECK_LAYOUTS = ("padded with holes", "packed int32") if triton_backend.INTERPRETED else LAYOUTS
OPCHECK_TABLES = list((zip if triton_backend.INTERPRETED else itertools.product)(
    OPCHECK_LAYOUTS, (torch.float32, torch.bfloat16)))
DROPOUT = {"p_embed": 0.2, "p_pool": 0.3, "seed": 5}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def prepared(device: str, dtype: torch.dtype = torch.float32, hidden_size: int = 20):
    values = moved(parameters(hidden_size), device)
    return (prepare_table(*list(values.values())[:3], dtype=dtype),
            prepare_head(values["ln_weight"], values["ln_bias"], **moved(head(hidden_size, 3, 2), device)))


def operator_call(op: str, **arguments) -> tuple:
    """The backend's operator that the op's public function calls, and what it hands to it."""
    with OperatorCalls() as recorded:
        getattr(ops, op)(**arguments)
    ((operator, values),) = recorded.calls
    return operator, values


@pytest.mark.parametrize(("layout", "dtype"), OPCHECK_TABLES)
@pytest.mark.parametrize("options", [{}, DROPOUT, {"sparse_grad": True}], ids=str)
@each_kernel
def test_opcheck_embed_pool(layout, options, dtype, backend, device):
    values = moved(parameters(20, dtype), device)
    values["position_embeddings"] = values["position_embeddings"].t().contiguous().t()
    values = {name: value.requires_grad_() for name, value in values.items()}
    token_arguments = moved(tokens(layout, 4, 6, token_types=True), device)
    operator, arguments = operator_call("embed_pool", **token_arguments, **values, **options, backend=backend)
    # opcheck's own comparison of gradients takes no sparse ones; the rest of it does.
    sparse = {"test_utils": ("test_schema", "test_autograd_registration", "test_faketensor")}
    torch.library.opcheck(operator, arguments, **(sparse if "sparse_grad" in options else {}))

    _, pooled_hat, rstd = operator(*arguments)
    backward_op = getattr(torch.ops.dendritic_bert, f"embed_pool_backward_{backend}").default
    grad_pooled = torch.randn(pooled_hat.shape).to(pooled_hat.device, dtype)
    detached = [value.detach() if isinstance(value, torch.Tensor) else value for value in arguments]
    torch.library.opcheck(backward_op, (grad_pooled, pooled_hat.detach(), rstd.detach(), *detached))


WINDOW_POOL = [pair for pair in serving("window_pool", torch.float32) if pair in KERNELS]


@pytest.mark.parametrize("layout", OPCHECK_LAYOUTS)
@pytest.mark.parametrize("options", [{}, DROPOUT | {"p_window": 0.2}], ids=["", "dropout"])
@pytest.mark.parametrize(("layers", "has_norm", "has_gate"), [(3, True, True), (0, False, False)])
@pytest.mark.parametrize(("backend", "device"), WINDOW_POOL, ids=map("-".join, WINDOW_POOL))
def test_opcheck_window_pool(layout, options, layers, has_norm, has_gate, backend, device):
    values = window_parameters(layers=layers, has_norm=has_norm, has_gate=has_gate)
    leaves = {name: None if value is None else value.requires_grad_() for name, value in values.items()}
    token_arguments = tokens(layout, 4, 6, token_types=True)
    operator, arguments = operator_call("window_pool", **token_arguments, **leaves, **options, backend=backend)
    torch.library.opcheck(operator, arguments)
    backward_op = getattr(torch.ops.dendritic_bert, f"window_pool_backward_{backend}").default
    detached = [value.detach() if isinstance(value, torch.Tensor) else value for value in arguments]
    torch.library.opcheck(backward_op, (torch.randn(operator(*detached).shape), *detached))


@pytest.mark.parametrize(("backend", "device"), WINDOW_POOL, ids=map("-".join, WINDOW_POOL))
def test_compiled_window_pool_with_backward(backend, device):
    values = window_parameters(has_norm=True)
    compiled = torch.compile(ops.window_pool, fullgraph=True, backend="aot_eager")
    token_arguments = tokens("padded with holes", 4, 6)
    expected, actual = (pooled_and_gradients(function, values, **token_arguments, backend=backend)
                        for function in (ops.window_pool, compiled))
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", OPCHECK_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
@each_kernel
def test_opcheck_dsn_logits(layout, dtype, backend, device):
    table, dsn_head = prepared(device, dtype)
    token_arguments = moved(tokens(layout, 4, 6, positions=True, num_positions=8), device)
    torch.library.opcheck(*operator_call("dsn_logits", **token_arguments, table=table, head=dsn_head, backend=backend))


OTHER_OPS = [(op, *pair) for op in ("dsn_token_logits", "dsn_logits_folded") for pair in serving(op, torch.float32)
             if pair in KERNELS]


@pytest.mark.parametrize("layout", OPCHECK_LAYOUTS)
@pytest.mark.parametrize(("name", "backend", "device"), OTHER_OPS, ids=map("-".join, OTHER_OPS))
def test_opcheck_the_other_ops(layout, name, backend, device):
    table, dsn_head = prepared(device)
    tables = {"folded": fold(table, dsn_head)} if name == "dsn_logits_folded" else {"table": table, "head": dsn_head}
    token_arguments = moved(tokens(layout, 4, 6, positions=True, num_positions=8), device)
    torch.library.opcheck(*operator_call(name, **token_arguments, **tables, backend=backend))


WINDOWED = [pair for pair in serving("dsn_window_logits", torch.float32) if pair in KERNELS]


@pytest.mark.parametrize("layout", OPCHECK_LAYOUTS)
@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize(("backend", "device"), WINDOWED, ids=map("-".join, WINDOWED))
def test_opcheck_dsn_window_logits(layout, has_gate, backend, device):
    values = window_parameters(has_gate=has_gate)
    windowed = in_view(prepare_windowed(values, window_head(values)), "plain", device)
    token_arguments = moved(tokens(layout, 4, 6, token_types=True), device)
    torch.library.opcheck(*operator_call("dsn_window_logits", **token_arguments, windowed=windowed, backend=backend))


@pytest.mark.parametrize("layout", OPCHECK_LAYOUTS)
@pytest.mark.parametrize(("backend", "device"), [pair for pair in WINDOWED if pair in serving(
    "dsn_window_logits_int8", torch.int8)], ids=str)
def test_opcheck_dsn_window_logits_int8(layout, backend, device):
    values = window_parameters()
    quantised = in_view(quantise_windows(prepare_windowed(values, window_head(values))), "plain", device)
    token_arguments = moved(tokens(layout, 4, 6, token_types=True), device)
    torch.library.opcheck(*operator_call("dsn_window_logits_int8", **token_arguments, quantised=quantised,
                                         backend=backend))


@pytest.mark.parametrize(("layout", "pooling", "options"), [
    *[("padded with holes", pooling, {}) for pooling in POOLINGS], ("packed int64", "mean_masked", {}),
    ("padded with holes", "mean_masked", DROPOUT | {"seed": torch.tensor(5)})], ids=str)
def test_gradcheck_of_the_reference(layout, pooling, options):
    token_arguments = tokens(layout, 3, 4, token_types=True)
    token_arguments["input_ids"] %= 5
    values = in_float64(parameters(5, num_positions=4))
    values["word_embeddings"] = values["word_embeddings"][:5].clone()
    names = list(values)

    def call(*leaves):
        return embed_pool_ref(**token_arguments, **dict(zip(names, leaves)), pooling=pooling, eps=1e-3, **options)

    leaves = tuple(value.requires_grad_() for value in values.values())
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


# Without Triton's interpreter, which takes 13 s per case for the hundreds of calls. The next test has its gradients.
COMPILED = [pair for pair in KERNELS if pair != ("triton", "cpu")]


@pytest.mark.filterwarnings("ignore:Input #")  # gradcheck expects double precision, which no kernel has
@pytest.mark.parametrize(("layout", "pooling", "options"), [
    *[("padded with holes", pooling, {}) for pooling in POOLINGS], ("packed int64", "mean_masked", {}),
    ("padded with holes", "mean_masked", DROPOUT)], ids=str)
@pytest.mark.parametrize(("backend", "device"), COMPILED, ids=map("-".join, COMPILED))
def test_gradcheck_of_a_kernel(layout, pooling, options, backend, device):
    """Every element of the Jacobian, in float32. The differences are off by h^2 and by rounding / h, as below."""
    token_arguments = moved(tokens(layout, 3, 4, token_types=True), device)
    token_arguments["input_ids"] %= 5
    values = moved(parameters(16, num_positions=4), device)
    values["word_embeddings"] = values["word_embeddings"][:5].clone()
    names = list(values)

    def call(*leaves):
        return ops.embed_pool(**token_arguments, **dict(zip(names, leaves)), **options, pooling=pooling,
                              backend=backend)

    leaves = tuple(value.requires_grad_() for value in values.values())
    assert torch.autograd.gradcheck(call, leaves, eps=1e-2, atol=5e-4, rtol=5e-4)


@pytest.mark.parametrize("layout", ["padded with holes", "packed int64"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("options", [{}, DROPOUT], ids=["", "dropout"])
@pytest.mark.parametrize("hidden_size", [20, 64])
@each_kernel
def test_gradients_are_those_of_the_forward(hidden_size, layout, pooling, options, backend, device):
    """Central differences in float32 along random directions, off by h^2 and by rounding / h, both near 1e-3. Under
    Triton's interpreter, which is slow, one direction for each of the 24 cases is enough."""
    token_arguments = moved(tokens(layout, 5, 6, token_types=True), device)
    values = moved(parameters(hidden_size, num_positions=6), device)
    options = options | {"pooling": pooling, "backend": backend} | token_arguments
    gradients = pooled_and_gradients(ops.embed_pool, values, **options)
    grad = random_gradient(gradients["pooled"]).double()
    generator, h = torch.Generator().manual_seed(3), 1e-2
    for name, value in values.items():
        for _ in range(1 if triton_backend.INTERPRETED else 3):
            direction = torch.randn(value.shape, generator=generator).to(device)
            ends = [(ops.embed_pool(**values | {name: value + step * direction}, **options).double() * grad).sum()
                    for step in (h, -h)]
            slope = (gradients[name].double() * direction.double()).sum()
            scale = gradients[name].double().norm()
            assert abs((ends[0] - ends[1]) / (2 * h) - slope) <= 5e-3 * scale + 1e-6, name


@each_kernel
def test_a_second_derivative_is_an_error_and_not_zero(backend, device):
    values = moved(parameters(20), device)
    leaf = values["word_embeddings"].requires_grad_()
    pooled = ops.embed_pool(**values, **moved(tokens("padded", 3, 5), device), backend=backend)
    (grad,) = torch.autograd.grad(pooled.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="embed_pool is differentiable once"):
        grad.square().sum().backward()


@pytest.mark.parametrize(("layout", "options", "compiler"), [
    ("padded", {}, "inductor"), ("packed int64", {}, "aot_eager"), ("padded with holes", DROPOUT, "aot_eager"),
], ids=str)
@each_backend
def test_compiled_embed_pool_with_backward(layout, options, compiler, backend, device):
    values = moved(parameters(20), device)
    compiled = torch.compile(ops.embed_pool, fullgraph=True, backend=compiler)
    token_arguments = moved(tokens(layout, 4, 6, token_types=True), device)
    expected, actual = (pooled_and_gradients(function, values, **token_arguments, **options, backend=backend)
                        for function in (ops.embed_pool, compiled))
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


@torch.fx.experimental._config.patch(use_duck_shape=False)  # else sizes that are equal at first would have to stay so
@pytest.mark.parametrize("layout", ["padded", "packed int64"])
@each_backend
def test_compiled_once_for_all_shapes(layout, backend, device):
    values = moved(parameters(20), device)
    table, dsn_head = prepared(device)

    def both(**token_arguments):
        pooled = ops.embed_pool(**token_arguments, **values, backend=backend)
        return pooled.mean(), ops.dsn_logits(**token_arguments, table=table, head=dsn_head, backend=backend)

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    for number, (rows, length) in enumerate([(5, 6), (3, 7), (10, 6), (7, 2)]):
        token_arguments = moved(tokens(layout, rows, length, token_types=True, seed=number), device)
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            actual = compiled(**token_arguments)
        for value, expected in zip(actual, both(**token_arguments)):
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


@each_backend
def test_compiled_dropout_is_drawn_anew_in_every_call(backend, device):
    values, token_arguments = moved(parameters(20), device), moved(tokens("padded", 4, 6), device)
    compiled = torch.compile(lambda: ops.embed_pool(**token_arguments, **values, p_embed=0.5, backend=backend),
                             fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(), compiled())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@each_backend
def test_compiled_dsn_logits(dtype, backend, device):
    table, dsn_head = prepared(device, dtype)
    token_arguments = moved(tokens("padded with holes", 4, 6), device)

    def call(table, dsn_head):
        return ops.dsn_logits(**token_arguments, table=table, head=dsn_head, backend=backend)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(table, dsn_head), call(table, dsn_head), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("backend", "device"), [pair for pair in CHECKING if pair in KERNELS])
def test_a_bad_id_is_an_error_in_compiled_code_too(backend, device):
    values = moved(parameters(20), device)
    compiled = torch.compile(lambda ids: ops.embed_pool(ids, **values, backend=backend), fullgraph=True,
                             backend="aot_eager")
    compiled(torch.zeros(2, 3, dtype=torch.int64, device=device))
    with pytest.raises(RuntimeError, match="input_ids holds -5 in row 1"):
        compiled(torch.tensor([[0, 0, 0], [0, -5, 0]], device=device))


class Classifier(nn.Module):
    """A small model over embed_pool, as users write them."""

    def __init__(self, backend: str, device: str) -> None:
        super().__init__()
        self.backend = backend
        self.values = nn.ParameterDict(moved(parameters(20), device))
        self.classifier = nn.Linear(20, 3, device=device)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        pooled = ops.embed_pool(input_ids, **self.values, attention_mask=attention_mask, backend=self.backend)
        return self.classifier(pooled)


@each_backend
def test_exported_module(backend, device):
    """Exported on zeros and run on real ids of other shapes, where a value traced as a constant would be wrong."""
    torch.manual_seed(0)
    module = Classifier(backend, device)
    rows, length = torch.export.Dim("rows", min=1, max=512), torch.export.Dim("length", min=2, max=8)
    zeros = torch.zeros(2, 5, dtype=torch.int64, device=device)
    exported = torch.export.export(module, (zeros, torch.ones_like(zeros)), dynamic_shapes=(
        {0: rows, 1: length}, {0: rows, 1: length})).module()
    for shape in ((3, 7), (1, 8), (20, 2)):
        token_arguments = moved(tokens("padded with holes", *shape), device)
        torch.testing.assert_close(exported(*token_arguments.values()), module(**token_arguments), rtol=1e-6, atol=1e-6)
