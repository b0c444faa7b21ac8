"""Pretraining: a small encoder learns to give a sentence encoder's embeddings, and trainings on tables start from it.

    texts -> the teacher's embeddings (kept) -> vocabulary -> word table from the teacher -> fit -> encoder and card
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..datasets.rows import EncodedRows
from ..model.configuration import DendriticBertConfig
from ..model.files import CARD
from ..training.initialization import build_model
from ..training.trainer import train
from .embedded_texts import EmbeddedTexts
from .encoder_card import write_encoder_card
from .loss import embedding_loss
from .options import PretrainingOptions
from .word_start import start_from_words


def pretrain(options: PretrainingOptions) -> dict[str, Any]:
    """Learn the teacher's embeddings of the texts and write an encoder to ``output_dir``: a model whose head is the
    projection of its pooled row to the teacher's dimension, its tokenizer and its card.

    With ``joint`` the folder ``without_windows`` in it has the other one of the two encoders. The embeddings are kept
    and the training is checkpointed: the same command goes on where an interrupted one ended, to the same result.

    Returns what ``train`` returns, with the metric cosine, the mean cosine to the teacher on the held-out texts. Raises
    as ``train`` does, OSError for a teacher that cannot be loaded, and ValueError for one whose pooling is not known
    and for files without texts.
    """
    benchmark = EmbeddedTexts(options)

    def build(model_class: Any, options: Any, settings: dict[str, Any], vocab_size: int) -> Any:
        model = build_model(model_class, options, settings, vocab_size)
        if options.model_name is None and options.words_from == "teacher":
            start_from_words(model, benchmark)
        return model

    loss = partial(embedding_loss, gram_weight=options.gram_weight)
    return train(options, benchmark, build, loss, _describe)


def _describe(options: PretrainingOptions, benchmark: EmbeddedTexts, _: dict[str, EncodedRows], folder: Path,
              results: dict[str, Any]) -> None:
    """Write the card of the encoder in ``folder``."""
    write_encoder_card(folder / CARD, options, results, DendriticBertConfig.from_pretrained(folder),
                       benchmark.teacher.pooling)
