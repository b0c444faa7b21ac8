"""Names of labels, scores and what is said of a text by them, against transformers' pipeline and float64."""

import enum
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_classifier import WORDS, hugging_face_tokenizer, small_model
from transformers import pipeline

from dendritic_bert import DendriticBertConfig, cli
from dendritic_bert.inference import scores
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.formatters import Labels
from dendritic_bert.inference.scores import Answers

SEED = 8  # gives more than one label to the words


class Name(str, enum.Enum):
    GOOD = "good"


@pytest.fixture(scope="module")
def tokenizer():
    return hugging_face_tokenizer()


def model_with(names, num_labels=3):
    model = small_model(SEED, num_labels=num_labels)
    model.config.id2label = names
    return model


@pytest.mark.parametrize(("names", "labels"), [
    ({0: "bad", 1: "so-so", 2: "good"}, ["bad", "so-so", "good"]),
    ({"0": "bad", "1": "so-so", "2": "good"}, ["bad", "so-so", "good"]),
    ({2: "good", 0: "bad", 1: "so-so"}, ["bad", "so-so", "good"]),
    ({"2": "good", "0": "bad", 1: "so-so"}, ["bad", "so-so", "good"]),
    ({np.int64(key): name for key, name in enumerate(["bad", "so-so", "good"])}, ["bad", "so-so", "good"]),
    (["bad", "so-so", "good"], ["bad", "so-so", "good"]),
    ({0: 1, 1: 5, 2: -1}, ["1", "5", "-1"]),
    ({0: "\ud83d\ude00", 1: "b", 2: "lone \ud800"}, ["😀", "b", "lone \ufffd"]),  # as JSON's escapes may have it
    ({0: 0.5, 1: np.int64(3), 2: True}, ["0.5", "3", "True"]),
    ({0: np.str_("bad"), 1: Name.GOOD, 2: ""}, ["bad", "good", ""]),
    ({0: "the same", 1: "the same", 2: "another"}, ["the same", "the same", "another"]),
], ids=str)
def test_names(tokenizer, names, labels):
    classifier = TextClassifier(model_with(names), tokenizer)
    assert classifier.labels == labels
    assert set(map(type, classifier.labels)) == {str}
    numbered = small_model(SEED, num_labels=3)
    by_number = pipeline("text-classification", model=numbered, tokenizer=tokenizer, device="cpu")
    expected = [labels[int(result["label"].removeprefix("LABEL_"))] for result in by_number(WORDS)]
    assert len(set(expected)) > 1
    assert [result["label"] for result in classifier(WORDS)] == expected
    assert classifier.predict(WORDS).labels == expected


@pytest.mark.parametrize("names", [
    {1: "bad", 2: "so-so", 3: "good"},
    {"1": "bad", "2": "so-so", "3": "good"},
    {0: "bad", 1: "so-so", 3: "good"},
    {0: "bad", 1: "so-so"},
    {0: "bad", 1: "so-so", 2: "good", 3: "best"},
    {0: "bad", "0": "worse", 1: "so-so", 2: "good"},
    {-1: "bad", 0: "so-so", 1: "good"},
    {"bad": 0, "so-so": 1, "good": 2},
    {"LABEL_0": "bad", "LABEL_1": "so-so", "LABEL_2": "good"},
    {}, [], None, ["bad", "good"],
], ids=str)
def test_keys_that_are_not_the_labels(tokenizer, names):
    with pytest.raises(ValueError, match=r"id2label has the keys .*, the model 3 labels: name each from 0") as error:
        TextClassifier(model_with(names), tokenizer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [None, ["good"], {"en": "good"}, b"good"], ids=str)
def test_names_that_are_none(tokenizer, name):
    with pytest.raises(ValueError, match=r"id2label\[1\] is .*, expected a str"):
        TextClassifier(model_with({0: "bad", 1: name, 2: "so-so"}), tokenizer)


