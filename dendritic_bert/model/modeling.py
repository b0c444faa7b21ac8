"""The models: BERT's embeddings under a dendritic head, as ``PreTrainedModel``s of Hugging Face."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from transformers import BertModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
)
from transformers.utils import TransformersKwargs

from ..kernels import ops
from .base import DendriticBertPreTrainedModel, logger
from .configuration import DendriticBertConfig
from .embedding_modules import DsnBody, are_plain, hooks_of
from .inference_tables import InferenceTables, WindowTables
from .window_modules import no_windows

# The keywords that BERT's forward accepts in silence: its own, those of all models, and what tokenizers return.
_KEYWORDS = {*inspect.signature(BertModel.forward).parameters, *TransformersKwargs.__annotations__, "cache_position",
             "head_mask", "length", "offset_mapping", "overflow_to_sample_mapping", "past_key_values",
             "special_tokens_mask"}


class DendriticBertForSequenceClassification(DendriticBertPreTrainedModel):
    """Text classification: BERT's embeddings, pooled, under a ``DendriticLinear`` head.

    In evaluation without gradients a Dendritic Semantic Network (DSN) runs as one fused op from token ids to logits. It
    reads tables that are made of the parameters at the first call, and again whenever a parameter has changed.
    Otherwise, and always if ``config.head_hidden`` gives the head two layers, it runs as the differentiable
    ``embed_pool`` followed by the head in PyTorch. With ``config.dsn`` False it is ``BertModel``, pooled as
    ``config.encoder_pooling`` says, under the same head.
    """

    head_name = "classifier"

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.pooling = config.pooling
        self.bert = _make_body(config)
        p_pool = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if p_pool is None else p_pool)
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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Compute logits from token ids or from their embeddings, and a loss if there are labels.

        Args:
            input_ids: ``[B, L]``, or packed ``[T]`` with ``cu_seqlens``; int32 or int64.
            attention_mask: ``[B, L]``; zero means padding.
            token_type_ids, position_ids: of the shape of ``input_ids``, or ``[1, L]``. The types are 0 by default, the
                positions the index in the row.
            inputs_embeds: ``[B, L, H]`` (or ``[T, H]``) word embeddings instead of ``input_ids``.
            labels: ``[B]`` classes, or targets of a single regression; otherwise ``[B, num_labels]``. The loss follows
                ``config.problem_type`` as in ``BertForSequenceClassification``.
            cu_seqlens: ``[B + 1]``; row b holds the tokens ``cu_seqlens[b]`` to ``cu_seqlens[b + 1] - 1``.
            output_attentions: as in BERT. A DSN has no attentions, and returns None.
            output_hidden_states: as in BERT. A DSN has one hidden state, the output of its embeddings, ``[B, L, H]``
                (or ``[T, H]``). None follows the configuration.
            return_dict: False returns ``(loss, logits)`` or ``(logits,)``, followed by hidden states; None follows the
                configuration.
            kwargs: other keywords of BERT, which a DSN ignores; for one that BERT does not know there is a warning.

        Returns:
            ``SequenceClassifierOutput`` with logits ``[B, num_labels]``: float32 from the fused op, otherwise the dtype
            that the parameters and autocast give.

        Raises:
            ValueError: both or neither of ``input_ids`` and ``inputs_embeds`` are given, or ``cu_seqlens`` is given and
                ``dsn`` is False.
            RuntimeError: ids, positions, types or shapes do not fit; the message names the row.
        """
        tokens = _tokens(self.config, input_ids, inputs_embeds, attention_mask, token_type_ids, position_ids)
        if kwargs:
            _warn_of_unknown(kwargs)
        tables = self._current_tables()
        if output_hidden_states is None:  # there are no tables if the configuration asks for hidden states
            output_hidden_states = tables is None and self.config.output_hidden_states
        output = None
        if tables is not None and input_ids is not None and not output_hidden_states:
            logits = tables.logits(input_ids, cu_seqlens, self.pooling, tokens)
        elif self._is_one_op and not output_hidden_states and are_plain(self._embedding_parts()):
            logits = self.classifier(self._pool_in_one_op(input_ids, inputs_embeds, cu_seqlens, tokens))
        else:
            output = self._embed(input_ids, inputs_embeds, cu_seqlens, tokens, output_attentions, output_hidden_states,
                                 **kwargs)
            pooled = self._pool(output, input_ids, tokens["attention_mask"], cu_seqlens)
            logits = self.classifier(self.dropout(pooled))

        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, logits=logits, pooled_logits=logits, config=self.config)
        result = _output(loss, logits, output)
        if return_dict is None:
            return_dict = self.config.return_dict
        return result if return_dict else result.to_tuple()

    def current_tables(self) -> InferenceTables | WindowTables | None:
        """The tables from which alone ``forward`` computes logits of ids now, or None: in training, where gradients are
        wanted, and where anything else has a say, such as a hook. They are another object when they have changed."""
        is_plain = type(self) is DendriticBertForSequenceClassification and "forward" not in vars(self)
        return None if not is_plain or any(hooks_of(self)) else self._current_tables()

    def _pool_in_one_op(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        cu_seqlens: Tensor | None,
        tokens: dict[str, Tensor | None],
    ) -> Tensor:
        """The pooled rows ``[B, H]``, or with window layers ``[B, H + M]``, after dropout."""
        body, embeddings = self.bert, self.bert.embeddings
        words, types = embeddings.word_embeddings.weight, embeddings.token_type_embeddings.weight
        padding_idx = embeddings.word_embeddings.padding_idx
        if inputs_embeds is not None:
            # Every token brings its own row: together they are a word table, which is read in order.
            words = inputs_embeds.reshape(-1, inputs_embeds.shape[-1]).to(types.dtype)
            input_ids = torch.arange(words.shape[0], device=words.device).view(inputs_embeds.shape[:-1])
        elif padding_idx is not None and torch.is_grad_enabled() and forward_ad._current_level < 0:
            words = _WithoutGradientOf.apply(words, padding_idx)
        p_embed, p_pool = (dropout.p if dropout.training else 0.0 for dropout in (embeddings.dropout, self.dropout))
        norm = embeddings.LayerNorm
        if self.config.pools_embeddings:
            if self.config.max_position_embeddings:
                positions = embeddings.position_embeddings.weight
            else:  # one row of zeros, at which every token is
                positions = words.new_zeros(1, words.shape[1])
                tokens = tokens | {"position_ids": torch.zeros_like(input_ids)}  # type: ignore[arg-type]
            return ops.embed_pool(
                input_ids, words, positions, types, norm.weight, norm.bias, cu_seqlens=cu_seqlens, eps=norm.eps,
                pooling=self.pooling, p_embed=p_embed, p_pool=p_pool, **tokens)
        windows, gate = body.windows, body.gate
        return ops.window_pool(
            input_ids, words, types, *((None, None) if norm is None else (norm.weight, norm.bias)),
            *(no_windows(self.config, words) if windows is None else windows.weights()),
            *((None, None) if gate is None else (gate.weight, gate.word_bias)),
            attention_mask=tokens["attention_mask"], cu_seqlens=cu_seqlens, token_type_ids=tokens["token_type_ids"],
            eps=0.0 if norm is None else norm.eps, p_embed=p_embed, p_pool=p_pool,
            p_window=windows.dropout.p if windows is not None and windows.dropout.training else 0.0)


