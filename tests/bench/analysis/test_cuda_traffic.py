"""bench/analysis/cuda_traffic.py beside the CUDA kernels, which run on a CPU that counts every load and store, and what
bench/analysis/roofline.py makes of it."""

import os
import subprocess
import sys

import pytest
import torch
from cuda_on_cpu import build
from helpers import REPOSITORY

pytest.importorskip("triton", reason="the calls are those of the Triton kernels")
from cuda_resources import Kernel, Work, _functions, _gather_loop, _without_dropout, _work
from cuda_traffic import cuda_traffic_of, plan_of
from launches import Call
from roofline import CUDA_KERNELS, OPS, calls, config_of, cuda_instructions_of
from traffic import traffic_of


@pytest.mark.slow
@pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))
def test_the_bytes_are_those_that_the_kernels_move():
    """In a process of its own, whose library counts every access; it is compiled as for the search for races."""
    library = build.kernels([*build.FIND_RACES, *build.FEWER_SHAPES], watcher=build.COUNTING)
    environment = os.environ | {"CUDA_ON_CPU_LIBRARY": str(library), "PYTHONPATH": str(build.HERE.parent)}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                           str(build.HERE / "counted_bytes.py")],
                          cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_the_forward_ops_move_at_most_5_percent_more_than_they_must():
    """The least is that of the op, whichever backend computes it. The bytes of dsn_token_logits are not modelled."""
    assert set(OPS) - set(CUDA_KERNELS) == {"dsn_token_logits"}
    for call in (call for call in calls() if call.op in CUDA_KERNELS):
        traffic, least = cuda_traffic_of(call), traffic_of(call, config_of(call, "sm_90")).least
        assert traffic.moved >= least
        if call.op != "embed_pool_backward":
            assert traffic.least == least
            assert traffic.moved <= 1.05 * least, str(call)


def test_the_bytes_of_a_call_are_counted_by_hand():
    """Per token: a row of 128 bfloat16, an int32 id, a byte of mask. Per row: 8 bytes of logits. Once: 32 rows of
    context, 6 outputs of the head with two biases each, 6 weights between dendrites. A block has 4 rows."""
    traffic = cuda_traffic_of(Call("dsn_logits", 128, torch.bfloat16, 4096, 32))
    once = 4 * (32 * 128 + 6 * (128 + 2) + 6)
    assert traffic.moved == 4096 * 32 * (256 + 4 + 1) + once + 4096 * 8
    head = 4 * (1024 * 6 * 128 + 4096 * (2 * 6 + 6))
    assert traffic.total("table") == 4096 * 32 * 512 + head


def test_a_list_is_gathered_in_whole_steps():
    plan = plan_of(Call("dsn_logits", 128, torch.bfloat16, 8, 37))
    assert (plan.warps_per_row, plan.splits, plan.step) == (4, 1, 8)
    assert list(plan.lists(37)) == [10, 9, 9, 9]
    assert plan.gathered(37) == 4 * 16


def test_each_loop_counts_as_often_as_it_turns_and_the_rest_once():
    kernel = Kernel("dsn_logits_kernel", "bfloat16", "16x1", "exact", "sm_90", 0, 0, 0, 1.0, 12, None,
                    Work(1000, 100, 30))
    call = Call("dsn_logits", 128, torch.bfloat16, 4096, 37)
    assert cuda_instructions_of(call, [kernel]) == 4096 * 4 * (1000 + 100 + 2 * 30)


LOOPS = """
.L_x_1:
        /*0010*/                   LDS R1, [R2] ;
.L_x_2:
        /*0020*/                   LDG.E.128.CONSTANT R4, [R6] ;
        /*0030*/              @!P0 BRA `(.L_x_3) ;
        /*0040*/                   IMAD.HI.U32 R8, R8, -0x2daee0ad, RZ ;
        /*0050*/                   FADD R8, R8, R9 ;
.L_x_3:
        /*0060*/                   FFMA R1, R1, R1, R1 ;
        /*0070*/               @P1 BRA `(.L_x_2) ;
        /*0080*/               @P2 BRA `(.L_x_1) ;
        /*0090*/                   EXIT ;
"""


def test_instructions_that_draw_dropout_are_not_counted():
    (lines,) = _functions("\t.section\t.text.kernel,\"ax\"\n" + LOOPS).values()
    assert sum(_without_dropout(lines)) == 7
    assert _work(lines, _gather_loop(lines)) == Work(once=1, each_list=2, each_step=4)
