"""dsn_window_logits on every backend, against the float64 run of the contract on the same tables."""

import pytest
import torch
from cases import VOCAB_SIZE, awkward, case_id, covering_sample, moved, tokens
from dsn_workload import in_view
from helpers import assert_within_rounding, raises_on_values, serving
from window_workload import AXES, NAMES, exact_window_logits, prepared, window_head, window_parameters, workload

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import WINDOW_DTYPES, padded_dendrites
from dendritic_bert.kernels.prepare import prepare_windows
from dendritic_bert.kernels.reference import dendritic_linear_ref, dsn_window_logits_ref, window_pool_ref

SERVING = serving("dsn_window_logits", torch.float32)
each_windowed = pytest.mark.parametrize(("backend", "device"), SERVING, ids=map("-".join, SERVING))
CHECKING = [pair for pair in SERVING if raises_on_values(pair[0])]
each_checking = pytest.mark.parametrize(("backend", "device"), CHECKING, ids=map("-".join, CHECKING))


@pytest.mark.parametrize("case", covering_sample(AXES, 90, seed=7), ids=case_id)
@each_windowed
def test_logits(case, backend, device):
    token_arguments, values, head_values = workload(case)
    windowed = prepared(values, head_values, activation=case["activation"], is_folded=case["is_folded"])
    views = {name: awkward(value.to(device), case["view"]) for name, value in token_arguments.items()}
    logits = ops.dsn_window_logits(**views, windowed=in_view(windowed, case["view"], device), backend=backend)
    eager = dsn_window_logits_ref(**token_arguments, windowed=windowed)
    assert_within_rounding(logits, eager, exact_window_logits(token_arguments, windowed))


@pytest.mark.parametrize("case", [case for case in covering_sample(AXES, 36, seed=8) if case["layers"] > 1],
                         ids=case_id)
@pytest.mark.parametrize(("backend", "device"), serving("dsn_window_logits", torch.bfloat16))
def test_bfloat16_layers(case, backend, device):
    token_arguments, values, head_values = workload(case)
    windowed = prepared(values, head_values, activation=case["activation"], dtype=torch.bfloat16)
    logits = ops.dsn_window_logits(**moved(token_arguments, device), windowed=in_view(windowed, "plain", device),
                                   backend=backend)
    eager = dsn_window_logits_ref(**token_arguments, windowed=windowed)
    assert_within_rounding(logits, eager, exact_window_logits(token_arguments, windowed))


@pytest.mark.parametrize("case", covering_sample(AXES, 30, seed=9), ids=case_id)
def test_the_tables_compute_what_the_parameters_say(case):
    """Exact but for float64's rounding: preparing changes the order of linear steps and nothing else."""
    token_arguments, values, head_values = workload(case)
    values = {name: None if value is None else value.double() for name, value in values.items()}
    head_values = {name: value.double() for name, value in head_values.items()}
    windowed = prepared(values, head_values, activation=case["activation"], is_folded=case["is_folded"],
                        dtype=torch.float64)
    assert windowed.taps.shape[-1] == padded_dendrites(values["window_bias"].shape[1])
    pooled = window_pool_ref(**token_arguments, **values)
    expected = dendritic_linear_ref(pooled, **head_values, activation=case["activation"])
    torch.testing.assert_close(ops.dsn_window_logits(**token_arguments, windowed=windowed), expected,
                               rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("is_folded", [False, True])
@each_windowed
def test_an_empty_row_gets_the_bias(is_folded, has_gate, backend, device):
    values = window_parameters(has_gate=has_gate)
    head_values = window_head(values, num_dendrites=0)
    windowed = in_view(prepared(values, head_values, is_folded=is_folded), "plain", device)
    arguments = moved({"input_ids": torch.arange(5), "cu_seqlens": torch.tensor([0, 0, 5, 5])}, device)
    logits = ops.dsn_window_logits(**arguments, windowed=windowed, backend=backend).cpu()
    assert torch.equal(logits[0], head_values["bias"])
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])


@each_windowed
def test_a_masked_token_is_not_read(backend, device):
    values = window_parameters()
    good = in_view(prepared(values, window_head(values)), "plain", device)
    arguments = moved(tokens("padded with holes", 4, 30, mask_dtype=torch.bool), device)
    spoilt = good._replace(**{name: getattr(good, name).clone() for name in ("values", "gate", "taps")})
    for name in ("values", "gate", "taps"):
        getattr(spoilt, name)[:, VOCAB_SIZE - 1] = float("nan")
    mask = arguments["attention_mask"]
    ids = torch.where(mask, arguments["input_ids"] % (VOCAB_SIZE - 1), VOCAB_SIZE - 1)
    arguments["input_ids"] = torch.where(mask, ids, 0)
    expected = ops.dsn_window_logits(**arguments, windowed=good, backend=backend)
    for filler in (VOCAB_SIZE - 1, -5, 2**31 - 1):
        arguments["input_ids"] = torch.where(mask, ids, filler)
        assert torch.equal(ops.dsn_window_logits(**arguments, windowed=spoilt, backend=backend), expected)


@each_windowed
def test_a_nan_stays_in_its_row(backend, device):
    values = window_parameters()
    windowed = in_view(prepared(values, window_head(values)), "plain", device)
    windowed.taps[:, 5] = float("nan")
    ids = torch.full((6, 9), 1)
    ids[2, 8] = ids[4, 0] = 5
    logits = ops.dsn_window_logits(ids.to(device), windowed, backend=backend)
    assert logits.isnan().all(dim=1).tolist() == [False, False, True, False, True, False]


