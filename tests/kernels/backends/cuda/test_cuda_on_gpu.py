"""What only a device can show of the CUDA kernels: streams and graphs. Their results are compared in the tests of the
ops, which run on a GPU if there is one."""

import pytest
import torch
from cases import head, parameters, tokens

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.contract import DsnHead, DsnTable
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

MISSING = backends.availability()["cuda"]
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
DELAY = 10**8  # clocks, about 60 ms


def prepared(device: str) -> tuple[DsnTable, DsnHead]:
    values = parameters(128, num_positions=512)
    table = prepare_table(*list(values.values())[:3], dtype=torch.bfloat16)
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(128, 3, 2))
    return tuple(type(made)(*(value.to(device) if isinstance(value, torch.Tensor) else value for value in made))
                 for made in (table, dsn_head))


def batches(rows: int, length: int, device: str) -> list[torch.Tensor]:
    """Two batches of the same shape with different ids."""
    ids = tokens("padded", rows, length)["input_ids"].to(device)
    return [ids, ids.flip(0, 1)]


# One row per block, rows that share a block, rows that are split over blocks.
SHAPES = [(5, 7), (3000, 8), (2, 512)]


@pytest.mark.parametrize(("rows", "length"), SHAPES)
def test_the_current_stream_is_used(rows, length):
    """The ids arrive late on a stream of their own: a kernel on another stream would have read the first batch."""
    table, dsn_head = prepared("cuda")
    first, second = batches(rows, length, "cuda")
    expected = ops.dsn_logits(second, table, dsn_head, backend="cuda")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(DELAY)
        first.copy_(second)
        actual = ops.dsn_logits(first, table, dsn_head, backend="cuda")
    stream.synchronize()
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(("rows", "length"), SHAPES)
def test_a_graph_replays_the_kernel_on_other_ids(rows, length):
    table, dsn_head = prepared("cuda")
    first, second = batches(rows, length, "cuda")
    expected = [ops.dsn_logits(ids, table, dsn_head, backend="cuda") for ids in (first, second)]
    ids, graph = first.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.dsn_logits(ids, table, dsn_head, backend="cuda")
    for batch, logits in zip((first, second), expected):
        ids.copy_(batch)
        graph.replay()
        assert torch.equal(captured, logits)


def test_a_graph_holds_a_step_of_training(request):
    torch.use_deterministic_algorithms(True)
    request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))
    values = {name: value.cuda().requires_grad_() for name, value in parameters(128, num_positions=32).items()}
    ids = batches(64, 32, "cuda")[0]
    seed = torch.tensor(7, device="cuda")

    def step() -> list[torch.Tensor]:
        pooled = ops.embed_pool(ids, **values, p_embed=0.1, seed=seed, backend="cuda")
        return [pooled, *torch.autograd.grad(pooled.square().sum(), list(values.values()))]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        expected = step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    for actual, value in zip(captured, expected):
        assert torch.equal(actual, value)
