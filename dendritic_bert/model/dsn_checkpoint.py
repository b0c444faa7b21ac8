"""A classifying DSN read from the file of its checkpoint, for inference alone.

transformers' modeling code imports torch's compiler, sympy and, where they are installed, accelerate and scipy. That
takes longer than all the rest of a program that classifies one text, and needed of a checkpoint are its tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import cached_file

from ..kernels.contract import PARAMETER_DTYPES
from .configuration import DendriticBertConfig
from .files import CONFIG, WEIGHTS
from .inference_tables import InferenceTables, WindowTables, make_tables, table_dtypes
from .packed_encoder import packed_folder, read_encoder

if TYPE_CHECKING:
    from .modeling import DendriticBertForSequenceClassification

OTHER_SETTINGS = ("quantization_config", "output_hidden_states")  # which transformers' loading or modules must heed


class DsnCheckpoint:
    """The configuration and the tensors of a ``DendriticBertForSequenceClassification``, and its inference tables.

    It gives the logits that the model in evaluation gives, to the bit, from the same ops, if the model is prepared as
    the configuration's ``table_dtype`` says.
    """

    def __init__(self, config: DendriticBertConfig, tensors: dict[str, Tensor]) -> None:
        self.config, self._tensors = config, tensors
        self.num_labels: Any = config.num_labels  # declared optional, but always set
        self._tables: InferenceTables | WindowTables | None = None  # made by the first call, as the model's are

    @classmethod
    def find(cls, name_or_path: str, **changes: Any) -> DsnCheckpoint | None:
        """Read the checkpoint of a folder or a hub id; None if it is to be read by ``from_pretrained``. ``changes`` are
        fields of the configuration that override those of the checkpoint.

        That is what is not a DSN with a head of one layer that one op computes, comes from another program, or is
        damaged: then the model is made, or the error raised, that ``from_pretrained`` has for it. Raises OSError if a
        hub id cannot be found there.
        """
        folder = _find_folder(name_or_path)
        if folder is None or (folder / "adapter_config.json").exists():  # transformers adds an adapter to the model
            return None
        try:
            config = DendriticBertConfig.from_pretrained(folder, **changes)
            packed = packed_folder(name_or_path)
            tensors = load_file(folder / WEIGHTS) if packed is None else read_encoder(packed, config)
        except (OSError, ValueError, SafetensorError):
            return None
        config._name_or_path = name_or_path
        is_plain = table_dtypes(config) and not any(getattr(config, name, None) for name in OTHER_SETTINGS)
        if not is_plain or {name: tuple(tensor.shape) for name, tensor in tensors.items()} != _shapes(config):
            return None
        dtypes = {tensor.dtype for tensor in tensors.values()}
        stored = tensors["classifier.weight"].dtype
        if dtypes != {stored} or stored not in PARAMETER_DTYPES or config.dtype not in (None, stored):
            return None
        return cls(config, tensors)

    def __reduce__(self) -> Any:
        return DsnCheckpoint, (self.config, self._tensors)

    def logits(self, input_ids: Tensor, cu_seqlens: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """The logits ``[B, C]`` float32 of packed ids ``[T]``."""
        if self._tables is None:
            self._tables = self.make_tables()
        return self._tables.logits(input_ids, cu_seqlens, self.config.pooling, {
            "attention_mask": None, "token_type_ids": token_type_ids, "position_ids": None})

    def make_tables(self) -> InferenceTables | WindowTables:
        """The tables that logits are computed from."""
        return make_tables(self.config, self._tensors, "classifier", self.config.layer_norm_eps,
                           self.config.dendrite_activation, table_dtype_of(self.config))

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by the names that they have in the model's ``state_dict()``."""
        return self._tensors

    def to_model(self) -> DendriticBertForSequenceClassification:
        """The model with these tensors, in evaluation."""
        from .modeling import DendriticBertForSequenceClassification

        name = self.config._name_or_path
        model = DendriticBertForSequenceClassification.from_pretrained(
            None, config=self.config, state_dict=dict(self._tensors), dtype=self._tensors["classifier.weight"].dtype)
        model.config._name_or_path = model.name_or_path = name
        return model.eval()


def table_dtype_of(config: DendriticBertConfig) -> torch.dtype | None:
    """What ``prepare`` is called with for a ``TextClassifier``; None too where the model has no tables of the dtype
    that the configuration names, which may come from a model of another form."""
    dtype = None if config.table_dtype is None else getattr(torch, config.table_dtype)
    return dtype if dtype in table_dtypes(config) else None


def _find_folder(name_or_path: str) -> Path | None:
    """The folder that holds the configuration and the weights; None unless both are there."""
    folder = Path(name_or_path)
    if not folder.exists():
        files: list[Any] = [cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False)
                            for name in (CONFIG, WEIGHTS)]
        return None if None in files else Path(files[1]).parent
    return folder if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file() else None


def _shapes(config: DendriticBertConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of the model by name."""
    hidden_size, num_dendrites = config.hidden_size, config.num_dendrites
    num_labels: Any = config.num_labels  # declared optional, but always set
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (config.vocab_size, hidden_size),
        "bert.embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden_size),
        "classifier.weight": ((1 + num_dendrites) * num_labels, config.pooled_size),
        "classifier.bias": ((1 + num_dendrites) * num_labels,),
    }
    if config.max_position_embeddings:
        shapes["bert.embeddings.position_embeddings.weight"] = (config.max_position_embeddings, hidden_size)
    if config.embedding_norm == "layer_norm":
        shapes |= {f"bert.embeddings.LayerNorm.{name}": (hidden_size,) for name in ("weight", "bias")}
    if config.window_layers:
        layers, dendrites, taps = config.window_layers, config.window_dendrites, 2 * config.window_radius + 1
        shapes |= {"bert.windows.input_weight": (taps, hidden_size, dendrites),
                   "bert.windows.weight": (layers - 1, taps, dendrites, dendrites),
                   "bert.windows.bias": (layers, dendrites)}
    if config.pooling == "gated_mean":
        shapes |= {"bert.gate.weight": (config.pooled_size,), "bert.gate.word_bias": (config.vocab_size,)}
    if num_dendrites:
        shapes["classifier.lateral"] = (num_dendrites, num_dendrites, num_labels)
        shapes["classifier.top"] = (num_dendrites, num_labels)
    return shapes
