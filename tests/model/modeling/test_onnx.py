"""ONNX: exported by default, a graph of plain operators, run by onnxruntime on ids, sizes and lengths of its own."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import tiny_bert
from torch.export import Dim

from dendritic_bert import (
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
    DendriticBertModel,
)
from dendritic_bert.kernels import backends

DYNAMIC = {0: Dim("rows"), 1: Dim("length", max=20)}
SHAPES = [(1, 1), (3, 7), (2, 20), (16, 2)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(num_labels=2, hidden_size=64).save_pretrained(folder)
    return folder


def batch(rows: int, length: int, with_types: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * length)
    lengths = torch.randint(length + 1, (rows, 1), generator=generator)
    inputs = {"input_ids": torch.randint(50, (rows, length), generator=generator),
              "attention_mask": (torch.arange(length) < lengths).long()}
    if with_types:
        inputs["token_type_ids"] = torch.randint(2, (rows, length), generator=generator)
    return inputs


def check(file, model, with_types: bool, shapes=SHAPES) -> None:
    graph = onnx.load(file) if not isinstance(file, bytes) else onnx.load_from_string(file)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    for rows, length in shapes:
        inputs = batch(rows, length, with_types)
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            expected = model(**inputs).to_tuple()
        for one, value in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, value.numpy(), rtol=1e-4, atol=1e-4)


OPTIONS = [{}, {"num_dendrites": 2}, {"pooling": "sum_all"}, {"pooling": "mean_all"}, {"head_hidden": 8}]


@pytest.mark.parametrize(("options", "with_types", "served"), [
    (options, number % 2 == 1, number % 2 == 0) for number, options in enumerate([*OPTIONS, {}])], ids=str)
def test_classifier(checkpoint, tmp_path, options, with_types, served):
    """Exported on zeros; ``served`` ones have made their tables before."""
    model = DendriticBertForSequenceClassification.from_pretrained(
        checkpoint, **options, ignore_mismatched_sizes=True)
    with torch.no_grad():
        if served:
            model(**batch(2, 3, with_types))
        zeros = {name: torch.zeros_like(value) for name, value in batch(2, 5, with_types).items()}
        torch.onnx.export(model, (), tmp_path / "model.onnx", kwargs=zeros, dynamo=True, verbose=False,
                          dynamic_shapes=dict.fromkeys(zeros, DYNAMIC))
    check(tmp_path / "model.onnx", model, with_types)


@pytest.mark.parametrize("kind", [DendriticBertForQuestionAnswering, DendriticBertModel])
def test_other_models(checkpoint, tmp_path, kind):
    model = kind.from_pretrained(checkpoint, num_labels=2)
    inputs = batch(2, 5, True)
    with torch.no_grad():
        torch.onnx.export(model, (), tmp_path / "model.onnx", kwargs=inputs, dynamo=True, verbose=False,
                          dynamic_shapes=dict.fromkeys(inputs, DYNAMIC))
    check(tmp_path / "model.onnx", model, True)


def test_of_one_shape_with_gradients_enabled(checkpoint, tmp_path):
    model = DendriticBertForSequenceClassification.from_pretrained(checkpoint)
    torch.onnx.export(model, (), tmp_path / "model.onnx", kwargs=batch(2, 5, False), dynamo=True, verbose=False)
    check(tmp_path / "model.onnx", model, False, [(2, 5)])


@pytest.mark.filterwarnings("ignore")
def test_traced(checkpoint, tmp_path):
    """TorchScript and its exporter, which torch still has: no op of ours, or whoever loads it must have us."""
    model = DendriticBertForSequenceClassification.from_pretrained(checkpoint)
    inputs, names = batch(2, 5, False), ["input_ids", "attention_mask"]
    with torch.no_grad():
        model(**inputs)
        traced = torch.jit.trace(model, tuple(inputs.values()), strict=False)
        torch.jit.save(traced, buffer := io.BytesIO())
        buffer.seek(0)
        loaded = torch.jit.load(buffer)
        for shape in SHAPES:
            other = batch(*shape, False)
            torch.testing.assert_close(loaded(**other)["logits"], model(**other).logits, rtol=1e-4, atol=1e-4)
        torch.onnx.export(model, tuple(inputs.values()), tmp_path / "model.onnx", dynamo=False, input_names=names,
                          dynamic_axes={name: {0: "rows", 1: "length"} for name in names})
    assert not any("dendritic_bert::" in node.kind() for node in traced.inlined_graph.nodes())
    check(tmp_path / "model.onnx", model, False)


def test_whatever_backend_is_forced(checkpoint, tmp_path, monkeypatch):
    """That is for running; in a graph there is none of ours."""
    model = DendriticBertForSequenceClassification.from_pretrained(checkpoint)
    monkeypatch.setattr(backends, "FORCED", next(iter(backends.BACKENDS)))
    torch.onnx.export(model, (), tmp_path / "model.onnx", kwargs=batch(2, 5, False), dynamo=True, verbose=False)
    monkeypatch.undo()
    check(tmp_path / "model.onnx", model, False, [(2, 5)])
