"""The configuration: BERT's, and the fields that a model without an encoder and with dendrites adds to it."""

import math
import os
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

_CHECKED_TOGETHER = ("dsn", "pooling", "max_position_embeddings", "embedding_norm", "window_dendrites", "window_layers",
                     "window_radius", "window_dropout_prob")


@strict
class DendriticBertConfig(BertConfig):
    """Configuration of a dendritic BERT; every argument of ``BertConfig`` keeps its name and meaning.

    ``hidden_dropout_prob`` is the dropout of every token's LayerNorm output, ``classifier_dropout`` that of the pooled
    row (None means ``hidden_dropout_prob``, as in BERT).

    Args:
        dsn: True is a Dendritic Semantic Network (DSN): the embeddings are pooled, and there is no encoder. False keeps
            BERT's encoder and pooler under the head.
        encoder_pooling: with dsn=False, "cls" is BERT's own pooler, and "mean" is the mean over the tokens, as in
            models of sentence-transformers.
        pooling: "mean_masked"; "gated_mean", in which every token has a weight that is learned; or "mean_all" and
            "sum_all", which count padding too, for checkpoints trained that way.
        max_position_embeddings: the length of the position table. 0 is a DSN without positions, which reads texts of
            any length and needs window layers to see their order.
        embedding_norm: "layer_norm" is BERT's. "none" pools the embeddings as they are, and goes without positions.
        num_dendrites: N, the number of dendrites per output of every layer of the head, >= 0.
        dendrite_activation: the activation function of the dendrites.
        head_hidden: None is a head of one dendritic layer. A number is a head of two, with that many outputs of the
            first and ``hidden_act`` between them.
        window_dendrites, window_layers: M and J, both 0 or both above. A DSN without positions has J layers of M
            dendrites on windows of its tokens, and pools them beside the embeddings. Layer 0 sees neighbours, layer j
            tokens that are 2^j apart.
        window_radius: how many tokens a window has on either side of its middle, >= 1.
        window_activation: the activation function of the window layers.
        window_dropout_prob: the dropout of what a window layer adds.
        table_dtype: as what a ``TextClassifier`` stores the word table, or without positions the window layers, with
            which it computes (see ``prepare``). None is the dtype of the parameters, which the model itself takes, as
            does a ``TextClassifier`` of a form that has no tables of this dtype.
        temperature: the number, > 0, by which scores divide the logits before softmax or sigmoid (temperature scaling,
            Guo et al. 2017, https://arxiv.org/abs/1706.04599). The logits themselves are not divided.
        training_columns: how the rows that a model was trained on were read: ``text_column``, and where there are such
            ``text_pair_column``, ``label_column`` and ``label_separator``. Files are read so again unless told
            otherwise. None is a model of a benchmark, or of rows that were in memory.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value has the wrong type or is not among those listed.
    """

    model_type = "dendritic_bert"

    dsn: bool = True
    encoder_pooling: Literal["cls", "mean"] = "cls"
    pooling: Literal["mean_masked", "mean_all", "sum_all", "gated_mean"] = "mean_masked"
    embedding_norm: Literal["layer_norm", "none"] = "layer_norm"
    num_dendrites: int = 0
    dendrite_activation: Literal["sigmoid", "tanh", "relu", "gelu"] = "sigmoid"
    head_hidden: int | None = None
    window_dendrites: int = 0
    window_layers: int = 0
    window_radius: int = 1
    window_activation: Literal["relu"] = "relu"
    window_dropout_prob: float | int = 0.0
    table_dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    temperature: float = 1.0
    training_columns: dict[str, str] | None = None

    @property
    def pools_windows(self) -> bool:
        """Whether ``ops.window_pool`` and ``ops.dsn_window_logits`` compute this model."""
        return self.dsn and self.max_position_embeddings == 0 and self.pooling in ("mean_masked", "gated_mean")

    @property
    def pools_embeddings(self) -> bool:
        """Whether ``ops.embed_pool`` and ``ops.dsn_logits`` compute this model."""
        return (self.dsn and self.window_layers == 0 and self.pooling != "gated_mean"
                and self.embedding_norm == "layer_norm")

    @property
    def longest_row(self) -> float:
        """The most tokens that a row may have, infinity for a model without positions."""
        return self.max_position_embeddings or math.inf

    @property
    def pooled_size(self) -> int:
        """The number of channels that the head reads: H, or H + M with window layers."""
        return self.hidden_size + self.window_dendrites

    def validate_temperature(self) -> None:
        """Called by ``strict`` when a configuration is made."""
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}, expected a number above 0.")

    def validate_form(self) -> None:
        """Called by ``strict`` when a configuration is made."""
        for name, least in (("window_dendrites", 0), ("window_layers", 0), ("window_radius", 1),
                            ("max_position_embeddings", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number of at least {least}.")
        if not 0 <= self.window_dropout_prob < 1:
            raise ValueError(f"window_dropout_prob is {self.window_dropout_prob}, expected 0 <= p < 1.")
        if (self.window_dendrites == 0) != (self.window_layers == 0):
            raise ValueError(f"window_dendrites is {self.window_dendrites} and window_layers {self.window_layers}, "
                             "expected both above 0, or both 0 for a model without windows.")
        is_asked_for = {"window_layers": self.window_layers > 0, "embedding_norm": self.embedding_norm == "none",
                        "pooling": self.pooling == "gated_mean",
                        "max_position_embeddings": self.max_position_embeddings == 0}
        for name in (name for name, is_so in is_asked_for.items() if is_so):
            if not self.dsn:
                raise ValueError(f"{name} is {getattr(self, name)!r} and dsn False, which keeps BERT's encoder: pass "
                                 "dsn=True.")
            if name in ("window_layers", "embedding_norm") and self.max_position_embeddings:
                raise ValueError(f"{name} is {getattr(self, name)!r} and max_position_embeddings "
                                 f"{self.max_position_embeddings}: pass max_position_embeddings=0.")
        if self.window_layers and self.pooling in ("mean_all", "sum_all"):
            raise ValueError(f"window_layers is {self.window_layers} and pooling {self.pooling!r}, which counts "
                             "padding: pass pooling=\"gated_mean\" or \"mean_masked\".")

    def to_dict(self) -> dict[str, Any]:
        """As in transformers, without ``training_columns`` where there are none."""
        values = super().to_dict()
        if values.get("training_columns") is None:
            values.pop("training_columns", None)
        return values

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration of this model or of BERT. Raises OSError for a file that holds no JSON object, and
        ValueError for any other architecture."""
        try:
            config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except TypeError:  # which transformers lets a number cause
            config_dict = None
        if not isinstance(config_dict, dict):
            raise OSError(f"the config.json of {pretrained_model_name_or_path} holds no JSON object: fetch the model "
                          "again.")
        model_type = config_dict.pop("model_type", "bert")  # the first BERT checkpoints do not name their type
        if model_type not in ("bert", cls.model_type):
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a model of type {model_type!r}, expected 'bert' or "
                f"{cls.model_type!r}: pass a BERT checkpoint."
            )
        return config_dict, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers. Where ``kwargs`` ask for window layers, the model has no positions, whatever
        ``config_dict`` says."""
        # What transformers would set after the checks is checked together with the rest.
        config_dict = config_dict | {name: kwargs[name] for name in _CHECKED_TOGETHER if name in kwargs}
        if kwargs.get("window_layers"):
            config_dict["max_position_embeddings"] = kwargs.get("max_position_embeddings", 0)
        return super().from_dict(config_dict, **kwargs)
