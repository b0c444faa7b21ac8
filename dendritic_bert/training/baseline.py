"""What a bag of words gives on the same rows in seconds, beside which a training stands: TF-IDF and a linear model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from itertools import chain, compress
from typing import Any

import numpy as np

from .evaluation import scores

MOST_ROWS = 200_000  # of training: more take minutes
MOST_WORK = 3_000_000  # rows times classes, of which each has a regression of its own: about 20 s
LEAST_ROWS = 20_000  # are used whatever the number of classes
MOST_CLASSES = 1000  # take two minutes
MOST_FEATURES = 200_000
MOST_WEIGHTS = 50_000_000  # features times classes, 400 MB
# scikit-learn's C. On the dev rows of three tables 1 is 1.4 to 2.9 points worse, and 100 from 1 worse to 1.3 better.
INVERSE_REGULARISATION = 10.0
LEAST_PROBABILITY = 1e-9  # of a class that the training rows do not hold
# A word; or a character that is neither letter nor digit, as in "?!" and emoji; or one ideograph or kana, which are
# written without spaces.
TOKEN = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]"


def tfidf_baseline(
    train_texts: Iterable[str | tuple[str, ...]], train_labels: np.ndarray,
    dev_texts: Iterable[str | tuple[str, ...]], dev_labels: np.ndarray, problem_type: str, seed: int = 0,
    class_weight: str | None = None,
) -> dict[str, Any]:
    """Train a linear model on TF-IDF of words and pairs of words, and score it as a model is scored.

    Each class or label has a logistic regression (one against the rest), a regression has ridge regression. The two
    texts of a pair are joined. Of more than 200,000 training rows, or with many classes of more than 20,000, as many
    are drawn at random. Two calls give the same scores.

    Args:
        train_texts, dev_texts: n texts, or tuples of one text or two; they are gone through once.
        train_labels, dev_labels: as in ``evaluation.Evaluation``.
        problem_type: as there.
        seed: of the draw of training rows.
        class_weight: scikit-learn's.

    Returns:
        The metrics of ``evaluation.scores`` on the dev rows; name, what was trained; num_train, on how many rows;
        seconds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    started = time.perf_counter()
    is_drawn = _draw_rows(train_labels, problem_type, seed)
    train_labels = train_labels[is_drawn]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN,
                                 max_features=min(MOST_FEATURES, MOST_WEIGHTS // num_fits(train_labels, problem_type)))
    # A row that is not a text of the user's keeps the vocabulary from being empty where no text has a word.
    texts = map(_join, compress(train_texts, is_drawn))
    features = vectorizer.fit_transform(chain(texts, ["text"]))[:-1]
    dev_features = vectorizer.transform(map(_join, dev_texts))
    # Threads of BLAS gain nothing on vectors of weights, and beside another program they wait for each other.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label that all rows or none have, and a fit that ends at its last step
        if problem_type == "regression":
            name, logits = "TF-IDF and ridge regression", _ridge(features, train_labels, dev_features)
        else:
            name = "TF-IDF and logistic regression"
            num_outputs = dev_labels.shape[1] if dev_labels.ndim == 2 else 1 + max(train_labels.max(), dev_labels.max())
            logits = _logistic(features, train_labels, dev_features, int(num_outputs), class_weight)
    return {**scores(logits, dev_labels, problem_type), "name": name, "num_train": len(train_labels),
            "seconds": round(time.perf_counter() - started, 1)}


def num_fits(labels: np.ndarray, problem_type: str) -> int:
    """How many regressions ``tfidf_baseline`` fits."""
    if problem_type == "multi_label_classification":
        return labels.shape[1]
    return len(np.unique(labels)) if problem_type == "single_label_classification" else 1


def _draw_rows(labels: np.ndarray, problem_type: str, seed: int) -> np.ndarray:
    """Which rows are trained on, ``[n]`` bool."""
    most = min(MOST_ROWS, max(LEAST_ROWS, MOST_WORK // num_fits(labels, problem_type)))
    is_drawn = np.ones(len(labels), np.bool_)
    if len(labels) > most:
        is_drawn[np.random.default_rng(seed).permutation(len(labels))[most:]] = False
    return is_drawn


def _join(text: str | tuple[str, ...]) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _ridge(features: Any, targets: np.ndarray, dev_features: Any) -> np.ndarray:
    from sklearn.linear_model import Ridge

    values = Ridge().fit(features, targets).predict(dev_features)
    return values.reshape(len(values), -1)


def _logistic(features: Any, labels: np.ndarray, dev_features: Any, num_outputs: int, class_weight: str | None
              ) -> np.ndarray:
    """Log-odds ``[n, C]`` of labels, or log-probabilities of classes."""
    from scipy.special import logit
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model: Any = OneVsRestClassifier(LogisticRegression(C=INVERSE_REGULARISATION, solver="liblinear",
                                                        class_weight=class_weight))
    if labels.ndim == 1 and np.ptp(labels) == 0:
        model = DummyClassifier()
    found = model.fit(features, labels).predict_proba(dev_features)
    if labels.ndim == 2:
        return logit(np.clip(found, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    probabilities = np.zeros((len(found), num_outputs))
    probabilities[:, model.classes_] = found
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY))
