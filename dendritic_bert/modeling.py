"""The models: BERT's embeddings, pooled or not, under a dendritic head, as Hugging Face ``PreTrainedModel``s."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer, BertModel
from transformers.modeling_outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput

from .configuration import DendriticBertConfig
from .kernels import ops
from .pretrained import DendriticBertPreTrainedModel, DsnBody
from .tokenization import BertFolderTokenizer


class DendriticBertForSequenceClassification(DendriticBertPreTrainedModel):
    """Text classification from BERT's embeddings, pooled, through a ``DendriticLinear`` head.

    In evaluation without gradients a DSN runs as one fused op, from token ids to logits, on tables prepared from the
    parameters: at the first call, and again whenever a parameter has changed. Everywhere else, and where
    ``config.head_hidden`` makes two layers of the head, it runs as the differentiable ``embed_pool`` followed by the
    head in PyTorch. With ``config.dsn`` False it is ``BertModel``, pooled as ``config.encoder_pooling`` says, under the
    same head.
    """

    head_name = "classifier"

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.pooling = config.pooling
        has_pooler = config.encoder_pooling == "cls"
        self.bert = DsnBody(config) if config.dsn else BertModel(config, add_pooling_layer=has_pooler)
        self.classifier = self._make_head()
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Token ids (or their embeddings) to logits, and to a loss where there are labels.

        Args:
            input_ids: ``[B, L]``, or packed ``[T]`` beside ``cu_seqlens``; int32 or int64.
            attention_mask: ``[B, L]``, zero means padding.
            token_type_ids, position_ids: shaped as ``input_ids``, or ``[1, L]``; default 0, and the index in the row.
            inputs_embeds: ``[B, L, H]`` (or ``[T, H]``) word embeddings in the place of ``input_ids``.
            labels: ``[B]`` classes or targets of a single regression, else ``[B, num_labels]``; the loss follows
                ``config.problem_type`` as in ``BertForSequenceClassification``.
            cu_seqlens: ``[B + 1]``, row b holds the tokens ``cu_seqlens[b]`` to ``cu_seqlens[b + 1] - 1``.
            return_dict: False returns ``(loss, logits)`` or ``(logits,)``; None follows the configuration.

        Returns:
            ``SequenceClassifierOutput`` with logits ``[B, num_labels]``: float32 from the fused op, elsewhere what
            the parameters' dtype and autocast give.

        Raises:
            ValueError: both or neither of ``input_ids`` and ``inputs_embeds``; ``cu_seqlens`` where ``dsn`` is False.
            RuntimeError: ids, positions, types or shapes that do not fit, naming the row.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("input_ids and inputs_embeds are both given or both missing: pass exactly one of them.")
        rows: Tensor = input_ids if inputs_embeds is None else inputs_embeds[..., 0]  # type: ignore[assignment]
        tokens = {
            "attention_mask": _expand_rows(attention_mask, rows),
            "token_type_ids": _expand_rows(token_type_ids, rows),
            "position_ids": _expand_rows(position_ids, rows),
        }
        tables = None if self.training or torch.is_grad_enabled() else self._current_tables()
        if input_ids is not None and tables is not None:
            logits = tables.logits(input_ids, cu_seqlens, self.pooling, tokens)
        elif self.config.dsn:
            logits = self.classifier(self._pool_embeddings(input_ids, inputs_embeds, cu_seqlens, tokens))
        else:
            logits = self.classifier(self._pool_encoder(input_ids, inputs_embeds, cu_seqlens, tokens))

        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, logits=logits, pooled_logits=logits, config=self.config)
        if return_dict is None:
            return_dict = self.config.return_dict
        if not return_dict:
            return (logits,) if loss is None else (loss, logits)
        return _output(loss, logits)

    def _dropouts(self) -> tuple[float, float]:
        """p_embed and p_pool of this call."""
        if not self.training:
            return 0.0, 0.0
        p_embed, p_pool = self.config.hidden_dropout_prob, self.config.classifier_dropout
        return p_embed, p_embed if p_pool is None else p_pool

    def _pool_embeddings(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        cu_seqlens: Tensor | None,
        tokens: dict[str, Tensor | None],
    ) -> Tensor:
        embeddings = self.bert.embeddings
        words, positions = embeddings.word_embeddings.weight, embeddings.position_embeddings.weight
        if inputs_embeds is not None:
            # Every token brings its own row, so together they are a word table that is looked up in order.
            words = inputs_embeds.reshape(-1, inputs_embeds.shape[-1]).to(positions.dtype)
            input_ids = torch.arange(words.shape[0], device=words.device).view(inputs_embeds.shape[:-1])
        p_embed, p_pool = self._dropouts()
        return ops.embed_pool(
            input_ids, words, positions, embeddings.token_type_embeddings.weight,
            embeddings.LayerNorm.weight, embeddings.LayerNorm.bias,
            cu_seqlens=cu_seqlens, eps=embeddings.LayerNorm.eps, pooling=self.pooling,
            p_embed=p_embed, p_pool=p_pool, **tokens,
        )

    def _pool_encoder(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        cu_seqlens: Tensor | None,
        tokens: dict[str, Tensor | None],
    ) -> Tensor:
        if cu_seqlens is not None:
            raise ValueError("cu_seqlens is given, but dsn is False: BERT's encoder takes [B, L] and attention_mask.")
        output = self.bert(input_ids, inputs_embeds=inputs_embeds, return_dict=True, **tokens)
        if self.config.encoder_pooling == "cls":
            pooled = output.pooler_output
        elif tokens["attention_mask"] is None:
            pooled = output.last_hidden_state.mean(dim=1)
        else:
            mask = (tokens["attention_mask"] != 0).to(output.last_hidden_state)[..., None]
            pooled = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        return F.dropout(pooled, self._dropouts()[1], self.training)


class DendriticBertForQuestionAnswering(DendriticBertPreTrainedModel):
    """Start and end of an answer: a dendritic head with two outputs on every token, nothing is pooled.

    As a DSN a token knows its id, its place and which text it stands in, and nothing of its neighbours: question and
    passage never meet. In evaluation without gradients it then runs as one fused op. With ``config.dsn`` False it is
    ``BertModel`` under the same head.
    """

    head_name = "qa_outputs"

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        if config.num_labels != 2:
            raise ValueError(f"num_labels is {config.num_labels}, a span has 2 logits a token: pass num_labels=2.")
        self.bert = DsnBody(config) if config.dsn else BertModel(config, add_pooling_layer=False)
        self.qa_outputs = self._make_head()
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Token ids to two logits a token, and to a loss where there are positions.

        Args:
            input_ids, attention_mask, token_type_ids, position_ids, cu_seqlens, return_dict: as in
                ``DendriticBertForSequenceClassification``; packed rows without a loss.
            start_positions, end_positions: ``[B]``, first and last token of the answer; one outside of the row is left
                out of the loss, the mean of the two cross-entropies over the row's tokens.

        Returns:
            ``QuestionAnsweringModelOutput`` with start_logits and end_logits ``[B, L]`` (or ``[T]``). Those of a DSN
            are 0 where ``attention_mask`` is.

        Raises:
            ValueError: ``cu_seqlens`` where ``dsn`` is False, or with positions.
            RuntimeError: ids, positions, types or shapes that do not fit, naming the row (in evaluation).
        """
        if cu_seqlens is not None and not (self.config.dsn and start_positions is None):
            raise ValueError("cu_seqlens is given, but packed rows are for a DSN without a loss: pass [B, L] and "
                             "attention_mask.")
        tokens = {
            "attention_mask": _expand_rows(attention_mask, input_ids),
            "token_type_ids": _expand_rows(token_type_ids, input_ids),
            "position_ids": _expand_rows(position_ids, input_ids),
        }
        tables = None if self.training or torch.is_grad_enabled() else self._current_tables()
        if tables is not None:
            logits = ops.dsn_token_logits(input_ids, tables.table, tables.head, cu_seqlens=cu_seqlens, **tokens)
        elif self.config.dsn:
            logits = self._token_logits(input_ids, cu_seqlens, **tokens)
        else:
            logits = self.qa_outputs(self.bert(input_ids, return_dict=True, **tokens).last_hidden_state)
        start_logits, end_logits = (values.contiguous() for values in logits.unbind(dim=-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions)
        if self.config.return_dict if return_dict is None else return_dict:
            return QuestionAnsweringModelOutput(loss=loss, start_logits=start_logits, end_logits=end_logits)
        return (start_logits, end_logits) if loss is None else (loss, start_logits, end_logits)

    def _token_logits(self, input_ids: Tensor, cu_seqlens: Tensor | None, attention_mask: Tensor | None,
                      token_type_ids: Tensor | None, position_ids: Tensor | None) -> Tensor:
        """What ``ops.dsn_token_logits`` computes, differentiable, through BERT's own embeddings."""
        if cu_seqlens is not None and position_ids is None:
            places = torch.arange(len(input_ids), device=input_ids.device)
            position_ids = places - cu_seqlens[:-1].repeat_interleave(cu_seqlens.diff(), output_size=len(input_ids))
        rows = [values[None] if cu_seqlens is not None and values is not None else values
                for values in (input_ids, token_type_ids, position_ids)]
        logits = self.qa_outputs(self.bert.embeddings(*rows))
        if attention_mask is not None:
            logits = logits * (attention_mask != 0)[..., None]
        return logits if cu_seqlens is None else logits[0]


def _expand_rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    """``[1, L]`` stands for every row, as in BERT."""
    if values is None or values.shape == rows.shape or values.dim() != 2 or values.shape[0] != 1 or rows.dim() != 2:
        return values
    return values.expand(rows.shape[0], -1).contiguous()


def _output(loss: Tensor | None, logits: Tensor) -> SequenceClassifierOutput:
    if torch.compiler.is_compiling():
        return SequenceClassifierOutput(loss=loss, logits=logits)
    # The constructor's checks take 10 us, as long as a whole row of 32 tokens does.
    output = SequenceClassifierOutput.__new__(SequenceClassifierOutput)
    if loss is not None:
        output["loss"] = loss
    output["logits"] = logits
    return output


AutoModelForSequenceClassification.register(DendriticBertConfig, DendriticBertForSequenceClassification)
AutoModelForQuestionAnswering.register(DendriticBertConfig, DendriticBertForQuestionAnswering)
AutoTokenizer.register(DendriticBertConfig, tokenizer_class=BertFolderTokenizer)
