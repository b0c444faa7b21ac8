"""The labels that are collected, their ids and names, against scikit-learn's encoders."""

import json

import numpy as np
import pytest
from sklearn.preprocessing import LabelEncoder, MultiLabelBinarizer

from dendritic_bert.datasets import label_collector
from dendritic_bert.datasets.label_collector import LabelCollector
from dendritic_bert.datasets.labels import CLASSES, REGRESSION, SEVERAL


def collect(values, batch=7, **options):
    collector = LabelCollector("label", "f.csv", **options)
    for start in range(0, len(values), batch):
        collector.add(values[start:start + batch], lambda row, start=start: f"f.csv, line {2 + start + row}")
    return collector.finish()


RNG = np.random.default_rng(0)
STRINGS = RNG.choice(["b", "a", "Z", "zwölf", "a b"], 61).tolist()


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_strings_are_those_of_scikit_learn(batch):
    labels, encoder = collect(STRINGS, batch), LabelEncoder()
    assert labels.dense().tolist() == encoder.fit_transform(STRINGS).tolist()
    assert (labels.problem_type, list(labels.names)) == (CLASSES, list(encoder.classes_))
    assert labels.counts().tolist() == [STRINGS.count(name) for name in labels.names]
    assert labels.dense().dtype == np.int64


@pytest.mark.parametrize(("values", "names"), [
    (["10", "9", "2", "-1"] * 5, ["-1", "2", "9", "10"]),  # in the order of the numbers
    ([10, 9, 2] * 5, ["2", "9", "10"]),
    ([2.0, 1.0] * 9, ["1", "2"]),  # as pandas writes whole numbers beside an empty cell
    (["1.0", "1", "2.0"] * 5, ["1", "2"]),
    ([True, False] * 9, ["False", "True"]),
    (["007", "7", "08"] * 5, ["007", "08", "7"]),  # codes, not numbers
    ([" a", "a ", "b"] * 5, ["a", "b"]),
    ([np.int64(3), np.float32(4.0), np.str_("5")] * 5, ["3", "4", "5"]),
    (list(range(20)) * 2, list(map(str, range(20)))),
    (list(range(40)) * 10, list(map(str, range(40)))),  # ten rows each
    (list(range(5, 30)) * 2, list(map(str, range(5, 30)))),  # two rows each, in a column that is called label
])
def test_names_of_classes(values, names):
    labels = collect(values)
    assert (labels.problem_type, list(labels.names)) == (CLASSES, names)
    encoded = LabelEncoder().fit_transform([names.index(labels.names[i]) for i in labels.dense()])
    assert encoded.tolist() == labels.dense().tolist()


@pytest.mark.parametrize(("values", "names"), [
    (["8471.30", "0901.10", "0901.1", "2.50"], ["2.50", "0901.1", "0901.10", "8471.30"]),
    ([f"1234567890123456{end}" for end in (790, 789, 700)], [f"1234567890123456{end}" for end in (700, 789, 790)]),
    ([1234567890123456790, 1234567890123456789], ["1234567890123456789", "1234567890123456790"]),
    (["1E2", "2E5", "100"], ["100", "1E2", "2E5"]),
    (["1.0", "1.1", "1.10", "-0.0", "0", "+3", "2.00"], ["0", "1", "1.1", "1.10", "2.00", "+3"]),
    ([0.1, 1.0, 2.50, np.float64(3.0)], ["0.1", "1", "2.5", "3"]),
])
def test_numbers_as_classes_keep_their_spelling(values, names):
    """Whole numbers that were written as floats lose their zero, and nothing else changes: 0901.10 is not 0901.1."""
    labels = collect(values * 3, problem_type=CLASSES)
    assert list(labels.names) == names
    assert [labels.names[number] for number in labels.dense()] == [
        {"1.0": "1", "-0.0": "0", "2.5": "2.5", "3.0": "3"}.get(str(value), str(value)) for value in values] * 3


def test_whole_numbers_in_two_spellings_are_counted_once():
    """15 numbers, of which one of two files has the spelling of pandas, are few."""
    values = [spelling for number in range(2, 17) for spelling in (f"{number}", f"{number}.0")]
    assert collect(values * 2).names == tuple(map(str, range(2, 17)))


