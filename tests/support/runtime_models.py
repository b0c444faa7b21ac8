"""Texts and models for the runtime without PyTorch, and for the engine."""

import shutil

from small_classifier import WORDS
from transformers import AutoConfig

from dendritic_bert.embedded_model import find_model
from dendritic_bert.export import export

TEXTS = ["a charming journey", "", *WORDS, "caf\u00e9 [SEP]", "x " * 600, "lone \ud800"]
MAX_LENGTH = 40


class Counted:
    """A model of the engine that writes down how many texts each call has."""

    def __init__(self, model):
        self.model, self.sizes = model, []

    def __getattr__(self, name):
        method = getattr(self.model, name)
        return method if not callable(method) else lambda texts, *others: self.sizes.append(len(texts)) or method(
            texts, *others)


def trained_on(runtime, tmp_path, problem_type=None, **columns):
    """A classifier whose model was trained on these columns."""
    config, path = AutoConfig.from_pretrained(find_model("tiny")), tmp_path / "model.dsn"
    config.training_columns = {**columns, "label_column": "topic"}
    config.problem_type = problem_type
    folder = shutil.copytree(find_model("tiny"), tmp_path / "model")
    config.save_pretrained(folder)
    export(folder, path, "engine")
    return runtime.TextClassifier(path)
