"""dsn_window_logits_int8 on every backend: the bits of the reference, which test_reference_int8.py judges."""

import pytest
import torch
from cases import VOCAB_SIZE, awkward, case_id, covering_sample, moved, tokens
from dsn_workload import in_view
from helpers import raises_on_values, serving
from window_workload import AXES, prepared, window_head, window_parameters, workload

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.contract import LONGEST_INT8_ROW
from dendritic_bert.kernels.prepare_int8 import quantise_windows
from dendritic_bert.kernels.reference_int8 import dsn_window_logits_int8_ref

SERVING = serving("dsn_window_logits_int8", torch.int8)
each_int8 = pytest.mark.parametrize(("backend", "device"), SERVING, ids=map("-".join, SERVING))
KERNELS = [pair for pair in SERVING if pair[0] != "reference"]
each_kernel = pytest.mark.parametrize(("backend", "device"), KERNELS, ids=map("-".join, KERNELS))
CHECKING = [pair for pair in SERVING if raises_on_values(pair[0])]
each_checking = pytest.mark.parametrize(("backend", "device"), CHECKING, ids=map("-".join, CHECKING))


def small(device="cpu", **options):
    values = window_parameters()
    return in_view(quantise_windows(prepared(values, window_head(values), **options)), "plain", device)


@pytest.mark.parametrize("case", [case for case in covering_sample(AXES, 60, seed=11) if case["layers"] > 0],
                         ids=case_id)
@each_kernel
def test_the_bits_of_the_reference(case, backend, device):
    token_arguments, values, head_values = workload(case)
    windowed = prepared(values, head_values, activation=case["activation"], is_folded=case["is_folded"])
    sample = torch.randint(VOCAB_SIZE, (8, 12), generator=torch.Generator().manual_seed(0))
    quantised = quantise_windows(windowed, sample)
    views = {name: awkward(value.to(device), case["view"]) for name, value in token_arguments.items()}
    logits = ops.dsn_window_logits_int8(**views, quantised=in_view(quantised, case["view"], device), backend=backend)
    assert torch.equal(logits.cpu(), dsn_window_logits_int8_ref(**token_arguments, quantised=quantised))


@each_int8
def test_labels_agree_with_float32(backend, device):
    """A random model's logits lie as close to 0 as a trained model's do not, so that margins are left out that are
    smaller than a hundredth of their deviation."""
    values = window_parameters(32, 32, 5)
    windowed = prepared(values, window_head(values, 2, 0))
    ids = torch.randint(VOCAB_SIZE, (1000, 25), generator=torch.Generator().manual_seed(3))
    exact = ops.dsn_window_logits(ids, windowed, backend="reference").diff(dim=1)[:, 0]
    quantised = in_view(quantise_windows(windowed), "plain", device)
    margins = ops.dsn_window_logits_int8(ids.to(device), quantised, backend=backend).cpu().diff(dim=1)[:, 0]
    clear = (exact - exact.median()).abs() > exact.std() / 100
    same = (margins > exact.median()) == (exact > exact.median())
    assert clear.float().mean() > 0.98
    assert same[clear].float().mean() >= 0.997


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu"])
@each_int8
def test_a_dendrite_that_is_nan(activation, backend, device):
    """So are the logits that it feeds, and no others, as with every other table."""
    quantised = small(device, activation=activation)
    labels = quantised.top.shape[1]
    bias = quantised.bias.clone()
    bias[labels] = float("nan")
    logits = ops.dsn_window_logits_int8(torch.arange(9, device=device)[None], quantised._replace(bias=bias),
                                        backend=backend)
    assert logits[0].isnan().tolist() == [True] + [False] * (labels - 1)


@pytest.mark.parametrize("is_folded", [False, True])
@each_int8
def test_an_empty_row_gets_the_bias(is_folded, backend, device):
    values = window_parameters()
    head_values = window_head(values, num_dendrites=0)
    quantised = in_view(quantise_windows(prepared(values, head_values, is_folded=is_folded)), "plain", device)
    arguments = moved({"input_ids": torch.arange(5), "cu_seqlens": torch.tensor([0, 0, 5, 5])}, device)
    logits = ops.dsn_window_logits_int8(**arguments, quantised=quantised, backend=backend).cpu()
    assert torch.equal(logits[0], head_values["bias"])
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])