@pytest.mark.parametrize(("known", "values", "classes"), [
    (["1", "2"], ["2.0", "1", "2.00"], ["2", "1", "2"]),
    (["2.5", "high"], ["2.50", "high", "2.5"], ["2.5", "high", "2.5"]),  # of a model that changed the spelling
    (["2.50"], [2.5], ["2.50"]),
    (["0901.1", "0901.10"], ["0901.10", "0901.1"], ["0901.10", "0901.1"]),
    (["2.0", "high"], ["2.0", "2"], ["2.0", "2.0"]),
    (["1234567890123456789", "1234567890123456790"], [1234567890123456790], ["1234567890123456790"]),
])
def test_known_classes_are_found_by_spelling_and_then_by_value(known, values, classes):
    labels = collect(values, known=known, is_closed=True)
    assert [labels.names[number] for number in labels.dense()] == classes
    assert labels.names == tuple(known)


@pytest.mark.parametrize(("known", "value"), [
    (["0901.1", "0901.10"], "0901.100"), (["1234567890123456789"], "1234567890123456790"), (["7"], "007")])
def test_numbers_that_are_no_known_class(known, value):
    with pytest.raises(ValueError, match=rf"^f\.csv, line 2: the label '{value}' is none of the {len(known)} labels "):
        collect([value], known=known, is_closed=True)


@pytest.mark.parametrize(("known", "values", "names"), [
    (["2.5", "1"], ["2.50", "1.0", "3.0"], ["2.5", "1", "3"]),
    (["0901.10"], ["0901.10", "0901.1"], ["0901.10", "0901.1"]),  # two spellings in the rows are two classes
    (["2", "high"], ["2.0", "high", "low"], ["2", "high", "low"]),
    (["2.0", "high"], ["2.0", "high", "low"], ["2.0", "high", "low"]),
])
def test_training_goes_on_with_known_numbers(known, values, names):
    assert collect(values * 2, known=known).names == tuple(names)


@pytest.mark.parametrize("values", [
    ["0.5", "1", "2e3", "-.5"], [0.5, 1.0, 2.0, 3.0], list(range(21)), [str(x) for x in RNG.normal(size=50)]])
def test_numbers_are_a_regression(values):
    labels = collect(values)
    assert (labels.problem_type, labels.names, labels.num_labels) == (REGRESSION, (), 1)
    np.testing.assert_array_equal(labels.dense(), np.array(values, np.float32))
    assert labels.counts().tolist() == []


def test_the_kind_can_be_said():
    assert collect([1, 2, 2] * 5, problem_type=REGRESSION).dense().tolist() == [1.0, 2.0, 2.0] * 5
    assert collect([0.5, 1, 2] * 5, problem_type=CLASSES).names == ("0.5", "1", "2")
    with pytest.raises(ValueError, match=r"^problem_type is 'ranking', expected one of single_label_classification, "):
        collect([1], problem_type="ranking")


@pytest.mark.parametrize(("values", "options"), [
    (["1,5", "2,5"], {"known": ["1,5", "2,5"]}), (["12.5%", "3%"], {"problem_type": CLASSES}),
    ([["inf"], ["2.5"]], {}), (["1,5;2,5", "2,5"], {"separator": ";"})])
def test_odd_numbers_are_names_where_the_kind_is_known(values, options):
    assert collect(values, **options).problem_type in (CLASSES, SEVERAL)


LISTS = [["b", "a"], [], ["c"], ["a", "a"], ["c", "b", "a"]] * 3


@pytest.mark.parametrize(("values", "options"), [
    (LISTS, {}), ([tuple(value) for value in LISTS], {}), ([np.array(value, str) for value in LISTS], {}),
    ([[*value, ""] for value in LISTS], {}), ([np.array(["", *value]) for value in LISTS], {}),
    (["; ".join(value) for value in LISTS], {"separator": ";"}), ([" | ".join(value) for value in LISTS],
                                                                 {"separator": "|"})])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_several_labels_of_a_row_are_those_of_scikit_learn(values, options, batch):
    labels, binarizer = collect(values, batch, **options), MultiLabelBinarizer()
    assert np.array_equal(labels.dense(), binarizer.fit_transform(LISTS))
    assert (labels.problem_type, list(labels.names)) == (SEVERAL, list(binarizer.classes_))
    some = RNG.random(len(LISTS)) < 0.5
    assert np.array_equal(labels.of_rows(some).dense(), labels.dense()[some])
    keys = labels.keys()
    assert np.array_equal(keys[:, None] == keys, (labels.dense()[:, None] == labels.dense()).all(axis=2))


