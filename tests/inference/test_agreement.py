"""The share of texts whose label stays, counted by hand."""

import numpy as np
import pytest
import torch
from small_classifier import WORDS, hugging_face_tokenizer
from windowed_models import KINDS, windowed_model

from dendritic_bert import TextClassifier
from dendritic_bert.inference.agreement import label_agreement


@pytest.fixture(scope="module")
def tokenizer():
    return hugging_face_tokenizer()


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float32"])
def test_agreement(tokenizer, dtype):
    model = windowed_model(**KINDS["recipe"])
    texts = [f"{first} {second} {third}" for first in WORDS for second in WORDS for third in WORDS[:6]]
    logits, _ = TextClassifier(model, tokenizer).logits(texts)
    with torch.no_grad():  # half of the texts have either label, and some are near the border
        model.classifier.bias[1] += float(np.median(logits[:, 0] - logits[:, 1]))
    labels = []
    for form in (dtype, "float32"):
        model.config.table_dtype = form
        labels.append(TextClassifier(model, tokenizer).predict_array(texts)[0])
    model.config.table_dtype = None
    found = label_agreement(model, tokenizer, dtype, texts)
    assert found == np.mean(labels[0] == labels[1])
    assert 0.9 < found <= 1
    if dtype != "bfloat16":  # whose labels may all be the same
        assert (found == 1) == (dtype == "float32")
    assert model.config.table_dtype is None


def test_what_is_refused(tokenizer):
    with pytest.raises(ValueError, match="texts is empty: pass at least one text"):
        label_agreement(windowed_model(**KINDS["recipe"]), tokenizer, "int8", [])
    with pytest.raises(ValueError, match=r"dtype is torch\.int8, a table is stored as one of"):
        label_agreement(windowed_model(**KINDS["gate"]), tokenizer, "int8", ["text"])
