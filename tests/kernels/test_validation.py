"""Bad input to the ops: one sentence that names the argument, the value and the row, and nothing written.

Every backend refuses in the same words, but for the values of indices: a GPU's kernels would have to be waited for, so
that they return NaN. What could end the process is tried in a process of its own.
"""

import random
import re
import subprocess
import sys

import malformed_calls
import pytest
import torch
from cases import VOCAB_SIZE, head, moved, parameters, tokens
from helpers import REPOSITORY, each_backend, each_checking_backend

from dendritic_bert.kernels import backends, ops
from dendritic_bert.kernels.contract import DsnHead, DsnTable
from dendritic_bert.kernels.prepare import prepare_head, prepare_table

NUM_POSITIONS, NUM_TYPES, HIDDEN_SIZE = 8, 2, 20
OPS = ["embed_pool", "dsn_logits"]
INT32, INT64 = torch.iinfo(torch.int32), torch.iinfo(torch.int64)


def prepared(dtype: torch.dtype = torch.float32) -> tuple[DsnTable, DsnHead]:
    values = parameters(HIDDEN_SIZE)
    return (prepare_table(*list(values.values())[:3], dtype=dtype),
            prepare_head(values["ln_weight"], values["ln_bias"], **head(HIDDEN_SIZE, 3, 2)))


def refused(op: str, backend: str, device: str, message: str, **changes) -> None:
    """The op, called with good arguments but for ``changes``, raises ``message`` and leaves every tensor as it was."""
    if op == "embed_pool":
        leaves = {name: value.requires_grad_() for name, value in moved(parameters(HIDDEN_SIZE), device).items()}
        arguments = leaves | changes
        tensors = dict(arguments)
    else:
        table, dsn_head = prepared()
        arguments = {"table": table, "head": dsn_head} | changes
        for name in ("table", "head"):
            arguments[name] = type(arguments[name])(*(
                value.to(device) if isinstance(value, torch.Tensor) and value.device.type == "cpu" else value
                for value in arguments[name]))
        tensors = arguments | arguments["table"]._asdict() | arguments["head"]._asdict()
    tensors = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor) and not value.is_meta}
    before = {name: value.detach().clone() for name, value in tensors.items()}
    with pytest.raises(RuntimeError, match=message) as caught:
        getattr(ops, op)(**arguments, backend=backend)
    assert "\n" not in str(caught.value)
    for name, value in tensors.items():
        assert torch.equal(value, before[name])
        assert value.grad is None


def padded(rows: int = 3, length: int = 5, **options) -> dict[str, torch.Tensor]:
    return tokens("padded without a mask", rows, length, num_positions=NUM_POSITIONS, **options)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("name", "size"), [("input_ids", VOCAB_SIZE), ("token_type_ids", NUM_TYPES),
                                            ("position_ids", NUM_POSITIONS)])
@pytest.mark.parametrize("which", ["size", "-1", "largest", "smallest", "2^32"])
@each_checking_backend
def test_an_index_outside_its_table(which, name, size, index_dtype, op, backend, device):
    limits = torch.iinfo(index_dtype)
    # 2^32 is 0 to whoever keeps 32 bits of it.
    value = {"size": size, "-1": -1, "largest": limits.max, "smallest": limits.min,
             "2^32": min(2**32, limits.max)}[which]
    message = rf"^{name} holds {value} in row 2, expected 0 to {size - 1}\.$"
    arguments = padded(4, 6, token_types=True, positions=True, index_dtype=index_dtype)
    arguments[name][2, 3] = value
    refused(op, backend, device, message, **moved(arguments, device))
    if name == "input_ids":  # without mask, types and positions the kernels take a shorter way
        refused(op, backend, device, message, input_ids=arguments["input_ids"].to(device))
    packed = {key: value.flatten() for key, value in arguments.items()}
    packed["cu_seqlens"] = torch.tensor([0, 6, 12, 20, 24])  # the token is number 15
    refused(op, backend, device, message, **moved(packed, device))
    packed["cu_seqlens"] = torch.tensor([0, 15, 15, 24, 24], dtype=torch.int32)
    refused(op, backend, device, message, **moved(packed, device))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("rows", "length", "row", "column"), [(1, 1, 0, 0), (70, 3, 69, 2), (40, 7, 17, 0),
                                                               (2, 600, 1, 599), (3, 600, 0, 256)])
