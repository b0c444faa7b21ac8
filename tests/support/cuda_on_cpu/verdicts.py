"""What the assertions of the kernels' tests say of each mutant in a library, run in a fork of its own.

    python -m cuda_on_cpu.verdicts LIBRARY NUMBER...

prints a JSON array with one line for each mutant: what went wrong, or "" if nothing did. Called by
tests/mutation/test_cuda_mutations.py.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

import pytest
import torch
from cases import VOCAB_SIZE, head, parameters
from cuda_on_cpu import as_backend, assertions
from cuda_on_cpu import window_assertions as windows
from cuda_on_cpu.calls import once
from cuda_on_cpu.mutations import MUTATIONS

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

SECONDS = 120
CASE = {"layout": "padded with holes", "rows": 3, "length": 31, "token_types": True, "positions": True, "num_types": 2,
        "index_dtype": torch.int64, "mask_dtype": torch.uint8, "view": "plain", "pooling": "mean_masked",
        "num_labels": 2, "num_dendrites": 3, "activation": "tanh", "dtype": torch.float32, "hidden_size": 128,
        "dropout": (0.2, 0.1), "eps": 1e-2, "sparse_grad": False}


def check_logits() -> None:
    for changes in ({}, {"dtype": torch.int8}, {"hidden_size": 16, "length": 129}, {"hidden_size": 101},
                    {"layout": "packed int32", "positions": False, "hidden_size": 101, "num_labels": 9}):
        assertions.assert_logits_of_case(CASE | changes)


def check_token_logits() -> None:
    for hidden_size in (16, 101, 128):
        assertions.assert_token_logits_of_case(CASE | {"hidden_size": hidden_size})
    assertions.assert_many_labels(hidden_size=33, num_labels=128)


def check_split_rows() -> None:
    assertions.assert_split_rows(longest=700, hidden_size=16)


def check_gradients() -> None:
    for changes in ({}, {"hidden_size": 16, "length": 129, "layout": "packed int64"}, {"hidden_size": 101},
                    {"length": 32, "rows": 1, "layout": "padded"}):
        assertions.assert_gradients(CASE | changes)
    torch.use_deterministic_algorithms(False)
    assertions.assert_gradients(CASE, once)


def check_bad_indices() -> None:
    for name, value in (("input_ids", VOCAB_SIZE), ("position_ids", 12), ("token_type_ids", 2)):
        assertions.assert_a_bad_index_makes_its_row_nan_and_no_other(name, value, "padded without a mask", 128)


def check_offsets() -> None:
    """A row 4 GB behind the first row of its table, of which only the pages in use become memory."""
    torch.use_deterministic_algorithms(False)  # it would fill the table
    hidden_size = 1024
    used = torch.tensor([0, 5, 2**20 + 1])
    word = torch.empty(2**20 + 8, hidden_size)
    values = parameters(hidden_size)
    *tables, ln_weight, ln_bias = values.values()
    table = prepare_table(*tables)
    dsn_head = prepare_head(ln_weight, ln_bias, **head(hidden_size, 2, 1))
    word[used] = table.word[:3]
    ids = torch.tensor([[0, 1, 2], [2, 2, 1]])
    expected = ops.dsn_logits(ids, table, dsn_head, backend="cuda")
    assert torch.equal(ops.dsn_logits(used[ids], table._replace(word=word), dsn_head, backend="cuda"), expected)


def check_alignment() -> None:
    for name in ("word", "context", "weight"):
        for num_bytes in (4, 8):
            assertions.assert_one_misaligned_argument(torch.float32, num_bytes, name)


def check_short_rows() -> None:
    assertions.assert_short_rows("packed int64", 16)
    assertions.assert_gradients_of_short_rows("packed int32")


def check_overlaps() -> None:
    cu_seqlens = [0, 60, 50, 100, 130]
    assertions.assert_tokens_of_several_rows_are_nan(128, False, cu_seqlens)
    assertions.assert_rstd_is_finite([0, 7, 3, 12], 0)
    assertions.assert_gradients_of_overlapping_rows_are_nan(cu_seqlens, sparse_grad=False)
    assertions.assert_tokens_without_a_row_are_refused(start=0, word_grad=1)


def check_windows() -> None:
    """On as few tokens as show every bug, in one schedule, since most of these checks are made for each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(as_backend, "SCHEDULES", as_backend.SCHEDULES[-1:])
        windows.assert_rows_of_every_length([31, 33, 0, 7, 1], dendrites=16, layers=2)
        holes = windows.PLAIN | {"layout": "padded with holes", "length": 14, "rows": 2, "layers": 3}
        for dtype in (torch.bfloat16, torch.float32):
            windows.assert_window_logits_of_case(holes, dtype)
        windows.assert_masked_columns_in_front_keep_their_place()
        windows.assert_masked_tokens_are_not_read()
        windows.assert_nan_stays_in_its_row()
        windows.assert_gates_are_clipped()
        windows.assert_a_bad_index_makes_its_row_nan("input_ids", VOCAB_SIZE)
        windows.assert_rows_of_every_length([2, 140, 3], dendrites=16, layers=3)
        windows.assert_rows_of_every_length([1030], dendrites=16, layers=1)


CHECKS = [check_logits, check_split_rows, check_token_logits, check_bad_indices, check_gradients, check_alignment,
          check_overlaps, check_short_rows, check_offsets, check_windows]


def checks_of(mutant: int) -> list[Callable[[], None]]:
    """Every check; first those of the file that has the bug."""
    of_windows = mutant > 0 and "window_" in MUTATIONS[mutant - 1].file
    return CHECKS[::-1] if of_windows else CHECKS


def verdict(library: str, mutant: str) -> str:
    with tempfile.TemporaryFile("w+") as said:
        process = os.fork()
        if process == 0:
            os.dup2(said.fileno(), 2)
            status = 1
            try:
                signal.alarm(SECONDS)
                check_all(library, mutant)
                status = 0
            except BaseException as error:
                said_so = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
                print(f"{type(error).__name__}: {said_so}", file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(process, 0)
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip(" =")]
    if status == 0:
        return ""
    if os.WIFSIGNALED(status):
        return f"the process ended with signal {signal.Signals(os.WTERMSIG(status)).name}"
    found = [line for line in lines if "ERROR: AddressSanitizer" in line or "runtime error:" in line]
    return (found or lines or [f"exit status {os.waitstatus_to_exitcode(status)}"])[0]


def check_all(library: str, mutant: str) -> None:
    os.environ |= {"CUDA_ON_CPU_LIBRARY": library, "CUDA_ON_CPU_MUTANT": mutant}
    with as_backend.served():
        for check in checks_of(int(mutant)):
            torch.use_deterministic_algorithms(True)
            check()
            torch.use_deterministic_algorithms(False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([verdict(sys.argv[1], mutant) for mutant in sys.argv[2:]]))
