"""Names of labels as configurations hold them, against transformers' pipeline; keys that are no labels are refused."""

import enum
import io
import json

import numpy as np
import pytest
from small_classifier import WORDS, hugging_face_tokenizer, small_model
from transformers import pipeline

from dendritic_bert import cli
from dendritic_bert.inference.classifier import TextClassifier

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
