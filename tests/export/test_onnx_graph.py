"""The ONNX graph, run by onnxruntime and held to the formulas in float64, from the words as they are stored."""

import copy
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_classifier import small_model
from windowed_models import KINDS, expected_logits, windowed_model

from dendritic_bert import DendriticBertConfig, DendriticBertForQuestionAnswering
from dendritic_bert.export import onnx_graph
from dendritic_bert.export.tables import make_tables, round_words
from dendritic_bert.kernels.reference import pool_ref, token_places

SHAPES = [(1, 1), (3, 7), (2, 24), (16, 2)]
OUTSIDE = 10**9  # an id that no table has
HEADS = {
    "no_dendrite": {"num_dendrites": 0}, "one": {"num_dendrites": 1, "dendrite_activation": "tanh"},
    "three": {"num_dendrites": 3, "dendrite_activation": "relu", "num_labels": 5},
    "gelu": {"dendrite_activation": "gelu", "num_labels": 1}, "mean_all": {"pooling": "mean_all"},
    "sum_all": {"pooling": "sum_all", "num_dendrites": 1}, "hidden": {"head_hidden": 6, "num_dendrites": 2},
    "hidden_relu": {"head_hidden": 3, "hidden_act": "relu", "num_dendrites": 0},
    "hidden_silu": {"head_hidden": 3, "hidden_act": "silu", "pooling": "mean_all"},
}


def batch(rows: int, length: int, with_types: bool, is_masked: bool) -> dict[str, torch.Tensor]:
    """Rows of any length from 0 on; where padding is not counted, what stands there is out of every range."""
    generator = torch.Generator().manual_seed(rows * length)
    lengths = torch.randint(length + 1, (rows, 1), generator=generator)
    mask = torch.arange(length) < lengths
    inputs = {"input_ids": torch.randint(600, (rows, length), generator=generator), "attention_mask": mask.long() * 3}
    if with_types:
        inputs["token_type_ids"] = torch.randint(2, (rows, length), generator=generator)
    if is_masked:
        for name in inputs.keys() - {"attention_mask"}:
            inputs[name][~mask] = OUTSIDE
    return inputs