INDICATORS = MultiLabelBinarizer().fit_transform(LISTS)


@pytest.mark.parametrize("values", [
    INDICATORS.tolist(), INDICATORS.astype(bool).tolist(), INDICATORS.astype(float).tolist(), list(INDICATORS),
    [tuple(row) for row in INDICATORS.tolist()]])
@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize("names", [(), ("x", "y", "z")])
def test_zeros_and_ones_are_several_labels_of_a_row(values, batch, names):
    for is_closed in {False, bool(names)}:
        labels = collect(values, batch, known=names, is_closed=is_closed)
        assert (labels.problem_type, labels.names) == (SEVERAL, names or ("0", "1", "2"))
        assert np.array_equal(labels.dense(), INDICATORS)


@pytest.mark.parametrize("batch", [1, 2, 100])
@pytest.mark.parametrize("values", [
    [[0, 1], [1], [0, 2], []], [[1, 0], [0, 1], [3, 1]], [[1, 1], [1], [2]], [[0, 0], [0, 1, 1]],
    [[True, False], [True]]])
def test_lists_of_zeros_and_ones_alone_at_first_are_lists_of_classes(values, batch):
    """What was taken for an indicator of each class is read anew when a row shows that it is none."""
    labels, binarizer = collect(values, batch), MultiLabelBinarizer()
    assert np.array_equal(labels.dense(), binarizer.fit_transform(values))
    assert labels.names == tuple(sorted({str(part) for value in values for part in value}))


def test_lists_of_known_classes_that_look_like_indicators():
    values = [[0, 1], [1, 0], [1]]
    assert collect(values, 1, known=["0", "1"], is_closed=True).dense().tolist() == [[True] * 2] * 2 + [[False, True]]
    with pytest.raises(ValueError, match=r"^f\.csv: the label '0' is none of the 2 labels of the training \(a, b\): "):
        collect(values, 1, known=["a", "b"], is_closed=True)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_targets_of_which_the_first_are_zeros_and_ones(batch):
    values = [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.5, 1.0], [1.0, 1.0, 0.0]]
    labels = collect(values, batch)
    assert (labels.problem_type, labels.dense().tolist()) == (REGRESSION, values)
    assert collect(values[:2], batch, problem_type=REGRESSION).dense().tolist() == values[:2]


def test_several_targets():
    values = RNG.normal(size=(9, 3))
    labels = collect(values.tolist(), 4)
    assert (labels.problem_type, labels.num_labels) == (REGRESSION, 3)
    np.testing.assert_array_equal(labels.dense(), values.astype(np.float32))
    assert len(set(labels.keys().tolist())) == 9


@pytest.mark.parametrize("values", [
    [[1, 2.5], [2.5, 3.5]], [[2.5, 3.5], [1, 2.5]],  # 1.0 is 1 in JSON of JavaScript
    [[0, 1], [0.25, 0.75], [1, 0]], [[0.25, 0.75], [0, 1], [1, 0]], ["[0, 1]", "[0.25, 0.75]", "[1, 0]"]])
@pytest.mark.parametrize("batch", [1, 7])
def test_lists_with_a_fraction_are_several_targets_in_any_order(values, batch):
    labels = collect(values, batch)
    assert (labels.problem_type, labels.names) == (REGRESSION, ())
    assert labels.dense().tolist() == [json.loads(value) if isinstance(value, str) else value for value in values]


def test_numbers_that_are_scored_may_lie_close_together():
    values = [1000000.5, 1000001.0]
    assert collect(values, is_training=False).dense().tolist() == values
    with pytest.raises(ValueError, match=r"^f\.csv: the numbers of column 'label' lie between 1000000\.5 and "):
        collect(values)


