"""Dendritic BERT in plain PyTorch, in one file that lies beside a model's weights.

transformers loads it where the package dendritic-bert is not installed:

    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, trust_remote_code=True)

A Dendritic Semantic Network (DSN) is BERT (Devlin et al. 2019) without its encoder: the embeddings of a text's tokens,
after LayerNorm, are pooled and go through a layer with dendrites, as PerforatedAI grows them. For row b with tokens t
(id, position, token type, mask m in {0, 1}):

    x_t    = LayerNorm(W[id_t] + P[pos_t] + T[type_t])                                           [H]
    pooled = sum_t m_t x_t / sum_t m_t       (0 where the row has no token)                      [H]
    y      = A pooled + b                                                                        [C]
    a_k    = f(A_k pooled + b_k + sum_{j<k} D_kj * a_j)       k = 0..N-1                         [C]
    logits = y + sum_k T_k * a_k                                                                 [C]

With ``config.dsn`` False, BERT's encoder stands between embeddings and pooling. The package computes the same in one
kernel, from packed rows too, and is what a machine that scores many texts should have: pip install dendritic-bert.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
)
from transformers.models.bert.modeling_bert import BertEmbeddings

ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "gelu": F.gelu}


class DendriticBertConfig(BertConfig):
    """BERT's configuration, and the fields of a model without an encoder and with dendrites.

    Args:
        dsn: True is a DSN; False keeps BERT's encoder under the head.
        encoder_pooling: with dsn=False, "cls" is BERT's own pooler, "mean" the mean over the tokens.
        pooling: "mean_masked"; or "mean_all" and "sum_all", which count padding too.
        num_dendrites: N, the number of dendrites per output of every layer of the head.
        dendrite_activation: "sigmoid", "tanh", "relu" or "gelu".
        head_hidden: None is a head of one layer. A number is a head of two, with that many outputs of the first.
        temperature: by which logits are divided before the softmax or sigmoid, for calibrated scores. The models return
            the logits undivided, and transformers' pipeline does not divide them.
    """

    model_type = "dendritic_bert"

    temperature: float = 1.0  # declared, or transformers 5 would take it for a parameter of generation

    def __init__(self, dsn: bool = True, encoder_pooling: str = "cls", pooling: str = "mean_masked",
                 num_dendrites: int = 0, dendrite_activation: str = "sigmoid", head_hidden: int | None = None,
                 temperature: float = 1.0, **kwargs: Any) -> None:
        self.dsn, self.encoder_pooling, self.pooling = dsn, encoder_pooling, pooling
        self.num_dendrites, self.dendrite_activation = num_dendrites, dendrite_activation
        self.head_hidden = head_hidden
        super().__init__(**kwargs)
        self.temperature = temperature


class DendriticLinear(nn.Module):
    """``nn.Linear`` with N dendrites for each of its C outputs: ``[..., H]`` -> ``[..., C]``.

    weight ``[(1 + N) * C, H]`` and bias ``[(1 + N) * C]`` hold the main layer, then dendrite 0, 1, ...; lateral
    ``[N, N, C]`` feeds dendrite j into dendrite k > j; top ``[N, C]`` feeds the dendrites into the output.
    """

    lateral: Any
    top: Any

    def __init__(self, in_features: int, out_features: int, num_dendrites: int, activation: str) -> None:
        super().__init__()
        self.out_features, self.activation = out_features, activation
        rows = (1 + num_dendrites) * out_features
        self.weight, self.bias = nn.Parameter(torch.empty(rows, in_features)), nn.Parameter(torch.empty(rows))
        lateral = torch.zeros(num_dendrites, num_dendrites, out_features)
        top = torch.zeros(num_dendrites, out_features)
        if num_dendrites == 1:  # it is never read then
            self.register_buffer("lateral", lateral)
        else:
            self.register_parameter("lateral", nn.Parameter(lateral) if num_dendrites else None)
        self.register_parameter("top", nn.Parameter(top) if num_dendrites else None)
        self.reset_parameters(1 / math.sqrt(in_features))

    def reset_parameters(self, std: float) -> None:
        """Through ``nn.init``, which transformers keeps from what a checkpoint has filled."""
        nn.init.normal_(self.weight, std=std)
        for values in (self.bias, self.lateral, self.top):
            if values is not None:
                nn.init.zeros_(values)

    def forward(self, x: Tensor) -> Tensor:
        logits, *layers = _linear(x, self.weight, self.bias).split(self.out_features, dim=-1)
        outputs: list[Tensor] = []
        for k, z in enumerate(layers):
            for j, output in enumerate(outputs):
                z = z + self.lateral[k, j] * output
            outputs.append(ACTIVATIONS[self.activation](z))
        for k, output in enumerate(outputs):
            logits = logits + self.top[k] * output
        return logits


class DsnBody(nn.Module):
    """What a DSN keeps of ``BertModel``, under the names that it has there."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)

    def forward(self, input_ids: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None,
                inputs_embeds: Tensor | None) -> Tensor:
        """``[B, L]`` ids, or ``[B, L, H]`` word embeddings in their place -> ``[B, L, H]``, in float32 at least."""
        parts = self.embeddings
        words = parts.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        length, num_positions = words.shape[1], parts.position_embeddings.num_embeddings
        if position_ids is None:
            if length > num_positions:
                raise ValueError(f"input_ids have {length} columns, the model has {num_positions} positions: cut the "
                                 "texts (truncation=True).")
            position_ids = torch.arange(length, device=words.device)[None]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        e = _wide(words) + parts.token_type_embeddings(token_type_ids) + parts.position_embeddings(position_ids)
        norm = parts.LayerNorm
        return parts.dropout(F.layer_norm(e, norm.normalized_shape, _wide(norm.weight), _wide(norm.bias), norm.eps))


