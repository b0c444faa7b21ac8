"""The packed form of an encoder: which numbers it holds, and that every way of reading it gives the same."""

import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_encoder import BAG, DIMENSION, WINDOWS, save_encoder, small_encoder
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from dendritic_bert import DendriticBertForSequenceClassification, DendriticBertModel, TextEncoder
from dendritic_bert.model.dsn_checkpoint import DsnCheckpoint
from dendritic_bert.model.packed_encoder import WORD_SCALE, WORDS, pack, pack_encoder, packed_folder, unpack

FORMS = {"windows": WINDOWS, "bag": BAG, "LayerNorm": {"pooling": "gated_mean"}, "mean": {"embedding_norm": "none"}}
NO_WINDOWS = {"window_layers": 0, "window_dendrites": 0}


def load(folder, **config):
    return DendriticBertForSequenceClassification.from_pretrained(folder, **config)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folders of a windowed model and of a bag with its word table, and the packed folder of the two."""
    folder = tmp_path_factory.mktemp("both")
    windowed, bag = small_encoder(**WINDOWS), small_encoder(**BAG, seed=3)
    with torch.no_grad():
        bag.bert.embeddings.word_embeddings.weight.copy_(windowed.bert.embeddings.word_embeddings.weight)
    sources = save_encoder(folder / "windows", windowed), save_encoder(folder / "bag", bag)
    pack_encoder(sources[0], folder / "packed", without_windows=sources[1])
    return *sources, folder / "packed"


@pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
def test_the_numbers_of_a_packed_folder(tmp_path, config):
    """A word's numbers by a formula of numpy in float64: none is further from the model's than half a step of its row,
    and every other number is the float16 nearest to the model's."""
    model = small_encoder(**config)
    save_encoder(tmp_path / "plain", model)
    (tmp_path / "plain" / "README.md").write_text("Live parameters: 7, written as float32.", encoding="utf-8")
    pack_encoder(tmp_path / "plain", tmp_path / "packed")
    assert "written as int8 (words, " in (tmp_path / "packed" / "README.md").read_text(encoding="utf-8")
    checkpoint = DsnCheckpoint.find(str(tmp_path / "packed"))
    packed, plain = checkpoint.state_dict(), model.state_dict()
    assert packed.keys() == plain.keys()
    for name, tensor in packed.items():
        assert tensor.dtype == torch.float32
        if name != WORDS:
            assert np.array_equal(tensor.numpy(), plain[name].numpy().astype(np.float16).astype(np.float32)), name
    rows = plain[WORDS].numpy().astype(np.float64)
    scales = (np.abs(rows).max(axis=1, keepdims=True) / 127).astype(np.float32)
    scales[scales == 0] = 1  # of the padding token, whose row is zeros
    assert np.array_equal(packed[WORDS].numpy(), np.rint(rows / scales).astype(np.float32) * scales)
    assert not {"classifier.weight", "classifier.bias"} & load_file(tmp_path / "packed" / "model.safetensors").keys()


@pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
def test_every_way_of_reading_gives_the_same_bits(tmp_path, config):
    """The checkpoint's tensors, the model of ``from_pretrained``, and that model saved and read again as plain float32,
    which is packed to the same bytes."""
    pack_encoder(save_encoder(tmp_path / "plain", small_encoder(**config)), tmp_path / "packed")
    model = load(tmp_path / "packed").eval()
    expected = DsnCheckpoint.find(str(tmp_path / "packed")).state_dict()
    assert (model.config.num_labels, model.config.problem_type, model.dtype) == (DIMENSION, "regression", torch.float32)
    save_encoder(tmp_path / "again", model)
    for state in (model.state_dict(), load(tmp_path / "again").state_dict(),
                  DsnCheckpoint.find(str(tmp_path / "again")).state_dict()):
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    pack_encoder(tmp_path / "again", tmp_path / "repacked")
    for name in ("model.safetensors", "projection.safetensors", "config.json"):
        assert (tmp_path / "repacked" / name).read_bytes() == (tmp_path / "packed" / name).read_bytes()


def test_two_models_in_one_folder(both):
    windowed, bag, packed = both
    for plain, read in ((windowed, load(packed)), (bag, load(packed, **NO_WINDOWS))):
        expected = unpack(pack(load(plain).state_dict()))
        assert read.state_dict().keys() == expected.keys()
        assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in expected.items())
    assert read.config.window_layers == 0
    assert WORDS not in load_file(packed / "without_windows.safetensors")


def test_two_models_with_two_word_tables(both, tmp_path):
    windowed, bag, _ = both
    tensors = load_file(f"{bag}/model.safetensors")
    shutil.copytree(bag, tmp_path / "bag")
    save_file(tensors | {WORDS: tensors[WORDS] + 1}, tmp_path / "bag" / "model.safetensors")
    with pytest.raises(ValueError, match=r"without_windows is .*bag, whose word table is not that of .*windows"):
        pack_encoder(windowed, tmp_path / "packed", without_windows=tmp_path / "bag")


@pytest.mark.parametrize("asked_for", [{"num_labels": 3}, {"id2label": {0: "a", 1: "b", 2: "c"}, "num_dendrites": 2}])
def test_another_head(both, asked_for):
    model, encoder = load(both[2], **asked_for), load(both[2])
    assert model.config.num_labels == 3
    assert model.classifier.num_dendrites == asked_for.get("num_dendrites", 0)
    for name, tensor in encoder.bert.state_dict().items():
        assert torch.equal(model.bert.state_dict()[name], tensor)


