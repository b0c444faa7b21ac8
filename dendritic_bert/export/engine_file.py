"""The file of a model for the engine (csrc/engine), which classifies single texts without Python."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..atomic_write import atomic_path
from ..inference.classifier import TextClassifier
from ..inference.columns import warn_of_other_kind
from ..inference.engine_model import model_file
from ..inference.text_encoder import TextEncoder
from ..inference.text_logits import TextLogits
from ..inference.tokenizer_test_strings import TEST_STRINGS
from ..model.configuration import DendriticBertConfig
from ..model.dsn_checkpoint import DsnCheckpoint
from ..model.packed_encoder import is_encoder


def write_engine_file(name_or_path: str | os.PathLike[str], path: Path, max_length: int | None) -> None:
    """Write the model of a folder or a hub id, for rows of at most ``max_length`` tokens.

    The folder of ``path`` is made if it is not there. Raises ValueError if there is something at ``path``, if
    ``max_length`` leaves no room for the special tokens, or for a model or a tokenizer that the engine does not have;
    OSError if ``path`` cannot be written; RuntimeError if the file has other logits than the model. Warns of a model
    that was trained on pairs.
    """
    if path.exists():
        raise ValueError(f"{path} is there already: name a new file.")
    kind = TextEncoder if is_encoder(DendriticBertConfig.from_pretrained(name_or_path)) else TextClassifier
    owner: TextLogits = kind.from_pretrained(name_or_path)
    source = owner._source
    if not owner.config.dsn:
        raise ValueError(f"{name_or_path} has BERT's encoder (dsn is False), which the engine does not compute: pass "
                         "--format torch.")
    if owner._engine.current(owner) is None or not isinstance(source, DsnCheckpoint):
        raise ValueError(f"the engine does not serve {name_or_path} ({owner.tokenizer.reason or 'its model'}): pass "
                         "--format onnx.")
    if max_length is not None:
        if max_length < owner.tokenizer.single.num_special:
            raise ValueError(f"max_length is {max_length}, but the special tokens alone take "
                             f"{owner.tokenizer.single.num_special}: pass a larger one (--max-length).")
        owner.max_length = min(max_length, owner.max_length or max_length)
    file = model_file(source.make_tables(), owner.config, owner.tokenizer, owner.max_length,
                      owner.max_length or 1, owner.label_names())
    from .._engine import Model

    texts = list(TEST_STRINGS)
    with atomic_path(path) as unfinished:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(file.data)
        except OSError as error:
            raise OSError(f"output_dir {path} cannot be written ({error.strerror}): name a file that can.") from error
        found = np.frombuffer(Model.open(unfinished).logits(texts, 1)[0], np.float32)
        owner._engine = type(owner._engine)()  # that of the shorter rows, if there is a max_length
        if not np.array_equal(found, owner.logits(texts)[0].ravel()):
            raise RuntimeError(f"the logits of {path} are not those of {name_or_path}: please report this with the "
                               "model's config.json.")
    warn_of_other_kind(owner.config.training_columns, False, "read by the runtime of this file",
                       "pass --format onnx for pairs")