@each_checking_backend
def test_a_bad_id_anywhere(rows, length, row, column, op, backend, device):
    arguments = {"input_ids": torch.zeros(rows, length, dtype=torch.int64),
                 "position_ids": torch.zeros(rows, length, dtype=torch.int64)}
    arguments["input_ids"][row, column] = VOCAB_SIZE
    refused(op, backend, device, rf"input_ids holds {VOCAB_SIZE} in row {row},", **moved(arguments, device))


@pytest.mark.parametrize("op", OPS)
@each_checking_backend
def test_the_first_of_several_bad_ids_is_named(op, backend, device):
    input_ids = torch.zeros(200, 5, dtype=torch.int64)
    input_ids[[150, 40, 41, 199], [0, 3, 0, 4]] = torch.tensor([-1, -2, -3, -4])
    refused(op, backend, device, "input_ids holds -2 in row 40,", input_ids=input_ids.to(device))


@pytest.mark.parametrize("op", OPS)
@each_checking_backend
def test_a_bad_index_beside_a_mask(op, backend, device):
    """It counts where the mask keeps it, and where the pooling takes padding in."""
    arguments = padded(4, 6)
    arguments["input_ids"][2, 3] = -1
    arguments["attention_mask"] = torch.ones(4, 6, dtype=torch.bool)
    refused(op, backend, device, "input_ids holds -1 in row 2,", **moved(arguments, device))
    arguments["attention_mask"][2, 3] = False
    refused(op, backend, device, "input_ids holds -1 in row 2,", **moved(arguments, device), pooling="mean_all")


@pytest.mark.parametrize("op", OPS)
@each_backend
def test_padded_rows_longer_than_the_position_table(op, backend, device):
    message = "row 0 has 9 tokens, the position table 8: truncate the row"
    long_row = padded(3, 9)
    refused(op, backend, device, message, **moved(long_row, device))
    mask = torch.zeros(3, 9)  # positions are columns, so that only columns count
    refused(op, backend, device, message, **moved(long_row, device), attention_mask=mask.to(device))


@pytest.mark.parametrize("op", OPS)
@each_checking_backend
def test_a_packed_row_longer_than_the_position_table(op, backend, device):
    message = "row 2 has 9 tokens, the position table 8: truncate the row"
    for index_dtype in (torch.int32, torch.int64):
        cu_seqlens = torch.tensor([0, 8, 8, 17, 27], dtype=index_dtype)
        refused(op, backend, device, message, input_ids=padded(3, 9)["input_ids"].flatten().to(device),
                cu_seqlens=cu_seqlens.to(device))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids", "position_ids"])
@pytest.mark.parametrize("shape", [(3, 4), (5, 3), (4, 5), (15,), (3, 5, 1), (1, 5), (3, 1), ()], ids=str)
@each_backend
def test_a_shape_that_is_not_that_of_input_ids(shape, name, op, backend, device):
    message = rf"{name} has shape \[{', '.join(map(str, shape))}\], expected \[3, 5\]"
    refused(op, backend, device, message, **moved(padded(), device),
            **{name: torch.zeros(shape, dtype=torch.int64, device=device)})


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", ["token_type_ids", "position_ids"])
@each_backend
def test_a_packed_shape_that_is_not_that_of_input_ids(name, op, backend, device):
    arguments = {"input_ids": torch.zeros(5, dtype=torch.int64), "cu_seqlens": torch.tensor([0, 2, 5]),
                 name: torch.zeros(4, dtype=torch.int64)}
    refused(op, backend, device, rf"{name} has shape \[4\], expected \[5\]", **moved(arguments, device))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("shape", "packed"), [((), False), ((5,), False), ((1, 1, 5), False), ((), True),
                                               ((1, 5), True)], ids=str)