def test_the_command_line(tmp_path, tokenizer, capsys):
    """Keys from 1 in a folder's config.json: one line, no table of tracebacks."""
    small_model(SEED, num_labels=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for names, status in ({"0": 1, "1": 5, "2": 3}, 0), ({"1": "bad", "2": "so-so", "3": "good"}, 1):
        (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": names}))
        capsys.readouterr()
        assert cli.main(["classify", "--model", str(tmp_path), "the quick brown fox"]) == status
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "id2label has the keys 1, 2, 3, the model 3 labels" in error


def test_names_in_files_are_strings(tokenizer, tmp_path):
    source, output = tmp_path / "texts.txt", io.BytesIO()
    source.write_text("\n".join(WORDS) + "\n", "utf-8")
    classifier = TextClassifier(model_with({0: 1, 1: 5, 2: 3}), tokenizer)
    classifier.classify_file(str(source), output)
    assert [json.loads(line)["label"] for line in output.getvalue().splitlines()] == classifier.predict(WORDS).labels


# ---- what is said of a text ------------------------------------------------------------------------------------------

LOGITS = np.random.default_rng(3).normal(size=(23, 150)).astype(np.float32) * 3
PROBLEMS = [(None, 1), (None, 2), (None, 150), ("single_label_classification", 3), ("multi_label_classification", 5),
            ("multi_label_classification", 1), ("regression", 1), ("regression", 4)]


def names_of(num_labels):
    return [f"label {number}" for number in range(num_labels)]


@pytest.fixture(scope="module")
def their_postprocess(tokenizer):
    """What transformers' pipeline makes of logits ``[C]``."""
    theirs = pipeline("text-classification", model=small_model(), tokenizer=tokenizer, device="cpu")

    def postprocess(logits, problem_type, **options):
        theirs.model = SimpleNamespace(config=DendriticBertConfig(
            problem_type=problem_type, id2label=dict(enumerate(names_of(len(logits))))))
        options = theirs._sanitize_parameters(**options)[2]
        return theirs.postprocess({"logits": torch.from_numpy(logits[None])}, **options)

    return postprocess


@pytest.mark.parametrize("options", [
    {}, {"top_k": 1}, {"top_k": 2}, {"top_k": 1000}, {"top_k": None}, {"function_to_apply": "sigmoid"},
    {"function_to_apply": "SOFTMAX", "top_k": 3}, {"function_to_apply": "none"},
    {"function_to_apply": "none", "top_k": None},
], ids=str)
@pytest.mark.parametrize(("problem_type", "num_labels"), PROBLEMS)
def test_answers_are_the_pipelines(their_postprocess, problem_type, num_labels, options):
    logits = LOGITS[:, :num_labels].copy()
    ours = Answers(names_of(num_labels), problem_type, **options).dicts(logits)
    theirs = [their_postprocess(row, problem_type, **options) for row in logits]
    if "top_k" not in options:
        ours, theirs = [ours], [theirs]
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [answer["label"] for answer in our_row] == [answer["label"] for answer in their_row]
        np.testing.assert_allclose([answer["score"] for answer in our_row], [answer["score"] for answer in their_row],
                                   rtol=5e-7)  # four roundings of float32
        assert {type(answer["score"]) for answer in our_row} == {float}


def test_equal_scores_stay_in_order(their_postprocess):
    """Logits that the sigmoid rounds to the same float32."""
    logits = np.array([[40.0, 90.0, -1.0, 60.0, 5.0]], np.float32)
    ours = Answers(names_of(5), "multi_label_classification", top_k=None).dicts(logits)[0]
    theirs = their_postprocess(logits[0], "multi_label_classification", top_k=None)
    assert [answer["label"] for answer in ours] == [answer["label"] for answer in theirs]
    np.testing.assert_allclose([answer["score"] for answer in ours], [answer["score"] for answer in theirs], rtol=5e-7)


@pytest.mark.parametrize("logit", [-1e4, -200.0, 200.0, 1e4])
def test_large_logits(logit, recwarn):
    logits = np.array([[logit, 0.0]], np.float32)
    expected = [1.0 if logit > 0 else 0.0, 0.5]
    assert Answers(names_of(2), "multi_label_classification").scores(logits).tolist() == [expected]
    assert not recwarn.list


def exact_scores(function, logits):
    logits = logits.astype(np.float64)
    if function == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    return logits if function == "none" else np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 1.7, 20.0])
@pytest.mark.parametrize(("problem_type", "num_labels", "function_to_apply", "function", "divides"), [
    (None, 3, None, "softmax", True), ("multi_label_classification", 3, None, "sigmoid", True),
    (None, 1, None, "sigmoid", True), (None, 3, "sigmoid", "sigmoid", True), (None, 3, "none", "none", False),
    ("regression", 3, None, "none", False), ("regression", 3, "softmax", "softmax", False)])
