"""Converts checkpoints of BERT (its embeddings and tokenizer, without the encoder) and of PerforatedAI into models of
this package, and these into the form that PerforatedAI trains."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import cached_file, logging

from ..atomic_write import atomic_folder, expect_new
from ..inference.tokenizer_files import load_tokenizer
from .base import DendriticBertPreTrainedModel
from .files import CONFIG
from .modeling import DendriticBertForQuestionAnswering, DendriticBertForSequenceClassification
from .perforatedai_checkpoint import find_perforated, save_perforated

logger = logging.get_logger(f"transformers.{__name__}")


def convert(
    name_or_path: str | os.PathLike[str], output_dir: str | os.PathLike[str], *,
    config: str | os.PathLike[str] | None = None, activation: str | None = None, to_perforated: bool = False,
    **options: Any,
) -> DendriticBertPreTrainedModel:
    """Write a model of this package and its tokenizer to ``output_dir``, and return the model.

    The logger of transformers says in one line what was kept, dropped and newly initialised. The folder appears when it
    is complete.

    Args:
        name_or_path: a folder or a hub id of a BERT of any age with any head, or of a model of this package; or a file
            of PerforatedAI in either of its forms, or a folder that holds one. A file of PerforatedAI has no tokenizer,
            so the one beside the file or the configuration is copied.
        output_dir: a folder that does not exist or is empty.
        config: for a file of PerforatedAI, the path of BERT's config.json; None is the one beside the file.
        activation: for a file of PerforatedAI, the activation of the dendrites; None is what the configuration of
            PerforatedAI beside the file says.
        to_perforated: write PerforatedAI's training form, with both configurations (see ``save_perforated``).
        options: fields of ``DendriticBertConfig``, such as ``num_labels``, ``pooling`` or ``num_dendrites``.

    Raises:
        ValueError: ``output_dir`` is not empty; the checkpoint is damaged, is not a BERT or has no vocabulary; or
            ``perforatedai_checkpoint.read_perforated`` refuses it.
        OSError: the checkpoint or its tokenizer does not exist, or ``output_dir`` cannot be written.
    """
    output = Path(output_dir)
    expect_new(output)
    file = find_perforated(name_or_path)
    if file is None and Path(name_or_path).is_file():
        raise ValueError(f"{name_or_path} is not a checkpoint of PerforatedAI in safetensors: pass the folder of any "
                         "other checkpoint.")
    if file is None and (config or activation):
        raise ValueError(f"{name_or_path} is not a checkpoint of PerforatedAI: leave out config and activation.")
    if file is not None:
        options |= {name: value for name, value in (("config", config), ("dendrite_activation", activation)) if value}
    with atomic_folder(output) as partial:
        model_class = _load(name_or_path, "model", model_class_of, file=file)
        model = _load(name_or_path, "model", model_class.from_pretrained, **options)
        if file is not None:
            tokenizer = _tokenizer_beside(Path(config or file).parent, file.parent)
        elif to_perforated and Path(name_or_path).is_dir():
            tokenizer = _tokenizer_beside(Path(name_or_path))
        else:
            tokenizer = _load(name_or_path, "tokenizer", load_tokenizer)
        if to_perforated:
            save_perforated(model, partial, output.name)
        else:
            model.save_pretrained(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
    return model


def model_class_of(name_or_path: str | os.PathLike[str],
                   file: Path | None = None) -> type[DendriticBertPreTrainedModel]:
    """The class for which the head in the file, or the configuration, was made; for a BERT it is the classifier.

    Raises OSError for a hub id that cannot be found there.
    """
    if file is not None:
        with safe_open(file, framework="pt") as opened:
            is_token_head = any(name.startswith("qa_outputs.") for name in opened.keys())  # noqa: SIM118
    else:
        config = cached_file(name_or_path, CONFIG, _raise_exceptions_for_missing_entries=False)
        try:
            text = "{}" if config is None else Path(config).read_text("utf-8")
            architectures = json.loads(text).get("architectures") or []
        except (OSError, ValueError):
            architectures = []  # it is read again where the model is loaded, which says what is wrong
        is_token_head = DendriticBertForQuestionAnswering.__name__ in architectures
    return DendriticBertForQuestionAnswering if is_token_head else DendriticBertForSequenceClassification


def _tokenizer_beside(*folders: Path) -> Any:
    """The tokenizer in the first of the folders that has one; None, with a warning, if none has."""
    for folder in folders:
        if (folder / "tokenizer.json").exists() or (folder / "vocab.txt").exists():
            return load_tokenizer(folder)
    logger.warning(f"there is no tokenizer in {folders[-1]}: put that of its BERT beside the model to classify text.")
    return None


def _load(name_or_path: str | os.PathLike[str], what: str, load: Any, **options: Any) -> Any:
    """Return ``load(name_or_path)``, with errors of one line, because those of transformers take a paragraph."""
    no_vocabulary = ValueError(f"{name_or_path} has no vocabulary: put its tokenizer.json or vocab.txt there.")
    try:
        loaded = load(name_or_path, **options)
    except OSError as error:
        reason = str(error).splitlines()[0] if Path(name_or_path).exists() else "no such folder, nor on the hub"
        raise OSError(
            f"the {what} of {name_or_path} cannot be loaded ({reason}): pass a folder or a hub id."
        ) from error
    except ValueError as error:
        if load is load_tokenizer:
            raise no_vocabulary from error
        raise
    # Without files transformers makes a tokenizer of the special tokens alone.
    if load is load_tokenizer and len(loaded) <= len(loaded.all_special_ids):
        raise no_vocabulary
    return loaded
