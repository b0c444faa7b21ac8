"""Data sets of the library ``datasets``: their splits as records, and errors that say what to pass in their place."""

import re
import sys

import datasets
import pytest
from named_classes import TABLE

from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.hub import HubRecords, load_from_hub, name_classes
from dendritic_bert.datasets.own_rows import OwnRows
from dendritic_bert.datasets.squad import read_questions


def test_classes_of_the_hub_have_their_names():
    batches = list(HubRecords(TABLE, "d").batches(25, ["label", "tags"]))
    assert [label for batch in batches for label in batch.columns["label"]] == ["no", "a yes", "a yes", "no"] * 10
    assert batches[0].columns["tags"][:4] == [["x"], ["x", "y"], [], ["y"]]
    assert batches[1].place(2) == "d, row 27"


def test_numbers_without_a_name():
    assert name_classes([0, 1, -1, None, 2, "a", [1, 0]], ["a", "b"]) == ["a", "b", None, None, 2, "a", ["b", "a"]]


def test_a_data_set_of_the_hub(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.DatasetDict(train=TABLE, test=TABLE.select(range(8)))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = OwnRows.from_hub("some/set", "small", label_column="label")
    assert asked == [(("some/set", "small"), {"split": None})]
    assert (rows.num_train, rows.num_dev, rows.labels) == (40, 8, ["a yes", "no"])
    assert rows.report.dev_source == "some/set (small), split test"
    rows = OwnRows.from_hub("some/set", label_column="label", hold_out=0.2)  # in the place of the dev split
    assert (rows.num_train, rows.num_dev, rows.report.dev_source) == (32, 8, None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(train=TABLE))
    assert OwnRows.from_hub("some/set", label_column="label").num_dev == 4
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(test=TABLE))
    with pytest.raises(ValueError, match=r"^dataset_name some/set has no split train, but test: pass train_file\.$"):
        load_from_hub("some/set")


# What asks the hub, how an error calls what was asked for, what may be wrong with it, and what to pass in its place.
ASKING = [
    (lambda: load_from_hub("some/set"), "dataset_name some/set", "name, dataset_config and network", "train_file"),
    (lambda: load_from_hub("some/set", "small"), "dataset_name some/set (small)", "name, dataset_config and network",
     "train_file"),
    (lambda: read_rows("sst2", "dev"), "nyu-mll/glue (sst2)", "the network",
     "data_dir, the folder of the GLUE download"),
    (lambda: read_questions("dev"), "rajpurkar/squad", "the network", "data_dir, the folder of SQuAD 1.1"),
]
each_asking = pytest.mark.parametrize(("ask", "what", "check", "instead"), ASKING, ids=[what for _, what, *_ in ASKING])


@each_asking
def test_the_hub_out_of_reach(monkeypatch, ask, what, check, instead):
    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nand more lines")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = (f"{what} cannot be loaded (ConnectionError: Couldn't reach the Hub): check {check}, or pass "
               f"{instead}.")
    with pytest.raises(OSError, match=rf"^{re.escape(message)}$"):
        ask()


@each_asking
def test_the_library_is_not_installed(monkeypatch, ask, what, check, instead):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = (f"datasets is not installed, which {what} needs: pip install 'dendritic-bert[train]', or pass "
               f"{instead}.")
    with pytest.raises(ImportError, match=rf"^{re.escape(message)}$"):
        ask()
