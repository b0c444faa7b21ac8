"""A folder of an exported model: what is in it, and that it appears when it is complete and right, or not at all."""

import json
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from small_classifier import hugging_face_tokenizer, small_model
from small_encoder import BAG, WINDOWS, save_encoder, small_encoder
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from windowed_models import KINDS, ROUNDING, windowed_model

from dendritic_bert import TextEncoder
from dendritic_bert.export import export, onnx_graph
from dendritic_bert.model.packed_encoder import WORDS, pack_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model")
    model = small_model(id2label={0: "négatif", 1: "positif"}, problem_type="multi_label_classification")
    model.config.temperature = 1.5
    model.save_pretrained(path)
    hugging_face_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("encoder")
    small_model(dsn=False).save_pretrained(path)
    hugging_face_tokenizer().save_pretrained(path)
    return str(path)


def test_folder(folder, tmp_path):
    report = export(folder, tmp_path / "new" / "onnx", dtype="int8")
    assert report.path == tmp_path / "new" / "onnx" / "model.onnx"
    assert report.size == report.path.stat().st_size
    assert 0 <= report.difference <= 1e-5
    assert {path.name for path in report.path.parent.iterdir()} == {"model.onnx", "tokenizer.json"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["onnx"]
    about = {entry.key: entry.value for entry in onnx.load(report.path).metadata_props}
    assert json.loads(about.pop("labels")) == ["négatif", "positif"]
    assert about == {"problem_type": "multi_label_classification", "temperature": "1.5", "max_length": "24",
                     "dtype": "int8"}


@pytest.mark.parametrize("side", ["right", "left"])
def test_tokenizer_cuts_and_pads(folder, tmp_path, side):
    """The arrays of transformers' tokenizer."""
    texts = ["the quick brown fox", "and often " * 30, ""]
    shutil.copytree(folder, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text()) | {"truncation_side": side}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert theirs.truncation_side == side
    export(tmp_path / "model", tmp_path / "out", token_type_ids=False)
    encodings = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode_batch(texts)
    expected = theirs(texts, padding=True, truncation=True, max_length=24)
    assert [encoding.ids for encoding in encodings] == expected["input_ids"]
    assert [encoding.attention_mask for encoding in encodings] == expected["attention_mask"]
    assert [node.name for node in onnx.load(tmp_path / "out" / "model.onnx").graph.input] == [
        "input_ids", "attention_mask"]


def test_a_program_with_other_logits_does_not_appear(folder, tmp_path, monkeypatch):
    run = onnx_graph.run_onnx
    monkeypatch.setattr(onnx_graph, "run_onnx", lambda *arguments: [logits + 1e-3 for logits in run(*arguments)])
    with pytest.raises(RuntimeError, match=r"the logits of model\.onnx are 1\.0e-03 off ours, .* is allowed"):
        export(folder, tmp_path / "out")
    monkeypatch.setattr(onnx_graph, "run_onnx",
                        lambda *arguments: [torch.full_like(logits, torch.nan) for logits in run(*arguments)])
    with pytest.raises(RuntimeError, match=r"the logits of model\.onnx are nan off ours"):
        export(folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_nothing_is_compared(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(folder, tmp_path / "out").difference is None


def test_what_cannot_be_exported(folder, encoder, tmp_path):
    with pytest.raises(ValueError, match=r"format is 'gguf', known are onnx, torch, aoti, engine\."):
        export(folder, tmp_path / "out", "gguf")
    with pytest.raises(ValueError, match=r"dtype is 'int4', a table is exported as float32, float16, int8\."):
        export(folder, tmp_path / "out", dtype="int4")
    with pytest.raises(ValueError, match=r"BERT's encoder \(dsn is False\), .* pass --format torch, or"):
        export(encoder, tmp_path / "out")
    with pytest.raises(ValueError, match=r"dtype is int8, but the model has BERT's encoder .* pass --dtype float32\."):
        export(encoder, tmp_path / "out", "torch", dtype="int8")
    with pytest.raises(ValueError, match="holds something already"):
        export(folder, folder)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"out cannot be written \(Not a directory\): name a folder that can"):
        export(folder, tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_model_without_positions_reads_all(tmp_path):
    windowed_model(**KINDS["recipe"]).save_pretrained(tmp_path / "model")
    hugging_face_tokenizer().save_pretrained(tmp_path / "model")
    report = export(tmp_path / "model", tmp_path / "out", dtype="int8")
    assert 0 <= report.difference <= 1e-5
    long = "the quick brown fox " * 200
    encoding = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode(long)
    assert encoding.ids == AutoTokenizer.from_pretrained(tmp_path / "model")(long)["input_ids"]
    inputs = {"input_ids": torch.tensor([encoding.ids]), "attention_mask": torch.ones(1, len(encoding.ids)).long(),
              "token_type_ids": torch.zeros(1, len(encoding.ids)).long()}
    assert onnx_graph.run_onnx(report.path, [inputs])[0].isfinite().all()
    about = {entry.key: entry.value for entry in onnx.load(report.path).metadata_props}
    assert about["max_length"] == ""


@pytest.mark.parametrize("config", [WINDOWS, BAG], ids=["windows", "bag"])
def test_a_packed_encoder_in_int8(config, tmp_path):
    """Its words are int8 already: the program has the same integers and gives the embeddings themselves."""
    pack_encoder(save_encoder(tmp_path / "plain", small_encoder(**config)), tmp_path / "packed")
    report = export(tmp_path / "packed", tmp_path / "out", dtype="int8")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(report.path).graph.initializer}
    words = load_file(tmp_path / "packed" / "model.safetensors")[WORDS]
    assert np.array_equal(stored["word_embeddings"], words.numpy())
    texts = ["the quick brown fox", "bleak", ""]
    rows = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode_batch(texts)
    inputs = {name: torch.tensor([getattr(row, part) for row in rows]) for name, part in (
        ("input_ids", "ids"), ("attention_mask", "attention_mask"), ("token_type_ids", "type_ids"))}
    embeddings = TextEncoder.from_pretrained(tmp_path / "packed").encode(texts, normalize=False)
    np.testing.assert_allclose(onnx_graph.run_onnx(report.path, [inputs])[0], embeddings, rtol=ROUNDING, atol=ROUNDING)
