"""Columns are found by their names or by what they hold, and an open choice is an error that names the options."""

import csv

import pytest
from helpers import shared_path

from dendritic_bert.datasets.column_choice import choose_columns, plain_name
from dendritic_bert.datasets.column_values import looks_like_text

SENTENCES = [f"the {word} film is one of many in row {number}" for number, word in enumerate(["dull", "fine"] * 10)]
WORDS = ["pos", "neg"] * 10
NUMBERS = list(map(str, range(20)))
VALUES = {
    "s": SENTENCES, "w": WORDS, "n": NUMBERS, "one": ["en"] * 20, "empty": [""] * 19 + ["x"], "none": [""] * 20,
    "count": list(map(str, range(10))) * 2, "long": [f"{text}, and it is a long one" for text in SENTENCES],
    "date": [f"Wed Jan 01 00:00:{second:02d} +0000 2020" for second in range(20)],
    "code": [f"doc_{number:05d}" for number in range(20)], "url": [f"https://example.org/{i}" for i in range(20)],
    "name": [f"Anne Doe of Springfield {number}" for number in range(20)], "price": [f"{i}.5" for i in range(20)],
    "few": ["what do you like about us", "what could we do better"] * 10,
    "bytes": [text.encode() for text in SENTENCES], "tokens": [text.split() for text in SENTENCES],
    "object": [{"source": "x", "place": number % 3} for number in range(20)],
}


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
    ({"word": "w", "label": "w"}, {}, ("word", None, "label")),
    ({"text": "s", "label": "w", "language": "w"}, {"label": "language"}, ("text", None, "language")),
    ({"label": "s", "text": "w"}, {"text": "label", "label": "text"}, ("label", None, "text")),
    # Names that always mean labels go before those that may mean something else, and these before none.
    ({"text": "s", "label": "w", "topic": "w"}, {}, ("text", None, "label")),
    ({"text": "s", "label": "w", "score": "price"}, {}, ("text", None, "label")),
    ({"review": "s", "rating": "count", "sentiment": "w"}, {}, ("review", None, "sentiment")),
    ({"text": "s", "language": "one", "category": "w"}, {}, ("text", None, "category")),
    ({"text": "s", "label": "w", "class": "one"}, {}, ("text", None, "label")),
    ({"text": "s", "label": "one", "topic": "w"}, {}, ("text", None, "label")),
    ({"text": "s", "topic": "w"}, {}, ("text", None, "topic")),
    ({"review": "s", "stars": "count", "review_id": "n", "review_date": "date"}, {}, ("review", None, "stars")),
    ({"text": "s", "team": "w", "language": "one"}, {}, ("text", None, "team")),
    ({"id": "n", "feedback": "s", "price": "price"}, {}, ("feedback", None, "price")),
    ({"text": "s", "class_id": "count"}, {}, ("text", None, "class_id")),
    # Objects and bytes hold neither texts nor labels.
    ({"text": "s", "tags": "w", "meta": "object"}, {}, ("text", None, "tags")),
    ({"text": "s", "topic": "w", "language": "object", "blob": "bytes"}, {}, ("text", None, "topic")),
    ({"text": "s", "sentiment": "w", "label": "object"}, {}, ("text", None, "sentiment")),
    ({"text": "bytes", "p": "s", "label": "w"}, {}, ("p", None, "label")),
    ({"text": "object", "tokens": "tokens", "tweet": "s", "label": "w"}, {}, ("tweet", None, "label")),
    ({"tokens": "tokens", "label": "w"}, {}, ("tokens", None, "label")),  # nothing else is left
    # Columns that are nothing but delimiters.
    ({"v1": "w", "v2": "s", "": "none", "Unnamed: 3": "empty"}, {}, ("v2", None, "v1")),
    # A text is in a column with its name, if the values can be that, and is no shorter than what another holds.
    ({"text": "s", "comments": "count", "label": "w"}, {}, ("text", None, "label")),
    ({"text": "s", "comment": "empty", "label": "w"}, {}, ("text", None, "label")),
    ({"text": "s", "answer": "w", "label": "w"}, {}, ("text", None, "label")),
    ({"document": "code", "text": "s", "label": "w"}, {}, ("text", None, "label")),
    ({"post": "url", "text": "s", "label": "w"}, {}, ("text", None, "label")),
    ({"question": "few", "response": "s", "category": "w"}, {}, ("response", None, "category")),
    ({"Title": "s", "Review Text": "long", "Rating": "count"}, {}, ("Title", "Review Text", "Rating")),
    ({"title": "s", "selftext": "long", "subreddit": "w"}, {}, ("title", "selftext", "subreddit")),
    ({"created_at": "date", "full_text": "s", "ironic": "w"}, {}, ("full_text", None, "ironic")),
    ({"created_at": "date", "p": "s", "ironic": "w"}, {}, ("p", None, "ironic")),
    ({"text": "long", "address": "name", "team": "w"}, {}, ("text", None, "team")),
    ({"sentence1": "s", "parse1": "long", "sentence2": "s", "label": "w"}, {}, ("sentence1", "sentence2", "label")),
    ({"text": "few", "label": "w"}, {}, ("text", None, "label")),
    ({"text": "w", "comments": "count", "label": "w"}, {}, ("text", None, "label")),
    ({"comment": "n", "id": "n", "label": "w"}, {}, ("comment", None, "label")),  # the name alone
])
def test_columns_that_are_found(kinds, given, expected):
    assert tuple(choose(kinds, **given)) == expected