@torch.no_grad()
def exact(model, inputs) -> torch.Tensor:
    """The formulas in float64: without positions by torch's convolution, otherwise by transformers' BertEmbeddings."""
    model, mask = copy.deepcopy(model).double(), inputs["attention_mask"]
    is_masked = getattr(model, "pooling", None) not in ("mean_all", "sum_all")
    ids, types = (torch.where(mask != 0, values, 0) if is_masked else values for values in (
        inputs["input_ids"], inputs.get("token_type_ids", torch.zeros_like(mask))))
    if model.config.max_position_embeddings == 0:
        return expected_logits(model, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
    x = model.bert.embeddings(input_ids=ids, token_type_ids=types)
    if model.head_name == "qa_outputs":
        return torch.where(mask[..., None] != 0, model.qa_outputs(x), 0)
    return model.classifier(pool_ref(x, token_places(ids, None)[0], mask, None, model.pooling))


def check(model, path, dtype: str, with_types: bool) -> onnx.ModelProto:
    tables = make_tables(model, dtype, with_types)
    round_words(model, tables)
    onnx_graph.write_onnx(tables, path, {"labels": "[]"})
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    is_masked = tables.pooling not in ("mean_all", "sum_all")
    batches = [batch(*shape, with_types, is_masked) for shape in SHAPES]
    if not tables.has_positions:
        batches.append(batch(2, 90, with_types, is_masked))
    for inputs, found in zip(batches, onnx_graph.run_onnx(path, batches), strict=True):
        expected = exact(model, inputs)
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    return graph


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", [*HEADS, *KINDS])
def test_classifier(tmp_path, name, dtype):
    with_types = (len(name) + len(dtype)) % 2 == 0
    model = windowed_model(**KINDS[name]) if name in KINDS else small_model(**HEADS[name])
    graph = check(model, tmp_path / "model.onnx", dtype, with_types)
    assert {node.domain for node in graph.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", onnx_graph.OPSET)]
    words = next(constant for constant in graph.graph.initializer if constant.name == "word_embeddings")
    assert onnx.numpy_helper.to_array(words).dtype == np.dtype(dtype)


def test_question_answering(tmp_path):
    config = DendriticBertConfig(vocab_size=600, hidden_size=16, max_position_embeddings=24, num_dendrites=2,
                                 head_hidden=5, initializer_range=1.0)
    graph = check(DendriticBertForQuestionAnswering(config).eval(), tmp_path / "model.onnx", "int8", True)
    assert [output.name for output in graph.graph.output] == ["start_logits", "end_logits"]


@pytest.mark.parametrize("kind", ["bag", "recipe", "wide"])
def test_padding_is_not_looked_up_and_empty_rows_have_a_value(tmp_path, kind):
    """Row 0 of the table, which padding looks up in the place of its own id, is NaN here."""
    model = small_model() if kind == "bag" else windowed_model(**KINDS[kind])
    padded = model if kind == "bag" else copy.deepcopy(model)  # the convolution multiplies what it should select
    model.bert.embeddings.word_embeddings.weight.data[0] = float("nan")
    tables = make_tables(model, "float32", False)
    onnx_graph.write_onnx(tables, tmp_path / "model.onnx", {})
    ids, mask = torch.full((2, 4), 7), torch.zeros(2, 4, dtype=torch.int64)
    mask[0, 1] = 1
    found, = onnx_graph.run_onnx(tmp_path / "model.onnx", [{"input_ids": ids, "attention_mask": mask}])
    expected = exact(padded, {"input_ids": ids, "attention_mask": mask})
    assert expected.isfinite().all()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_columns(tmp_path, kind):
    """As of empty texts alone, to which a tokenizer adds no special tokens: rows of padding in no column."""
    model = windowed_model(**KINDS[kind])
    onnx_graph.write_onnx(make_tables(model, "float32", False), tmp_path / "model.onnx", {})
    none, padding = ({name: torch.zeros(3, length, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
                     for length in (0, 2))
    found, = onnx_graph.run_onnx(tmp_path / "model.onnx", [none])
    torch.testing.assert_close(found.double(), exact(model, padding), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("input_ids", 600), ("token_type_ids", 2)])
@pytest.mark.parametrize("kind", ["bag", "recipe"])
def test_what_is_out_of_range_is_an_error(tmp_path, kind, name, value):
    model = small_model() if kind == "bag" else windowed_model(**KINDS[kind])
    onnx_graph.write_onnx(make_tables(model, "float32", True), tmp_path / "model.onnx", {})
    inputs = {part: torch.ones(2, 3, dtype=torch.int64) for part in ("input_ids", "attention_mask", "token_type_ids")}
    inputs[name][1, 2] = value
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        onnx_graph.run_onnx(tmp_path / "model.onnx", [inputs])


@pytest.mark.parametrize("with_types", [False, True])
def test_a_row_longer_than_the_position_table_is_an_error(tmp_path, with_types):
    onnx_graph.write_onnx(make_tables(small_model(), "float32", with_types), tmp_path / "model.onnx", {})
    inputs = {"input_ids": torch.ones(1, 25, dtype=torch.int64), "attention_mask": torch.ones(1, 25).long()}
    inputs |= {"token_type_ids": inputs["input_ids"]} if with_types else {}
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        onnx_graph.run_onnx(tmp_path / "model.onnx", [inputs])
    inputs["attention_mask"][:, 24] = 0  # padding may stand there
    assert onnx_graph.run_onnx(tmp_path / "model.onnx", [inputs])[0].isfinite().all()


def test_the_same_model_gives_the_same_bytes(tmp_path):
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        onnx_graph.write_onnx(make_tables(small_model(), "int8", True), file, {"labels": "[]", "dtype": "int8"})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_the_graph_cannot_hold(tmp_path, monkeypatch):
    tables = make_tables(small_model(head_hidden=3, hidden_act="gelu_new"), "float32", False)
    with pytest.raises(ValueError, match=r"hidden_act is a NewGELUActivation, .* pass --format torch\."):
        onnx_graph.write_onnx(tables, tmp_path / "model.onnx", {})
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match=r"the tables take 0\.0 GB, an ONNX file holds 2: pass --dtype int8"):
        onnx_graph.write_onnx(tables, tmp_path / "model.onnx", {})
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"needs onnx, which is not installed: pip install 'dendritic-b"):
        onnx_graph.write_onnx(tables, tmp_path / "model.onnx", {})
    assert not (tmp_path / "model.onnx").exists()