SAME_BITS = [pair for pair in SERVING if pair[0] not in ("reference", "triton")]


@pytest.mark.parametrize("dtype", WINDOW_DTYPES)
@pytest.mark.parametrize(("backend", "device"), SAME_BITS, ids=map("-".join, SAME_BITS))
def test_a_row_has_the_same_bits_in_any_batch(dtype, backend, device):
    """Alone, among others, padded or packed. The reference is left out, since torch's matrix product rounds by the size
    of the batch, and so is Triton, whose tiles depend on it."""
    values = window_parameters(layers=5, dendrites=32)
    windowed = in_view(prepared(values, window_head(values), dtype=dtype), "plain", device)
    lengths = [25, 3, 0, 70, 1, 12, 13, 300, 24, 11]
    rows = [torch.randint(VOCAB_SIZE, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    packed = ops.dsn_window_logits(torch.cat(rows).to(device), windowed, cu_seqlens=cu_seqlens.to(device),
                                   backend=backend)
    for row, expected in zip(rows, packed):
        assert torch.equal(ops.dsn_window_logits(row[None].to(device), windowed, backend=backend)[0], expected)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    assert torch.equal(ops.dsn_window_logits(padded.to(device), windowed, backend=backend,
                                             attention_mask=(padded >= 0).to(device)), packed)


@pytest.mark.parametrize(("field", "change", "message"), [
    ("values", lambda x: x[0], r"values has shape \[83, 16\], expected \[K, V, D\]"),
    ("values", lambda x: x[..., :5], r"values has shape \[2, 83, 5\], expected \[.* 16\]"),
    ("weight", lambda x: x[:, :5], r"weight has shape \[9, 5\], expected \[9, 32\]"),
    ("gate", lambda x: x[:, :5], r"gate has shape \[2, 5\], expected \[2, 83\]"),
    ("taps", lambda x: x[:, :, :2], r"taps has shape \[2, 83, 2, 16\], expected .* odd"),
    ("taps", lambda x: x[..., :9], r"taps has shape \[2, 83, 3, 9\], expected .*multiple of 16"),
    ("window_bias", lambda x: x[:2], r"window_weight has shape \[2, 3, 16, 16\], expected \[1, 3, 16, 16\]"),
    ("window_weight", lambda x: x.half(), "window_weight has dtype torch.float16"),
    ("taps", lambda x: x.double(), "taps (has dtype torch.float64|is not float32)"),
    ("gate_weight", lambda x: x[:3], r"gate_weight has shape \[3\], expected \[16\]"),
    ("bias", lambda x: x[:3], r"bias has shape \[3\], expected \[9\]"),
    ("activation", lambda x: "swish", "activation is 'swish', expected one of sigmoid"),
], ids=lambda value: "" if callable(value) else str(value))
@each_windowed
def test_tables_that_do_not_fit(field, change, message, backend, device):
    values = window_parameters()
    windowed = in_view(prepared(values, window_head(values), is_folded=True), "plain", device)
    windowed = windowed._replace(**{field: change(getattr(windowed, field))})
    if backend != "reference" and field == "window_weight":
        message = "cannot serve this call"  # the choice looks at its dtype
    with pytest.raises(RuntimeError, match=message) as caught:
        ops.dsn_window_logits(torch.tensor([[1, 2]], device=device), windowed, backend=backend)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"input_ids": torch.tensor([[1, 2], [3, VOCAB_SIZE]])}, f"input_ids holds {VOCAB_SIZE} in row 1, expected 0 to"),
    ({"input_ids": torch.tensor([1, 2, -1]), "cu_seqlens": torch.tensor([0, 1, 3])}, "input_ids holds -1 in row 1"),
    ({"input_ids": torch.tensor([[1]]), "token_type_ids": torch.tensor([[2]])}, "token_type_ids holds 2 in row 0"),
    ({"input_ids": torch.tensor([1, 2]), "cu_seqlens": torch.tensor([0, 3])}, "cu_seqlens runs from 0 to 3"),
], ids=str)
@each_checking
def test_indices_outside_their_tables(arguments, message, backend, device):
    values = window_parameters()
    windowed = in_view(prepared(values, window_head(values)), "plain", device)
    with pytest.raises(RuntimeError, match=message):
        ops.dsn_window_logits(**moved(arguments, device), windowed=windowed, backend=backend)


@pytest.mark.parametrize(("changes", "message"), [
    ({"dtype": torch.float16}, "dtype is torch.float16, window layers are stored as"),
    ({"weight": torch.zeros(3, 5)}, r"weight has shape \(3, 5\), expected \[\*, 28\]: H \+ M"),
    ({"activation": "swish"}, "activation is 'swish'"),
])
def test_prepare_windows_refuses(changes, message):
    values = window_parameters()
    arguments = window_head(values) | {name: values[name] for name in NAMES} | changes
    with pytest.raises(ValueError, match=message):
        prepare_windows(**arguments)


@each_windowed
def test_the_error_does_not_grow_with_the_row(backend, device):
    """Where all tokens are equal all roundings of a sum have one sign: one sum over 20,000 columns was off by 1e-4."""
    values = window_parameters(layers=2)
    windowed = prepared(values, window_head(values))
    ids = torch.full((1, 20_000), 3)
    logits = ops.dsn_window_logits(ids, windowed=in_view(windowed, "plain", device), backend=backend)
    exact = exact_window_logits({"input_ids": ids}, windowed)
    torch.testing.assert_close(logits.double(), exact.value, rtol=2e-5, atol=2e-5)