@pytest.mark.parametrize(("kinds", "given", "message"), [
    ({"text": "s", "label": "w"}, {"label": "topic"},
     r"^label_column is 'topic', which f\.csv does not have: the columns are 'text', 'label'\.$"),
    ({"text": "s", "label": "w"}, {"text": "text", "text_pair": "text"},
     r"^text_column, text_pair_column, label_column are 'text', 'text': name each column once\.$"),
    ({"text": "s", "label": "w", "target": "w"}, {}, r"several columns that may hold the labels, 'label', 'target': "),
    ({"text": "s", "lang": "w", "team": "w"}, {}, r"several columns that may hold the labels, 'lang', 'team': name "),
    ({"tweet": "s", "stars": "n", "stance": "w"}, {}, r"several columns that may hold the labels, 'stars', 'stance'"),
    ({"text": "s", "topic": "w", "genre": "w"}, {}, r"several columns that may hold the labels, 'topic', 'genre': "),
    ({"text": "s", "ticket": "n"}, {}, r"has no column beside the texts that seems to hold labels, the columns are "
     r"'text', 'ticket': name one with label_column\.$"),
    ({"text": "s", "split": "w", "Date": "date", "customer": "code", "page": "url"}, {}, r"has no column beside the "),
    ({"id": "n", "text": "s", "cats": "object"}, {}, r"has no column beside the texts that seems to hold labels"),
    ({"text": "s", "user_id": "count"}, {}, r"has no column beside the texts that seems to hold labels, the columns"),
    ({"a": "s", "b": "s", "kind": "w"}, {}, r"has 2 columns that may hold the texts, the columns are 'a', 'b': name"),
    ({"title": "s", "body_plain": "long", "kind": "w"}, {}, r"has 2 columns that may hold the texts, .*'body_plain'"),
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


SENTENCE = "the film is one of many"


@pytest.mark.parametrize(("kinds", "value"), [
    ({"pos": "w", SENTENCE: "s"}, "pos"), ({SENTENCE: "s", "1.5187": "price"}, "1.5187"),
    ({SENTENCE + ".": "s", "mixed": "w"}, SENTENCE), ({"4": "count", SENTENCE: "s", "anne": "w", "x": "w"}, "4"),
    ({"3": "w", SENTENCE: "s", "the other film is one": "s"}, "3"),
])
def test_a_file_without_a_line_of_names(kinds, value):
    with pytest.raises(ValueError, match=rf"^f\.csv has no names of columns: its first line holds '{value}.*, which "
                                         r"looks like a value of its column\. Put a line such as text,label before it"):
        choose(kinds)
    label = next(name for name in kinds if not name.startswith(SENTENCE))
    assert choose(kinds, label=label, text=SENTENCE if SENTENCE in kinds else SENTENCE + ".").label == label


@pytest.mark.parametrize(("kinds", "label"), [
    ({"pos": "w", "text": "s"}, "pos"), ({"email": "s", "pos": "w"}, "pos"), ({SENTENCE: "s", "label": "w"}, "label"),
    ({"What could we do better?": "s", "Department": "w"}, "Department"), ({"0": "s", "1": "w"}, "1")])
def test_names_that_are_no_row(kinds, label):
    assert choose(kinds).label == label


def test_one_value_in_rows_that_are_not_all():
    """A column with the name of a label may have others in the rows that were not read, and one without it does not."""
    kinds = {"text": "s", "label": "one", "class": "w", "kind": "one"}
    assert choose(kinds).label == "class"
    with pytest.raises(ValueError, match="several columns that may hold the labels, 'label', 'class': name one with"):
        choose(kinds, is_whole=False)
    assert choose({"text": "s", "kind": "one", "team": "w"}, is_whole=False).label == "team"


@pytest.mark.parametrize("name", ["review_text", "reviewText", "Review Text", " Review-Text ", "REVIEW_TEXT"])
def test_plain_names(name):
    assert plain_name(name) == "review_text"


def test_a_name_that_stands_twice():
    with pytest.raises(ValueError, match=r"^label_column is 'label', which f\.csv has several times: give each "):
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
