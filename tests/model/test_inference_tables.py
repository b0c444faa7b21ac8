"""The inference tables: a cache that must never be seen, only felt."""

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import tiny_bert
from small_classifier import hugging_face_tokenizer
from torch import nn
from windowed_models import KINDS, windowed_model

from dendritic_bert import DendriticBertForSequenceClassification, DendriticLinear, TextClassifier
from dendritic_bert.kernels import backends
from dendritic_bert.model import inference_tables, table_cache


@pytest.fixture
def model(tmp_path):
    tiny_bert(num_labels=3).save_pretrained(tmp_path)
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path, num_dendrites=2)
    randomise(model.classifier)
    return model


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return {"input_ids": torch.randint(50, (4, 9)), "attention_mask": torch.randint(2, (4, 9))}


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.normal_()


def fused(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def assert_not_stale(model, inputs, tolerance=1e-5):
    """Beside the differentiable path, which reads the parameters in every call; of a copy, for it drops the tables."""
    expected = copy.deepcopy(model)(**inputs).logits.float()
    torch.testing.assert_close(fused(model, inputs), expected, rtol=tolerance, atol=tolerance)


def test_made_once(model, inputs, monkeypatch):
    made = []

    def counted(*args):
        made.append(args)
        return prepare_table(*args)

    prepare_table = inference_tables.prepare_table
    monkeypatch.setattr(inference_tables, "prepare_table", counted)
    for _ in range(3):
        fused(model, inputs)
        model.eval()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    fused(model, inputs)
    assert len(made) == 1


def optimizer_step(model, inputs):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(**inputs).logits.sum().backward()
    optimizer.step()


def load_state_dict(model, inputs):
    model.load_state_dict({name: torch.randn_like(value) for name, value in model.state_dict().items()})


def assign_state_dict(model, inputs):
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def change_in_place(name):
    def change(model, inputs):
        with torch.no_grad():
            model.get_parameter(name).mul_(torch.rand_like(model.get_parameter(name)))

    change.__name__ = f"in_place_{name}"
    return change


def new_data(model, inputs):
    weight = model.classifier.weight
    weight.data = torch.randn_like(weight)


def through_data_while_training(model, inputs):
    model.train()
    model.classifier.weight.data.mul_(2)
    model.eval()


def half_and_back(model, inputs):
    model.half().float()


def applied(model, inputs):
    """What .to() does underneath; in place, it leaves neither a new address nor a version."""
    model._apply(lambda tensor: tensor.data.mul_(2))


def new_parameter(model, inputs):
    model.bert.embeddings.LayerNorm.bias = nn.Parameter(torch.randn(32))


def new_module(model, inputs):
    model.set_input_embeddings(nn.Embedding(50, 32))


def new_embeddings(model, inputs):
    model.bert.embeddings = copy.deepcopy(model.bert.embeddings)
    randomise(model.bert.embeddings)


def new_head(model, inputs):
    model.classifier = DendriticLinear(32, 5, 1)


def foreign_head(model, inputs):
    """Whatever stands there is called, though it cannot be fused (PerforatedAI wraps the layer like this)."""
    model.classifier = nn.Sequential(nn.Linear(32, 5), nn.Tanh())


def resized(model, inputs):
    model.resize_token_embeddings(60)
    randomise(model)
    inputs["input_ids"] = torch.full_like(inputs["input_ids"], 59)


PARAMETERS = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight",
              "bert.embeddings.token_type_embeddings.weight", "bert.embeddings.LayerNorm.weight",
              "bert.embeddings.LayerNorm.bias", "classifier.weight", "classifier.bias", "classifier.lateral",
              "classifier.top"]
CHANGES = [optimizer_step, load_state_dict, assign_state_dict, *map(change_in_place, PARAMETERS), new_data,
           through_data_while_training, half_and_back, applied, new_parameter, new_module, new_embeddings, new_head,
           foreign_head, resized]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_made_anew_when_a_parameter_changed(model, inputs, change):
    assert sorted(PARAMETERS) == sorted(name for name, _ in model.named_parameters())
    before = fused(model, inputs)
    change(model, inputs)
    assert_not_stale(model, inputs)
    after = fused(model, inputs)
    assert after.shape != before.shape or not torch.allclose(after, before, atol=1e-6)


