"""``dsn_window_logits`` in Triton, interpreted on a CPU, against the float64 reference.

Run by tests/kernels/backends/triton/test_windows.py. The interpreter's products are wrong in bfloat16, so that the
kernels are given float32 here; the two forms differ in nothing but the products' dtype.
"""

from itertools import pairwise

import pytest
import torch
from cases import VOCAB_SIZE, awkward, case_id, covering_sample, tokens
from dsn_workload import in_view
from helpers import assert_within_rounding
from window_workload import AXES, exact_window_logits, prepared, window_head, window_parameters, workload

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.configs import WindowConfig
from dendritic_bert.kernels.contract import ACTIVATIONS, WINDOW_DTYPES, WindowedDsn
from dendritic_bert.kernels.reference import dsn_window_logits_ref

# How a batch is cut: as for few rows; as for many; and into tiles so small that most rows take several.
CUTS = ("few rows", "many rows", "small splits", "small tiles")
CASES = AXES | {"length": [0, 1, 2, 5, 13, 31, 64, 129], "rows": [1, 3, 9], "num_labels": [1, 2, 3, 9],
                "num_dendrites": [0, 1, 2, 3], "cut": CUTS}
each_cut = pytest.mark.parametrize("cut", CUTS)


@pytest.fixture(autouse=True)
def _unwritten_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def use(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut batches in this way until the test ends. Small tiles are 16 tokens and the halo more, rounded up."""
    if cut in ("many rows", "small tiles"):
        monkeypatch.setattr(configs, "FEW_ROWS", 0)
    if cut.startswith("small"):
        def small(num_rows, length, num_tokens, channels, width, halo, dtype, arch):
            columns = configs.power_of_2(2 * halo + 16)
            rows = 2 if cut == "small tiles" and length == 0 else 1
            return WindowConfig(rows, columns // rows, 4, 1, 64)
        monkeypatch.setattr(configs, "choose_windows", small)


def window_logits(token_arguments: dict, windowed: WindowedDsn, view: str = "plain") -> torch.Tensor:
    views = {name: awkward(value, view) for name, value in token_arguments.items()}
    return ops.dsn_window_logits(**views, windowed=in_view(windowed, view, "cpu"), backend="triton")


def small_windowed(**changes) -> WindowedDsn:
    values = window_parameters(**changes)
    return prepared(values, window_head(values, num_labels=2, num_dendrites=1))


@pytest.mark.parametrize("case", covering_sample(CASES, 40, seed=3), ids=case_id)
def test_logits(case, monkeypatch):
    use(case["cut"], monkeypatch)
    token_arguments, values, head_values = workload(case)
    windowed = prepared(values, head_values, activation=case["activation"], is_folded=case["is_folded"])
    actual = window_logits(token_arguments, windowed, case["view"])
    assert_within_rounding(actual, dsn_window_logits_ref(**token_arguments, windowed=windowed),
                           exact_window_logits(token_arguments, windowed))


@pytest.mark.parametrize("layers", [0, 2])
def test_the_384_outputs_of_an_encoder(layers):
    values = window_parameters(hidden_size=96, layers=layers, dendrites=32 if layers else 0)
    windowed, arguments = prepared(values, window_head(values, 384, 0)), tokens("packed int32", 3, 9)
    assert_within_rounding(window_logits(arguments, windowed), dsn_window_logits_ref(**arguments, windowed=windowed),
                           exact_window_logits(arguments, windowed))


@each_cut
@pytest.mark.parametrize("lengths", [[33, 0, 70, 1, 26, 27, 64, 65], [16, 17, 3], [0, 0], [150]], ids=str)
def test_rows_at_the_ends_of_tiles(lengths, cut, monkeypatch):
    """Packed, and padded to the longest. The halo of two layers is 3 columns, so that small tiles have 32, or 26."""
    use(cut, monkeypatch)
    windowed, width = small_windowed(layers=2), max(lengths)
    keep = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(VOCAB_SIZE, keep.shape, generator=torch.Generator().manual_seed(0))
    packed = {"input_ids": ids[keep], "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0)}
    eager, exact = dsn_window_logits_ref(**packed, windowed=windowed), exact_window_logits(packed, windowed)
    assert_within_rounding(window_logits(packed, windowed), eager, exact)
    assert_within_rounding(window_logits({"input_ids": ids, "attention_mask": keep}, windowed), eager, exact)


@pytest.mark.parametrize("num_rows", [1, 5000])
@pytest.mark.parametrize("length", [0, 1, 25, 33, 256, 512])
@pytest.mark.parametrize("dtype", WINDOW_DTYPES, ids=str)
@pytest.mark.parametrize("arch", ["interpreter", "sm_90", "gfx942"])
def test_every_configuration_fits(arch, dtype, length, num_rows):
    """Tiles are powers of two of at least 16 tokens, and a tile that is cut is wider than its halo."""
    for channels in (16, 32, 64, 128):
        for halo in (0, 1, 31, 127):
            for columns in (0, length):  # packed and padded
                config = configs.choose_windows(num_rows, columns, num_rows * length, channels, 16, halo, dtype, arch)
                assert config.tokens >= 16
                assert all(size & (size - 1) == 0 for size in config)
                assert config.tokens - 2 * halo > 0 or (columns or num_rows * length) <= config.columns
                assert config.value_columns <= config.columns


@each_cut
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize(("name", "size"), [("input_ids", VOCAB_SIZE), ("token_type_ids", 2)])
def test_a_bad_index_makes_its_row_alone_nan(name, size, layout, cut, monkeypatch):
    """Nothing is read there, whatever the index: the tables lie among NaN, and memory_checker sees where kernels read.
    """
    use(cut, monkeypatch)
    good = tokens("padded without a mask", 4, 30, token_types=True)
    good["token_type_ids"][2, 17] = 1  # beside which an id of -1 would be the last of type 0
    if layout == "packed":
        good = {key: value.flatten() for key, value in good.items()} | {"cu_seqlens": torch.arange(0, 121, 30)}
    windowed = small_windowed(layers=2)
    expected = window_logits(good, windowed, "odd offset")
    for bad in (-1, size, 2**32, -(2**63)):
        arguments = good | {name: good[name].clone()}
        arguments[name].view(-1)[2 * 30 + 17] = bad
        actual = window_logits(arguments, windowed, "odd offset")
        assert actual.isnan().all(dim=1).tolist() == [False, False, True, False]
        assert torch.equal(actual[[0, 1, 3]], expected[[0, 1, 3]])


@each_cut
@pytest.mark.parametrize("table", ["values", "taps", "gate"])
def test_what_the_mask_hides_is_not_looked_at(table, cut, monkeypatch):
    """Neither a bad index, nor a NaN in a table; and a NaN in a valid token stays in its row."""
    use(cut, monkeypatch)
    windowed = small_windowed(layers=2)
    good = tokens("padded with holes", 4, 30, token_types=True)
    keep = good["attention_mask"] != 0
    good["input_ids"] = torch.where(keep, good["input_ids"] % (VOCAB_SIZE - 1), 0)
    expected = window_logits(good, windowed)
    spoilt = windowed._replace(**{table: getattr(windowed, table).clone()})
    getattr(spoilt, table)[:, VOCAB_SIZE - 1] = float("nan")
    for filler in (VOCAB_SIZE - 1, 2**40):
        arguments = good | {"input_ids": torch.where(keep, good["input_ids"], filler)}
        assert torch.equal(window_logits(arguments, spoilt), expected)
    row, column = keep.nonzero()[-1].tolist()
    good["input_ids"][row, column] = VOCAB_SIZE - 1
    actual = window_logits(good, spoilt)
    assert actual.isnan().all(dim=1).nonzero().flatten().tolist() == [row]
    assert torch.equal(actual[:row], expected[:row])


INVALID = [([0, 5, 3, 12], [1]), ([0, 5, 9, 13], [2]), ([1, 5, 9, 12], [0]), ([0, 5, 9, 11], [2]),
          ([-4, 5, 9, 12], [0]), ([0, 2**31 - 1, 9, 12], [0, 1]), ([0, 5, -9, 12], [1, 2]), ([0, 12, 1, 12], [1]),
          ([0, 11, 0, 12, 0, 12], [1, 3]), ([0, 13, 12], [0, 1])]


def dsn_window_logits_of_rows(arguments: dict, windowed: WindowedDsn) -> torch.Tensor:
    """The reference on each row by itself, whatever the other bounds are; a row outside the batch is empty."""
    ids, bounds = arguments["input_ids"], arguments["cu_seqlens"].tolist()
    rows = [ids[start:end] if 0 <= start <= end <= len(ids) else ids[:0] for start, end in pairwise(bounds)]
    return torch.cat([dsn_window_logits_ref(row[None], windowed) for row in rows])


@each_cut
@pytest.mark.parametrize(("cu_seqlens", "nan_rows"), INVALID, ids=str)
def test_invalid_bounds_of_rows(cu_seqlens, nan_rows, cut, monkeypatch):
    """In units of 8 tokens. A row that shares columns with another may lose a split, of 30, to it. Then it is NaN too;
    otherwise it is right."""
    arguments = {"input_ids": torch.arange(96) % VOCAB_SIZE, "cu_seqlens": 8 * torch.tensor(cu_seqlens)}
    windowed = small_windowed(layers=1, dendrites=16)
    expected = dsn_window_logits_of_rows(arguments, windowed)
    use(cut, monkeypatch)
    actual = window_logits(arguments, windowed, "odd offset")
    has_nan = actual.isnan().any(dim=1)
    assert has_nan[nan_rows].all()
    assert actual[has_nan].isnan().all()
    if cut in ("many rows", "small tiles"):
        assert has_nan.nonzero().flatten().tolist() == nan_rows
    torch.testing.assert_close(actual[~has_nan], expected[~has_nan], rtol=1e-5, atol=1e-5)


@each_cut
def test_a_row_that_ends_just_behind_the_batch(cut, monkeypatch):
    """Its last column would be the one behind the last token."""
    use(cut, monkeypatch)
    arguments = {"input_ids": torch.arange(12), "cu_seqlens": torch.tensor([0, 13, 12])}
    assert window_logits(arguments, small_windowed(layers=1)).isnan().all()


@pytest.mark.parametrize("logit", [-30.0, -8.5, -7.5, 7.5, 8.5, 30.0])
def test_the_gate_is_clipped(logit):
    """At -8 and at 8, with what u adds counted in: beside a word whose logit is 2 nearer to 0 than that."""
    windowed = small_windowed(layers=2)
    windowed.gate[:, 0], windowed.gate[:, 1] = logit, 6.0 if logit > 0 else -6.0
    arguments = {"input_ids": torch.tensor([[0, 1, 1, 0, 1]])}
    assert_within_rounding(window_logits(arguments, windowed), dsn_window_logits_ref(**arguments, windowed=windowed),
                           exact_window_logits(arguments, windowed))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_only_what_belongs_to_the_head_is_read(activation):
    """The upper triangle of lateral is not read, and of folded values no more than the outputs."""
    values = window_parameters(hidden_size=40)
    windowed = prepared(values, window_head(values, 5, 3), activation=activation, is_folded=True)
    arguments = tokens("padded", 3, 9)
    expected = window_logits(arguments, windowed)
    assert_within_rounding(expected, dsn_window_logits_ref(**arguments, windowed=windowed),
                           exact_window_logits(arguments, windowed))
    unread = torch.ones(3, 3).triu().bool()[:, :, None].expand(3, 3, 5)
    padding = windowed.values.clone()
    padding[..., 20:] = float("nan")
    spoilt = windowed._replace(lateral=windowed.lateral.masked_fill(unread, float("nan")), values=padding)
    assert torch.equal(window_logits(arguments, spoilt), expected)


def test_offsets_beyond_two_to_the_31():
    """The last row of the taps starts 2^31 elements behind the first; only the rows that are used become memory."""
    torch.use_deterministic_algorithms(False)  # or the whole table would be filled
    windowed, used = small_windowed(layers=2, dendrites=512), torch.tensor([0, 5, 2**20 + 1, 2**21 + 7])
    vocab_size, (_, _, taps, channels) = 2**21 + 8, windowed.taps.shape
    try:
        large = {"taps": torch.empty(1, vocab_size, taps, channels),
                 "values": torch.empty(1, vocab_size, windowed.values.shape[2]), "gate": torch.empty(1, vocab_size)}
    except RuntimeError as error:
        pytest.skip(f"no 13 GB of address space: {error}")
    for name, table in large.items():
        table[0, used] = getattr(windowed, name)[0, :4]
    ids = torch.tensor([[0, 1, 2], [3, 3, 1]])
    actual = window_logits({"input_ids": used[ids]}, windowed._replace(**large))
    assert torch.equal(actual, window_logits({"input_ids": ids}, windowed))
