"""The first pass: rows without text or label, places, and rows that change between two passes."""

import csv
from itertools import chain

import numpy as np
import pytest
from listed_records import ListedRecords

from dendritic_bert.datasets.column_choice import Columns
from dendritic_bert.datasets.label_collector import LabelCollector
from dendritic_bert.datasets.survey import find_columns, survey
from dendritic_bert.inference.readers import open_records


def read(texts, labels, on_error="stop", **columns):
    records = ListedRecords({"text": texts, "label": labels, **columns})
    found = Columns("text", *columns or [None], "label")
    return survey(records, found, LabelCollector("label", "rows"), on_error)


def test_rows_that_are_not_whole(monkeypatch):
    """With batches of two rows, a row stands in the middle, at an end, or in a batch of its own."""
    monkeypatch.setattr("dendritic_bert.datasets.survey.BATCH_ROWS", 2)
    texts, labels = ["a", None, "b", "c", None, "d", ""], ["x", "y", None, "y", "x", "x", "y"]
    table = read(texts, labels, "skip")
    assert (len(table), table.num_skipped, table.num_empty) == (4, 3, 1)
    assert [*table.texts(np.ones(4, np.bool_))] == [(["a"],), (["c"],), (["d"],), ([""],)]
    assert [*table.texts(np.array([False, True, False, True]))] == [(["c"],), ([""],)]
    assert [*table.places(np.array([True, False, True, False]))] == ["rows, row 0", "rows, row 5"]
    assert [table.labels.names[number] for number in table.labels.values] == ["x", "y", "x", "y"]


@pytest.mark.parametrize(("labels", "known", "options", "kept"), [
    (["x", "z", "y", None, "x"], ["x", "y"], {}, [0, 2, 4]),
    (["z", "y", "z", "z", "z"], ["x", "y"], {}, [1]),
    (["x; y", "x;z", "", "y", "z"], ["x", "y"], {"separator": ";"}, [0, 2, 3]),
    ([["x", ""], ["x", None], ["y", float("nan")], ["", " "], "['y', '']"], ["x", "y"], {}, [0, 3, 4]),
    ([["x", ""], ["x", None], ["y", float("nan")], ["y"], '["x", NaN]'], [], {}, [0, 3]),
    ([["x"], ["z"], ["x", "z"], [], ["y"]], ["x", "y"], {}, [0, 3, 4]),
    ([2.0, 3, "1", 2, 1], ["1", "2"], {}, [0, 2, 3, 4]),
    ([[1, 0, 0], [0, 1, 1], [1, 0], [0, 0, 0], [1, 1, 1]], ["x", "y", "z"], {}, [0, 1, 3, 4]),
    (["[1, 0, 0]", "[0, 1, 1]", "[1, 0]", "[0, 0, 0]", "[1, 1, 1]"], ["x", "y", "z"], {}, [0, 1, 3, 4]),
    ([0.5, "2", 3, 4, None], [], {"problem_type": "regression"}, [0, 1, 2, 3]),
    ([0.5, "2", "NA", 4, "null"], [], {"problem_type": "regression"}, [0, 1, 3]),
    (["1", "NA", "2", "None", "2.0"], ["1", "2"], {}, [0, 2, 4]),
    (["1.5", "NA", "2", "n/a", "3"], [], {}, [0, 2, 4]),
    (["NA", "x", "x", "y", "y"], [], {}, [0, 1, 2, 3, 4]),  # classes
])
def test_labels_that_no_training_row_has_can_be_left_out(monkeypatch, labels, known, options, kept):
    monkeypatch.setattr("dendritic_bert.datasets.survey.BATCH_ROWS", 2)
    collector = LabelCollector("label", "rows", known=known, is_closed=bool(known), **options)
    table = survey(ListedRecords({"text": list("abcde"), "label": labels}), Columns("text", None, "label"), collector,
                   "skip")
    assert [*table.places(np.ones(len(table), np.bool_))] == [f"rows, row {row}" for row in kept]
    assert (table.num_skipped, table.labels.num_rows) == (5 - len(kept), len(kept))


def test_empty_texts_are_counted_without_the_rows_that_have_no_label():
    table = read(["", "a", " ", "b", ""], ["1", "2", "NA", "NA", "1"], "skip")
    assert (len(table), table.num_empty, table.num_skipped) == (3, 2, 2)
    assert [*table.texts(np.ones(3, np.bool_))] == [(["", "a", ""],)]


def test_equal_texts_have_equal_digests():
    table = read(["a ", "\ta", "a b", "ab", "A", "\ud800"], ["x"] * 6)
    equal = table.digests[:, None] == table.digests
    assert equal.sum() == 6 + 2
    assert equal[0, 1]
    pairs = read(["a", "ab", "a"], ["x"] * 3, pair=["bc", "c", "bc "])
    assert (pairs.digests == pairs.digests[0]).tolist() == [True, False, True]