class DendriticBertForQuestionAnswering(DendriticBertPreTrainedModel):
    """Start and end of an answer: a dendritic head with two outputs for every token, without pooling.

    In a DSN the logits of a token depend on its id, its position and its token type alone, not on other tokens, so that
    question and passage do not interact. In evaluation without gradients a DSN runs as one fused op. With
    ``config.dsn`` False it is ``BertModel`` under the same head.
    """

    head_name = "qa_outputs"
    is_pooled = False

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        if config.num_labels != 2:
            raise ValueError(f"num_labels is {config.num_labels}, a span has 2 logits per token: pass num_labels=2.")
        if config.window_layers or config.pooling == "gated_mean":
            raise ValueError(f"window_layers is {config.window_layers} and pooling {config.pooling!r}, but question "
                             "answering neither pools nor has windows: pass window_layers=0, window_dendrites=0 and "
                             "pooling=\"mean_masked\".")
        self.bert = DsnBody(config) if config.dsn else BertModel(config, add_pooling_layer=False)
        self.qa_outputs = self._make_head()
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Compute two logits for every token, and a loss if there are positions.

        Args:
            start_positions, end_positions: ``[B]``, first and last token of the answer. The loss is the mean of the two
                cross-entropies over the tokens of a row; it leaves out a position outside of the row.
            others: as in ``DendriticBertForSequenceClassification``. There is no loss for packed rows.

        Returns:
            ``QuestionAnsweringModelOutput`` with start_logits and end_logits ``[B, L]`` (or ``[T]``). Those of a DSN
            are 0 where ``attention_mask`` is 0.

        Raises:
            ValueError: both or neither of ``input_ids`` and ``inputs_embeds`` are given, or ``cu_seqlens`` is given and
                ``dsn`` is False or there are positions.
            RuntimeError: ids, positions, types or shapes do not fit; in evaluation the message names the row.
        """
        if cu_seqlens is not None and not (self.config.dsn and start_positions is None):
            raise ValueError("cu_seqlens is given, but packed rows are for a DSN without a loss: pass [B, L] and "
                             "attention_mask.")
        tokens = _tokens(self.config, input_ids, inputs_embeds, attention_mask, token_type_ids, position_ids)
        if kwargs:
            _warn_of_unknown(kwargs)
        tables = self._current_tables()
        if output_hidden_states is None:  # there are no tables if the configuration asks for hidden states
            output_hidden_states = tables is None and self.config.output_hidden_states
        output = None
        if isinstance(tables, InferenceTables) and input_ids is not None and not output_hidden_states:
            logits = tables.token_logits(input_ids, cu_seqlens, tokens)
        else:
            output = self._embed(input_ids, inputs_embeds, cu_seqlens, tokens, output_attentions, output_hidden_states,
                                 **kwargs)
            logits = self.qa_outputs(output.last_hidden_state)
            if self.config.dsn and tokens["attention_mask"] is not None:
                logits = logits * (tokens["attention_mask"] != 0)[..., None]
        start_logits, end_logits = (values.contiguous() for values in logits.unbind(dim=-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions)
        result = QuestionAnsweringModelOutput(
            loss=loss, start_logits=start_logits, end_logits=end_logits, **_states_of(output))
        if return_dict is None:
            return_dict = self.config.return_dict
        return result if return_dict else result.to_tuple()


class DendriticBertModel(DendriticBertPreTrainedModel):
    """The pooled embeddings without a head: what ``AutoModel`` loads from a checkpoint.

    It runs as PyTorch's modules, since it returns the embedding of every token too. With ``config.dsn`` False it is
    ``BertModel``, pooled as ``config.encoder_pooling`` says.
    """

    head_name = ""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.pooling = config.pooling
        self.bert = _make_body(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """Compute the embeddings of tokens and of rows.

        The arguments and the errors are those of ``DendriticBertForSequenceClassification``. Returns
        ``BaseModelOutputWithPooling`` in the dtype of the parameters: last_hidden_state ``[B, L, H]`` (or ``[T, H]``)
        and pooler_output ``[B, H]``, for a DSN the pooled embeddings that a head would read.
        """
        tokens = _tokens(self.config, input_ids, inputs_embeds, attention_mask, token_type_ids, position_ids)
        if kwargs:
            _warn_of_unknown(kwargs)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = self._embed(input_ids, inputs_embeds, cu_seqlens, tokens, output_attentions, output_hidden_states,
                             **kwargs)
        result = BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=self._pool(output, input_ids, tokens["attention_mask"], cu_seqlens), **_states_of(output))
        if return_dict is None:
            return_dict = self.config.return_dict
        return result if return_dict else result.to_tuple()


def _make_body(config: DendriticBertConfig) -> nn.Module:
    return DsnBody(config) if config.dsn else BertModel(config, add_pooling_layer=config.encoder_pooling == "cls")


def _tokens(config: DendriticBertConfig, input_ids: Tensor | None, inputs_embeds: Tensor | None,
            attention_mask: Tensor | None, token_type_ids: Tensor | None,
            position_ids: Tensor | None) -> dict[str, Tensor | None]:
    """The token arguments beside ids or embeddings; raises ValueError unless exactly one of those two is given, and for
    embeddings where a gate needs the ids."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("input_ids and inputs_embeds are both given or both missing: pass exactly one of them.")
    if inputs_embeds is not None and config.pooling == "gated_mean":
        raise ValueError("inputs_embeds are given, but the gate of pooling 'gated_mean' knows words by their ids: pass "
                         "input_ids.")
    rows: Tensor = input_ids if inputs_embeds is None else inputs_embeds[..., 0]  # type: ignore[assignment]
    return {
        "attention_mask": _expand_rows(attention_mask, rows),
        "token_type_ids": _expand_rows(token_type_ids, rows),
        "position_ids": _expand_rows(position_ids, rows),
    }