@each_backend
def test_input_ids_in_no_layout(shape, packed, op, backend, device):
    cu_seqlens = torch.tensor([0, 5], device=device) if packed else None
    refused(op, backend, device,
            rf"input_ids has shape \[{', '.join(map(str, shape))}\], expected \[B, L\], or \[T\] beside cu_seqlens",
            input_ids=torch.zeros(shape, dtype=torch.int64, device=device), cu_seqlens=cu_seqlens)


@pytest.mark.parametrize("op", OPS)
@each_backend
def test_two_layouts_at_once(op, backend, device):
    refused(op, backend, device, "attention_mask and cu_seqlens are both given",
            input_ids=torch.zeros(5, dtype=torch.int64, device=device),
            cu_seqlens=torch.tensor([0, 5], device=device), attention_mask=torch.ones(5, device=device))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", ["input_ids", "token_type_ids", "position_ids", "cu_seqlens"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.uint8, torch.bool])
@each_backend
def test_indices_that_are_no_int32_or_int64(dtype, name, op, backend, device):
    zeros = torch.zeros(5, dtype=torch.int64)
    arguments = {"input_ids": zeros, "token_type_ids": zeros, "position_ids": zeros, "cu_seqlens": torch.tensor([0, 5])}
    arguments[name] = arguments[name].to(dtype)
    refused(op, backend, device, rf"{name} .*int32.*int64", **moved(arguments, device))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("cu_seqlens", "message"), [
    ([0, 3, 2, 5], "cu_seqlens falls from 3 to 2 at row 1"),
    ([0, -3, 5], "cu_seqlens falls from 0 to -3 at row 0"),
    ([0, 2**31 - 1, 5], "cu_seqlens falls from 2147483647 to 5 at row 1"),
    ([0, 6, 5], "cu_seqlens falls from 6 to 5 at row 1"),
    ([1, 3, 5], "cu_seqlens runs from 1 to 5, expected 0 to 5"),
    ([-1, 5], "cu_seqlens runs from -1 to 5, expected 0 to 5"),
    ([0, 3, 4], "cu_seqlens runs from 0 to 4, expected 0 to 5"),
    ([0, 3, 6], "cu_seqlens runs from 0 to 6, expected 0 to 5"),
], ids=str)
@each_checking_backend
def test_cu_seqlens_that_bound_no_rows(cu_seqlens, message, index_dtype, op, backend, device):
    refused(op, backend, device, message, input_ids=torch.zeros(5, dtype=torch.int64, device=device),
            cu_seqlens=torch.tensor(cu_seqlens, dtype=index_dtype, device=device))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("cu_seqlens", "message"), [
    ([], r"cu_seqlens has shape \[0\], expected \[B \+ 1\]"),
    ([[0, 5]], r"cu_seqlens has shape \[1, 2\], expected \[B \+ 1\]"),
    (5, r"cu_seqlens has shape \[\], expected \[B \+ 1\]"),
    ([0], r"cu_seqlens has shape \[1\], no row, beside 5 input_ids: pass the end of each row too\."),
    ([5], r"cu_seqlens has shape \[1\], no row, beside 5 input_ids: pass the end of each row too\."),
], ids=str)
@each_backend
def test_cu_seqlens_of_another_shape(cu_seqlens, message, index_dtype, op, backend, device):
    refused(op, backend, device, message, input_ids=torch.zeros(5, dtype=torch.int64, device=device),
            cu_seqlens=torch.tensor(cu_seqlens, dtype=index_dtype, device=device))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("pooling", ["max", "", None, 0])
@each_backend
def test_an_unknown_pooling(pooling, op, backend, device):
    refused(op, backend, device, rf"pooling is {pooling!r}, expected one of mean_masked, mean_all, sum_all",
            **moved(padded(), device), pooling=pooling)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("eps", [-1e-12, float("nan"), float("inf")])