def test_several_classes_may_be_numbers_with_a_fraction():
    labels = collect([[0.5, 2.0], [0.5]], problem_type=SEVERAL)
    assert (labels.names, labels.dense().tolist()) == (("0.5", "2"), [[True, True], [True, False]])


def test_many_different_numbers_are_kept_as_numbers(monkeypatch):
    monkeypatch.setattr(label_collector, "MAX_CLASSES", 10)
    values = RNG.normal(size=40)
    np.testing.assert_array_equal(collect([str(value) for value in values]).dense(), values.astype(np.float32))
    with pytest.raises(ValueError, match=r"^f\.csv: column 'label' has more than 10 different labels: name another "):
        collect([f"id{number}" for number in range(40)])


def test_known_classes_come_first():
    assert collect(["b", "a", "d"] * 4, known=["c", "b"]).names == ("c", "b", "a", "d")
    closed = collect(["b", "c"] * 4, known=["c", "b"], is_closed=True)
    assert (closed.names, closed.dense().tolist()) == (("c", "b"), [1, 0] * 4)
    assert collect(["2.0", "1"], known=["1", "2"], is_closed=True).dense().tolist() == [1, 0]


@pytest.mark.parametrize(("values", "options", "message"), [
    (["a", "b", "x"], {"known": ["a", "b"], "is_closed": True},
     r"^f\.csv, line 4: the label 'x' is none of the 2 labels of the training \(a, b\): mend it, "),
    ([["a"]] * 8 + [["b", "y"]], {"known": ["a", "b"], "is_closed": True, "problem_type": SEVERAL},
     r"^f\.csv, line 10: the label 'y' is none of the 2 "),
    (["1", "2.5", "many"], {"problem_type": REGRESSION},
     r"^f\.csv, line 4: the label 'many' of column 'label' is not a finite number, as a regression needs: mend "),
    (["1", "1_000"], {"problem_type": REGRESSION}, r"^f\.csv, line 3: the label '1_000' of column 'label' is not a "),
    ([1, True], {"problem_type": REGRESSION}, r"^f\.csv, line 3: the label True of column 'label' is not a finite "),
    ([[0.5], [np.True_]], {}, r"^f\.csv, line 3: the label .*True.* of column 'label' is not a finite number, as "),
    ([["a"], "b"], {}, r"^f\.csv, line 3: the label 'b' of column 'label' is not a list, as the labels above are: "),
    (["b"], {"problem_type": SEVERAL}, r"^f\.csv, line 2: the label 'b' of column 'label' is not a list, as "
     r"problem_type multi_label_classification needs: write all as lists, "),
    ([0, 1], {"problem_type": SEVERAL}, r"^f\.csv, line 2: the label 0 of column 'label' is not a list, as "
     r"problem_type multi_label_classification needs: write all as lists, "),
    ([["a"], ["b"]], {"problem_type": CLASSES}, r"^f\.csv, line 2: the label \['a'\] of column 'label' is a list, "
     r"where single_label_classification has one label for each row: write one, or train on lists with problem_type "),
    ([[0.9, 0.1], [0.2, 0.8]], {"problem_type": CLASSES}, r"^f\.csv, line 2: the label \[0\.9, 0\.1\] of column "),
    ([[2, 3]] * 8 + [[2.5, 3]], {}, r"^f\.csv, line 10: the label \[2\.5, 3\] of column 'label' has numbers with a "
     r"fractional part, and the lists above have none: pass problem_type regression if they are several targets of a "),
    ([1700000000 + 1.5 * row for row in range(60)], {}, r"^f\.csv: the numbers of column 'label' lie between "
     r"1700000000 and 1700000088\.5, where float32 has steps of 128: subtract 1700000000 from them\.$"),
    ([[0.5 + row, 1e9 + row] for row in range(60)], {}, r"^f\.csv: the numbers of column 'label', target 2 of 2, lie "
     r"between 1000000000 and 1000000059, where float32 has steps of 64: subtract 1000000000 from them\.$"),
    ([[1e9 + row, 1e39] for row in range(6)], {"is_training": False}, r"^f\.csv: column 'label' holds 1e\+39, and "),
    ([1e39, 2.5], {"problem_type": REGRESSION}, r"^f\.csv: column 'label' holds 1e\+39, and float32 ends at "),
    (["0.5", "1.5", "-inf"], {}, r"^f\.csv: column 'label' holds numbers and '-inf', and a regression needs "),
    ([0.5, 1.5, float("inf")], {}, r"^f\.csv: column 'label' holds numbers and 'inf', and a regression needs finite "),
    ([[0.5, 1.0], [2.0]], {}, r"^f\.csv, line 3: column 'label' has 1 numbers, the rows above have 2: give every row"),
    (["a", {"b": 1}], {}, r"^f\.csv, line 3: column 'label' holds \{'b': 1\}, a dict, expected a string, a number "),
    ([f"this is the text of row {number}" for number in range(10)], {},
     r"^f\.csv: the label column 'label' looks like text, 10 different values in 10 rows, 7 words each: name the "),
    (["a"], {"separator": ""}, r"^label_separator is '', expected the character between the labels of a row, such as"),
    (["a;b", "a"], {"separator": ";", "problem_type": CLASSES}, r"^label_separator is ';' and problem_type is "
     r"single_label_classification, and only multi_label_classification has several labels to separate: leave label_"),
    (["1;2"], {"separator": ";", "problem_type": REGRESSION}, r"^label_separator is ';' and problem_type is "
     r"regression, and only multi_label_classification has several labels to separate: leave label_separator out, or "
     r"train with problem_type multi_label_classification\.$"),
])
def test_labels_that_do_not_fit(values, options, message):
    with pytest.raises(ValueError, match=message):
        collect(values, **options)


