"""Rows in memory are tokenized as transformers does it, and padded with their labels."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from dendritic_bert import EMBEDDED_MODEL
from dendritic_bert.datasets.in_memory import InMemoryRows
from dendritic_bert.datasets.rows import RowDataset

TEXTS, PAIRS = ["a good film", "bad", ""], ["it was late", "", "why not ?"]


@pytest.mark.parametrize("columns", [(TEXTS,), (TEXTS, PAIRS)], ids=["texts", "pairs"])
@pytest.mark.parametrize("labels", [np.array([1, 0, 1]), np.array([[1, 0], [1, 1], [0, 0]], np.float32)],
                         ids=["classes", "labels"])
def test_a_batch(columns, labels):
    kind = "single_label_classification" if labels.ndim == 1 else "multi_label_classification"
    rows = InMemoryRows(columns, labels, ["no", "yes"], kind)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    encoded, dev = rows.encode(tokenizer, 32)
    assert dev == {"train": encoded}
    batch = rows.collate([RowDataset(encoded)[i] for i in range(3)])
    expected = tokenizer(*map(list, columns), padding=True, return_tensors="np")
    assert (batch["input_ids"].numpy() * expected["attention_mask"] == expected["input_ids"]).all()
    assert (batch["labels"].numpy() == labels).all()
    assert rows.settings["id2label"] == {0: "no", 1: "yes"}
    assert list(rows.texts()) == [text for column in columns for text in column]