@each_backend
def test_eps_out_of_range(eps, op, backend, device):
    changes = {"eps": eps} if op == "embed_pool" else {"table": prepared()[0]._replace(eps=eps)}
    refused(op, backend, device, rf"eps is {eps}, expected a finite number >= 0", **moved(padded(), device), **changes)


@pytest.mark.parametrize("name", ["p_embed", "p_pool"])
@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
@each_backend
def test_a_dropout_probability_out_of_range(p, name, backend, device):
    refused("embed_pool", backend, device, rf"{name} is {p}, expected 0 <= {name} < 1", **moved(padded(), device),
            **{name: p})


@pytest.mark.parametrize(("seed", "message"), [
    (2**63, "seed is 9223372036854775808, expected an int that fits 64 bits"),
    (3.0, "seed is 3.0, expected an int, or an int64 tensor of one element"),
    (torch.tensor([1, 2]), r"seed has shape \[2\]"),
    (torch.tensor([], dtype=torch.int64), r"seed has shape \[0\]"),
    (torch.tensor(1.0), "dtype torch.float32"),
    (torch.tensor(1, dtype=torch.int32), "dtype torch.int32"),
    (torch.tensor(1, device="meta"), "lies on meta"),
], ids=str)
@each_backend
def test_a_seed_that_is_no_seed(seed, message, backend, device):
    if isinstance(seed, torch.Tensor) and not seed.is_meta:
        seed = seed.to(device)
    refused("embed_pool", backend, device, message, **moved(padded(), device), p_embed=0.5, seed=seed)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "token_type_ids", "position_ids"])
@each_backend
def test_tokens_on_another_device(name, op, backend, device):
    arguments = moved(padded(token_types=True, positions=True), device)
    arguments["attention_mask"] = torch.ones(3, 5, device=device)
    arguments[name] = arguments[name].to("meta")
    refused(op, backend, device, rf"{name} on meta|{name} is on meta", **arguments)


@pytest.mark.parametrize("name", ["position_embeddings", "token_type_embeddings", "ln_weight", "ln_bias"])
@each_backend
def test_parameters_on_another_device(name, backend, device):
    refused("embed_pool", backend, device, rf"{name} is on meta", **moved(padded(), device),
            **{name: parameters(HIDDEN_SIZE)[name].to("meta")})


@pytest.mark.parametrize(("name", "shape"), [
    ("word_embeddings", (HIDDEN_SIZE,)), ("word_embeddings", ()), ("word_embeddings", (1, 83, HIDDEN_SIZE)),
    ("position_embeddings", (8, 19)), ("position_embeddings", (HIDDEN_SIZE,)), ("position_embeddings", ()),
    ("token_type_embeddings", (2, 21)), ("token_type_embeddings", (1, 2, HIDDEN_SIZE)),
    ("ln_weight", (19,)), ("ln_weight", (1, HIDDEN_SIZE)), ("ln_weight", ()), ("ln_bias", (21,)), ("ln_bias", (1,)),
], ids=str)
@each_backend
def test_parameters_of_another_shape(name, shape, backend, device):
    refused("embed_pool", backend, device, rf"{name} has shape \[{', '.join(map(str, shape))}\], expected",
            **moved(padded(), device), **{name: torch.ones(shape, device=device)})


@pytest.mark.parametrize("name", ["position_embeddings", "token_type_embeddings"])
@pytest.mark.parametrize("length", [0, 5])
@each_backend
def test_tables_without_a_row(length, name, backend, device):
    refused("embed_pool", backend, device, rf"{name}.* has no row|row 0 has 5 tokens, the position table 0",
            **moved(padded(3, length), device), **{name: torch.ones(0, HIDDEN_SIZE, device=device)})