def test_temperature(problem_type, num_labels, function_to_apply, function, divides, temperature):
    logits = LOGITS[:, :num_labels].copy()
    answers = Answers(names_of(num_labels), problem_type, temperature, function_to_apply=function_to_apply)
    scores = answers.scores(logits)
    expected = exact_scores(function, logits / np.float64(temperature) if divides else logits)
    # The quotient is off by one rounding, which the exponential multiplies by its argument.
    np.testing.assert_allclose(scores, expected, rtol=2e-7 * (3 + np.abs(logits).max() / min(temperature, 1)))
    assert scores.dtype == np.float32
    assert (scores.argmax(axis=1) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-40, 2.0**-149])
@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_a_temperature_of_infinite_quotients(monkeypatch, recwarn, problem_type, temperature, built):
    """The largest logit takes all; equal ones share it."""
    if not built:
        monkeypatch.setattr(scores, "apply_scores", None)
    logits = np.array([[1, 2, -3], [-1e9, -2e9, -3e9], [4e9, 4e9, 0], [3e38, -3e38, 3e38]], np.float32)
    expected = [[0, 1, 0], [1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]
    if problem_type is not None:
        expected = np.where(logits == 0, 0.5, logits > 0).tolist()
    assert Answers(names_of(3), problem_type, temperature).scores(logits).tolist() == expected
    assert not recwarn.list


@pytest.mark.parametrize("top_k", ["", None, 2])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, float(np.float32(0.7)), 0.7, 1.0])
def test_threshold(threshold, top_k):
    """Every label whose score, as it is given, is not less; 0.7 is a little more than the float32 beside it."""
    logits = LOGITS[:, :6].copy()
    logits[0], logits[1, 2] = -9, np.log(np.float32(0.7) / (1 - np.float64(np.float32(0.7))))
    ours = Answers(names_of(6), "multi_label_classification", top_k=top_k, threshold=threshold).dicts(logits)
    every = Answers(names_of(6), "multi_label_classification", top_k=None).dicts(logits)
    assert ours == [[answer for answer in row if answer["score"] >= threshold][:top_k or None] for row in every]
    if threshold >= 0.3:
        assert ours[0] == []


def test_abstaining():
    logits = LOGITS[:, :4].copy()
    plain = Answers(names_of(4), None).dicts(logits)
    scores = sorted(answer["score"] for answer in plain)
    ours = Answers(names_of(4), None, abstain_below=scores[7]).dicts(logits)
    assert [answer["score"] for answer in ours] == [answer["score"] for answer in plain]
    assert [answer["label"] for answer in ours] == [
        answer["label"] if answer["score"] >= scores[7] else None for answer in plain]
    assert sum(answer["label"] is None for answer in ours) == 7


def listed(cells):
    """The cells of a column as a list, with None for null."""
    if isinstance(cells, Labels):
        return [None if number == -1 else cells.names[number] for number in cells.numbers]
    return [None if isinstance(cell, float) and np.isnan(cell) else cell for cell in
            (cells.tolist() if isinstance(cells, np.ndarray) else cells)]


