"""What a training starts from: a new vocabulary, a tokenizer under random numbers, or a BERT checkpoint."""


import numpy as np
import pytest
import torch
from helpers import tiny_bert
from small_classifier import hugging_face_tokenizer
from trained_files import weights
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

from dendritic_bert import DendriticBertForSequenceClassification
from dendritic_bert.datasets.glue import Glue
from dendritic_bert.training import TrainingOptions, train
from dendritic_bert.training.initialization import build_model, live_parameters


def test_a_new_vocabulary(options):
    results = train(options(vocab_size=300, hidden_size=8, max_position_embeddings=64, max_length=32, epochs=1))
    tokenizer = AutoTokenizer.from_pretrained(results["output_dir"])
    assert 200 < len(tokenizer) <= 300
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.model_max_length) == (0, 2, 64)
    assert tokenizer.tokenize("The FILM is charming") == ["the", "film", "is", "charming"]
    assert tokenizer.unk_token_id not in tokenizer("Zq@9 \"#~^\"").input_ids  # ASCII that no training text holds
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer)
    shapes = {name: list(tensor.shape) for name, tensor in weights(results["output_dir"]).items()}
    assert shapes["bert.embeddings.word_embeddings.weight"] == [len(tokenizer), 8]
    assert shapes["bert.embeddings.position_embeddings.weight"] == [64, 8]
    assert results["live_parameters"] == {
        "embeddings": (len(tokenizer) + 64 + 2 + 2) * 8, "windows": 0, "encoder": 0, "head": 2 * 9,
        "all": sum(int(np.prod(shape)) for shape in shapes.values())}


def test_a_tokenizer_under_random_numbers(options, tmp_path):
    tokenizer = hugging_face_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    results = train(options(tokenizer_name=str(tmp_path / "tokenizer"), epochs=1, fraction=0.1, head_hidden=5))
    assert results["num_train"] == 60
    assert AutoTokenizer.from_pretrained(results["output_dir"]).get_vocab() == tokenizer.get_vocab()
    assert len(weights(results["output_dir"])["bert.embeddings.word_embeddings.weight"]) == len(tokenizer)
    assert results["live_parameters"]["head"] == 5 * 17 + 2 * 6


def test_a_vocabulary_that_is_too_small(options):
    with pytest.raises(ValueError, match=r"^vocab_size is 100, the characters of the texts alone take \d+: raise it"):
        train(options(vocab_size=100))


@pytest.mark.parametrize("dsn", [True, False])
def test_a_bert_checkpoint(options, tmp_path, dsn, monkeypatch):
    """The embeddings start as BERT's, where a rate of 1e-9 leaves them; the encoder stays if it is asked for."""
    bert = tiny_bert(BertModel, vocab_size=600, max_position_embeddings=40, num_hidden_layers=1)
    bert.save_pretrained(tmp_path / "bert")
    tokenizer = hugging_face_tokenizer()
    tokenizer.save_pretrained(tmp_path / "bert")
    judged, scores = [], Glue.scores
    monkeypatch.setattr(Glue, "scores", lambda self, *args: judged.append(args[0]) or scores(self, *args))
    results = train(options(model_name=str(tmp_path / "bert"), dsn=dsn, lr=1e-9, epochs=1, max_length=40))
    # The epoch is scored as the end is, in the order of the rows, whatever order training takes them in.
    np.testing.assert_allclose(judged[0], np.stack(judged[1]), atol=1e-4)
    assert np.ptp(judged[0], axis=0).min() > 0.01
    model = AutoModelForSequenceClassification.from_pretrained(results["output_dir"])
    assert model.config.dsn is dsn
    assert model.config.id2label == {0: "negative", 1: "positive"}
    theirs = bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(model.bert.embeddings.word_embeddings.weight, theirs, rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(results["output_dir"]).get_vocab() == tokenizer.get_vocab()
    encoder = 0 if dsn else sum(p.numel() for part in (bert.encoder, bert.pooler) for p in part.parameters())
    assert results["live_parameters"]["encoder"] == encoder


@pytest.mark.parametrize("dsn", [True, False])
def test_word_embeddings_are_left_as_they_are(options, tmp_path, dsn):
    tiny_bert(BertModel, vocab_size=600, max_position_embeddings=128).save_pretrained(tmp_path / "bert")
    hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
    train(options(model_name=str(tmp_path / "bert"), dsn=dsn, freeze_word_embeddings=True, epochs=1))
    before, after = weights(tmp_path / "bert"), weights(tmp_path / "out")
    for name in ("word_embeddings", "position_embeddings"):
        kept = torch.equal(after[f"bert.embeddings.{name}.weight"], before[f"embeddings.{name}.weight"])
        assert kept == (name == "word_embeddings")


def test_a_checkpoint_without_a_tokenizer(options, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"^the tokenizer of model_name .*empty cannot be loaded \(\w+Error\): pass a "):
        train(options(model_name=str(tmp_path / "empty")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("norm", ["layer_norm", "none"])
def test_a_windowed_model_starts_as_its_norm_needs(norm):
    """With LayerNorm words are small beside a large vector that all share; without, they are larger and alone."""
    options = TrainingOptions(window_dendrites=6, window_layers=3, hidden_size=64, embedding_norm=norm)
    torch.manual_seed(0)
    model = build_model(DendriticBertForSequenceClassification, options, {"num_labels": 3}, 500)
    embeddings, config = model.bert.embeddings, model.config
    assert (config.window_dendrites, config.window_layers, config.max_position_embeddings) == (6, 3, 0)
    assert (config.pooling, config.embedding_norm) == ("gated_mean", norm)
    large, words = (1.0, 0.02) if norm == "layer_norm" else (0.02, 0.1)
    # 128 and 32,000 draws: their deviation is off by less than a third and a twentieth.
    assert embeddings.token_type_embeddings.weight.std().item() == pytest.approx(large, rel=0.33)
    assert embeddings.word_embeddings.weight.std().item() == pytest.approx(words, rel=0.05)
    assert live_parameters(model) == {
        "embeddings": 502 * 64 + (128 if norm == "layer_norm" else 0),
        "windows": 3 * 64 * 6 + 2 * 3 * 6 * 6 + 3 * 6 + (70 + 500), "encoder": 0, "head": 3 * 71,
        "all": sum(parameter.numel() for parameter in model.parameters())}
