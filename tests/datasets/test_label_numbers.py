"""Numbers with a comma, and percentages."""

import pytest

from dendritic_bert.datasets.label_collector import LabelCollector
from dendritic_bert.datasets.label_numbers import are_comma_numbers, percentages
from dendritic_bert.datasets.labels import CLASSES, REGRESSION


@pytest.mark.parametrize(("names", "expected"), [
    (["0,385", "1,5", "-2"], True), (["1,234"], True), (["1", "2", "1,5"], False),
    (["1", "1,5", "2", "2,5", "3", "3,5", "4", "4,5", "5"], True), (["1", "2", "3", "4", "1,50", "2,50"], True),
    (["1", "2", "3", "4", "5", "1,5", "2,4"], False), (["0,5", "a"], False),
    (["1,234.50", "99.90", "2,000.00"], True), (["1.234,50", "99,90"], True), (["1,234,567", "999"], True),
    (["1,234.50", "99.90", "cheap"], False), (["1.234", "2.5"], False), (["1,2,3", "2,3", "1"], False),
    (["0.5"], False), ([], False)])
def test_numbers_with_a_comma(names, expected):
    assert are_comma_numbers(names) == expected


HALF_STEPS = ["1,5", "1", "2", "2,5", "3", "3,5", "4", "4,5", "5"]


@pytest.mark.parametrize(("values", "first"), [
    ([f"0,{number}" for number in range(10, 40)], "0,10"), (HALF_STEPS * 5, "1,5")])
def test_labels_that_are_numbers_with_a_comma(values, first):
    collector = LabelCollector("price", "f.csv")
    collector.add(values, str)
    with pytest.raises(ValueError, match=r"^f\.csv: the labels of column 'price' look like numbers with a comma, such "
                                         rf"as '{first}': write a point for a decimal comma"):
        collector.finish()
    collector = LabelCollector("price", "f.csv", problem_type=CLASSES)
    collector.add(values, str)
    assert set(collector.finish().names) == set(values)


@pytest.mark.parametrize(("names", "expected"), [
    (["3%", "12.5 %", "-1%", "0,5%"], [3, 12.5, -1, 0.5]), (["3%", "4"], None), (["3%", "%"], None), ([3.0], None),
    (["100% sure"], None), ([], None)])
def test_percentages(names, expected):
    found = percentages(names)
    assert found is expected if expected is None else found.tolist() == expected


@pytest.mark.parametrize("values", [[f"{number}%" for number in range(101)], ["12.5%", "3 %"]])
def test_labels_that_are_percentages(values):
    collector = LabelCollector("share", "f.csv")
    collector.add(values * 30, str)
    with pytest.raises(ValueError, match=r"^f\.csv: the labels of column 'share' look like percentages, such as "
                                         rf"'{values[0]}': take the percent signs off for a regression, or pass "):
        collector.finish()
    collector = LabelCollector("share", "f.csv", problem_type=CLASSES)
    collector.add(values, str)
    assert set(collector.finish().names) == set(values)
    with pytest.raises(ValueError, match=rf"'{values[1]}' .* as a regression needs: take the percent signs off\.$"):
        LabelCollector("share", "f.csv", problem_type=REGRESSION).add(values[1:], str)


def test_a_few_percentages_are_classes():
    collector = LabelCollector("discount", "f.csv")
    collector.add(["10%", "20%", "50%"] * 3, str)
    assert collector.finish().names == ("10%", "20%", "50%")
