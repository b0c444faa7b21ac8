"""TextClassifier against transformers' own text-classification pipeline, and against the model called by hand."""

import shutil

import numpy as np
import pytest
import torch
from small_classifier import MAX_LENGTH, WORDS, hugging_face_tokenizer, small_model, train_tokenizer
from transformers import pipeline

from dendritic_bert import embedded_model
from dendritic_bert.inference.classifier import TextClassifier

TEXTS = ["", "a", "the quick brown fox", "[SEP] in the text", "Unflinchingly bleak!", "世界 hello", *WORDS]


@pytest.fixture(scope="module")
def tokenizer():
    return hugging_face_tokenizer()


@pytest.fixture(scope="module")
def classifier(tokenizer):
    return TextClassifier(small_model(num_labels=3), tokenizer)


def assert_same(results, expected):
    assert [result["label"] for result in results] == [result["label"] for result in expected]
    np.testing.assert_allclose([result["score"] for result in results], [result["score"] for result in expected],
                               rtol=1e-5, atol=1e-6)
    assert all(type(result["score"]) is float and set(result) == {"label", "score"} for result in results)


@pytest.mark.parametrize("config", [
    {"num_labels": 2},
    {"num_labels": 3, "problem_type": "single_label_classification", "id2label": {0: "bad", 1: "so-so", 2: "good"}},
    {"num_labels": 3, "problem_type": "multi_label_classification"},
    {"num_labels": 1},
    {"num_labels": 1, "problem_type": "regression"},
    {"num_labels": 2, "problem_type": "regression"},
    {"num_labels": 2, "dsn": False},
], ids=str)
def test_same_as_the_pipeline(tokenizer, config, monkeypatch):
    monkeypatch.setattr("dendritic_bert.inference.classifier.ENCODER_ROWS", 3)  # several portions, one not full
    model = small_model(**config)
    theirs = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    ours = TextClassifier(model, tokenizer)
    expected = theirs(TEXTS)
    assert len({result["score"] for result in expected}) > 5, "scores that hardly differ would prove nothing"
    assert_same(ours(TEXTS, batch_size=4), expected)
    assert_same(ours(TEXTS[2]), theirs(TEXTS[2]))


def test_order_and_batches(classifier):
    expected = [classifier(text)[0] for text in TEXTS]
    for batch_size in (1, 3, len(TEXTS), 1000):
        for threads in (1, 2, 5):
            assert_same(classifier(TEXTS, batch_size=batch_size, threads=threads), expected)


def test_no_text(classifier):
    assert classifier([]) == []
    assert len(classifier("")) == 1


def test_long_texts_are_cut_and_counted(tokenizer):
    model = small_model()
    classifier = TextClassifier(model, tokenizer)
    texts = ["fox " * 100, "fox", "!" * (MAX_LENGTH - 2), "!" * (MAX_LENGTH - 1)]  # [CLS] and [SEP] take two
    results = classifier(texts, batch_size=2)
    cut = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([row])).logits.softmax(-1).max().item() for row in cut]
    np.testing.assert_allclose([result["score"] for result in results], expected, rtol=1e-5)
    assert classifier.num_truncated == 2
    classifier(texts[0])
    assert classifier.num_truncated == 3


@pytest.mark.parametrize("name", ["batch_size", "threads"])
def test_numbers_below_one(classifier, name):
    with pytest.raises(ValueError, match=f"{name} is 0, it must be at least 1"):
        classifier(TEXTS, **{name: 0})


def test_tokenizer_of_another_model(tokenizer):
    with pytest.raises(ValueError, match="the tokenizer has 600 ids, the model embeds 500"):
        TextClassifier(small_model(vocab_size=500), tokenizer)


def test_from_pretrained(classifier, tokenizer, tmp_path, monkeypatch):
    classifier.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = classifier(TEXTS)
    assert TextClassifier.from_pretrained(tmp_path)(TEXTS) == expected
    assert TextClassifier.from_pretrained(str(tmp_path))(TEXTS) == expected
    monkeypatch.setattr(embedded_model, "EMBEDDED_MODEL", str(tmp_path))
    assert TextClassifier.from_pretrained()(TEXTS) == expected
    moved = shutil.copytree(tmp_path, tmp_path / "moved")
    assert TextClassifier.from_pretrained(moved).fingerprint() == TextClassifier.from_pretrained().fingerprint()


def test_fingerprint_follows_what_decides_a_label(tokenizer):
    fingerprint = TextClassifier(small_model(), tokenizer).fingerprint()
    assert TextClassifier(small_model(), tokenizer).fingerprint() == fingerprint
    other_weight = small_model()
    with torch.no_grad():
        other_weight.classifier.bias[0] += 1e-3
    others = [
        (other_weight, tokenizer),
        (small_model(id2label={0: "a", 1: "b"}), tokenizer),
        (small_model(problem_type="multi_label_classification"), tokenizer),
        (small_model(pooling="sum_all"), tokenizer),
        (small_model(dendrite_activation="tanh"), tokenizer),
        (small_model(), train_tokenizer(lowercase=False)),
    ]
    assert fingerprint not in {TextClassifier(*other).fingerprint() for other in others}
    assert len({TextClassifier(*other).fingerprint() for other in others}) == len(others)