@pytest.mark.parametrize(("values", "problem_type", "kept"), [
    (["1", "NA", "2"] * 5, CLASSES, ["1", "2"] * 5),
    (["0.5", "1.0", "n/a", "\\N", "1.5"], REGRESSION, [0.5, 1.0, 1.5]),
    ([0.5, "<NA>", 2, "None", "NAN"], REGRESSION, [0.5, 2.0]),
    (["a", "NA", "b"], CLASSES, ["a", "NA", "b"]),
    (["NA", "null"], CLASSES, ["NA", "null"]),
])
@pytest.mark.parametrize("batch", [1, 7])
def test_words_for_missing_labels_among_numbers(values, problem_type, kept, batch):
    collector = LabelCollector("label", "f.csv")
    for start in range(0, len(values), batch):
        collector.add(values[start:start + batch], lambda row, start=start: f"f.csv, line {2 + start + row}")
    is_missing = collector.take_out_missing()
    labels = collector.finish()
    words = ("NA", "n/a", "\\N", "<NA>", "None", "NAN")
    assert [value for value, missing in zip(values, is_missing) if not missing] == [
        value for value in values if len(kept) == len(values) or value not in words]
    assert labels.problem_type == problem_type
    assert [labels.names[i] for i in labels.dense()] == kept if labels.names else labels.dense().tolist() == kept


def test_words_for_missing_labels_among_many_numbers(monkeypatch):
    """The numbers, which are too many to be kept as names, and NA before and after it is found that they are."""
    monkeypatch.setattr(label_collector, "MAX_CLASSES", 10)
    collector = LabelCollector("label", "f.csv")
    collector.add(["0.5", "NA", *(f"{number}.25" for number in range(12))], lambda row: f"f.csv, line {2 + row}")
    assert [collector.is_missing(value) for value in ("NA", "2", "")] == [True, False, True]
    collector.add(["7.5"], lambda row: f"f.csv, line {16 + row}")
    assert collector.take_out_missing().tolist() == [False, True] + [False] * 13
    assert collector.finish().dense().tolist() == [0.5, *(number + 0.25 for number in range(12)), 7.5]
    assert collector.first_missing == ("f.csv, line 3", "NA")


def test_a_class_of_a_model_that_is_called_na():
    labels = collect(["1", "NA"], known=["1", "2", "NA"])
    assert [labels.names[number] for number in labels.dense()] == ["1", "NA"]
