"""The baseline is scikit-learn's, for classes, labels and values, and does not stop at odd rows."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from dendritic_bert.training import baseline
from dendritic_bert.training.baseline import TOKEN, tfidf_baseline

CLASSES, LABELS, VALUES = "single_label_classification", "multi_label_classification", "regression"
WORDS = np.array(["good", "fine", "bad", "poor", "the", "a", "film", "plot", "cast", "ending", "!"])


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 5)) for _ in range(200)]


def counts(texts, *words):
    return np.array([[text.split().count(word) for word in words] for text in texts])


def test_two_classes(texts):
    """As scikit-learn's own logistic regression says, which has the same problem to solve."""
    labels = (counts(texts, "good", "fine") @ [1, 1] > counts(texts, "bad", "poor") @ [1, 1]).astype(np.int64)
    found = tfidf_baseline(texts[:150], labels[:150], texts[150:], labels[150:], CLASSES)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|!")
    model = LogisticRegression(C=10, solver="liblinear").fit(vectorizer.fit_transform(texts[:150]), labels[:150])
    expected = model.score(vectorizer.transform(texts[150:]), labels[150:])
    assert found["accuracy"] == pytest.approx(expected, abs=0.021)  # one row of 50: the idf counts one text more
    assert found["accuracy"] > 0.8
    assert (found["name"], found["num_train"]) == ("TF-IDF and logistic regression", 150)
    again = tfidf_baseline(texts[:150], labels[:150], texts[150:], labels[150:], CLASSES)
    assert found | {"seconds": 0} == again | {"seconds": 0}


def test_three_classes_of_which_one_is_not_trained_on(texts):
    labels = np.where(counts(texts, "good")[:, 0] > 0, 2, 0)
    labels[199] = 1
    found = tfidf_baseline(texts[:150], labels[:150], texts[150:], labels[150:], CLASSES)
    assert 0.9 < found["accuracy"] <= 0.98
    assert np.isfinite(found["log_loss"])


def test_several_labels(texts):
    labels = (counts(texts, "good", "bad", "film", "absent") > 0).astype(np.int64)
    found = tfidf_baseline(texts[:150], labels[:150], texts[150:], labels[150:], LABELS)
    assert found["micro_f1"] > 0.9
    assert found["subset_accuracy"] > 0.7


def test_values(texts):
    targets = (counts(texts, "good", "bad") @ [1.5, -1.0]).astype(np.float32)
    pairs = [tuple(text.split(" ", 1)) for text in texts]
    found = tfidf_baseline(pairs[:150], targets[:150], pairs[150:], targets[150:], VALUES)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|!")
    model = Ridge().fit(vectorizer.fit_transform(texts[:150]), targets[:150])
    expected = model.score(vectorizer.transform(texts[150:]), targets[150:])
    assert found["r2"] == pytest.approx(expected, abs=0.02)
    assert found["name"] == "TF-IDF and ridge regression"


def test_rows_are_drawn_where_there_are_many(texts, monkeypatch):
    labels = (counts(texts, "good")[:, 0] > 0).astype(np.int64)
    monkeypatch.setattr(baseline, "MOST_ROWS", 60)
    runs = [tfidf_baseline(texts, labels, texts, labels, CLASSES, seed) for seed in (0, 0, 1)]
    assert [run["num_train"] for run in runs] == [60, 60, 60]
    assert runs[0]["log_loss"] == runs[1]["log_loss"] != runs[2]["log_loss"]
    monkeypatch.setattr(baseline, "MOST_WORK", 80)
    monkeypatch.setattr(baseline, "LEAST_ROWS", 30)
    assert tfidf_baseline(texts, labels, texts, labels, CLASSES)["num_train"] == 40


def test_texts_without_words():
    labels = np.array([0, 1, 1])
    assert tfidf_baseline(["", " ", ""], labels, ["", "x"], labels[:2], CLASSES)["accuracy"] == 0.5
    assert tfidf_baseline(["a", "b"], labels[1:], ["a"], labels[1:2], CLASSES)["accuracy"] == 1.0


def test_tokens():
    analyze = TfidfVectorizer(token_pattern=TOKEN, lowercase=False).build_analyzer()
    assert analyze("It's 5pm 🙂!") == ["It", "'", "s", "5pm", "🙂", "!"]
    assert analyze("天气 ok") == ["天", "气", "ok"]


def test_rare_classes_weigh_as_much_as_they_are_told_to(texts):
    """As scikit-learn's own logistic regression with balanced weights says."""
    labels = (counts(texts, "good")[:, 0] * counts(texts, "film")[:, 0] > 1).astype(np.int64)
    found, plain = (tfidf_baseline(texts[:150], labels[:150], texts[150:], labels[150:], CLASSES, 0, weight)
                    for weight in ("balanced", None))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|!")
    model = LogisticRegression(C=10, solver="liblinear", class_weight="balanced")
    model.fit(vectorizer.fit_transform(texts[:150]), labels[:150])
    expected = model.score(vectorizer.transform(texts[150:]), labels[150:])
    assert found["accuracy"] == pytest.approx(expected, abs=0.021)
    assert found["log_loss"] != plain["log_loss"]