@pytest.mark.parametrize("name", ["position_embeddings", "token_type_embeddings", "ln_weight", "ln_bias"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32])
@each_backend
def test_parameters_of_two_dtypes(dtype, name, backend, device):
    refused("embed_pool", backend, device, rf"{name} has .*dtype.* word_embeddings", **moved(padded(), device),
            **{name: parameters(HIDDEN_SIZE)[name].to(dtype).to(device)})


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool, torch.complex64])
@each_backend
def test_parameters_that_are_not_real(dtype, backend, device):
    refused("embed_pool", backend, device, rf"word_embeddings has dtype {dtype}|the word table is {dtype}",
            **moved(padded(), device), **{name: value.detach().to(dtype).to(device)
                                          for name, value in parameters(HIDDEN_SIZE).items()})


@pytest.mark.parametrize(("name", "value", "message"), [
    ("word", torch.ones(HIDDEN_SIZE), r"word has shape \[20\], expected \[V, H\]"),
    ("word", torch.ones(()), r"word has shape \[\], expected \[V, H\]"),
    ("word", torch.ones(9, 8), r"context has shape \[2, 8, 20\], expected \[.*, 8\]"),
    ("word_scale", torch.ones(VOCAB_SIZE), "word_scale goes with an int8 .*word table and with no other"),
    ("context", torch.ones(8, HIDDEN_SIZE), r"context has shape \[8, 20\], expected \[K, P, "),
    ("context", torch.ones(2, 8, 16), r"context has shape \[2, 8, 16\], expected \[.*, 20\]"),
    ("context", torch.ones(2, 8, HIDDEN_SIZE, dtype=torch.float64), "context .*float32"),
    ("context", torch.ones(2, 8, HIDDEN_SIZE, device="meta"), "context is on meta"),
])
@each_backend
def test_a_table_that_does_not_fit(name, value, message, backend, device):
    table = prepared()[0]._replace(**{name: value})
    refused("dsn_logits", backend, device, message, **moved(padded(), device), table=table)


@pytest.mark.parametrize(("scale", "message"), [
    (None, "word_scale goes with an int8 .*word table and with no other"),
    (torch.ones(82), r"word_scale has shape \[82\], expected \[83\]"),
    (torch.ones(83, 1), r"word_scale has shape \[83, 1\], expected \[83\]"),
    (torch.ones(83, dtype=torch.float16), "word_scale .*float32"),
    (torch.ones(83, device="meta"), "word_scale is on meta"),
])
@each_backend
def test_a_scale_that_does_not_fit(scale, message, backend, device):
    table = prepared(torch.int8)[0]._replace(word_scale=scale)
    refused("dsn_logits", backend, device, message, **moved(padded(), device), table=table)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("weight", torch.ones(8, HIDDEN_SIZE), r"weight has shape \[8, 20\], expected \[9, 20\]"),
    ("weight", torch.ones(9, 19), r"weight has shape \[9, 19\], expected \[9, 20\]"),
    ("weight", torch.ones(9 * HIDDEN_SIZE), r"weight has shape \[180\], expected \[9, 20\]"),
    ("bias", torch.ones(8), r"bias has shape \[8\], expected \[9\]"),
    ("beta_bias", torch.ones(9, 1), r"beta_bias has shape \[9, 1\], expected \[9\]"),
    ("lateral", torch.ones(1, 2, 3), r"lateral has shape \[1, 2, 3\], expected \[2, 2, 3\]"),
    ("lateral", torch.ones(2, 2), r"lateral has shape \[2, 2\], expected \[2, 2, 3\]"),
    ("top", torch.ones(3), r"top has shape \[3\], expected \[N, C\]"),
    ("top", torch.ones(2, 4), r"weight has shape \[9, 20\], expected \[12, 20\]"),
    ("top", torch.ones(0, 9), r"lateral has shape \[2, 2, 3\], expected \[0, 0, 9\]"),
    ("weight", torch.ones(9, HIDDEN_SIZE, dtype=torch.bfloat16), "weight .*float32"),
    ("bias", torch.ones(9, dtype=torch.float64), "bias .*float32"),
    ("top", torch.ones(2, 3, dtype=torch.float16), "top .*float32"),
    ("weight", torch.ones(9, HIDDEN_SIZE, device="meta"), "weight is on meta"),
    ("lateral", torch.ones(2, 2, 3, device="meta"), "lateral is on meta"),
    ("activation", "swish", "activation is 'swish', expected one of sigmoid, tanh, relu, gelu"),
    ("activation", None, "activation is None, expected one of sigmoid, tanh, relu, gelu"),
])
@each_backend
def test_a_head_that_does_not_fit(name, value, message, backend, device):
    dsn_head = prepared()[1]._replace(**{name: value})
    refused("dsn_logits", backend, device, message, **moved(padded(), device), head=dsn_head)


