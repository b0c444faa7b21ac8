"""Models of every form that the engine has and texts for them, with what the package computes, as files for a machine
that has no Python: tests/portability/conformance.c reads them."""

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from small_classifier import WORDS, hugging_face_tokenizer, small_model
from windowed_models import KINDS, windowed_model

from dendritic_bert import TextClassifier
from dendritic_bert.inference.engine_model import model_file
from dendritic_bert.inference.tokenizer_test_strings import TEST_STRINGS

MAX_LENGTH = 40
FOLDED = {"hidden_size": 64, "max_position_embeddings": 300}
# By the name of the file: how the model is made, and how far a logit may be off on another processor. What is computed
# in integers and float64 has the same bits everywhere.
FLOAT = 1e-5
MODELS = {
    "full_width": (lambda: small_model(num_labels=3), FLOAT),
    "full_width_bfloat16": (lambda: small_model().prepare(torch.bfloat16), FLOAT),
    "full_width_float16": (lambda: small_model(num_labels=5).prepare(torch.float16), FLOAT),
    "full_width_int8": (lambda: small_model(dendrite_activation="gelu").prepare(torch.int8), FLOAT),
    "folded": (lambda: small_model(**FOLDED), FLOAT),
    "folded_many_labels": (lambda: small_model(**FOLDED, hidden_act="relu", num_labels=9, num_dendrites=0), FLOAT),
    "windows": (lambda: windowed_model(**KINDS["recipe"]), FLOAT),
    "windows_wide": (lambda: windowed_model(**KINDS["wide"]), FLOAT),
    "windows_int8": (lambda: windowed_model(**KINDS["recipe"]).prepare(torch.int8), 0.0),
    "windows_int8_wide": (lambda: windowed_model(**KINDS["wide"]).prepare(torch.int8), 0.0),
    "windows_int8_many_labels": (lambda: windowed_model(**KINDS["many_labels"]).prepare(torch.int8), 0.0),
}


class Case(NamedTuple):
    """A model for the engine, texts with what is expected of them, and how far a logit may be off."""

    model: Path
    cases: Path
    tolerance: float


def make_texts() -> list[str]:
    """The strings that tell tokenizers apart, and sentences that fill several blocks of 64."""
    rng = random.Random(0)
    pieces = [*WORDS, "caf\u00e9", "\u4e2d\u56fd", "[SEP]", "\U0001f600", "It's", "unaffable"]
    sentences = [" ".join(rng.choices(pieces, k=rng.randrange(60))) for _ in range(200)]
    return [text for text in (*TEST_STRINGS, *sentences) if not any("\ud800" <= char < "\ue000" for char in text)]


def write_case(name: str, folder: Path) -> Case:
    """Write the model of MODELS, and its texts, to a folder."""
    build, tolerance = MODELS[name]
    classifier = TextClassifier(build(), hugging_face_tokenizer())
    classifier.max_length = MAX_LENGTH if classifier.max_length is None else min(MAX_LENGTH, classifier.max_length)
    with torch.no_grad():
        tables = classifier.model.current_tables()
    case = Case(folder / f"{name}.dsn", folder / f"{name}.cases", tolerance)
    case.model.write_bytes(model_file(tables, classifier.model.config, classifier.tokenizer, classifier.max_length,
                                      classifier.max_length, classifier.labels))
    write_expected(classifier, make_texts(), case.cases)
    return case


def write_expected(classifier: TextClassifier, texts: list[str], path: Path) -> None:
    """Write texts, and the logits and scores that the package's ops compute of their packed ids."""
    batch = classifier.tokenizer(texts, classifier.max_length)
    with torch.no_grad():
        logits = classifier._logits(batch).float().numpy()
    scores = classifier.predict_array(texts)[1]
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype="<i8")
    sizes = np.array([len(texts), logits.shape[1], batch.num_truncated, offsets[-1]], "<i8")
    path.write_bytes(b"".join([sizes.tobytes(), offsets.tobytes(), logits.astype("<f4").tobytes(),
                               scores.astype("<f4").tobytes(), *encoded]))
