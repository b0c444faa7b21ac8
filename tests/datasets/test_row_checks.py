"""What is counted in the rows, against counts by pandas, and how it is said."""

import numpy as np
import pandas
import pytest
from listed_records import ListedRecords

from dendritic_bert.datasets.own_rows import OwnRows

RNG = np.random.default_rng(0)
LABELS = {
    "classes": RNG.choice(["a", "b", "c"], 200).tolist(), "numbers": RNG.integers(0, 5, 200) / 2,
    "lists": [[["x"], ["x", "y"], []][i] for i in RNG.integers(0, 3, 200)],
}


def records(texts, labels) -> ListedRecords:
    return ListedRecords({"text": texts, "label": labels, "id": list(range(len(texts)))})


@pytest.mark.parametrize("kind", LABELS)
def test_counts(kind):
    texts = [f" text {number}"[:RNG.integers(0, 9)] for number in RNG.integers(0, 99, 200)]
    labels = list(LABELS[kind])
    dev_texts = [f"text {number} " for number in range(20)]
    report = OwnRows(records(texts, labels), records(dev_texts, labels[:20])).report
    frame = pandas.DataFrame({"text": [text.strip() for text in texts], "label": list(map(str, labels))})
    groups = frame.groupby("text").label
    assert report.num_empty == (frame.text == "").sum()
    assert report.num_duplicates == frame.text.duplicated().sum()
    assert report.num_contradicting == (groups.transform("nunique") > 1).sum()
    assert report.num_shared == frame.text.isin({text.strip() for text in dev_texts}).sum() > 0
    assert report.unused == ["id"]
    if kind == "classes":
        assert report.class_counts == frame.label.value_counts().sort_index().to_dict()


def test_what_is_said():
    texts = ["a", "a", "b", "", "c", *(f"d{i}" for i in range(10))]
    labels = ["x", "y", "x", "y", "z", *["x", "y"] * 5]
    report = OwnRows(records(texts, labels), records(["b", "e"], ["x", "y"])).report
    report.num_words, report.num_unknown = 1000, 51
    assert str(report).splitlines() == [
        "15 training rows (rows), 2 dev rows (rows)",
        "columns: text 'text', label 'label'; not used: id",
        "labels: 3 classes, with their training rows: x 7, y 7, z 1",
        "warning: 1 class with fewer than two training rows: z",
        "warning: 1 row with an empty text",
        "warning: 2 rows whose text stands in the file with another label too",
        "warning: 1 row with the text of an earlier row",
        "warning: 1 training row whose text stands in the dev rows too: the scores will be too high",
        "warning: 51 of 1,000 words (5%) are not in the vocabulary: --vocabulary train makes one of these texts",
    ]
    report.num_unknown = 50
    assert "vocabulary" not in str(report)


@pytest.mark.parametrize(("labels", "shown"), [
    (["Good", "bad", "good", "GOOD", "worse"], "GOOD, Good, good"),
    (["good", "good\u200b", "bad", "\ufeffBad", "worse"], "bad, '\\ufeffBad', good, 'good\\u200b'"),
    (["on time", "on  time", "on\xa0time", "late"], "on  time, on time, 'on\\xa0time'"),
    (["caf\u00e9", "cafe\u0301", "cafe"], "'cafe\\u0301', caf\u00e9"),
    (["1", "+1", "3.00", "3", "2", "1e99999999"], "+1, 1, 3, 3.00"), (["01", "Jan", "1", "jan"], "Jan, jan")])
def test_labels_that_look_alike(labels, shown):
    report = OwnRows(records([f"text {number}" for number in range(20)], (labels * 7)[:20])).report
    found = ("warning: classes whose names differ in case, spaces, invisible characters or the spelling of a number "
             f"alone: {shown}")
    assert found in report.lines()
    report.class_counts = {"Good": 4, "bad": 4, "too bad": 4}
    assert "invisible" not in str(report)


@pytest.mark.parametrize(("num_repeats", "where"), [
    (600, "667 training rows (rows), 13 dev rows (held out, 0.019 of the rows and not 0.1, as rows with the same text "
          "stay on one side)"),
    (1, "73 training rows (rows), 8 dev rows (held out, a share of 0.1 of each class)")])
def test_a_text_that_stands_in_most_rows(num_repeats, where):
    """Of 40 texts of each class, and "ok", 4 rows of one class and 9 texts of the other: twice 0.1 of 41."""
    texts = [*(f"text {number}" for number in range(80)), *["ok"] * num_repeats]
    assert OwnRows(records(texts, ["x", "y"] * 40 + ["x"] * num_repeats)).report.lines()[0] == where


def test_classes_that_are_named_like_missing_labels():
    labels = ["billing"] * 30 + ["NA"] * 11 + ["None"] * 2 + ["delivery"] * 31
    rows = records([f"text {number}" for number in range(74)], labels)
    line = ("warning: labels that look like missing ones were taken for classes: NA 11, None 2; empty them and pass "
            "--on_error skip, or give these classes other names")
    assert line in OwnRows(rows, rows).report.lines()


def test_ratings_beside_missing_ones_are_a_regression():
    labels = ["1", "1.5", "2", "NA"] * 5
    report = OwnRows(records([f"text {number}" for number in range(20)], labels), on_error="skip").report
    assert report.lines()[2].startswith("labels: numbers from 1 to 2, taken as a regression ")
    assert (report.num_train + report.num_dev, report.num_skipped) == (15, 5)


