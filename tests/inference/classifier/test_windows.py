"""TextClassifier with a windowed model: beside the pipeline, on texts of any length, from a folder and in copies."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from small_classifier import WORDS, hugging_face_tokenizer
from transformers import AutoTokenizer, pipeline
from windowed_models import KINDS, ROUNDING, windowed_model

from dendritic_bert import DendriticBertForSequenceClassification, TextClassifier
from dendritic_bert.model.dsn_checkpoint import DsnCheckpoint

TEXTS = ["", "a", "the quick brown fox", "fox brown quick the", "Unflinchingly bleak!", *WORDS, " ".join(WORDS * 30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("windowed")
    windowed_model(**KINDS["recipe"]).save_pretrained(path)
    hugging_face_tokenizer().save_pretrained(path)
    return path


def scores_of(classifier) -> np.ndarray:
    return classifier.predict_array(TEXTS, batch_size=7)[1]


def test_same_as_the_pipeline(folder):
    classifier = TextClassifier.from_pretrained(folder)
    assert isinstance(classifier._source, DsnCheckpoint)
    assert classifier.max_length is None
    theirs = pipeline("text-classification", model=str(folder), device="cpu")(TEXTS)
    ours = classifier(TEXTS, batch_size=7)
    assert [result["label"] for result in ours] == [result["label"] for result in theirs]
    np.testing.assert_allclose([result["score"] for result in ours], [result["score"] for result in theirs],
                               rtol=ROUNDING)
    assert classifier.num_truncated == 0
    assert classifier("the quick brown fox") != classifier("fox brown quick the"), "windows see the order"


def test_pairs(folder):
    classifier = TextClassifier.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pair = {"text": "the quick brown fox", "text_pair": "Unflinchingly bleak!"}
    with torch.no_grad():
        expected = classifier.model(**tokenizer(*pair.values(), return_tensors="pt")).logits.softmax(dim=-1)
    assert classifier(pair)["score"] == pytest.approx(expected.max().item(), rel=ROUNDING)


def test_copies_and_the_model_that_is_made_give_the_same_bits(folder):
    classifier = TextClassifier.from_pretrained(folder)
    expected, fingerprint = scores_of(classifier), classifier.fingerprint()
    assert np.array_equal(scores_of(pickle.loads(pickle.dumps(classifier))), expected)
    assert classifier.model.config.window_layers == 5
    assert np.array_equal(scores_of(classifier), expected)
    assert classifier.fingerprint() == fingerprint
    with torch.no_grad():
        classifier.model.bert.windows.weight.mul_(2)
    assert not np.array_equal(scores_of(classifier), expected)


def test_a_tokenizer_may_set_a_length(folder):
    tokenizer = hugging_face_tokenizer()
    tokenizer.model_max_length = 12
    classifier = TextClassifier(windowed_model(**KINDS["recipe"]), tokenizer)
    assert classifier.max_length == 12
    classifier(TEXTS)
    assert classifier.num_truncated == 1


def test_a_file(folder, tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(TEXTS[1:]) + "\n")
    classifier = TextClassifier.from_pretrained(folder)
    classifier.classify_file(tmp_path / "in.txt", tmp_path / "out.jsonl")
    labels = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert labels == [result["label"] for result in classifier(TEXTS[1:])]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_dtype_of_the_configuration(folder, tmp_path, dtype):
    """A classifier computes in it, from the file and from the model; the model by itself does not."""
    exact = TextClassifier.from_pretrained(folder)
    assert repr(exact) == "TextClassifier(2 labels, 5 layers of 32 dendrites on windows in float32)"
    exact = scores_of(exact)
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"table_dtype": dtype}))
    classifier = TextClassifier.from_pretrained(tmp_path / "model")
    assert repr(classifier) == f"TextClassifier(2 labels, 5 layers of 32 dendrites on windows in {dtype})"
    scores = scores_of(classifier)
    assert not np.array_equal(scores, exact)
    np.testing.assert_allclose(scores, exact, atol=0.1)
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert np.array_equal(scores_of(TextClassifier(model, classifier.tokenizer)), scores)
    assert classifier.model.config.table_dtype == dtype
    assert np.array_equal(scores_of(classifier), scores)
    assert np.array_equal(scores_of(pickle.loads(pickle.dumps(classifier))), scores)


def test_a_diverged_model_is_computed_in_float32_and_says_so():
    model = windowed_model(**KINDS["recipe"])
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    model.config.table_dtype = "int8"
    with pytest.raises(ValueError, match=r"NaN or infinite, because its classifier\.bias holds NaN"):
        TextClassifier(model, hugging_face_tokenizer())(["a text"])