@pytest.mark.parametrize(("options", "names", "nested_names"), [
    ({}, ["label", "score"], ["label", "score"]),
    ({"abstain_below": 0.6}, ["label", "score"], ["label", "score"]),
    ({"top_k": 1}, ["label_1", "score_1"], ["labels"]),
    ({"top_k": 2}, ["label_1", "score_1", "label_2", "score_2"], ["labels"]),
    ({"threshold": 0.4, "top_k": 2}, ["label_1", "score_1", "label_2", "score_2"], ["labels"]),
    ({"threshold": 0.4}, ["label_1", "score_1", "label_2", "score_2", "label_3", "score_3"], ["labels"]),
    ({"all_scores": True}, ["label", "score", "score_label 0", "score_label 1", "score_label 2"],
     ["label", "score", "scores"]),
    ({"all_scores": True, "top_k": 1}, ["label_1", "score_1", "score_label 0", "score_label 1", "score_label 2"],
     ["labels", "scores"]),
], ids=str)
def test_columns_say_what_the_dicts_say(options, names, nested_names):
    logits = LOGITS[:, :3].copy()
    answers = Answers(names_of(3), "multi_label_classification", **options)
    dicts = answers.dicts(logits)
    flat, nested = ({name: listed(cells) for (name, _), cells in
                     zip(answers.columns(is_nested), answers.values(logits, is_nested), strict=True)}
                    for is_nested in (False, True))
    assert (list(flat), list(nested)) == (names, nested_names)
    kinds = {kind for _, kind in answers.columns(nested=False)}
    assert kinds == {"label", "score"}
    if not answers.is_list:
        said = [[answer["label"] for answer in dicts], [answer["score"] for answer in dicts]]
        assert [flat["label"], flat["score"]] == [nested["label"], nested["score"]] == said
    else:
        pairs = list(zip(*(zip(flat[f"label_{rank}"], flat[f"score_{rank}"]) for rank in
                           range(1, answers.num_listed + 1))))
        nothing = [(None, None)] * 3
        assert pairs == [tuple([(answer["label"], answer["score"]) for answer in row] + nothing)[:answers.num_listed]
                         for row in dicts]
        assert nested["labels"] == [[{**answer, "score": round(answer["score"], 6)} for answer in row]
                                    for row in dicts]
    if answers.all_scores:
        scores = answers.scores(logits)
        assert [flat[f"score_label {label}"] for label in range(3)] == scores.T.tolist()
        assert nested["scores"] == [{f"label {label}": round(score, 6) for label, score in enumerate(row)}
                                    for row in scores.tolist()]


@pytest.mark.parametrize(("num_labels", "options", "names"), [
    (3, {}, ["label", "score", "score_label 0", "score_label 1", "score_label 2"]),
    (3, {"function_to_apply": "none"}, ["label", "score", "score_label 0", "score_label 1", "score_label 2"]),
    (3, {"top_k": 1}, ["label_1", "score_1"]),
    (1, {}, ["label", "score"]),
])
def test_a_file_has_all_targets_of_a_regression(num_labels, options, names):
    """They are the logits, in their order; what a call gives stays that of the pipeline."""
    logits = LOGITS[:, :num_labels].copy()
    answers = Answers(names_of(num_labels), "regression", **options)
    columns, values = answers.columns(nested=False), answers.values(logits, nested=False)
    assert [name for name, _ in columns] == names
    targets = {name: listed(cells) for (name, _), cells in zip(columns, values) if name.startswith("score_label")}
    assert targets == ({} if len(names) == 2 else {
        f"score_label {label}": logits[:, label].tolist() for label in range(num_labels)})
    if not answers.is_list:
        assert [answer["score"] for answer in answers.dicts(logits)] == logits.max(axis=1).tolist()


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"top_k": 0}, ValueError, "top_k is 0, it must be at least 1"),
    ({"top_k": "2"}, TypeError, "top_k is '2', it must be a whole number"),
    ({"function_to_apply": "relu"}, ValueError, "function_to_apply is 'relu', known are sigmoid, softmax, none"),
    ({"threshold": "0.5"}, TypeError, "threshold is '0.5', it must be a number"),
    ({"threshold": True}, TypeError, "threshold is True, it must be a number"),
    ({"abstain_below": float("nan")}, ValueError, "abstain_below is nan, it must be a finite number"),
    ({"abstain_below": 0.5, "top_k": 2}, ValueError, "abstain_below is for the best label alone"),
    ({"abstain_below": 0.5, "threshold": 0.5}, ValueError, "abstain_below is for the best label alone"),
    ({"temperature": 0.0}, ValueError, "temperature is 0.0, expected a positive number"),
    ({"temperature": 1e-50}, ValueError, "temperature is 1e-50, expected a positive number, 1.4e-45 or more: mend it"),
], ids=str)
def test_options_that_are_none(options, error, message):
    with pytest.raises(error, match=message):
        Answers(names_of(3), None, **options)


def test_columns_of_one_name():
    for labels, options in ([["1", "2"], {"top_k": 2}], [["the same", "the same"], {}]):
        with pytest.raises(ValueError, match=r"all_scores would write the column 'score_.*' twice: give the model's"):
            Answers(labels, None, all_scores=True, **options).columns(nested=False)