def test_bytes_that_are_not_utf_8(tmp_path):
    """Those of all columns that are read, of the training rows and of the dev rows."""
    rows = "text,label\n" + "".join(f"text {i},{'très bon' if i % 2 else 'mauvais'}\n" for i in range(20))
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_bytes(rows.encode("cp1252"))
    found = OwnRows.open(str(tmp_path / "train.csv"), str(tmp_path / "dev.csv")).report
    assert found.num_replaced == 2 * rows.count("è")
    assert ("warning: 20 bytes not of UTF-8, replaced by U+FFFD: where a file has another encoding, convert it "
            "(iconv -f WINDOWS-1252 -t UTF-8)") in found.lines()


@pytest.mark.parametrize(("labels", "line"), [
    ([1, 2] * 9, "labels: 2 classes (problem_type regression takes them as numbers), with their training rows: 1 9, "
                 "2 9"),
    ([0.5, 2] * 9, "labels: numbers from 0.5 to 2, taken as a regression (problem_type single_label_classification "
                   "makes them classes)"),
    ([[0.5, 2.0], [1.5, 1.0]] * 9, "labels: numbers from 0.5 to 2, taken as a regression (problem_type "
                                   "multi_label_classification makes them classes)"),
    ([[0.5], [1.5]] * 9, "labels: numbers from 0.5 to 1.5, taken as a regression (problem_type "
                         "multi_label_classification makes them classes)"),
    ([[1], [1, 2]] * 9, "labels: 2 classes of which a row may have several, with their training rows: 1 18, 2 9"),
    ([["q"], ["q", "p"]] * 9, "labels: 2 classes of which a row may have several, with their training rows: q 18, p 9"),
])
def test_the_kind_of_labels_is_said(labels, line):
    rows = records([f"text {number}" for number in range(18)], labels)
    assert OwnRows(rows, rows).report.lines()[2] == line


@pytest.mark.parametrize(("header", "is_doubtful"), [
    ("email,spam", True), ("a good film,1.5", True), ("What could we do better?,team", True), ("email,is_spam", False),
    ("text,spam", False)])
def test_a_first_line_that_may_be_a_row(tmp_path, header, is_doubtful):
    path = tmp_path / "f.csv"
    path.write_text(f"{header}\n" + "".join(f"one more mail of this kind {i},{['spam', 'ham'][i % 2]}\n"
                                            for i in range(20)))
    line = ("warning: the first line was taken for the names of the columns: if it is a row, put a line such as "
            "text,label before it")
    assert (line in OwnRows.open(str(path)).report.lines()) == is_doubtful


def test_unused_columns_without_a_name(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(",text,label\n" + "".join(f"{i},text {i},{'ab'[i % 2]}\n" for i in range(20)))
    assert OwnRows.open(str(path)).report.lines()[1] == "columns: text 'text', label 'label'; not used: ''"


def test_more_rows_are_held_out_than_asked_for():
    """Each of four texts stands in a quarter of the rows, so that the least that can be held out is a quarter."""
    report = OwnRows(records([f"text {number % 4}" for number in range(60)], ["a", "b"] * 30)).report
    assert report.lines()[0] == ("45 training rows (rows), 15 dev rows (held out, 0.25 of the rows and not 0.1, as "
                                 "rows with the same text stay on one side)")


@pytest.mark.parametrize(("labels", "separator", "lines"), [
    (["x", "y", "x;y", "y;x"], ",", [
        "warning: no row has several labels: --label_separator ',' stands between none, leave it out or pass another "
        "one", "warning: the labels seem to hold several each: pass --label_separator ';'"]),
    (["x", "y", "x", "y,"], ",", [
        "warning: no row has several labels: --label_separator ',' stands between none, leave it out or pass another "
        "one"]),
    (["x", "y", "x,y", ""], ",", []), (["x", "y", "x;y", "y;x"], ";", [])])
def test_a_separator_that_stands_between_no_labels(labels, separator, lines):
    rows = records([f"text {number}" for number in range(40)], labels * 10)
    report = OwnRows(rows, rows, label_separator=separator).report
    assert [line for line in report.lines() if "several labels" in line or "several each" in line] == lines


def test_the_separator_of_a_model_may_stand_between_no_labels():
    """Few new rows need not have several labels each."""
    rows = records([f"text {number}" for number in range(20)], ["x", "y"] * 10)
    assert not OwnRows(rows, known_labels=["x", "y"], trained={"label_separator": ";"}).report.warnings()


def test_names_with_a_line_end_stay_on_one_line():
    labels = ["a\nb", "c\r\u2028d", "\u0645\u06cc\u200c\u062e", "e\tf"] * 5 + ["g\nh"]
    rows, dev = (ListedRecords({"text": [f"{name} {number}" for number in range(21)], "label": labels, "i\nj": labels},
                               name) for name in ("rows", "dev"))
    lines = str(OwnRows(rows, dev, text_column="text", label_column="label").report).splitlines()
    assert lines[1:] == [
        r"columns: text 'text', label 'label'; not used: i\nj",
        r"labels: 5 classes, with their training rows: a\nb 5, c\r\u2028d 5, e\tf 5, " "\u0645\u06cc\u200c\u062e 5, "
        r"g\nh 1",
        r"warning: 1 class with fewer than two training rows: g\nh"]