def test_prepare_shows_what_was_written_through_data(model, inputs, monkeypatch):
    """torch keeps no trace of it, so where parameters are not compared, on a GPU, it has to be said."""
    monkeypatch.setattr(table_cache.Contents, "are_same", lambda self: True)
    fused(model, inputs)
    model.bert.embeddings.word_embeddings.weight.data.normal_()
    assert model.prepare() is model
    assert_not_stale(model, inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2), (torch.int8, 5e-2)])
def test_table_dtype(model, inputs, dtype, tolerance):
    exact = fused(model, inputs)
    state = copy.deepcopy(model.state_dict())
    model.prepare(dtype=dtype)
    assert not torch.equal(fused(model, inputs), exact)
    assert_not_stale(model, inputs, tolerance)
    randomise(model)
    assert not torch.equal(fused(model, inputs), fused(copy.deepcopy(model).prepare(), inputs))  # it stays
    assert_not_stale(model, inputs, tolerance)
    model.load_state_dict(state)
    assert torch.equal(fused(model.prepare(), inputs), exact)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_prepare_refuses(model, inputs):
    with pytest.raises(ValueError, match=r"dtype is torch\.float64, a table is stored as one of torch\.float32"):
        model.prepare(dtype=torch.float64)
    model.config.dsn = False
    with pytest.raises(ValueError, match=r"prepare\(\) needs a DSN, but dsn is False"):
        DendriticBertForSequenceClassification(model.config).prepare()


def test_float64_is_not_rounded_to_a_table(model, inputs):
    model.double()
    assert torch.equal(fused(model, inputs), model(**inputs).logits)
    assert fused(model.prepare(dtype=torch.float16), inputs).dtype == torch.float32  # unless asked for


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=["deepcopy", "pickle"])
def test_copies_share_nothing(model, inputs, twin_of):
    logits = fused(model, inputs)
    twin = twin_of(model)
    assert torch.equal(fused(twin, inputs), logits)
    randomise(twin)
    assert_not_stale(twin, inputs)
    assert torch.equal(fused(model, inputs), logits)


def test_tables_are_not_pickled_nor_saved(model, inputs, tmp_path):
    sizes, names = [len(pickle.dumps(model))], set(model.state_dict())
    fused(model, inputs)
    sizes.append(len(pickle.dumps(model)))
    assert sizes[0] == sizes[1]
    assert set(model.state_dict()) == names


def test_parameters_made_in_inference_mode(model, inputs):
    """torch counts no versions of them."""
    logits = fused(model, inputs)
    with torch.inference_mode():
        twin = copy.deepcopy(model)
        assert all(parameter.is_inference() for parameter in twin.parameters())
        for _ in range(2):
            assert torch.equal(twin(**inputs).logits, logits)


def test_replicas_of_data_parallel_do_without(model, inputs):
    """torch.nn.DataParallel makes a replica for one call and hangs the parameters of another device into it."""
    logits = fused(model, inputs)
    replica = model._replicate_for_data_parallel()
    replica.bert = copy.deepcopy(model.bert)
    randomise(replica.bert)
    assert_not_stale(replica, inputs)
    assert not torch.allclose(fused(replica, inputs), logits, atol=1e-3)
    assert torch.equal(fused(model, inputs), logits)


def test_threads(model, inputs):
    batches = [{name: value[i % 4:i % 4 + 1] for name, value in inputs.items()} for i in range(200)]
    expected = [fused(model, batch) for batch in batches]
    model.prepare()
    model._apply(lambda tensor: tensor)  # every thread finds the tables missing
    with ThreadPoolExecutor(4) as pool:
        for logits, other in zip(pool.map(lambda batch: fused(model, batch), batches), expected, strict=True):
            assert torch.equal(logits, other)


@pytest.fixture
def foldable(tmp_path):
    """With 64 channels for 2 outputs the head is folded into the tables, which the small models above are not."""
    tiny_bert(num_labels=2, hidden_size=64, max_position_embeddings=300).save_pretrained(tmp_path)
    return DendriticBertForSequenceClassification.from_pretrained(tmp_path)


def folded_of(model):
    return model._table_cache.tables.folded


