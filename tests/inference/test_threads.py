"""The kernels' results are the same to the bit whatever the number of threads, and from run to run."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import LAYOUTS, head, moved, parameters, pooled_and_gradients, tokens
from helpers import KERNELS, each_kernel

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

THREADS = (1, 2, 3, 7)
# Threads are woken from 2^19 elements on; rows are cut into segments of 256 tokens where one is longer than half of a
# thread's share.
SHAPES = {"many short rows": (700, 12, 128), "a few long rows": (3, 5000, 64), "one long row": (1, 9000, 96),
          "long beside short": (50, 700, 100), "too small for two threads": (4, 9, 20)}
SEED = 11


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def batch(shape: str, layout: str) -> tuple[dict, dict]:
    rows, length, hidden_size = SHAPES[shape]
    arguments = tokens(layout, rows, length, token_types=True)
    if shape == "long beside short" and "attention_mask" in arguments:
        arguments["attention_mask"][1:, 20:] = 0
    return arguments, parameters(hidden_size, num_positions=length)


def assert_the_same_on_any_threads(function) -> None:
    torch.set_num_threads(THREADS[0])
    expected = function()
    for threads in (*THREADS[1:], THREADS[-1]):
        torch.set_num_threads(threads)
        actual = function()
        assert actual.keys() == expected.keys()
        for name, value in actual.items():
            assert torch.equal(value.to_dense(), expected[name].to_dense()), f"{name} on {threads} threads"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[1], LAYOUTS[-1]])
@pytest.mark.parametrize("options", [{}, {"p_embed": 0.2, "p_pool": 0.3, "seed": SEED}, {"sparse_grad": True}], ids=str)
@each_kernel
def test_embed_pool(shape, layout, options, backend, device):
    arguments, values = batch(shape, layout)
    if "seed" in options and shape in ("a few long rows", "one long row"):
        arguments, values = tokens(layout, 2, 3000), parameters(100, num_positions=3000)
    arguments, values = moved(arguments, device), moved(values, device)
    assert_the_same_on_any_threads(lambda: pooled_and_gradients(ops.embed_pool, values, **arguments, **options,
                                                                backend=backend))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
@each_kernel
def test_dsn_logits(shape, layout, dtype, backend, device):
    arguments, values = batch(shape, layout)
    table = prepare_table(*list(values.values())[:3], dtype=dtype)
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(values["ln_weight"].numel(), 3, 2))
    table, dsn_head = (type(prepared)(*(value.to(device) if isinstance(value, torch.Tensor) else value
                                        for value in prepared)) for prepared in (table, dsn_head))
    arguments = moved(arguments, device)
    assert_the_same_on_any_threads(lambda: {"logits": ops.dsn_logits(**arguments, table=table, head=dsn_head,
                                                                     backend=backend)})


@pytest.mark.skipif(("cpu", "cpu") not in KERNELS, reason="the extension was not built")
@pytest.mark.parametrize("row", [0, 350, 699])
def test_a_bad_id_is_reported_from_any_thread(row):
    arguments, values = batch("many short rows", "padded without a mask")
    arguments["input_ids"][row, 5] = -1
    for threads in THREADS:
        torch.set_num_threads(threads)
        with pytest.raises(RuntimeError, match=f"input_ids holds -1 in row {row},"):
            ops.embed_pool(**arguments, **values, backend="cpu")


@pytest.mark.skipif(("cpu", "cpu") not in KERNELS, reason="the extension was not built")
def test_the_first_bad_id_is_named_on_any_threads():
    """One in every thread's share, first among short rows and then among the segments of long ones."""
    arguments, values = batch("many short rows", "padded without a mask")
    arguments["position_ids"] = torch.zeros_like(arguments["input_ids"])
    arguments["position_ids"][[690, 400, 200, 77, 78], 3] = torch.tensor([12, 13, 14, 15, 16])
    for threads in THREADS:
        torch.set_num_threads(threads)
        with pytest.raises(RuntimeError, match="position_ids holds 15 in row 77,"):
            ops.embed_pool(**arguments, **values, backend="cpu")
    long_rows, long_values = batch("a few long rows", "padded without a mask")
    long_rows["input_ids"][[0, 0, 2], [4000, 300, 7]] = torch.tensor([-1, -2, -3])
    for threads in THREADS:
        torch.set_num_threads(threads)
        with pytest.raises(RuntimeError, match="input_ids holds -2 in row 0,"):
            ops.embed_pool(**long_rows, **long_values, backend="cpu")


@pytest.mark.skipif(("cpu", "cpu") not in KERNELS, reason="the extension was not built")
def test_calls_from_several_threads_at_once():
    """The op keeps no state: Python threads that call it side by side get what one gets alone."""
    work = [(tokens("padded", 40, 30, seed=seed), parameters(64, num_positions=30, seed=seed)) for seed in range(8)]
    expected = [pooled_and_gradients(ops.embed_pool, values, **arguments, backend="cpu") for arguments, values in work]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(pooled_and_gradients, ops.embed_pool, values, **arguments, backend="cpu")
                   for arguments, values in work * 5]
        for number, future in enumerate(futures):
            for name, value in future.result().items():
                assert torch.equal(value, expected[number % len(work)][name])