@each_int8
def test_a_masked_token_is_not_read(backend, device):
    quantised = small(device)
    arguments = moved(tokens("padded with holes", 4, 30, mask_dtype=torch.bool), device)
    mask, ids = arguments["attention_mask"], arguments["input_ids"]
    expected = ops.dsn_window_logits_int8(**arguments, quantised=quantised, backend=backend)
    for filler in (0, -5, 2**31 - 1):
        arguments["input_ids"] = torch.where(mask, ids, filler)
        assert torch.equal(ops.dsn_window_logits_int8(**arguments, quantised=quantised, backend=backend), expected)


@each_int8
def test_a_row_has_the_same_bits_in_any_batch(backend, device):
    """Alone, among others, padded or packed, and on any number of threads."""
    values = window_parameters(layers=5, dendrites=32)
    quantised = in_view(quantise_windows(prepared(values, window_head(values))), "plain", device)
    lengths = [25, 3, 0, 70, 1, 12, 13, 700, 24, 11] + 30 * [5]
    rows = [torch.randint(VOCAB_SIZE, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]
    arguments = moved({"input_ids": torch.cat(rows), "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0)}, device)
    packed = ops.dsn_window_logits_int8(**arguments, quantised=quantised, backend=backend)
    for row, expected in list(zip(rows, packed))[:11]:
        assert torch.equal(ops.dsn_window_logits_int8(row[None].to(device), quantised, backend=backend)[0], expected)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    assert torch.equal(ops.dsn_window_logits_int8(padded.to(device), quantised, backend=backend,
                                                  attention_mask=(padded >= 0).to(device)), packed)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(ops.dsn_window_logits_int8(**arguments, quantised=quantised, backend=backend), packed)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("field", "change", "message"), [
    ("values", lambda x: x[0], r"values has shape \[83, 16\], expected \[K, V, D\]"),
    ("gate", lambda x: x[:, :5], r"gate has shape \[2, 5\], expected \[2, 83\]"),
    ("taps", lambda x: x[:, :, :2], r"taps has shape \[2, 83, 2, 16\], expected .* odd"),
    ("taps", lambda x: x.int(), "taps (has dtype torch.int32, expected torch.int16|is not int16)"),
    ("window_bias", lambda x: x[:0], "window_bias has no layer, and int8 is for window layers"),
    ("window_weight", lambda x: x[..., :2], r"window_weight has shape \[2, 3, 4, 16, 2\], expected \[2, 3, 4, 16, 4\]"),
    ("input_scale", lambda x: x[:1], r"input_scale has shape \[1, 16\], expected \[2, 16\]"),
    ("output_shift", lambda x: x[:, :1], r"output_shift has shape \[2, 1\], expected \[2, 16\]"),
    ("output_scale", lambda x: x.int(), "output_scale (has dtype torch.int32, expected torch.int16|is not int16)"),
    ("gate_bits", lambda x: 23, "gate_bits is 23, expected 8 to 22"),
    ("gate_table", lambda x: x[:9], r"gate_table has shape \[9\], expected \[4097\]"),
    ("pooled_scale", lambda x: x[1:], r"pooled_scale has shape \[31\], expected \[32\]"),
    ("activation_table", lambda x: x[1:], r"activation_table has shape \[2048\], expected \[2049\]"),
    ("activation", lambda x: "swish", "activation is 'swish', expected one of sigmoid"),
], ids=lambda value: "" if callable(value) else str(value))
@each_int8
def test_tables_that_do_not_fit(field, change, message, backend, device):
    quantised = small(device, is_folded=True)
    quantised = quantised._replace(**{field: change(getattr(quantised, field))})
    with pytest.raises(RuntimeError, match=message) as caught:
        ops.dsn_window_logits_int8(torch.tensor([[1, 2]], device=device), quantised, backend=backend)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"input_ids": torch.tensor([[1, 2], [3, VOCAB_SIZE]])}, f"input_ids holds {VOCAB_SIZE} in row 1, expected 0 to"),
    ({"input_ids": torch.tensor([1, 2, -1]), "cu_seqlens": torch.tensor([0, 1, 3])}, "input_ids holds -1 in row 1"),
    ({"input_ids": torch.tensor([[1]]), "token_type_ids": torch.tensor([[2]])}, "token_type_ids holds 2 in row 0"),
    ({"input_ids": torch.zeros(LONGEST_INT8_ROW + 2, dtype=torch.int32),
      "cu_seqlens": torch.tensor([0, 1, LONGEST_INT8_ROW + 2])}, "row 1 has 1048577 tokens, .* at most 1048576"),
], ids=["id", "negative id", "type", "long row"])
@each_checking
def test_indices_outside_their_tables(arguments, message, backend, device):
    with pytest.raises(RuntimeError, match=message):
        ops.dsn_window_logits_int8(**moved(arguments, device), quantised=small(device), backend=backend)
