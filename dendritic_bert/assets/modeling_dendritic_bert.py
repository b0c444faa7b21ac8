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

A model without positions (``max_position_embeddings`` 0) may have J layers of M dendrites on windows of tokens, and the
mean may be gated. t is the column, x_t and every u_t are 0 where the token is not valid or outside the row, and layer 0
has d_0 = 1, layer j d_j = 2^j:

    u0_t   = relu(b_0 + sum_{k=-r..r} U_0k x_{t+k})                                              [M]
    uj_t   = u{j-1}_t + relu(b_j + sum_{k=-r..r} U_jk u{j-1}_{t + k d_j})     j = 1..J-1          [M]
    h_t    = [x_t ; u{J-1}_t]                                                                    [H + M]
    pooled = sum_t m_t g_t h_t / sum_t m_t g_t     g_t = exp(clip(v . h_t + G[id_t], -8, 8))     [H + M]

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
        pooling: "mean_masked"; "gated_mean"; or "mean_all" and "sum_all", which count padding too.
        embedding_norm: "layer_norm" is BERT's; "none" goes without, and without positions.
        window_dendrites, window_layers, window_radius: M, J and r.
        window_activation: "relu".
        window_dropout_prob: the dropout of what a window layer adds.
        num_dendrites: N, the number of dendrites per output of every layer of the head.
        dendrite_activation: "sigmoid", "tanh", "relu" or "gelu".
        head_hidden: None is a head of one layer. A number is a head of two, with that many outputs of the first.
        temperature: by which logits are divided before the softmax or sigmoid, for calibrated scores. The models return
            the logits undivided, and transformers' pipeline does not divide them.
    """

    model_type = "dendritic_bert"

    temperature: float = 1.0  # declared, or transformers 5 would take it for a parameter of generation

    def __init__(self, dsn: bool = True, encoder_pooling: str = "cls", pooling: str = "mean_masked",
                 embedding_norm: str = "layer_norm", num_dendrites: int = 0, dendrite_activation: str = "sigmoid",
                 head_hidden: int | None = None, window_dendrites: int = 0, window_layers: int = 0,
                 window_radius: int = 1, window_activation: str = "relu", window_dropout_prob: float = 0.0,
                 temperature: float = 1.0, **kwargs: Any) -> None:
        self.dsn, self.encoder_pooling, self.pooling = dsn, encoder_pooling, pooling
        self.embedding_norm = embedding_norm
        self.num_dendrites, self.dendrite_activation = num_dendrites, dendrite_activation
        self.head_hidden = head_hidden
        self.window_dendrites, self.window_layers, self.window_radius = window_dendrites, window_layers, window_radius
        self.window_activation, self.window_dropout_prob = window_activation, window_dropout_prob
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


class PositionFreeEmbeddings(nn.Module):
    """The parts of ``BertEmbeddings`` that a model without positions has."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        has_norm = config.embedding_norm == "layer_norm"
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)


class WindowDendrites(nn.Module):
    """The window layers. input_weight ``[R, H, M]`` is that of layer 0, weight ``[J - 1, R, M, M]`` that of the others,
    with R = 2 r + 1 taps; bias is ``[J, M]``."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        layers, dendrites, taps = config.window_layers, config.window_dendrites, 2 * config.window_radius + 1
        self.input_weight = nn.Parameter(torch.empty(taps, config.hidden_size, dendrites))
        self.weight = nn.Parameter(torch.empty(layers - 1, taps, dendrites, dendrites))
        self.bias = nn.Parameter(torch.zeros(layers, dendrites))
        self.dropout = nn.Dropout(config.window_dropout_prob)

    def reset_parameters(self) -> None:
        """He et al. 2015 for ReLU, and for the layers that add to the one before that over the root of J."""
        taps, hidden_size, dendrites = self.input_weight.shape
        nn.init.normal_(self.input_weight, std=math.sqrt(2 / (taps * hidden_size)))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (taps * dendrites * self.bias.shape[0])))

    def forward(self, x: Tensor, is_valid: Tensor) -> Tensor:
        """``x [B, L, H]``, 0 where ``is_valid [B, L, 1]`` is False -> ``[B, L, M]``, 0 there too."""
        radius = self.input_weight.shape[0] // 2
        u = x.transpose(1, 2)
        for layer, bias in enumerate(self.bias):
            taps = self.input_weight if layer == 0 else self.weight[layer - 1]
            step = F.conv1d(u, taps.permute(2, 1, 0).to(x.dtype), bias.to(x.dtype), padding=radius * 2**layer,
                            dilation=2**layer).relu()
            step = self.dropout(step)
            u = torch.where(is_valid.transpose(1, 2), step if layer == 0 else u + step, 0)
        return u.transpose(1, 2)


class TokenGate(nn.Module):
    """What the weight of every token in the mean is made of: v ``[H + M]`` and G ``[V]``."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.hidden_size + config.window_dendrites))
        self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, h: Tensor, input_ids: Tensor) -> Tensor:
        """The rows ``h [B, L, H + M]`` and ids ``[B, L]`` -> the gates ``[B, L, 1]``."""
        gates = h @ self.weight.to(h.dtype) + self.word_bias.to(h.dtype)[input_ids]
        return gates.clamp(-8, 8).exp()[..., None]