def rows_of(*lengths):
    return {"input_ids": torch.randint(50, (sum(lengths),), generator=torch.Generator().manual_seed(0)),
            "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0)}


@pytest.mark.parametrize("inputs", [rows_of(9, 0, 3), rows_of(40, 41), rows_of(64, 65), rows_of(300), rows_of(),
                                    {"input_ids": torch.zeros(2, 0, dtype=torch.int64)},
                                    {"input_ids": torch.full((2, 130), 7)}], ids=lambda i: str(i["input_ids"].shape))
def test_folded_tables_serve_rows_of_any_length(foldable, inputs):
    assert_not_stale(foldable, inputs)
    longest = int(inputs["cu_seqlens"].diff().max()) if inputs.get("cu_seqlens", torch.zeros(1)).numel() > 1 else (
        inputs["input_ids"].shape[-1])
    assert folded_of(foldable).num_positions >= longest


@pytest.mark.parametrize(("num_labels", "folded"), [(2, True), (16, True), (17, False)])
def test_a_head_is_folded_where_its_rows_are_less_than_half_of_a_word_s(num_labels, folded, tmp_path):
    """Of 64 channels; 17 outputs are padded to 32."""
    tiny_bert(num_labels=num_labels, hidden_size=64).save_pretrained(tmp_path)
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path)
    assert_not_stale(model, rows_of(3, 20))
    assert (folded_of(model) is not None) == folded


def test_folded_tables_grow_and_are_kept(foldable):
    sizes = []
    for length in (0, 5, 64, 65, 10, 257, 300, 3):
        assert_not_stale(foldable, rows_of(length, length // 2))
        sizes.append(folded_of(foldable).num_positions)
    assert sizes == [0, 64, 64, 128, 128, 300, 300, 300]
    types = {"token_type_ids": torch.tensor([[0, 1, 1]])}
    assert_not_stale(foldable, {"input_ids": torch.tensor([[3, 4, 5]])} | types)
    assert folded_of(foldable).rstd.shape[0] == 2
    before = folded_of(foldable)
    assert_not_stale(foldable, rows_of(20))
    assert folded_of(foldable) is before


def test_the_same_bits_however_far_the_folded_tables_have_grown(foldable):
    early = fused(foldable, rows_of(20))
    fused(foldable, rows_of(300))
    assert torch.equal(fused(foldable, rows_of(20)), early)


def test_what_is_not_folded(foldable, monkeypatch):
    """Positions of the caller's own, tables that would be too large, and rows that are refused."""
    ids = torch.tensor([[3, 4, 5]])
    assert_not_stale(foldable, {"input_ids": ids, "position_ids": torch.tensor([[9, 299, 0]])})
    assert folded_of(foldable) is None
    with pytest.raises(RuntimeError, match="row 1 has 301 tokens, the position table 300"):
        fused(foldable, rows_of(2, 301))
    monkeypatch.setattr(inference_tables, "LARGEST_RSTD", 4 * 50 * 64)
    assert_not_stale(foldable, rows_of(70))
    assert folded_of(foldable) is None
    assert_not_stale(foldable, rows_of(64))
    assert folded_of(foldable).num_positions == 64
    with pytest.raises(RuntimeError, match="input_ids holds 50 in row 0, expected 0 to 49"):
        fused(foldable, {"input_ids": torch.tensor([[3, 50]])})


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_folded_from_the_table_that_was_asked_for(foldable, dtype):
    exact = fused(foldable, rows_of(20, 30))
    foldable.prepare(dtype=dtype)
    from_folded = fused(foldable, rows_of(20, 30))
    foldable._table_cache.tables._is_foldable = False
    torch.testing.assert_close(from_folded, fused(foldable, rows_of(20, 30)), rtol=1e-5, atol=1e-5)
    assert not torch.equal(from_folded, exact)


def test_int8_windows_are_computed_in_float32_where_kernels_serve_that_alone(monkeypatch):
    """As on a GPU, where the reference would serve int8."""
    model = windowed_model(**KINDS["recipe"]).eval()
    classifier = TextClassifier(model, hugging_face_tokenizer())
    arguments = {"input_ids": torch.randint(40, (4, 9)), "attention_mask": torch.ones(4, 9, dtype=torch.int64)}
    model.prepare(torch.float32)
    exact = fused(model, arguments)
    model.prepare(torch.int8)
    assert not torch.equal(fused(model, arguments), exact)
    assert " in int8)" in repr(classifier)
    cpu = backends.KERNEL_BACKENDS["cpu"]
    served = {op: dtypes for op, dtypes in cpu.table_dtypes.items() if op != "dsn_window_logits_int8"}
    monkeypatch.setitem(backends.KERNEL_BACKENDS, "cpu", dataclasses.replace(cpu, table_dtypes=served))
    model.prepare(torch.int8)
    assert torch.equal(fused(model, arguments), exact)
    assert " in float32)" in repr(classifier)
