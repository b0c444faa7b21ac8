"""A pretrained encoder, and the packed form in which one is shipped.

An encoder is a ``DendriticBertForSequenceClassification`` without dendrites in its head, whose logits, weight pooled +
bias, are D numbers: the embedding of a text. The head is called its projection.

Packed, the projection is in a file of its own, ``projection.safetensors``, with weight ``[D, H + M]`` and bias ``[D]``,
and ``model.safetensors`` has no head. The word table is int8 with a float32 scale for each row, and every other tensor
float16. A number is read as int8 times scale, one product in float32, or as the float16 itself: the same bits on every
machine. What is read is the model, and whoever trains or measures it does so with these numbers.

One word table may serve two models. A packed folder of both is the windowed model, and ``without_windows.safetensors``
has what its gated bag of words has in the place of the tensors of the same names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import cached_file

from ..kernels.prepare import quantise
from .configuration import DendriticBertConfig
from .files import CARD, CONFIG, PROJECTION, TOKENIZER, TOKENIZER_FILES, WEIGHTS, WITHOUT_WINDOWS

HEAD, WINDOWS = "classifier.", "bert.windows."
PROJECTED = "projection."  # before the names of a projection beside other tensors
WORDS, WORD_SCALE = "bert.embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.scale"
PACKED_AS = "written as int8 (words, with a float32 scale for each row) and float16"  # what its card says
# What a configuration says of a folder or of a head, not of an encoder.
_LEFT_OUT = ("architectures", "auto_map", "id2label", "label2id", "transformers_version")


def is_encoder(config: DendriticBertConfig) -> bool:
    """Whether this is the configuration of an encoder: of a regression with several outputs."""
    return config.problem_type == "regression" and int(config.num_labels or 0) > 1


def packed_folder(name_or_path: str | os.PathLike[str], **source: Any) -> Path | None:
    """The folder of a packed encoder, which has its projection in a file of its own, and ``read_encoder`` reads; None
    for any other model.

    ``name_or_path`` is a folder, or a hub id, whose files are fetched. ``source`` are those arguments of transformers'
    ``cached_file`` that say where they are, such as ``subfolder`` and ``revision``.
    """
    if os.path.exists(name_or_path):
        folder = Path(name_or_path, source.get("subfolder") or "")
        return folder if (folder / PROJECTION).is_file() else None
    try:
        found = cached_file(name_or_path, PROJECTION, **source)
    except OSError:  # no such file or id, or no way to the hub, which is for reading the model to say
        return None
    for name in (CONFIG, WEIGHTS, WITHOUT_WINDOWS):
        cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **source)
    return Path(str(found)).parent


def form_of(name_or_path: str | os.PathLike[str], windows: bool, **source: Any) -> dict[str, int]:
    """The fields of the configuration that ask a model for its form with windows or for that without; none where it has
    only one. The arguments are those of ``packed_folder``."""
    folder = None if windows else packed_folder(name_or_path, **source)
    has_both = folder is not None and (folder / WITHOUT_WINDOWS).is_file()
    return {"window_layers": 0, "window_dendrites": 0} if has_both else {}


def read_encoder(folder: str | os.PathLike[str], config: DendriticBertConfig) -> dict[str, Tensor]:
    """The tensors of a folder with a projection by the names of the model's state dict, the projection as its head.

    ``config`` is that of the folder, or that of its model without windows. Raises OSError or SafetensorError if a file
    cannot be read.
    """
    stored, projection = load_file(Path(folder, WEIGHTS)), load_file(Path(folder, PROJECTION))
    others = Path(folder, WITHOUT_WINDOWS)
    if others.is_file() and config.window_layers == 0:
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith(WINDOWS)} | load_file(others)
        projection = {name: stored.pop(PROJECTED + name) for name in projection}
    return unpack(stored | {HEAD + name: tensor for name, tensor in projection.items()})


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packed form of the tensors of a state dict. A scale is the largest magnitude of its row divided by 127."""
    packed = {name: tensor.detach().half().contiguous() for name, tensor in tensors.items() if name != WORDS}
    if WORDS in tensors:
        packed[WORDS], packed[WORD_SCALE] = quantise(tensors[WORDS].detach().double(), torch.int8)
    return packed


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors of what ``pack`` made; tensors that are not packed as they are."""
    if WORD_SCALE not in stored:
        return dict(stored)
    tensors = {name: tensor.float() for name, tensor in stored.items() if name != WORD_SCALE}
    tensors[WORDS] *= stored[WORD_SCALE][:, None]
    return tensors


def pack_encoder(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    without_windows: str | os.PathLike[str] | None = None,
) -> None:
    """Write the packed form of the encoder in ``folder`` to the folder ``output``, with tokenizer and card.

    ``without_windows`` is the folder of a gated bag of words with the same word table, which is packed beside the
    windowed model of ``folder``. Raises ValueError if one of them is no encoder, or if their word tables differ.
    """
    config, tensors = _read(folder)
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    save_file(pack(_without_head(tensors)), target / WEIGHTS)
    save_file(pack(_projection(tensors)), target / PROJECTION)
    if without_windows is not None:
        _, others = _read(without_windows)
        if not torch.equal(tensors[WORDS], others[WORDS]):
            raise ValueError(f"without_windows is {without_windows}, whose word table is not that of {folder}: pack "
                             "each into a folder of its own.")
        projection = {PROJECTED + name: tensor for name, tensor in _projection(others).items()}
        del others[WORDS]
        save_file(pack(_without_head(others) | projection), target / WITHOUT_WINDOWS)
    settings = {name: value for name, value in config.to_diff_dict().items() if name not in _LEFT_OUT}
    text = json.dumps(settings | {"dtype": "float32", "num_labels": config.num_labels}, indent=2, sort_keys=True)
    (target / CONFIG).write_text(f"{text}\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if Path(folder, name).is_file():
            shutil.copy(Path(folder, name), target / name)
    if Path(folder, CARD).is_file():
        card = Path(folder, CARD).read_text(encoding="utf-8")
        (target / CARD).write_text(card.replace("written as float32", PACKED_AS), encoding="utf-8")
    tokenizer = json.loads((target / TOKENIZER).read_text(encoding="utf-8"))  # without the spaces, 30 % of the file
    (target / TOKENIZER).write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _read(folder: str | os.PathLike[str]) -> tuple[DendriticBertConfig, dict[str, Tensor]]:
    config = DendriticBertConfig.from_pretrained(folder)
    tensors = load_file(Path(folder, WEIGHTS)) if packed_folder(folder) is None else read_encoder(folder, config)
    if not is_encoder(config) or config.num_dendrites:
        raise ValueError(f"{folder} holds a model with problem_type {config.problem_type!r}, {config.num_labels} labels"
                         f" and {config.num_dendrites} dendrites: pass the folder of a pretrained encoder.")
    return config, tensors


def _without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}


def _projection(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[HEAD + name] for name in ("weight", "bias")}
