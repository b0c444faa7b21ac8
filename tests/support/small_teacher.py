"""A tiny sentence encoder with random weights, in a folder as sentence-transformers write it, and texts for it."""

import itertools
import json
from pathlib import Path

import torch
from helpers import tiny_bert
from transformers import BertModel

from dendritic_bert.datasets.vocabulary import train_vocabulary

DIMENSION = 32


def some_texts(count: int) -> list[str]:
    """Different texts of 4 to 6 words."""
    words = itertools.product(("the", "this", "their", "a"), ("film", "plot", "cast", "score", "play", "show"),
                              ("is", "was", "seems"), ("", "very"), ("warm", "charming", "dull", "bleak", "long"),
                              ("today", ".", ""))
    texts = [" ".join(" ".join(row).split()) for row in words]
    return texts[::len(texts) // count][:count]


def save_teacher(folder: Path, pooling: dict | None = None, **config) -> str:
    """Save the encoder, and a ``1_Pooling/config.json`` if ``pooling`` is its content."""
    tokenizer = train_vocabulary(some_texts(1000), 300)
    tokenizer.save_pretrained(folder)
    model = tiny_bert(BertModel, **{"vocab_size": len(tokenizer), "hidden_size": DIMENSION, "num_hidden_layers": 1,
                                    **config})
    with torch.no_grad():  # else what all texts have in common is nearly all of an embedding
        model.embeddings.word_embeddings.weight *= 8
        model.encoder.layer[0].output.dense.bias.zero_()
        model.encoder.layer[0].output.LayerNorm.bias.zero_()
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A teacher\n")
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)
