"""A BERT checkpoint into the checkpoint of a DSN: the embeddings and the tokenizer, without the encoder."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from .modeling import DendriticBertForSequenceClassification


def convert(
    bert_name_or_path: str | os.PathLike[str], output_dir: str | os.PathLike[str], **options: Any
) -> DendriticBertForSequenceClassification:
    """Write BERT's embeddings, under a head, and its tokenizer to ``output_dir``; returns the model.

    What was kept, dropped and newly initialised goes to the transformers logger, in one line. The folder appears
    when everything is in it.

    Args:
        bert_name_or_path: a folder or a hub id; with any head, of any age.
        output_dir: a folder that does not exist or is empty.
        options: fields of ``DendriticBertConfig``, such as ``num_labels``, ``pooling`` or ``num_dendrites``.

    Raises:
        ValueError: ``output_dir`` holds something, or the checkpoint is damaged, no BERT or without a vocabulary.
        OSError: the checkpoint or its tokenizer is not there, or ``output_dir`` cannot be written.
    """
    output = Path(output_dir)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ValueError(f"output_dir {output} holds something already: name a new folder or empty this one.")
    partial = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise OSError(f"output_dir {output} cannot be written ({error.strerror}): name a folder that can.") from error
    try:
        model = _load(bert_name_or_path, "model", DendriticBertForSequenceClassification, **options)
        tokenizer = _load(bert_name_or_path, "tokenizer", AutoTokenizer)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where there are no files
            raise ValueError(f"{bert_name_or_path} has no vocabulary: put its tokenizer.json or vocab.txt there.")
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return model


def _load(name_or_path: str | os.PathLike[str], what: str, loader: Any, **options: Any) -> Any:
    """``loader.from_pretrained``, whose own errors about a missing file take a paragraph."""
    try:
        return loader.from_pretrained(name_or_path, **options)
    except OSError as error:
        reason = str(error).splitlines()[0] if Path(name_or_path).is_dir() else "no such folder, nor on the hub"
        raise OSError(
            f"the {what} of {name_or_path} cannot be loaded ({reason}): pass a folder or a hub id."
        ) from error
