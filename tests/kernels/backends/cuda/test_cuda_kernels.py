"""The CUDA kernels, run on the CPU (tests/support/cuda_on_cpu): against float64, in three schedules that must give the
same bits.

The sources, checks and launches are those that nvcc compiles. On a GPU, the tests of the ops run them too.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import LAYOUTS, VOCAB_SIZE, exact_pooled, parameters, pooled_and_gradients, tokens
from cuda_on_cpu import as_backend, build
from cuda_on_cpu.as_backend import WATCHED
from cuda_on_cpu.assertions import (
    assert_a_bad_index_makes_its_row_nan_and_no_other,
    assert_gradients,
    assert_gradients_of_short_rows,
    assert_logits,
    assert_logits_of_case,
    assert_many_labels,
    assert_one_misaligned_argument,
    assert_short_rows,
    assert_split_rows,
    assert_token_logits,
    assert_token_logits_of_case,
    shift,
)
from cuda_on_cpu.calls import (
    EMBED_AXES,
    LOGITS_AXES,
    cases,
    in_every_schedule,
    logits,
    once,
    prepared,
    token_arguments_of,
)
from helpers import REPOSITORY, assert_within_rounding
from rounding import tracked

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.reference import embed_pool_ref

pytestmark = [pytest.mark.skipif(build.missing() is not None, reason=str(build.missing())),
              pytest.mark.usefixtures("kernels_on_cpu", "outputs_start_as_nan")]


@cases(LOGITS_AXES, 100)
def test_logits(case):
    assert_logits_of_case(case)


@cases(LOGITS_AXES, 50, seed=1)
def test_token_logits(case):
    assert_token_logits_of_case(case)


@cases(EMBED_AXES, 80, seed=2)
def test_embed_pool_and_its_gradients(case):
    assert_gradients(case)


@cases(EMBED_AXES, 20, seed=3)
def test_the_gradients_by_atomics(case):
    """The fast form, whose sums run in whatever order the threads do; here new tensors are not filled with NaN."""
    torch.use_deterministic_algorithms(False)
    for schedule in as_backend.SCHEDULES:
        with as_backend.scheduled(*schedule):
            assert_gradients(case, once)


@pytest.mark.parametrize(("longest", "hidden_size"),
                         [(700, 16), (700, 100), (3000, 128)] + ([] if WATCHED else [(65536, 16)]))
def test_long_rows_are_split_over_blocks(longest, hidden_size):
    assert_split_rows(longest, hidden_size)


@pytest.mark.parametrize("hidden_size", [16] if WATCHED else [16, 100, 128])
@pytest.mark.parametrize("layout", LAYOUTS[-1:] if WATCHED else [LAYOUTS[0], LAYOUTS[1], LAYOUTS[-1]])
def test_short_rows_share_a_block(layout, hidden_size):
    assert_short_rows(layout, hidden_size)


@pytest.mark.parametrize("layout", [LAYOUTS[1], LAYOUTS[-2]])
def test_short_rows_share_a_block_in_training(layout):
    assert_gradients_of_short_rows(layout)


@pytest.mark.parametrize("num_labels", [16, 17, 31, 33, 65, 130])
@pytest.mark.parametrize("hidden_size", [16, 100, 128])
def test_more_labels_than_a_group_has_lanes(num_labels, hidden_size):
    assert_many_labels(hidden_size, num_labels)


@pytest.mark.parametrize("name", ["word", "context", "weight"])
@pytest.mark.parametrize("num_bytes", [4, 8, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_one_argument_that_16_byte_loads_cannot_serve(dtype, num_bytes, name):
    assert_one_misaligned_argument(dtype, num_bytes, name)


@pytest.mark.parametrize("num_bytes", [4, 8, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("deterministic", [True, False])
def test_parameters_that_16_byte_loads_cannot_serve(deterministic, dtype, num_bytes):
    torch.use_deterministic_algorithms(deterministic)
    arguments = tokens("packed int32", 3, 5)
    values = parameters(128, dtype)
    shifted = {name: shift(value, num_bytes) for name, value in values.items()}
    actual = once(lambda: pooled_and_gradients(ops.embed_pool, shifted, **arguments, backend="cuda"))
    eager = pooled_and_gradients(embed_pool_ref, values, **arguments)
    exact = pooled_and_gradients(exact_pooled, tracked(values), **arguments)
    for name in actual:
        assert_within_rounding(actual[name], eager[name], exact[name])


@pytest.mark.parametrize("hidden_size", [1032, 2047, 4096] + ([] if WATCHED else [256, 512, 640, 1024]))
def test_other_hidden_sizes(hidden_size):
    """Those beyond the registers of a warp; and those that no case above has, whose shapes of kernels are left out
    where every access is watched (build.FEWER_SHAPES)."""
    case = {"layout": "padded with holes", "length": 9, "rows": 3, "token_types": True, "positions": False,
            "num_types": 2, "index_dtype": torch.int64, "mask_dtype": torch.bool, "hidden_size": hidden_size}
    arguments = token_arguments_of(case, 2**20)
    table, dsn_head = prepared(case, 12)
    assert_logits(arguments, table, dsn_head)
    assert_token_logits(arguments, table, dsn_head)
    for dtype in (torch.float32, torch.bfloat16):
        assert_gradients(case | {"dtype": dtype, "dropout": (0.1, 0.1), "pooling": "mean_masked", "eps": 1e-12,
                                 "view": "plain", "sparse_grad": False})


BAD_VALUES = {"input_ids": [-1, VOCAB_SIZE, 2**31 - 1, -(2**31), 2**40, -(2**63)], "token_type_ids": [-1, 2, 2**33],
              "position_ids": [-1, 12, 2**33]}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values])
@pytest.mark.parametrize("layout", [LAYOUTS[2], LAYOUTS[-1]])
@pytest.mark.parametrize("hidden_size", [100, 128])
def test_a_bad_index_makes_its_row_nan_and_no_other(name, value, layout, hidden_size):
    assert_a_bad_index_makes_its_row_nan_and_no_other(name, value, layout, hidden_size)


@pytest.mark.parametrize("cu_seqlens", [[0, 3, 2, 5], [0, -3, 5], [0, 2**31 - 1, 5], [1, 3, 5], [0, 3, 6], [0, 3, 4],
                                        [-5, 5], [0, 9, 9]])
def test_invalid_cu_seqlens_are_never_followed(cu_seqlens):
    arguments = {"input_ids": torch.arange(5), "cu_seqlens": torch.tensor(cu_seqlens)}
    table, dsn_head = prepared({"hidden_size": 128}, 12)
    assert logits(arguments, table, dsn_head).isnan().any()
    values = parameters(128, num_positions=12)
    results = in_every_schedule(lambda: pooled_and_gradients(ops.embed_pool, values, **arguments, backend="cuda"))
    assert results["pooled"].isnan().any()
    assert results["ln_weight"].isnan().all()


def test_a_packed_row_longer_than_the_position_table_becomes_nan():
    arguments = {"input_ids": torch.zeros(20, dtype=torch.int64), "cu_seqlens": torch.tensor([0, 4, 17, 20])}
    table, dsn_head = prepared({"hidden_size": 128}, 12)
    assert logits(arguments, table, dsn_head).isnan().all(dim=1).tolist() == [False, True, False]


def test_ids_to_logits_is_one_launch():
    table, dsn_head = prepared({"hidden_size": 128}, 12)
    before = as_backend.load().cuda_on_cpu_launches()
    ops.dsn_logits(**tokens("padded", 5, 7), table=table, head=dsn_head, backend="cuda")
    assert as_backend.load().cuda_on_cpu_launches() - before == 1


def test_a_launch_that_fails_names_kernel_and_shape():
    """More dendrites than shared memory has room for: the driver refuses the launch, and an exception says so."""
    table, dsn_head = prepared({"hidden_size": 16, "num_labels": 256, "num_dendrites": 8}, 12)
    message = r"dsn_logits could not be launched for 5 rows, .* hidden size 16: \d+ bytes of dynamic shared memory"
    with as_backend.shared_memory_of(8 * 1024), pytest.raises(RuntimeError, match=message):
        ops.dsn_logits(**tokens("padded", 5, 7), table=table, head=dsn_head, backend="cuda")


def test_a_row_under_a_large_head_has_its_block_for_itself(tmp_path):
    """Four rows and their outputs in the shared memory of a block are more than many a GPU has."""
    (tmp_path / "plans.cpp").write_text("""
        #include <cstdio>
        #include "plan.h"
        int main() {
          dendritic_bert::Tokens tokens;
          tokens.rows = 4096, tokens.length = 8, tokens.total = 8 * 4096;
          for (const int outputs : {0, 2, 2944, 2945, 30000})
            std::printf("%d ", dendritic_bert::plan_rows(tokens, 128, outputs).warps_per_row);
        }""")
    subprocess.run(["c++", "-std=c++17", f"-I{REPOSITORY / 'csrc' / 'cuda'}", tmp_path / "plans.cpp", "-o",
                    tmp_path / "plans"], check=True)
    assert subprocess.run([tmp_path / "plans"], capture_output=True, text=True).stdout == "1 1 1 4 4 "


@pytest.mark.slow(seconds=70)
@pytest.mark.skipif(WATCHED, reason="this is the watched run")
@pytest.mark.parametrize("watch", [pytest.param("memory and undefined behaviour", marks=pytest.mark.exhaustive),
                                   "bounds and races"])
def test_the_same_while_every_access_is_watched(watch):
    """A quarter of these tests, and those of the files named below, in a process of their own, which runs under
    AddressSanitizer and UBSan, or with the search for races of races.h, which also knows every array's bounds."""
    flags = build.FIND_RACES if watch == "bounds and races" else build.SANITIZE
    environment = os.environ | {"CUDA_ON_CPU_LIBRARY": str(build.kernels([*flags, *build.FEWER_SHAPES]))}
    if watch != "bounds and races":
        environment |= build.sanitizer_environment()
    beside = ("test_degenerate_sizes.py", "test_cuda_windows.py")
    files = [__file__, *(str(Path(__file__).with_name(name)) for name in beside)]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
                          cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert " passed" in done.stdout
