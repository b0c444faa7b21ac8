"""Classifiers from text to label: ours, and the others' as their own documentation builds them, trained on SST-2."""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging
from workload import SEED, SMALL, shared_path, sst2

from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.model.modeling import DendriticBertForSequenceClassification

BERT_TINY = "models/bert-tiny"
NUM_TRAINING_PHRASES = 500 if SMALL else 70_000


class Pipeline(NamedTuple):
    """A classifier.

    classify: texts -> a result of its own kind; this is what is timed.
    labels: that result -> 0 and 1; None if the head is not trained, so that its labels mean nothing.
    """

    classify: Callable[[list[str]], Any]
    labels: Callable[[Any], list[int]] | None


def training_text() -> tuple[list[str], list[int]]:
    texts, labels = sst2("train")
    return texts[:NUM_TRAINING_PHRASES], labels[:NUM_TRAINING_PHRASES]


def dendritic_bert(path: str, trained: bool, threads: int = 1, engine: str | None = None,
                   dtype: Literal["float32", "int8"] | None = None) -> Pipeline:
    """This package's classifier that has seen no text; ``engine`` forces one of the tokenizer's engines, and ``dtype``
    one of the model's forms."""
    classifier = TextClassifier.from_pretrained(path)
    if dtype is not None:
        classifier.config.table_dtype = dtype  # the first call makes the tables
    if engine is not None:
        classifier = TextClassifier(classifier.model, PackedTokenizer.from_pretrained(path, engine=engine))

    def labels(results: list[dict[str, Any]]) -> list[int]:
        return [int(result["label"] == "positive") for result in results]

    return Pipeline(lambda texts: classifier(texts, threads=threads), labels if trained else None)


def save_dsn_of_bert_tiny(folder: Path) -> str:
    """Save a DSN made of BERT-tiny (H = 128) with a random head, so that it can be loaded twice with the same head."""
    logging.set_verbosity_error()
    torch.manual_seed(SEED)
    source = str(shared_path(BERT_TINY))
    DendriticBertForSequenceClassification.from_pretrained(source).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


def float64_scores(path: str, texts: list[str]) -> np.ndarray:
    """The score of the likelier label, ``[B]``, by Hugging Face's tokenizer and the reference in float64."""
    model = DendriticBertForSequenceClassification.from_pretrained(path).double().eval()
    batch = AutoTokenizer.from_pretrained(path)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.enable_grad():  # so that the float32 tables for inference are not used
        return model(**batch).logits.softmax(dim=-1).amax(dim=-1).detach().numpy()


def transformers_bert_tiny() -> Pipeline:
    logging.set_verbosity_error()
    path = str(shared_path(BERT_TINY))
    tokenizer, model = AutoTokenizer.from_pretrained(path), BertForSequenceClassification.from_pretrained(path).eval()

    @torch.inference_mode()
    def classify(texts: list[str]) -> list[int]:
        labels: list[int] = []
        for start in range(0, len(texts), 64):
            batch = tokenizer(texts[start:start + 64], padding=True, truncation=True, return_tensors="pt")
            labels += model(**batch).logits.argmax(dim=-1).tolist()
        return labels

    return Pipeline(classify, None)


def model2vec() -> Pipeline:
    """BERT-tiny's word table (128 dimensions) as a StaticModel, under a logistic head in model2vec's own pipeline."""
    from model2vec import StaticModel
    from model2vec.inference import StaticModelPipeline
    from model2vec.inference.mlp import Activation, Layer, MLPHead
    from sklearn.linear_model import LogisticRegression

    folder = shared_path(BERT_TINY)
    tables = load_file(folder / "model.safetensors")
    vectors = next(table for name, table in tables.items() if name.endswith("word_embeddings.weight")).numpy()
    encoder = StaticModel(vectors, Tokenizer.from_file(str(folder / "tokenizer.json")))
    texts, labels = training_text()
    regression = LogisticRegression(max_iter=1000).fit(encoder.encode(texts[:10_000]), labels[:10_000])
    weight, bias = regression.coef_.astype(np.float32), regression.intercept_.astype(np.float32)
    head = MLPHead([Layer(np.concatenate((-weight, weight)), np.concatenate((-bias, bias)))], Activation.SOFTMAX,
                   np.array([0, 1]))
    return Pipeline(StaticModelPipeline(encoder, head).predict, lambda result: result.tolist())


def fasttext_model() -> Any:
    """fastText's defaults for supervised training: words without n-grams, 100 dimensions, five epochs."""
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        path.write_text("".join(f"__label__{label} {text}\n" for text, label in zip(*training_text())), "utf-8")
        return fasttext.train_supervised(str(path), wordNgrams=1, thread=1, verbose=0)


def fasttext_list() -> Pipeline:
    return Pipeline(fasttext_model().predict, lambda result: [int(labels[0][-1]) for labels in result[0]])


def fasttext_one_by_one() -> Pipeline:
    predict = fasttext_model().predict
    return Pipeline(lambda texts: [predict(text) for text in texts],
                    lambda results: [int(labels[0][-1]) for labels, _ in results])


def scikit_learn() -> Pipeline:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(*training_text())
    return Pipeline(pipeline.predict, lambda result: result.tolist())


# Name in the results -> the modules that it needs, and the function that builds it.
PEERS: dict[str, tuple[tuple[str, ...], Callable[[], Pipeline]]] = {
    "transformers BERT-tiny": (("transformers",), transformers_bert_tiny),
    "model2vec": (("model2vec", "sklearn"), model2vec),
    "fastText, list": (("fasttext",), fasttext_list),
    "fastText, one by one": (("fasttext",), fasttext_one_by_one),
    "scikit-learn tf-idf": (("sklearn",), scikit_learn),
}


def peers() -> dict[str, Pipeline]:
    """Every peer whose packages are installed; the report says which targets could not be measured."""
    return {name: build() for name, (modules, build) in PEERS.items() if all(map(importlib.util.find_spec, modules))}