@each_backend
def test_ids_that_change_before_backward(backend, device):
    """Backward reads the ids again: had they left the table meanwhile, it would write outside the gradient."""
    values, arguments = moved(parameters(HIDDEN_SIZE), device), moved(padded(), device)
    leaf = values["word_embeddings"].requires_grad_()
    pooled = ops.embed_pool(**values, **arguments, backend=backend)
    arguments["input_ids"][1, 2] = 10**6
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation|input_ids holds 1000000 in row 1"):
        pooled.sum().backward()
    assert leaf.grad is None


@each_backend
def test_malformed_calls_never_end_the_process(backend, device):
    """Thousands of calls with arguments spoilt at random: each returns a result of the right shape or an error."""
    done = subprocess.run([sys.executable, REPOSITORY / "tests" / "support" / "malformed_calls.py", backend, device],
                          capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode} after {done.stdout.splitlines()[-1:]}\n{done.stderr[-3000:]}"


# Where Python says more than the C++ bindings do: both name the argument, and what is said of it differs.
SAID_OTHERWISE = re.compile(r"^\w+ (has dtype|is missing or no tensor|is on meta|goes with|has shape .* >= 1\.$)")


def sentence(op: str, arguments: dict, backend: str) -> str | None:
    """What a call is refused with, or None."""
    copies = {name: value.detach().clone() if isinstance(value, torch.Tensor) else value
              for name, value in arguments.items()}
    try:
        malformed_calls.call(op, copies, backend)
    except (RuntimeError, TypeError, AttributeError) as error:
        return str(error).splitlines()[0]
    return None


@pytest.mark.skipif(backends.KERNEL_BACKENDS["cpu"].missing is not None, reason="the extension was not built")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("op", malformed_calls.OPS)
def test_the_cpu_backend_says_what_the_reference_says(op, seed):
    """Every argument of a call spoilt in every way: both serve it or both refuse it, in the same sentence."""
    rng, differing = random.Random(seed), []
    good = malformed_calls.good_call(op, rng, "cpu")
    assert sentence(op, good, "cpu") is sentence(op, good, "reference") is None
    compared = 0
    for name, value in good.items():
        for way, spoil in malformed_calls.ways_to_spoil(rng, value).items():
            spoilt = good | {name: spoil()}
            said, expected = sentence(op, spoilt, "cpu"), sentence(op, spoilt, "reference")
            compared += said is not None and said == expected
            if said != expected and not is_said_otherwise(name, way, said, expected):
                differing.append((name, way, said, expected))
    assert differing == []
    assert compared > 40


def is_said_otherwise(name: str, way: str, said: str | None, expected: str | None) -> bool:
    argument = name.split(".")[-1]
    if said is None or expected is None:
        # The word table's own dtypes: what only the reference reads, and what "cpu" is asked to serve and refuses.
        return said is not None and said.startswith("backend 'cpu' cannot serve this call: the word table is")
    if way == "absent" or said.startswith("backend 'cpu' cannot serve this call") or "Expected a value of type" in said:
        return True  # no tensor, refused by the dispatcher or by the choice of a backend
    if argument == "input_ids" and said.startswith("cu_seqlens runs from"):
        return True  # both it and what is beside input_ids have another length
    if argument == "top" and " has shape " in said and " has shape " in expected:
        return True  # it gives the number of dendrites and labels, so that every other shape is wrong
    if expected.endswith("has no row."):
        return said.startswith("row ") and "the position table 0" in said
    return bool(SAID_OTHERWISE.search(expected)) and said.split()[0] == expected.split()[0]