def test_dendrites_grow_on_a_new_head(both):
    """A dendrite changes no logit until its output is used, as on any other model."""
    model = load(both[2], num_labels=3).eval()
    rows = {"input_ids": torch.tensor([[5, 9, 17, 30]])}
    with torch.no_grad():
        before = model(**rows).logits
        model.add_dendrite()
        assert model.config.num_dendrites == 1
        torch.testing.assert_close(model(**rows).logits, before, rtol=1e-5, atol=1e-5)
        model.classifier.top.fill_(1.0)
        assert (model(**rows).logits - before).abs().min() > 1e-2  # a sigmoid's output


def test_without_a_head(both):
    model, encoder = DendriticBertModel.from_pretrained(both[2]), load(both[2])
    for name, tensor in encoder.bert.state_dict().items():
        assert torch.equal(model.bert.state_dict()[name], tensor)


def test_a_row_of_zeros():
    """It has a scale that is not 0, so that nothing is divided by 0."""
    packed = pack({WORDS: torch.tensor([[0.0, 0.0], [1.0, -127.0]])})
    assert packed[WORD_SCALE][0] > 0
    assert unpack(packed)[WORDS].tolist() == [[0, 0], [1, -127]]


@pytest.mark.parametrize("config", [{"num_labels": 3, "problem_type": None}, {"num_labels": 1}, {"num_dendrites": 1}])
def test_a_folder_that_is_no_encoder(tmp_path, config):
    folder = save_encoder(tmp_path / "plain", small_encoder(**BAG, **config))
    with pytest.raises(ValueError, match=r"plain holds a model with .* dendrites: pass the folder of a pretrained enc"):
        pack_encoder(folder, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_packed_folder(both):
    assert [packed_folder(folder) for folder in both] == [None, None, both[2]]


def assert_same(model, encoder):
    assert model.state_dict().keys() == encoder.state_dict().keys()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize("form", [{}, NO_WINDOWS], ids=["windows", "bag"])
def test_auto_classes(both, form):
    """They read the configuration, and pass it on: the head is the projection unless it was asked for another."""
    folder, encoder, auto_class = both[2], load(both[2], **form), AutoModelForSequenceClassification
    assert_same(auto_class.from_pretrained(folder, **form), encoder)
    config = AutoConfig.from_pretrained(folder, **form)
    assert_same(auto_class.from_pretrained(folder, config=config), encoder)
    assert_same(load(folder, config=config), encoder)
    assert_same(load(folder, config=str(folder), **form), encoder)
    assert_same(AutoModel.from_pretrained(folder, **form).bert, encoder.bert)
    for other in ({"num_labels": 3}, {"num_dendrites": 1}, {"problem_type": "multi_label_classification"}):
        model = auto_class.from_pretrained(folder, **form, **other)
        assert_same(model.bert, encoder.bert)
        rows = slice(model.config.num_labels)
        assert not torch.equal(model.classifier.weight[rows], encoder.classifier.weight[rows])


@pytest.mark.parametrize("form", [{}, NO_WINDOWS], ids=["windows", "bag"])
def test_a_subfolder(both, form):
    encoder, place = load(both[2], **form), {"subfolder": both[2].name, **form}
    for model_class in (DendriticBertForSequenceClassification, AutoModelForSequenceClassification):
        assert_same(model_class.from_pretrained(both[2].parent, **place), encoder)
    config = AutoConfig.from_pretrained(both[2], **form)
    assert_same(load(both[2].parent, subfolder=both[2].name, config=config), encoder)


def test_an_encoder_of_the_hub(both, tmp_path, monkeypatch):
    """Its client has fetched the files already."""
    cached = tmp_path / "models--someone--encoder"
    shutil.copytree(both[2], cached / "snapshots" / ("0" * 40))
    shutil.copytree(both[2], cached / "snapshots" / ("0" * 40) / "inside")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for model_class in (DendriticBertForSequenceClassification, AutoModelForSequenceClassification):
        for subfolder in ("", "inside"):
            assert_same(model_class.from_pretrained("someone/encoder", subfolder=subfolder), load(both[2]))
    for windows in (True, False):
        encoder = TextEncoder.from_pretrained("someone/encoder", windows=windows)
        assert isinstance(encoder._source, DsnCheckpoint)
        expected = TextEncoder.from_pretrained(both[2], windows=windows)
        assert np.array_equal(encoder.encode(["a fox", "dog"]), expected.encode(["a fox", "dog"]))
    with pytest.raises(OSError, match=r"couldn.t find them in the cached files"):
        load("someone/other")


def test_a_packed_folder_without_its_projection(both, tmp_path):
    """Its int8 numbers are not read without their scales."""
    shutil.copytree(both[2], tmp_path / "encoder")
    (tmp_path / "encoder" / "projection.safetensors").unlink()
    message = r"encoder holds .*\.scale of a packed encoder and no projection\.safetensors, which .*: fetch all files"
    for model_class in (DendriticBertForSequenceClassification, AutoModelForSequenceClassification):
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(tmp_path / "encoder")


def test_loading_info(both):
    model, info = load(both[2], output_loading_info=True)
    assert_same(model, load(both[2]))
    assert model.config._name_or_path == str(both[2])
    assert not any(info.values())
    model, info = load(both[2], num_labels=3, output_loading_info=True)
    assert model.config.num_labels == 3
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