def _warn_of_unknown(kwargs: dict[str, Any]) -> None:
    for name in kwargs.keys() - _KEYWORDS:
        logger.warning_once(f"{name} is not an argument of this model or of BERT: it is ignored.")


class _WithoutGradientOf(torch.autograd.Function):
    """A view of a word table, one row of which gets no gradient, as the padding token's in ``nn.Embedding``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(words: Tensor, row: int) -> Tensor:
        return words.view_as(words)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.row = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        if torch.compiler.is_compiling():
            return grad.index_fill(0, torch.tensor([ctx.row], device=grad.device), 0), None
        grad[ctx.row].zero_()  # it was made for this, and is as large as the table
        return grad, None


def _expand_rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    """Repeat ``[1, L]`` for every row, as BERT does."""
    if values is None or values.shape == rows.shape or values.dim() != 2 or values.shape[0] != 1 or rows.dim() != 2:
        return values
    return values.expand(rows.shape[0], -1).contiguous()


def _states_of(output: Any) -> dict[str, Any]:
    """Hidden states and attentions of a body's output, None for those that it does not have."""
    return {name: getattr(output, name, None) for name in ("hidden_states", "attentions")}


def _output(loss: Tensor | None, logits: Tensor, output: Any) -> SequenceClassifierOutput:
    if output is not None or torch.compiler.is_compiling():
        return SequenceClassifierOutput(loss=loss, logits=logits, **_states_of(output))
    # The checks of the constructor take 10 us, as long as a whole row of 32 tokens.
    result = SequenceClassifierOutput.__new__(SequenceClassifierOutput)
    if loss is not None:
        result["loss"] = loss
    result["logits"] = logits
    return result
