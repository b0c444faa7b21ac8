"""The configuration: BERT's, and the fields that a model without an encoder and with dendrites adds to it."""

import math
import os
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import BertConfig


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
        pooling: "mean_masked"; or "mean_all" and "sum_all", which count padding too, for checkpoints trained that way.
        num_dendrites: N, the number of dendrites per output of every layer of the head, >= 0.
        dendrite_activation: the activation function of the dendrites.
        head_hidden: None is a head of one dendritic layer. A number is a head of two, with that many outputs of the
            first and ``hidden_act`` between them.
        temperature: the number, > 0, by which scores divide the logits before softmax or sigmoid (temperature scaling,
            Guo et al. 2017, https://arxiv.org/abs/1706.04599). The logits themselves are not divided.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value has the wrong type or is not among those listed.
    """

    model_type = "dendritic_bert"

    dsn: bool = True
    encoder_pooling: Literal["cls", "mean"] = "cls"
    pooling: Literal["mean_masked", "mean_all", "sum_all"] = "mean_masked"
    num_dendrites: int = 0
    dendrite_activation: Literal["sigmoid", "tanh", "relu", "gelu"] = "sigmoid"
    head_hidden: int | None = None
    temperature: float = 1.0

    def validate_temperature(self) -> None:
        """Called by ``strict`` when a configuration is made."""
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}, expected a number above 0.")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration of this model or of BERT. Raises ValueError for any other architecture."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        model_type = config_dict.pop("model_type", "bert")  # the first BERT checkpoints do not name their type
        if model_type not in ("bert", cls.model_type):
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a model of type {model_type!r}, expected 'bert' or "
                f"{cls.model_type!r}: pass a BERT checkpoint."
            )
        return config_dict, kwargs
