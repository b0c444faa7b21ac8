"""Columns are found by their names or by what they hold, and an open choice is an error that names the options."""

import csv

import pytest
from helpers import shared_path

from dendritic_bert.datasets.column_choice import choose_columns, looks_like_text

SENTENCES = [f"the {word} film is one of many in row {number}" for number, word in enumerate(["dull", "fine"] * 10)]
WORDS = ["pos", "neg"] * 10
NUMBERS = list(map(str, range(20)))
VALUES = {"s": SENTENCES, "w": WORDS, "n": NUMBERS}


def choose(kinds: dict[str, str], **given):
    return choose_columns(list(kinds), {name: VALUES[kind] for name, kind in kinds.items()}, "f.csv", **given)


@pytest.mark.parametrize(("kinds", "given", "expected"), [
    ({"text": "s", "label": "w"}, {}, ("text", None, "label")),
    ({"Intent": "w", "Query": "s"}, {}, ("Query", None, "Intent")),
    ({"id": "n", "keyword": "w", "text": "s", "target": "w"}, {}, ("text", None, "target")),
    ({"title": "s", "description": "s", "topic": "w"}, {}, ("title", "description", "topic")),
    ({"id": "n", "premise": "s", "hypothesis": "s", "label": "w"}, {}, ("premise", "hypothesis", "label")),
    ({"title": "s", "description": "s", "topic": "w"}, {"text": "description"}, ("description", None, "topic")),
    ({"title": "s", "body": "s", "topic": "w"}, {"text_pair": "title"}, ("body", "title", "topic")),
    ({"v1": "w", "v2": "s"}, {}, ("v2", None, "v1")),
    ({"n": "n", "v1": "w", "v2": "s"}, {}, ("v2", None, "v1")),
    ({"a": "s", "b": "s", "kind": "w"}, {}, ("a", "b", "kind")),
    ({"word": "w", "label": "w"}, {}, ("word", None, "label")),
    ({"text": "s", "label": "w", "language": "w"}, {"label": "language"}, ("text", None, "language")),
    ({"label": "s", "text": "w"}, {"text": "label", "label": "text"}, ("label", None, "text")),
])
def test_columns_that_are_found(kinds, given, expected):
    assert tuple(choose(kinds, **given)) == expected


@pytest.mark.parametrize(("kinds", "given", "message"), [
    ({"text": "s", "label": "w"}, {"label": "topic"},
     r"^label_column is 'topic', which f\.csv does not have: the columns are 'text', 'label'\.$"),
    ({"text": "s", "label": "w"}, {"text": "text", "text_pair": "text"},
     r"^text_column, text_pair_column and label_column are 'text', 'text': name each column once\.$"),
    ({"text": "s", "label": "w", "topic": "w"}, {}, r"several columns that may hold the labels, 'label', 'topic': "),
    ({"text": "s", "p": "w", "q": "w"}, {}, r"several columns that may hold the labels, 'p', 'q': name one "),
    ({"title": "s", "body": "s", "summary": "s", "label": "w"}, {}, r"has 3 columns that may hold the texts, .*"
     r"'title', 'body', 'summary': name one with text_column, and a second one with text_pair_column\.$"),
    ({"a": "n", "b": "n", "label": "w"}, {}, r"has no column that looks like text, the columns are 'a', 'b': name"),
    ({"text": "s"}, {}, r"^f\.csv has one column only, 'text': a table to train on has texts and labels\.$"),
    ({"text;label": "s"}, {}, r"texts and labels\. ';' seems to stand between its fields: pass delimiter ';'\.$"),
    ({"text\tlabel\tn": "s"}, {}, r"'\\t' seems to stand between its fields: pass delimiter '\\t'\.$"),
])
def test_a_choice_that_is_open(kinds, given, message):
    with pytest.raises(ValueError, match=message):
        choose(kinds, **given)


def test_a_file_without_a_line_of_names():
    with pytest.raises(ValueError, match=r"^f\.csv has no names of columns: its first line holds 'pos', a label"):
        choose({"pos": "w", "the film is one of many": "s"})
    assert choose({"pos": "w", "text": "s"}).label == "pos"
    assert choose({"pos": "w", "the film is one of many": "s"}, label="pos").label == "pos"


def test_a_name_that_stands_twice():
    with pytest.raises(ValueError, match=r"^label_column is 'label', which f\.csv has several times: the columns are "):
        choose_columns(["text", "label", "label"], {}, "f.csv", label="label")


@pytest.mark.parametrize(("name", "expected"), [
    ("clinc150_train", ("text", None, "intent")), ("ag_news_train", ("title", "description", "topic")),
    ("irony_train", ("tweet", None, "label"))])
def test_real_tables(name, expected):
    with open(shared_path("data/own") / f"{name}.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    sample = dict(zip(header, map(list, zip(*rows))))
    assert tuple(choose_columns(header, sample, name)) == expected
    # The same columns under names that say nothing, as far as what they hold tells them apart.
    texts = [name for name in header if looks_like_text(sample[name])]
    assert expected[2] not in texts
    assert set(texts) == set(expected[:2]) - {None}
