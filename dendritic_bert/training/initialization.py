"""What a training starts from: a BERT checkpoint with its tokenizer, or random numbers and a new vocabulary."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers.trainers import WordPieceTrainer
from transformers import BertTokenizer

from ..inference.tokenizer_files import load_tokenizer
from ..model.configuration import DendriticBertConfig
from ..model.dendritic_linear import dendritic_layers
from .options import FRESH_SIZES, TrainingOptions

MIN_FREQUENCY = 2  # occurrences of a word piece in the training texts


def make_tokenizer(options: TrainingOptions, texts: Iterable[str]) -> Any:
    """The tokenizer that ``options`` name, by itself or with its checkpoint, or a new one trained on ``texts``.

    Raises OSError if it cannot be loaded, ValueError if ``vocab_size`` cannot hold the characters of the texts.
    """
    argument = "tokenizer_name" if options.model_name is None else "model_name"
    name = getattr(options, argument)
    if name is None:
        return _train_tokenizer(list(texts), options.vocab_size or FRESH_SIZES["vocab_size"])
    try:
        return load_tokenizer(name)
    except (OSError, ValueError) as error:  # whose own messages are paragraphs
        raise OSError(f"the tokenizer of {argument} {name} cannot be loaded ({type(error).__name__}): pass a folder "
                      "that holds its tokenizer.json or vocab.txt, or a hub id.") from error


def _train_tokenizer(texts: list[str], vocab_size: int) -> BertTokenizer:
    """BERT's lower-casing tokenizer with a WordPiece vocabulary of the texts, the same at every call."""
    backend = BertTokenizer().backend_tokenizer
    seen = set().union(*map(backend.normalizer.normalize_str, texts)) - set(string.whitespace)
    # Every printable character of ASCII is in the vocabulary, even if no training text holds it.
    alphabet = sorted(seen | set(string.printable) - set(string.ascii_uppercase) - set(string.whitespace))
    # The trainer numbers "##x" in the order of a hash table and breaks ties by these numbers. As special tokens they
    # are numbered here, which makes the vocabulary the same at every call.
    first = [*BertTokenizer().get_vocab(), *alphabet, *(f"##{character}" for character in alphabet)]
    if vocab_size < len(first):
        raise ValueError(f"vocab_size is {vocab_size}, the characters of the texts alone take {len(first)}: raise it.")
    backend.train_from_iterator(texts, WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=MIN_FREQUENCY, special_tokens=first, show_progress=False))
    return BertTokenizer(vocab=backend.get_vocab())


def build_model(model_class: Any, options: TrainingOptions, settings: dict[str, Any], vocab_size: int) -> Any:
    """A ``model_class`` as ``options`` describe it; ``settings`` are the fields of ``DendriticBertConfig`` that the
    task determines."""
    settings = settings | {name: getattr(options, name)
                           for name in ("pooling", "encoder_pooling", "num_dendrites", "dendrite_activation",
                                        "head_hidden")}
    for name in ("hidden_dropout_prob", "classifier_dropout"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    if options.model_name is not None:
        return model_class.from_pretrained(options.model_name, dsn=options.dsn, dtype=torch.float32, **settings)
    sizes = {name: getattr(options, name) or default for name, default in FRESH_SIZES.items()}
    model = model_class(DendriticBertConfig(**{"hidden_dropout_prob": 0.0, "num_hidden_layers": 0,
                                               "num_attention_heads": 1, **settings, **sizes,
                                               "vocab_size": vocab_size}))
    # Word vectors start small (0.02) beside one large vector that all tokens share. Without it, LayerNorm would scale a
    # word that is hardly ever seen to full length in a random direction; with it, such a word stays neutral until it
    # has been trained. This is worth 1.5 points on SST-2 and makes dropout needless. The head starts as nn.Linear does.
    torch.nn.init.normal_(model.bert.embeddings.token_type_embeddings.weight)
    for layer in dendritic_layers(model).values():
        layer.reset_parameters()
    return model


def live_parameters(model: Any) -> dict[str, int]:
    """Numbers of parameters that can change the output: of the embeddings, of the encoder, of the head, of all."""
    embeddings = sum(parameter.numel() for parameter in model.bert.embeddings.parameters())
    encoder = sum(parameter.numel() for parameter in model.bert.parameters()) - embeddings
    head = sum(layer.num_live_parameters() for layer in dendritic_layers(model).values())
    return {"embeddings": embeddings, "encoder": encoder, "head": head, "all": embeddings + encoder + head}
