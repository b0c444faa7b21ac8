"""Small pretrained encoders: models without positions whose head, the projection, gives an embedding."""

from functools import cache
from pathlib import Path

from small_classifier import hugging_face_tokenizer
from windowed_models import windowed_model

DIMENSION = 40
WINDOWS = {"window_dendrites": 24, "window_layers": 2, "pooling": "gated_mean", "embedding_norm": "none"}
BAG = {"pooling": "gated_mean", "embedding_norm": "none"}


def small_encoder(**config):
    """A windowed or gated model with random weights, whose head is the projection."""
    return windowed_model(**{"num_labels": DIMENSION, "num_dendrites": 0, "problem_type": "regression",
                             "hidden_size": 19, **config})


def save_encoder(folder: Path, model) -> str:
    """Save ``model`` and a tokenizer, the same for all of them."""
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return str(folder)


@cache
def _tokenizer():
    return hugging_face_tokenizer()  # whose training does not order words that are as frequent
