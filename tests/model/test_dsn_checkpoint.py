"""The checkpoint of a DSN beside the model that ``from_pretrained`` makes of the same file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_classifier import MAX_LENGTH, WORDS, hugging_face_tokenizer, small_model
from windowed_models import KINDS as WINDOWED

from dendritic_bert import (
    DendriticBertConfig,
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
    TextClassifier,
)
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.model.dsn_checkpoint import DsnCheckpoint

TEXTS = [*WORDS, "", " ".join(WORDS)]
KINDS = {
    "two dendrites": {},
    "none": {"num_dendrites": 0},
    "one, whose lateral is a buffer": {"num_dendrites": 1, "dendrite_activation": "gelu"},
    "three labels": {"num_dendrites": 3, "dendrite_activation": "relu", "num_labels": 3},
    "one label": {"num_labels": 1, "problem_type": "regression"},
    "sums": {"pooling": "sum_all", "dendrite_activation": "tanh"},
    "another eps": {"layer_norm_eps": 1e-3},
    "as many outputs as channels": {"num_labels": 40},
    **{f"without positions: {name}": {"max_position_embeddings": 0, **config} for name, config in WINDOWED.items()},
}


def save(folder, dtype=torch.float32, **config):
    model = small_model(**config).to(dtype)
    model.save_pretrained(folder)
    hugging_face_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_the_same_bits_as_the_model(tmp_path, config, dtype):
    folder = save(tmp_path, dtype, **config)
    model = DendriticBertForSequenceClassification.from_pretrained(folder).eval()
    checkpoint = DsnCheckpoint.find(folder)
    ids = torch.arange(5, 5 + 2 * MAX_LENGTH, dtype=torch.int32)
    cu_seqlens = torch.tensor([0, 7, 7, 8, 8 + MAX_LENGTH])
    tokens = ids[:cu_seqlens[-1]]
    for types in (None, (tokens % 2).int()):
        with torch.no_grad():
            expected = model(input_ids=tokens, cu_seqlens=cu_seqlens, token_type_ids=types).logits
        assert torch.equal(checkpoint.logits(tokens, cu_seqlens, types), expected)
    states = [model.state_dict(), checkpoint.state_dict(), checkpoint.to_model().state_dict()]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], tensor) and state[name].dtype == tensor.dtype
                   for name, tensor in states[0].items())
    made = checkpoint.to_model()
    assert not made.training
    assert made.config.to_dict() == model.config.to_dict()
    assert made.name_or_path == model.name_or_path == folder


def test_a_classifier_is_the_same_before_and_after_its_model_is_made(tmp_path):
    classifier = TextClassifier.from_pretrained(save(tmp_path))
    usual = TextClassifier(DendriticBertForSequenceClassification.from_pretrained(tmp_path),
                           PackedTokenizer.from_pretrained(str(tmp_path)))
    expected, fingerprint = classifier(TEXTS), classifier.fingerprint()
    assert expected == usual(TEXTS)
    assert fingerprint == usual.fingerprint()
    model = classifier.model
    assert model is classifier.model
    assert classifier(TEXTS) == expected
    assert classifier.fingerprint() == fingerprint
    with torch.no_grad():
        model.classifier.bias[0] += 10
    assert {result["label"] for result in classifier(TEXTS)} == {"LABEL_0"}


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


UNUSUAL = {
    "an encoder": lambda folder: save(folder, dsn=False),
    "a gate beside positions": lambda folder: save(folder, pooling="gated_mean"),
    "a sum of plain embeddings": lambda folder: save(folder, pooling="sum_all", embedding_norm="none",
                                                     max_position_embeddings=0),
    "windows of another size": lambda folder: (
        save(folder, window_layers=2, window_dendrites=4, max_position_embeddings=0),
        change_config(folder, window_layers=3)),
    "a head of two layers": lambda folder: save(folder, head_hidden=8),
    "float64": lambda folder: save(folder, torch.float64),
    "questions": lambda folder: DendriticBertForQuestionAnswering(small_model().config).save_pretrained(folder),
    "another dtype asked for": lambda folder: change_config(folder, dtype="float16"),
    "hidden states asked for": lambda folder: change_config(folder, output_hidden_states=True),
    "another width": lambda folder: change_config(folder, hidden_size=8),
    "another number of labels": lambda folder: change_config(folder, num_labels=5, id2label=None, label2id=None),
    "an adapter": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "a tensor more": lambda folder: change_weights(folder, lambda tensors: tensors.update(other=torch.ones(2))),
    "a tensor less": lambda folder: change_weights(folder, lambda tensors: tensors.pop("classifier.bias")),
    "two dtypes": lambda folder: change_weights(folder, lambda tensors: tensors.update(
        {"classifier.bias": tensors["classifier.bias"].half()})),
    "half a file": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:1000]),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "a configuration that is none": lambda folder: (folder / "config.json").write_text("{"),
}


@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_left_to_from_pretrained(tmp_path, change):
    save(tmp_path)
    assert DsnCheckpoint.find(str(tmp_path)) is not None
    change(tmp_path)
    assert DsnCheckpoint.find(str(tmp_path)) is None


def test_a_bert_is_left_to_from_pretrained(tmp_path):
    from transformers import BertForSequenceClassification

    config = small_model().config
    BertForSequenceClassification(DendriticBertConfig(**config.to_dict())).save_pretrained(tmp_path)
    assert DsnCheckpoint.find(str(tmp_path)) is None
