"""What makes it a Hugging Face model: configuration, checkpoints, Auto classes, pipeline, embeddings to resize."""

import json
from dataclasses import fields
from typing import get_args

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    pipeline,
)

from dendritic_bert import DendriticBertConfig, DendriticBertForSequenceClassification
from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "dull"]
TEXTS = ["a fine film", "a dull dull film", "", "something else"]


def make_model(**options) -> DendriticBertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "max_position_embeddings": 12, "initializer_range": 1.0}
    return DendriticBertForSequenceClassification(DendriticBertConfig(**sizes | options)).eval()


@pytest.fixture
def checkpoint(tmp_path):
    """A saved model with dendrites and labels of its own, and its tokenizer."""
    model = make_model(num_dendrites=2, dendrite_activation="tanh", pooling="sum_all",
                       id2label={0: "bad", 1: "good", 2: "odd"}, label2id={"bad": 0, "good": 1, "odd": 2})
    with torch.no_grad():
        model.classifier.top.normal_()
        model.classifier.lateral.normal_()
    model.save_pretrained(tmp_path)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    BertTokenizer(tokenizer_object=tokenizer, model_max_length=12).save_pretrained(tmp_path)
    return tmp_path, model


def test_state_dict_names_are_berts(checkpoint):
    shapes = {name: list(value.shape) for name, value in load_file(checkpoint[0] / "model.safetensors").items()}
    assert shapes == {
        "bert.embeddings.word_embeddings.weight": [9, 16],
        "bert.embeddings.position_embeddings.weight": [12, 16],
        "bert.embeddings.token_type_embeddings.weight": [2, 16],
        "bert.embeddings.LayerNorm.weight": [16],
        "bert.embeddings.LayerNorm.bias": [16],
        "classifier.weight": [9, 16],
        "classifier.bias": [9],
        "classifier.lateral": [2, 2, 3],
        "classifier.top": [2, 3],
    }


@pytest.mark.parametrize("num_dendrites", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_round_trip_is_exact(tmp_path, num_dendrites, dtype):
    model = make_model(num_dendrites=num_dendrites, dendrite_activation="relu").to(dtype)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.normal_()
    model.save_pretrained(tmp_path)
    loaded, info = DendriticBertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert not loaded.training
    assert loaded.config.to_dict() | {"_name_or_path": ""} == model.config.to_dict() | {"_name_or_path": ""}
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in loaded.state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(value, model.state_dict()[name])
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_loading_says_nothing_where_all_is_well(checkpoint, caplog):
    DendriticBertForSequenceClassification.from_pretrained(checkpoint[0])
    assert not caplog.records


def test_auto_classes(checkpoint):
    folder, model = checkpoint
    config = AutoConfig.from_pretrained(folder)
    assert type(config) is DendriticBertConfig
    assert (config.num_dendrites, config.dendrite_activation, config.pooling) == (2, "tanh", "sum_all")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(loaded) is type(AutoModelForSequenceClassification.from_config(config))
    assert type(loaded) is DendriticBertForSequenceClassification
    ids = torch.tensor([[2, 5, 6, 3]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_pipeline_is_softmax_of_the_logits(checkpoint):
    folder, model = checkpoint
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    model.config.pooling = model.pooling = "mean_masked"  # sum_all counts padding, which depends on the batch
    model.save_pretrained(folder)
    scores = model(**batch).logits.detach().softmax(dim=-1)
    expected = [{"label": ["bad", "good", "odd"][int(row.argmax())], "score": float(row.max())} for row in scores]
    classify = pipeline("text-classification", model=str(folder))
    for results in (classify(TEXTS), classify(TEXTS, batch_size=4)):
        assert [result["label"] for result in results] == [result["label"] for result in expected]
        assert [r["score"] for r in results] == pytest.approx([r["score"] for r in expected], abs=1e-6)
    assert len({result["label"] for result in expected}) > 1


def test_new_models_are_initialised_as_bert_and_perforatedai_do():
    model = make_model(vocab_size=2000, hidden_size=64, initializer_range=0.02, num_labels=40, num_dendrites=2)
    embeddings, head = model.bert.embeddings, model.classifier
    assert not embeddings.word_embeddings.weight[0].any()  # the padding token
    for weights in (embeddings.word_embeddings.weight[1:], head.weight[:40]):
        assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    assert not head.bias[:40].any()
    for weights in (head.weight[40:], head.bias[40:]):
        assert weights.std().item() == pytest.approx(0.01, rel=0.2)
    assert not head.top.any()
    assert not head.lateral.any()


def test_a_damaged_head_is_filled_in_and_said(checkpoint, caplog):
    """The tensors that are there stay as they are."""
    folder, model = checkpoint
    state = {name: value for name, value in model.state_dict().items() if name != "classifier.top"}
    model.save_pretrained(folder, state_dict=state)
    loaded = DendriticBertForSequenceClassification.from_pretrained(folder)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    assert not loaded.classifier.top.any()
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: kept embeddings; dropped nothing; newly initialised classifier (train it before use)."]


def test_input_embeddings_and_resizing():
    model = make_model()
    words = model.get_input_embeddings()
    assert words.weight is model.get_parameter("bert.embeddings.word_embeddings.weight")
    before = words.weight.detach().clone()
    resized = model.resize_token_embeddings(20)
    assert resized is model.get_input_embeddings()
    assert resized.weight.shape == (20, 16)
    assert model.config.vocab_size == 20
    assert torch.equal(resized.weight[:9], before)
    with torch.no_grad():
        assert model(torch.tensor([[19]])).logits.isfinite().all()


@pytest.mark.parametrize(("option", "value"), [("pooling", "max"), ("dendrite_activation", "swish"), ("dsn", "yes"),
                                               ("num_dendrites", 1.5), ("hidden_size", "128"), ("temperature", 0.0),
                                               ("temperature", -1.0), ("temperature", float("inf"))])
def test_configuration_refuses(option, value):
    with pytest.raises(StrictDataclassError, match=f"(?s){option}.*{value}"):
        DendriticBertConfig(**{option: value})


def test_configuration_knows_what_the_kernels_know():
    allowed = {field.name: get_args(field.type) for field in fields(DendriticBertConfig)}
    assert allowed["pooling"] == (*POOLINGS, "gated_mean")
    assert allowed["dendrite_activation"] == tuple(ACTIVATIONS)


def test_a_temperature_is_kept(tmp_path):
    """Although transformers has a setting of that name for the generation of text, which a model's file may not hold.
    A configuration without one is 1."""
    DendriticBertConfig(temperature=1.7).save_pretrained(tmp_path)
    assert DendriticBertConfig.from_pretrained(tmp_path).temperature == 1.7
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["temperature"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert DendriticBertConfig.from_pretrained(tmp_path).temperature == 1.0


def test_configuration_of_other_architectures(tmp_path):
    BertConfig(hidden_size=24, num_labels=5).save_pretrained(tmp_path)
    config = DendriticBertConfig.from_pretrained(tmp_path, num_dendrites=3)
    assert (config.hidden_size, config.num_labels, config.num_dendrites) == (24, 5, 3)
    assert config.to_dict()["model_type"] == "dendritic_bert"
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"model_type": "roberta"}))
    with pytest.raises(ValueError, match="holds a model of type 'roberta', expected 'bert' or 'dendritic_bert'"):
        DendriticBertConfig.from_pretrained(tmp_path)
    del fields["model_type"]  # as in the first checkpoints of BERT's small siblings
    file.write_text(json.dumps(fields))
    assert DendriticBertConfig.from_pretrained(tmp_path).hidden_size == 24