class DsnBody(nn.Module):
    """What a DSN keeps of ``BertModel``, under the names that it has there, and its own window layers and gate."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config) if config.max_position_embeddings else PositionFreeEmbeddings(config)
        self.windows = WindowDendrites(config) if config.window_layers else None
        self.gate = TokenGate(config) if config.pooling == "gated_mean" else None

    def forward(self, input_ids: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None,
                inputs_embeds: Tensor | None) -> Tensor:
        """``[B, L]`` ids, or ``[B, L, H]`` word embeddings in their place -> ``[B, L, H]``, in float32 at least."""
        parts = self.embeddings
        words = parts.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros(words.shape[:2], dtype=torch.int64, device=words.device)
        e = _wide(words) + parts.token_type_embeddings(token_type_ids)
        if isinstance(parts, BertEmbeddings):
            length, num_positions = words.shape[1], parts.position_embeddings.num_embeddings
            if position_ids is None:
                if length > num_positions:
                    raise ValueError(f"input_ids have {length} columns, the model has {num_positions} positions: cut "
                                     "the texts (truncation=True).")
                position_ids = torch.arange(length, device=words.device)[None]
            e = e + parts.position_embeddings(position_ids)
        norm = parts.LayerNorm
        if norm is not None:
            e = F.layer_norm(e, norm.normalized_shape, _wide(norm.weight), _wide(norm.bias), norm.eps)
        return parts.dropout(e)

    def pool(self, x: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None, pooling: str) -> Tensor:
        """``[B, L, H]`` -> ``[B, H]``, or ``[B, H + M]`` with window layers; a row without tokens is 0."""
        if pooling in ("mean_all", "sum_all") or (attention_mask is None and self.windows is self.gate is None):
            return x.sum(dim=1) if pooling == "sum_all" else x.sum(dim=1) / max(1, x.shape[1])
        is_valid = torch.ones_like(x[..., :1], dtype=torch.bool) if attention_mask is None else (
            attention_mask[..., None] != 0)
        h = torch.where(is_valid, x, 0)  # selected, not multiplied: what stands in padding may be NaN
        if self.windows is not None:
            h = torch.cat([h, self.windows(h, is_valid)], dim=-1)
        if self.gate is None:
            return h.sum(dim=1) / is_valid.sum(dim=1).clamp_min(1)
        if input_ids is None:
            raise ValueError("inputs_embeds are given, but the gate of pooling 'gated_mean' knows words by their ids: "
                             "pass input_ids.")
        gates = torch.where(is_valid, self.gate(h, input_ids), 0)
        total = gates.sum(dim=1)
        return (gates * h).sum(dim=1) / torch.where(total == 0, 1, total)


class DendriticBertPreTrainedModel(BertPreTrainedModel):
    """``self.bert``, a ``DsnBody`` or a ``BertModel``, and what the classes with a head share."""

    config_class = DendriticBertConfig
    bert: Any
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
        in_features = config.hidden_size + config.window_dendrites
        if config.head_hidden is None:
            return DendriticLinear(in_features, num_labels, *dendrites)
        return nn.Sequential(DendriticLinear(in_features, config.head_hidden, *dendrites),
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

    def pool(self, x: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """``[B, L, H]`` -> ``[B, H]``, or ``[B, H + M]`` with window layers, in float32 at least; a row without tokens
        is 0."""
        x = _wide(x)
        if self.config.dsn:
            return self.bert.pool(x, input_ids, attention_mask, self.config.pooling)
        if attention_mask is None:
            return x.sum(dim=1) / max(1, x.shape[1])
        is_valid = attention_mask != 0
        return torch.where(is_valid[..., None], x, 0).sum(dim=1) / is_valid.sum(dim=1, keepdim=True).clamp_min(1)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DendriticLinear):
            module.reset_parameters(self.config.initializer_range)
        elif isinstance(module, WindowDendrites):
            module.reset_parameters()


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
        pooled = self.pool(x, input_ids, attention_mask) if pooled is None else pooled
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
        pooled = self.pool(x, input_ids, attention_mask) if pooled is None else pooled
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
