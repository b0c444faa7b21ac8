"""The estimator does what scikit-learn's own checks ask for, on texts, pairs of texts, and labels of any kind."""

import gc
import os
import pickle
import random
from functools import partial

import numpy as np
import pandas
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import validate_data

from dendritic_bert import DendriticBertClassifier, TextClassifier
from dendritic_bert.estimator import text_columns

TEXTS = [f"a {'good' if i % 2 else 'bad'} film , number {i % 7}" for i in range(60)]
CLASSES = np.array(["no", "yes"])[np.arange(60) % 2]
QUICK = {"epochs": 10, "batch_size": 16, "hidden_size": 8, "lr": 0.05, "head_lr_factor": 1.0, "word_dropout": 0.0}


@pytest.fixture(autouse=True)
def _without_collections(monkeypatch):
    """The Trainer collects garbage at the end of every training, which takes longer than one of these trainings."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@pytest.fixture(scope="module")
def fitted():
    return DendriticBertClassifier(**QUICK).fit(TEXTS, CLASSES)


# ---- scikit-learn's checks -------------------------------------------------------------------------------------------


class NumbersAsWords(DendriticBertClassifier):
    """Spells the numbers of X, in steps of one half: the checks pass numbers, and texts with letters only to some."""

    def _columns(self, X, reset):
        X = validate_data(self, X, reset=reset)
        return ([" ".join(f"c{column}{'minus' if value < 0 else 'plus'}{abs(round(2 * float(value)))}"
                          for column, value in enumerate(row)) for row in X],)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data":
        "batches are drawn at random, and the vocabulary counts rows, not their weights",
}


# These skip themselves: there is no decision_function, and an environment variable of scipy's is not set.
SKIPPED = ("check_classifiers_multilabel_output_format_decision_function", "check_array_api_input")


def find_checks() -> list:
    """All of them but for ``SKIPPED``, and for two that train on 300 rows as another does: the numbers lie in a file or
    have fewer digits, and become words before they are used."""
    estimator = NumbersAsWords(**QUICK | {"epochs": 4, "lr": 0.1})
    checks = estimator_checks_generator(estimator, expected_failed_checks=EXPECTED_FAILURES, mark="xfail")
    return [case for case in checks if name_of(case[1]) not in SKIPPED
            and not (isinstance(case[1], partial) and name_of(case[1]) == "check_classifiers_train")]


def name_of(check) -> str | None:
    return getattr(check, "func", check).__name__ if callable(check) else ""


@pytest.mark.parametrize(("estimator", "check"), find_checks(), ids=name_of)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


# ---- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [
    np.array(["spam", "ham"]), np.array([7, -3]), np.array([True, False]), np.array([0.0, 1.0]),
    np.array(["z", "a"], object)], ids=["str", "int", "bool", "float", "object"])
def test_labels_come_back_in_their_own_dtype(labels):
    y = labels[np.arange(60) % 2]
    model = DendriticBertClassifier(**QUICK).fit(pandas.Series(TEXTS), y)
    answers = model.predict(np.array(TEXTS))
    assert answers.dtype == y.dtype
    assert model.score(TEXTS, y) == 1
    assert model.classes_.tolist() == sorted(labels.tolist())


@pytest.mark.parametrize(("dtype", "expected"), [("Int64", np.int64), ("Int8", np.int8), ("boolean", np.bool_)])
def test_labels_of_pandas_are_no_floats(dtype, expected):
    y = pandas.Series(np.arange(60) % 2, dtype=dtype)
    model = DendriticBertClassifier(**QUICK, class_weight="balanced").fit(TEXTS, y)
    assert model.classes_.dtype == model.predict(TEXTS).dtype == expected
    assert model.score(TEXTS, y) == 1


def test_probabilities(fitted):
    """They are those of the classifier that was saved, rows of them sum to 1, and an answer is the largest."""
    found = fitted.predict_proba(TEXTS)
    assert found.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-6)
    assert (fitted.classes_[found.argmax(axis=1)] == fitted.predict(TEXTS)).all()


def test_the_model_goes_anywhere(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    answers = TextClassifier.from_pretrained(str(tmp_path))(TEXTS)
    assert [answer["label"] for answer in answers] == fitted.predict(TEXTS).tolist()
    assert [answer["score"] for answer in answers] == pytest.approx(fitted.predict_proba(TEXTS).max(axis=1), abs=1e-6)
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert not hasattr(clone(fitted), "classifier_")


@pytest.mark.parametrize("labels", [["no", "perhaps", "never"], [0, 1], [0, 1, 2, 3]],
                         ids=["one is known", "as many", "more"])
def test_going_on_with_other_labels(fitted, tmp_path, labels):
    """A label that the saved model knows is as it was, and the model has an output for each of the new ones."""
    fitted.save_pretrained(tmp_path)
    y = np.array(labels * (60 // len(labels)))
    model = DendriticBertClassifier(str(tmp_path), epochs=1, batch_size=16, lr=1e-9).fit(TEXTS, y)
    assert model.classes_.tolist() == sorted(labels)
    assert model.predict_proba(TEXTS).shape == (60, len(labels))
    before, after = (found.classifier_.model.classifier.weight for found in (fitted, model))
    assert ("no" in labels) == torch.allclose(before[0], after[sorted(labels).index(labels[0])], atol=1e-6)


def test_pairs():
    """The second text says the label."""
    pairs = pandas.DataFrame({"text": ["one", "two"] * 30, "pair": (["good"] * 2 + ["bad"] * 2) * 15})
    y = np.array([["yes", "no"][pair == "bad"] for pair in pairs["pair"]])
    model = DendriticBertClassifier(**QUICK).fit(pairs, y)
    assert model.n_features_in_ == 2
    tuples = list(pairs.itertuples(index=False, name=None))
    assert (model.predict_proba(tuples) == model.predict_proba(pairs)).all()
    assert model.score(pairs.to_numpy(), y) == 1
    with pytest.raises(ValueError, match=r"^X has 1 features, but DendriticBertClassifier is expecting 2 features"):
        model.predict(["one"])


def test_several_labels_of_a_row():
    texts = [f"a {'good' if i % 2 else 'bad'} {'war' if i % 3 else 'love'} film" for i in range(60)]
    y = np.array([["good" in text, "war" in text] for text in texts]).astype(np.int64)
    model = DendriticBertClassifier(**QUICK | {"epochs": 30}).fit(texts, y)
    assert (model.predict(texts) == y).all()
    assert ((model.predict_proba(texts) > 0.5) == y).all()
    assert model.score(texts, y) == 1
    weighted = DendriticBertClassifier(**QUICK).fit(texts, y, np.where(y[:, 0], 1.0, 0.0))
    assert weighted.predict(texts)[:, 0].all(), "rows without the first label weigh nothing"


@pytest.mark.parametrize("values", [(-1, 1), (0, 2), (1, 2)])
def test_an_indicator_matrix_of_other_numbers(values):
    """scikit-learn takes any two numbers for one; the loss would learn another target than the labels."""
    y = np.array(values)[np.random.default_rng(0).integers(0, 2, (len(TEXTS), 2))]
    other = values[0] if values[1] == 1 else 2
    with pytest.raises(ValueError, match=rf"^y is an indicator matrix that holds {other}: pass 1 for .*, such as "
                                         rf"\(y == {max(values)}\)\.astype\(int\)\.$"):
        DendriticBertClassifier(**QUICK).fit(TEXTS, y)


def test_parameters_of_numpy(fitted):
    """ParameterGrid takes them from arrays."""
    arrays = {name: np.array([value])[0] for name, value in QUICK.items()}
    found = DendriticBertClassifier(**arrays, dsn=np.True_).fit(TEXTS, CLASSES)
    assert (found.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()


def test_weights():
    """Rows of no weight are not learnt from; a rare class that weighs as much as the other is found."""
    wrong = np.where(np.arange(60) < 20, np.where(CLASSES == "no", "yes", "no"), CLASSES)
    weights = (np.arange(60) >= 20).astype(float)
    assert DendriticBertClassifier(**QUICK).fit(TEXTS, wrong, weights).score(TEXTS, CLASSES) == 1
    texts, y = ["the same"] * 20, np.array(["rare"] * 5 + ["usual"] * 15)
    probabilities = [DendriticBertClassifier(**QUICK | {"epochs": 10}, class_weight=weight).fit(texts, y)
                     .predict_proba(texts[:1])[0, 0] for weight in (None, "balanced", {"rare": 27, "usual": 1})]
    assert probabilities == pytest.approx([0.25, 0.5, 0.9], abs=0.15)


def test_weights_may_be_as_large_as_numbers_are(fitted):
    model = DendriticBertClassifier(**QUICK, class_weight={"no": 1e308, "yes": 1e308}).fit(
        TEXTS, CLASSES, np.full(60, 1e308))
    np.testing.assert_allclose(model.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-4)


def test_weights_that_a_last_step_has_made_infinite():
    """No loss is computed after it."""
    with pytest.raises(RuntimeError, match=r" holds NaN or infinite numbers after the last step, with a highest lr of"):
        DendriticBertClassifier(**QUICK | {"epochs": 1, "batch_size": 60, "lr": 1e39}).fit(TEXTS, CLASSES)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_weights_of_one_on_the_encoder_change_nothing(num_classes):
    """The regression that the head starts as, and from three classes on that which is folded into the words, take
    weighted rows, too."""
    names = ["good", "bad", "long"][:num_classes]
    y = np.tile(names, 40)
    texts = [f"a {name} film of {i} days" for i, name in enumerate(y)]
    found = [DendriticBertClassifier(epochs=1).fit(texts, y, weights).predict_proba(texts)
             for weights in (None, np.ones(len(y)))]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    assert (found[0].argmax(axis=1) == np.unique(y, return_inverse=True)[1]).all()


def test_the_seed_decides(fitted):
    again, other = (DendriticBertClassifier(**QUICK, random_state=seed).fit(TEXTS, CLASSES) for seed in (0, 1))
    assert (again.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert not (other.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()


def test_nothing_is_left_behind(tmp_path, monkeypatch, capfd):
    """No file, no word, and the caller's random numbers go on as they would have."""
    monkeypatch.chdir(tmp_path)
    states = []
    for is_fitted in (False, True):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        if is_fitted:
            DendriticBertClassifier(**QUICK | {"epochs": 1}).fit(TEXTS, CLASSES)
        states.append((random.random(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002
    assert states[0] == states[1]
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_pipeline_and_search():
    frame = pandas.DataFrame({"text": TEXTS, "other": range(60)})
    pipeline = make_pipeline(ColumnTransformer([("text", "passthrough", ["text"])]),
                             DendriticBertClassifier(**QUICK | {"epochs": 20}))
    assert cross_val_score(pipeline, frame, CLASSES, cv=2).tolist() == [1, 1]
    lower = make_pipeline(FunctionTransformer(lambda texts: [text.lower() for text in texts]),
                          DendriticBertClassifier(**QUICK | {"epochs": 20}))
    search = GridSearchCV(lower, {"dendriticbertclassifier__lr": [1e-6, 0.1]}, cv=2, refit=False)
    search.fit(TEXTS, CLASSES)
    assert search.best_params_ == {"dendriticbertclassifier__lr": 0.1}


@pytest.mark.parametrize("missing", [None, float("nan"), pandas.NA])
@pytest.mark.parametrize("kind", [list, np.array, pandas.Series])
def test_a_missing_label(missing, kind):
    labels = ["a", missing] * 3
    with pytest.raises(ValueError, match=r"^y\[1\] is missing: fill it, or leave the row out\.$"):
        DendriticBertClassifier(epochs=1).fit(["one", "two"] * 3,
                                              np.array(labels, object) if kind is np.array else kind(labels))


@pytest.mark.parametrize(("X", "error", "message"), [
    ("a text", TypeError, r"^X is one text, expected a list or an array of texts: pass \[text\]\.$"),
    (["a", None], TypeError, r"^X\[1\] is None, expected a str"),
    (["a", 1.5], TypeError, r"^X\[1\] is 1\.5, expected a str"),
    ([], ValueError, r"^Found array with 0 sample"),
    ([("a", "b", "c")], ValueError, r"^X has 3 columns, expected 1 of texts, or 2 of pairs of texts\.$"),
    (np.zeros((1, 1, 1), str), ValueError, r"^X has 3 dimensions"),
    (7, TypeError, r"^X is a int, expected a list or an array of texts\.$"),
])
def test_what_is_not_of_texts(X, error, message):
    with pytest.raises(error, match=message):
        text_columns(X)


def test_labels_that_cannot_be_learnt():
    with pytest.raises(ValueError, match=r"^y has 1 class, np\.str_\('no'\): a classifier needs rows of two classes"):
        DendriticBertClassifier().fit(["a", "b"], ["no", "no"])
    with pytest.raises(ValueError, match="sample_weight is zero for every row"):
        DendriticBertClassifier().fit(["a", "b"], ["no", "yes"], [0, 0])
    for weight in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="sample_weight holds a number that is negative, infinite or NaN"):
            DendriticBertClassifier().fit(["a", "b"], ["no", "yes"], [weight, 1])
        with pytest.raises(ValueError, match=rf"^class_weight holds {weight}: pass finite weights of 0 and more\.$"):
            DendriticBertClassifier(class_weight={"no": weight}).fit(["a", "b"], ["no", "yes"])
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=rf"^random_state is {seed}, expected a number from 0 to 4294967295\.$"):
            DendriticBertClassifier(random_state=seed).fit(["a", "b"], ["no", "yes"])
    with pytest.raises(ValueError, match="epochs is 0, expected more than 0"):
        DendriticBertClassifier(epochs=0).fit(["a", "b"], ["no", "yes"])
