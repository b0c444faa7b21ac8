"""Lists that are written as strings, and names that are several in one."""

from itertools import combinations, permutations

import pytest
from listed_records import ListedRecords

from dendritic_bert.datasets.label_collector import LabelCollector
from dendritic_bert.datasets.label_spelling import are_tags, as_list, likely_separator
from dendritic_bert.datasets.labels import SEVERAL
from dendritic_bert.datasets.own_rows import OwnRows


@pytest.mark.parametrize(("value", "expected"), [
    ("['a', 'b']", ["a", "b"]), ('["a", "b"]', ["a", "b"]), ("[]", []), ("[1, 0.5]", [1, 0.5]), ("[PAD]", "[PAD]"),
    ("['a' 'b']", "['a' 'b']"), ("[0 1]", "[0 1]"), ("['a'] b", "['a'] b"), ("['a', 'b'", "['a', 'b'"), ("", ""),
    ("a", "a"), (3, 3), (["a"], ["a"]), (None, None), ("[" * 9999 + "]", "[" * 9999 + "]"),
    ("{'b', 'a'}", ["a", "b"]), ("('b', 'a')", ["b", "a"]), ("('b',)", ["b"]), ("set()", []), ("()", []),
    ("{}", "{}"), ("{'a': 1}", "{'a': 1}"), ("{['a']}", "{['a']}"), ("('a')", "('a')"), ("(a)", "(a)"),
    ("('a' 'b')", "('a' 'b')"), ("{a}", "{a}")])
def test_lists_that_are_written_as_strings(value, expected):
    assert as_list(value) == expected


@pytest.mark.parametrize("known", [(), ("a", "b", "c")])
def test_labels_that_are_written_as_lists(known):
    values = ["['b', 'a']", "[]", "['c']"] * 4
    collector = LabelCollector("label", "f.csv", known=known, is_closed=bool(known))
    assert all(collector.knows(value, 0, str) for value in values)
    collector.add(values, str)
    labels = collector.finish()
    assert (labels.problem_type, labels.names) == (SEVERAL, ("a", "b", "c"))
    assert labels.dense()[:3].tolist() == [[True, True, False], [False] * 3, [False, False, True]]


@pytest.mark.parametrize(("names", "expected"), [
    (["a", "b", "c", "a;b", "b; c"], ";"), (["a", "b", "a|b", "b|a"], "|"), (["a", "b", "a,b", "b, a"], ","),
    (["1", "2", "3", "1,2", "2,3"], ","),
    (["1", "1,5", "2", "2,5", "3", "3,5", "4", "4,5", "5"], None), (["1", "2", "3", "1,2", "2,3", "1,3"], None),
    (["a", "b", "a;b"], None), (["a", "b; c", "d; e"], None),
    (["arts, crafts", "sports, games", "arts"], None), (["a", "b"], None), ([], None),
    (["drama, horror", "horror, drama"], ","), (["x|y|z", "y|x|z", "w"], "|"), (["a; b", "c", "b ;a"], ";"),
    (["/".join(pair) for pair in permutations(["war", "crime", "art"], 2)], "/"),
    ([" ".join(pair) for pair in permutations(["#war", "#crime", "#art"], 2)], " "),
    (["crime", "war", "crime/war", "war/crime"], None), (["is it", "it is"], None),
    (["/".join(pair) for pair in permutations("123", 2)], None), (["sci-fi/fantasy", "war/history", "crime"], None),
    ([f"{shade} {color}" for shade in ("light", "dark", "pale") for color in ("red", "blue", "green")], None),
    (["|".join(pair) for pair in combinations("abcd", 2)], "|"),  # sorted, and none of them alone
    ([",".join(part) for size in (2, 3) for part in combinations(["war", "love", "crime", "sport", "art"], size)], ","),
    (["a, b", "a,b"], None), (["a;", ";a"], None), (["New York, New York", "York, New"], None),
    ([f"{city}, {country}" for country in ("France", "Texas", "Ohio") for city in ("Paris", "Rome", "Lima")], None),
    (["Q&A, help", "billing", "sales"], None), (["sci-fi; fantasy", "crime", "war"], None),
    (["Yes, I agree", "No, I do not", "Yes, but not always", "Well, maybe"], None),
    ([f"{kind}|{who}|{size}" for kind in ("shoes", "shirts") for who in ("men", "women") for size in "SML"], None)])
def test_names_that_are_several_in_one(names, expected):
    assert likely_separator(names) == expected


@pytest.mark.parametrize(("names", "expected"), [
    (["<a>", "<b>", "<a><b>", "<b><c>"], True), (["<a>", "<b>"], False), (["<a><b>", "<b><a>", "c"], False),
    (["<a> <b>", "<b> <a>"], False), ([], False)])
def test_tags_in_angle_brackets(names, expected):
    assert are_tags(names) == expected


@pytest.mark.parametrize(("labels", "remedy"), [
    (["x", "y", "x;y", "y;x"], "pass --label_separator ';'"), (["x", "y", "v;w", "w;z"], None),
    (["<x>", "<y>", "<x><y>", "<y><x>"], "write <a><b> as a;b and pass --label_separator ';'")])
def test_several_labels_in_one_are_said(labels, remedy):
    rows = ListedRecords({"text": [f"text {i}" for i in range(40)], "label": labels * 10})
    lines = [line for line in OwnRows(rows).report.lines() if "several each" in line]
    assert lines == ([] if remedy is None else [f"warning: the labels seem to hold several each: {remedy}"])