@pytest.mark.parametrize(("texts", "labels", "message"), [
    (["a", None], ["x", "y"], r"^rows, row 1: column 'text' is null: mend the row, or leave such rows out "),
    (["a", {"b": 1}], ["x", "y"], r"^rows, row 1: column 'text' is \{'b': 1\}, a dict and not a string: mend the row"),
    (["", "b", "c"], ["1", "2", "NA"], r"^rows, row 2: the label in column 'label' is 'NA', and all others are numb"),
    (["a", "b"], ["x", float("nan")], r"^rows, row 1: the label in column 'label' is nan: give the row one, or leave"),
    (["a", "b"], [["x"], ["x", float("nan")]], r"^rows, row 1: the label in column 'label' is \['x', nan\]: mend the "
     r"list, or leave such rows out with on_error skip\.$"),
    (["a", "b"], [["x"], ["x", None]], r"^rows, row 1: the label in column 'label' is \['x', None\]: mend the list, "),
])
def test_rows_that_end_it(texts, labels, message):
    with pytest.raises(ValueError, match=message):
        read(texts, labels)


@pytest.mark.parametrize(("value", "shown"), [
    (b"a text", r"bytes and no strings, such as b'a text'"), ({"title": "a"}, r"dict and no strings, such as \{'title"),
    (["a", "text"], r"list and no strings, such as \['a', 'text'\]")])
def test_texts_none_of_which_is_a_string(value, shown):
    """It is the column that is wrong: leaving out the rows would leave none."""
    with pytest.raises(ValueError, match=f"^rows: text_column is 'text', which holds values of type {shown}.*: "
                                         r"make strings of them, or name another text_column\.$"):
        read([None, value], ["x", "y"])
    with pytest.raises(ValueError, match=r"^rows: text_pair_column is 'pair', which holds values of type "):
        read(["a", "b"], ["x", "y"], pair=[value, value])


@pytest.mark.parametrize(("texts", "labels", "known", "wanted"), [
    (["a", "b"], [None, ""], [], "a label"), ([None, None], ["x", "y"], [], "a label"),
    (["a", "b"], ["z", "q"], ["x", "y"], "one of the labels of the training, such as 'x'")])
def test_no_row_is_left(texts, labels, known, wanted):
    collector = LabelCollector("label", "rows", known=known, is_closed=bool(known))
    message = (f"^rows holds no row with a text and {wanted}: name another label_column, or pass on_error stop, which "
               r"says what is wrong with its first row\.$")
    with pytest.raises(ValueError, match=message):
        survey(ListedRecords({"text": texts, "label": labels}), Columns("text", None, "label"), collector, "skip")


def test_a_file_that_grows_between_two_passes():
    table = read(["a", "b"], ["x", "y"])
    table.records.columns["text"].append("c")
    with pytest.raises(ValueError, match=r"^rows has 3 rows, it had 2 when it was read before: leave it as it is"):
        list(table.texts(np.ones(2, np.bool_)))


def test_columns_by_what_the_rows_hold():
    texts = [f"a rather long text of row {number}" for number in range(30)]
    assert find_columns(ListedRecords({"p": ["x", "y"] * 15, "q": texts})) == Columns("q", None, "p")


def write(path, *parts):
    """CSV files of the same columns, with the rows of one part each."""
    names = []
    for number, rows in enumerate(parts):
        names.append(str(path / f"{number}.csv"))
        with open(names[-1], "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return open_records(names)


def rows_of(size, **columns):
    return [{"text": f"a rather long text of row {number}", **{
        name: values[number % len(values)] for name, values in columns.items()}} for number in range(size)]


@pytest.mark.parametrize(("label", "other"), [("category", "sentiment"), ("outcome", "channel")])
def test_a_choice_that_is_open_in_one_file_is_open_in_any_parts(tmp_path, label, other):
    """One file for each class, in any order, and one file that is sorted by class."""
    parts = [rows_of(1200, **{label: [name], other: ["x", "y"]}) for name in ("praise", "billing")]
    for split in (parts, parts[::-1], [list(chain(*parts))], [list(chain(*parts[::-1]))]):
        with pytest.raises(ValueError, match=f"several columns that may hold the labels, '{label}', '{other}': name "):
            find_columns(write(tmp_path, *split))


def test_columns_that_are_blank_in_the_first_file(tmp_path):
    texts = [row["text"] for row in rows_of(60)]
    parts = [[{"title": text, "body": body and f"{text}, {body}", "label": "xy"[len(text) % 2]} for text in texts]
             for body in ("", "and it goes on")]
    assert find_columns(write(tmp_path, *parts)).texts == ("title", "body")
    parts = [rows_of(60, label=labels, sentiment=["pos", "neg"]) for labels in ([""], ["x", "y"])]
    with pytest.raises(ValueError, match="several columns that may hold the labels, 'label', 'sentiment': name one "):
        find_columns(write(tmp_path, *parts))


def test_a_label_of_which_only_one_was_read(tmp_path, monkeypatch):
    """Where a table is too large to look at all of it, a column with the name of a label may have others behind."""
    monkeypatch.setattr("dendritic_bert.datasets.row_sample.BATCH_ROWS", 10)
    monkeypatch.setattr("dendritic_bert.datasets.row_sample.HEAD_BATCHES", 4)
    for name in ("category", "topic"):
        rows = [rows_of(100, **{name: [value], "agent": ["x", "y"], "kind": ["z"]}) for value in ("billing", "praise")]
        records = write(tmp_path, list(chain(*rows)))
        if name == "category":  # which goes before all that may hold labels
            assert find_columns(records).label == name
        else:
            with pytest.raises(ValueError, match="several columns that may hold the labels, 'topic', 'agent': name "):
                find_columns(records)