class DendriticBertPreTrainedModel(BertPreTrainedModel):
    """``self.bert``, a ``DsnBody`` or a ``BertModel``, and what the classes with a head share."""

    config_class = DendriticBertConfig
    is_pooled = True

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        has_pooler = self.is_pooled and config.encoder_pooling == "cls"
        self.bert = DsnBody(config) if config.dsn else BertModel(config, add_pooling_layer=has_pooler)

    def make_head(self) -> nn.Module:
        config = self.config
        num_labels: Any = config.num_labels
        dendrites = (config.num_dendrites, config.dendrite_activation)
        if config.head_hidden is None:
            return DendriticLinear(config.hidden_size, num_labels, *dendrites)
        return nn.Sequential(DendriticLinear(config.hidden_size, config.head_hidden, *dendrites),
                             ACT2FN[config.hidden_act],
                             DendriticLinear(config.head_hidden, num_labels, *dendrites))

    def embed(self, input_ids: Tensor | None, attention_mask: Tensor | None, token_type_ids: Tensor | None,
              position_ids: Tensor | None, inputs_embeds: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The embedding of every token ``[B, L, H]``, and what BERT's own pooler makes of them ``[B, H]``, if it is
        there."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("input_ids and inputs_embeds are both given or both missing: pass exactly one of them.")
        if self.config.dsn:
            return self.bert(input_ids, token_type_ids, position_ids, inputs_embeds), None
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
                           position_ids=position_ids, inputs_embeds=inputs_embeds)
        return output.last_hidden_state, output.pooler_output

    def pool(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """``[B, L, H]`` -> ``[B, H]``, in float32 at least; a row without tokens is 0."""
        x, pooling = _wide(x), self.config.pooling if self.config.dsn else "mean_masked"
        if attention_mask is None or pooling != "mean_masked":
            return x.sum(dim=1) if pooling == "sum_all" else x.sum(dim=1) / max(1, x.shape[1])
        is_valid = attention_mask != 0  # selected, not multiplied: what stands in padding may be NaN
        return torch.where(is_valid[..., None], x, 0).sum(dim=1) / is_valid.sum(dim=1, keepdim=True).clamp_min(1)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DendriticLinear):
            module.reset_parameters(self.config.initializer_range)


class DendriticBertModel(DendriticBertPreTrainedModel):
    """The pooled embeddings without a head."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                token_type_ids: Tensor | None = None, position_ids: Tensor | None = None,
                inputs_embeds: Tensor | None = None, return_dict: bool | None = None, **kwargs: Any) -> Any:
        """``[B, L]`` ids -> last_hidden_state ``[B, L, H]`` and pooler_output ``[B, H]``."""
        x, pooled = self.embed(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        pooled = self.pool(x, attention_mask) if pooled is None else pooled
        output = BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pooled)
        return output if return_dict is None or return_dict else output.to_tuple()


class DendriticBertForSequenceClassification(DendriticBertPreTrainedModel):
    """Text classification: one row of logits for each text."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        p_pool = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if p_pool is None else p_pool)
        self.classifier = self.make_head()
        self.post_init()

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                token_type_ids: Tensor | None = None, position_ids: Tensor | None = None,
                inputs_embeds: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None,
                **kwargs: Any) -> Any:
        """``[B, L]`` ids -> logits ``[B, num_labels]``, and the loss of ``config.problem_type`` with ``labels``."""
        x, pooled = self.embed(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        pooled = self.pool(x, attention_mask) if pooled is None else pooled
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, logits=logits, pooled_logits=logits, config=self.config)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if return_dict is None or return_dict else output.to_tuple()


class DendriticBertForQuestionAnswering(DendriticBertPreTrainedModel):
    """Start and end of an answer: two logits for every token, those of a DSN 0 in padding."""

    is_pooled = False

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.qa_outputs = self.make_head()
        self.post_init()

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                token_type_ids: Tensor | None = None, position_ids: Tensor | None = None,
                inputs_embeds: Tensor | None = None, start_positions: Tensor | None = None,
                end_positions: Tensor | None = None, return_dict: bool | None = None, **kwargs: Any) -> Any:
        """``[B, L]`` ids -> start_logits and end_logits ``[B, L]``, and a loss with the positions ``[B]``."""
        x, _ = self.embed(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        logits = self.qa_outputs(x)
        if self.config.dsn and attention_mask is not None:
            logits = torch.where(attention_mask[..., None] != 0, logits, 0)
        start_logits, end_logits = (values.contiguous() for values in logits.unbind(dim=-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(loss=loss, start_logits=start_logits, end_logits=end_logits)
        return output if return_dict is None or return_dict else output.to_tuple()


def _wide(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32: a pooled row in half has three digits, which is less than its head can tell."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = _wide(x)
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))
