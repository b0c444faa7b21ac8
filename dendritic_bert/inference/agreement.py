"""How often a cheaper form of a model gives the label that float32 gives: what decides in which form it is shipped."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .classifier import TextClassifier
from .texts import check_texts

ENOUGH = 0.997  # of the texts: so that of the errors of a model of 90 % one in thirty may be another one


def label_agreement(model: Any, tokenizer: Any, dtype: str, texts: Iterable[str]) -> float:
    """The share of ``texts`` to which ``model`` gives the same label in ``dtype`` as in float32.

    ``model`` and ``tokenizer`` are those of a ``TextClassifier``, and ``dtype`` is one of ``config.table_dtype``.
    Raises ValueError for a dtype that the model has no form in, and without a text.
    """
    texts = check_texts(texts)
    if not texts:
        raise ValueError("texts is empty: pass at least one text.")
    return float(np.mean(_labels(model, tokenizer, dtype, texts) == _labels(model, tokenizer, "float32", texts)))


def _labels(model: Any, tokenizer: Any, dtype: str, texts: list[str]) -> np.ndarray:
    twin = copy.deepcopy(model)
    twin.config.table_dtype = dtype
    twin.prepare(getattr(torch, dtype))  # the classifier would go on without tables of this dtype
    return TextClassifier(twin, tokenizer).predict_array(texts)[0]
