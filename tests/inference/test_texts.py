"""What may hold texts, and what only looks like it; a text is the same whatever holds it."""

import collections
import enum
import io
from pathlib import Path

import numpy as np
import pytest
from small_classifier import WORDS, hugging_face_tokenizer, small_model

from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.texts import check_texts, split_pairs

TEXTS = ["", *WORDS, "two words", "tab\tand\nline", "世界", "a" * 3000]


class Shouting(str):
    """A text that shows itself as another."""

    def __str__(self) -> str:
        return "THE " * 10

    def __repr__(self) -> str:
        return "several\nlines"


class Table:
    """As other libraries have them."""

    shape = (2, 3)

    def __iter__(self):
        return iter(["text", "id", "date"])


class Member(str, enum.Enum):
    QUICK = "quick"
    BROWN = "brown fox"


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier(small_model(num_labels=3), hugging_face_tokenizer())


def series(texts, **options):
    return pytest.importorskip("pandas").Series(texts, **options)


def arrow(texts, kind="string"):
    arrow = pytest.importorskip("pyarrow")
    return arrow.array(texts, getattr(arrow, kind)())


HOLDERS = {
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda texts: (text for text in texts),
    "deque": collections.deque,
    "values of a dict": lambda texts: dict(enumerate(texts)).values(),
    "keys of a dict": lambda texts: dict.fromkeys(texts).keys(),
    "str subclasses": lambda texts: [np.str_(text) for text in texts],
    "numpy, fixed width": np.array,
    "numpy, objects": lambda texts: np.array(texts, object),
    "numpy, StringDType": lambda texts: np.array(texts, np.dtypes.StringDType()),
    "numpy, every second": lambda texts: np.repeat(np.array(texts), 2)[::2],
    "numpy, masked": np.ma.array,
    "Series": series,
    "Series of objects": lambda texts: series(texts, dtype=object),
    "Series, other index": lambda texts: series(texts, index=range(len(texts), 0, -1)),
    "Series of categories": lambda texts: series(texts, dtype="category"),
    "Series of Arrow strings": lambda texts: series(texts, dtype="string[pyarrow]"),
    "array of a Series": lambda texts: series(texts, dtype="string").array,
    "Index": lambda texts: pytest.importorskip("pandas").Index(texts),
    "column of a DataFrame": lambda texts: pytest.importorskip("pandas").DataFrame({"a": texts, "b": texts})["b"],
    "Arrow array": arrow,
    "Arrow, large": lambda texts: arrow(texts, "large_string"),
    "Arrow, view": lambda texts: arrow(texts, "string_view"),
    "Arrow, dictionary": lambda texts: arrow(texts).dictionary_encode(),
    "Arrow, chunks": lambda texts: pytest.importorskip("pyarrow").chunked_array([arrow(texts[:2]), arrow(texts[2:])]),
    "column of a table": lambda texts: pytest.importorskip("pyarrow").table({"text": arrow(texts)})["text"],
    "column of a data set": lambda texts: pytest.importorskip("datasets").Dataset.from_dict({"text": texts})["text"],
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_what_holds_texts(classifier, hold):
    texts = list(dict.fromkeys(TEXTS))
    listed = check_texts(hold(texts))
    assert listed == texts
    assert set(map(type, listed)) == {str}
    assert classifier(hold(texts)) == classifier(texts)
    assert classifier.predict_array(hold(texts))[1].tolist() == classifier.predict_array(texts)[1].tolist()


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_no_text_at_all(hold):
    assert check_texts(hold([])) == []


def test_a_list_is_not_copied():
    assert check_texts(TEXTS) is TEXTS


@pytest.mark.parametrize("text", [Shouting("the lazy dog"), Member.BROWN, np.str_("the lazy dog")], ids=type)
def test_a_subclass_stands_for_its_own_characters(classifier, text):
    characters = "".join(text)
    assert check_texts([text, "fox"]) == [characters, "fox"]
    assert type(check_texts([text])[0]) is str
    assert classifier(text) == classifier(characters)
    assert classifier([text, "fox"]) == classifier([characters, "fox"])
    assert classifier.predict([text]).labels == classifier.predict([characters]).labels


def frame(texts):
    return pytest.importorskip("pandas").DataFrame({"text": texts, "id": texts})


REFUSED = {
    "DataFrame": (frame, "texts is a DataFrame, pass one column of it"),
    "DataFrame of one column": (lambda texts: frame(texts)[["text"]], "texts is a DataFrame, pass one column of it"),
    "another table": (lambda texts: Table(), "texts is a Table, pass one column of it"),
    "Arrow table": (lambda texts: pytest.importorskip("pyarrow").table({"text": texts}), "texts is a Table, pass one"),
    "Arrow batch": (lambda texts: pytest.importorskip("pyarrow").record_batch({"text": arrow(texts)}),
                    "texts is a RecordBatch, pass one column of it"),
    "data set": (lambda texts: pytest.importorskip("datasets").Dataset.from_dict({"text": texts}),
                 "texts is a Dataset, pass one column of it"),
    "rows of a data set": (lambda texts: list(pytest.importorskip("datasets").Dataset.from_dict({"column": texts})),
                           r"texts\[0\] is {'column': ''} of type dict"),
    "two dimensions": (lambda texts: np.array([texts]), "texts is a ndarray, pass one column of it"),
    "no dimension": (lambda texts: np.array("fox"), "texts is a ndarray, pass a list of str"),
    "records": (lambda texts: np.array([("a", "b")], [("x", "U1"), ("y", "U1")]), r"texts\[0\] is \('a', 'b'\) of"),
    "dict": (lambda texts: {"text": texts}, "texts is a dict, pass one column of it"),
    "other mapping": (lambda texts: collections.UserDict(text=texts), "texts is a UserDict, pass one column of it"),
    "set": (set, "texts is a set, which has no order: pass a list of str"),
    "frozenset": (frozenset, "texts is a frozenset, which has no order"),
    "bytes": (lambda texts: b"fox", "texts is a bytes, pass a list of str"),
    "bytearray": (lambda texts: bytearray(b"fox"), "texts is a bytearray, pass a list of str"),
    "file of text": (lambda texts: io.StringIO("fox\ndog\n"), "texts is a StringIO, pass a list of its lines"),
    "file of bytes": (lambda texts: io.BytesIO(b"fox\n"), "texts is a BytesIO, pass a list of its lines"),
    "path": (lambda texts: Path("texts.txt"), r"texts is a \w*Path, pass a list of str"),
    "nothing": (lambda texts: None, "texts is a NoneType, pass a list of str"),
    "number": (lambda texts: 3, "texts is a int, pass a list of str"),
    "UserString": (lambda texts: collections.UserString("fox"), r"texts is a UserString, pass str\(\) of it"),
    "list of bytes": (lambda texts: ["fox", b"dog"], r"texts\[1\] is b'dog' of type bytes, every text must be a str"),
    "numpy, bytes": (lambda texts: np.array([b"fox"]), r"texts\[0\] is b'fox' of type bytes"),
    "numpy, numbers": (lambda texts: np.arange(3), r"texts\[0\] is 0 of type int"),
    "numpy, masked": (lambda texts: np.ma.array(texts, mask=[row == 2 for row in range(len(texts))]),
                      r"texts\[2\] is None of type NoneType"),
    "pairs": (lambda texts: zip(texts, texts), r"texts\[0\] is \('', ''\) of type tuple"),
    "words": (lambda texts: ["fox", ["the", "dog"]], r"texts\[1\] is \['the', 'dog'\] of type list"),
    "None among them": (lambda texts: [*texts, None], rf"texts\[{len(TEXTS)}\] is None of type NoneType"),
    "NaN in a Series": (lambda texts: series([*texts, float("nan")], dtype=object), rf"texts\[{len(TEXTS)}\] is nan"),
    "NA in a Series": (lambda texts: series([*texts, None], dtype="string"), rf"texts\[{len(TEXTS)}\] is <NA> of type"),
    "null in Arrow": (lambda texts: arrow([*texts, None]), rf"texts\[{len(TEXTS)}\] is None of type NoneType"),
    "Series of numbers": (lambda texts: series([1, 2]), r"texts\[0\] is \S+ of type \w*int"),
    "DataFrames in a list": (lambda texts: [frame(texts)], r"texts\[0\] is text id .* of type DataFrame"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_only_looks_like_texts(classifier, make, message):
    for function in (classifier, classifier.tokenizer, check_texts):
        with pytest.raises(TypeError, match=message) as error:
            function(make(TEXTS))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["batch_size", "threads"])
@pytest.mark.parametrize("value", [2.0, "2", [2], True], ids=str)
def test_numbers_that_are_none(classifier, name, value):
    with pytest.raises(TypeError, match=f"{name} is .*(2|True).*, it must be a whole number"):
        classifier(TEXTS, **{name: value})
    assert classifier(TEXTS, **{name: np.int64(2)}) == classifier(TEXTS)


PAIR = {"text": "fox", "text_pair": "dog"}


@pytest.mark.parametrize(("texts", "split"), [
    ("fox", (["fox"], None)), (["fox", "dog"], (["fox", "dog"], None)), ([], ([], None)),
    ({"text": "fox"}, (["fox"], None)),
    (PAIR, (["fox"], ["dog"])), ([PAIR, PAIR], (["fox"] * 2, ["dog"] * 2)), (iter([PAIR]), (["fox"], ["dog"])),
    (["dog", {"text": Member.BROWN}], (["dog", "brown fox"], None)), ([collections.UserDict(PAIR)], (["fox"], ["dog"])),
])
def test_texts_and_pairs(texts, split):
    assert split_pairs(texts) == split


@pytest.mark.parametrize(("texts", "message"), [
    ([PAIR, "fox"], r"texts\[1\] is 'fox' of type str, every element must be {\"text\": str, \"text_pair\": str}"),
    (["fox", PAIR], r"texts\[1\] is .* of type dict, every element must be a str or {\"text\": str}: convert it"),
    ([PAIR, {"text": "fox"}], r"texts\[1\] is {'text': 'fox'} of type dict, every element must be {\"text\": str, "),
    ([{**PAIR, "label": 1}], r"texts\[0\] is .*'label': 1} of type dict"),
    ([{"text": "fox", "text_pair": None}], r"texts\[0\] is .*'text_pair': None} of type dict"),
    ({"text": "fox", "pair": "dog"}, r"texts\[0\] is .*'pair': 'dog'} of type dict"),
    ([("fox", "dog")], r"texts\[0\] is \('fox', 'dog'\) of type tuple"),
], ids=str)
def test_what_is_no_pair(texts, message):
    with pytest.raises(TypeError, match=message) as error:
        split_pairs(texts)
    assert "\n" not in str(error.value)
