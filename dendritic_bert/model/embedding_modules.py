"""The body of a Dendritic Semantic Network (DSN): BERT's embeddings, all that it keeps of BERT, with positions or
without, and the modules between them and the pooling. They are called as PyTorch's modules, or read by a kernel if they
are plain.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bert.modeling_bert import BertEmbeddings

from ..kernels import validation
from ..kernels.contract import Tokens
from ..kernels.reference import gated_mean_ref, pool_ref, token_places
from .configuration import DendriticBertConfig
from .window_modules import TokenGate, WindowDendrites

Parts = list[tuple[nn.Module, type[nn.Module]]]
# A function that is registered in these changes what a module computes. A kernel, which reads the weights, misses it.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
GLOBAL_HOOKS: list[dict[Any, Any]] = [getattr(nn_module, f"_global{name}") for name in _HOOKS]
_ANY_ID = 2**31 - 1  # the module itself checks the range of the ids


class PositionFreeEmbeddings(nn.Module):
    """``BertEmbeddings`` without a position table, and where ``embedding_norm`` is "none" without LayerNorm."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        has_norm = config.embedding_norm == "layer_norm"
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor | None = None, token_type_ids: Tensor | None = None,
                position_ids: Tensor | None = None, inputs_embeds: Tensor | None = None) -> Tensor:
        """As ``BertEmbeddings``, and ``position_ids`` are ignored."""
        words: Tensor = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros(words.shape[:-1], dtype=torch.int64, device=words.device)
        x = words + self.token_type_embeddings(token_type_ids)
        return self.dropout(x if self.LayerNorm is None else self.LayerNorm(x))


class DsnBody(nn.Module):
    """What a DSN keeps of ``BertModel``, under the names that it has there, and what it has instead of the encoder: the
    window layers ``windows`` and the ``gate``, each None where the configuration has none."""

    windows: Any
    gate: Any

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.num_positions = config.max_position_embeddings
        self.embeddings: Any = BertEmbeddings(config) if self.num_positions else PositionFreeEmbeddings(config)
        self.windows = WindowDendrites(config) if config.window_layers else None
        self.gate = TokenGate(config) if config.pooling == "gated_mean" else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        output_hidden_states: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """BERT's embeddings, LayerNorm and dropout: ``[B, L, H]``, or ``[T, H]`` with ``cu_seqlens``.

        The arguments are those of ``DendriticBertForSequenceClassification``; other arguments of ``BertModel`` are
        ignored. Raises RuntimeError for shapes that do not fit, and for a row longer than the position table.
        """
        rows: Any = input_ids
        if inputs_embeds is not None:  # whose numbers are no ids: they have the shape of some
            rows = torch.zeros_like(inputs_embeds[..., 0], dtype=torch.long)
        layout = Tokens(rows, attention_mask, cu_seqlens, token_type_ids, position_ids)
        validation.check_layout(layout)
        if rows.device.type == "cpu":
            validation.check_values(layout, "mean_masked", _ANY_ID, _ANY_ID, self.num_positions or _ANY_ID)
        if cu_seqlens is not None and position_ids is None:
            position_ids = token_places(rows, cu_seqlens)[1]
        tokens = {"input_ids": input_ids, "token_type_ids": token_type_ids, "position_ids": position_ids}
        tokens = {name: None if value is None else value.long() for name, value in tokens.items()}
        tokens["inputs_embeds"] = inputs_embeds
        if cu_seqlens is not None:
            tokens = {name: None if value is None else value[None] for name, value in tokens.items()}
        x = self.embeddings(**tokens)
        x = x if cu_seqlens is None else x[0]
        return BaseModelOutput(last_hidden_state=x, hidden_states=(x,) if output_hidden_states else None)

    def pool(self, x: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
             pooling: str) -> Tensor:
        """The embeddings of tokens, ``[B, L, H]`` or ``[T, H]`` -> the pooled rows ``[B, H]``, or ``[B, H + M]`` with
        window layers. It sums in float32 at least."""
        row, column = token_places(x[..., 0], cu_seqlens)
        h = x.to(torch.promote_types(x.dtype, torch.float32))
        if attention_mask is not None and (self.windows is not None or self.gate is not None):
            h = torch.where(attention_mask[..., None] != 0, h, 0)  # before the gate, or NaN there has a gradient
        if self.windows is not None:
            h = torch.cat([h, self.windows(h, row, column, attention_mask)], dim=-1)
        if self.gate is None:
            return pool_ref(h, row, attention_mask, cu_seqlens, pooling).to(x.dtype)
        return gated_mean_ref(h, self.gate(h, input_ids), row, attention_mask, cu_seqlens).to(x.dtype)

    @torch.no_grad()
    def drop_positions(self, config: DendriticBertConfig) -> None:
        """Go on without positions, as ``config`` says. Their mean is added to every word, since the embeddings would
        be of another size without it."""
        old, new = self.embeddings, PositionFreeEmbeddings(config)
        words, positions = old.word_embeddings.weight, old.position_embeddings.weight
        words += positions.to(torch.promote_types(words.dtype, torch.float32)).mean(dim=0).to(words.dtype)
        for name, _ in list(new.named_children()):
            setattr(new, name, getattr(old, name))
        self.embeddings, self.num_positions = new.train(old.training), 0


def parts_of(body: Any) -> Parts:
    """Every module of a DSN's body, with the class that a kernel takes it for; only the outermost ones if their classes
    are not ours and BERT's."""
    kind = BertEmbeddings if getattr(body, "num_positions", 0) else PositionFreeEmbeddings
    if type(body) is not DsnBody or type(body.embeddings) is not kind:
        return [(body, DsnBody), (getattr(body, "embeddings", body), kind)]
    parts: Parts = [(body, DsnBody), (body.embeddings, kind)]
    kinds = {"word_embeddings": nn.Embedding, "position_embeddings": nn.Embedding,
             "token_type_embeddings": nn.Embedding, "LayerNorm": nn.LayerNorm, "dropout": nn.Dropout}
    parts += [(module, kinds[name]) for name, module in body.embeddings.named_children()]
    if body.windows is not None:
        parts += [(body.windows, WindowDendrites), (body.windows.dropout, nn.Dropout)]
    return parts if body.gate is None else [*parts, (body.gate, TokenGate)]


def are_plain(parts: Parts) -> bool:
    """Whether every module is of its class and computes what its weights say, nothing else.

    A module is not plain if it carries hooks (NEFTune, pruning), an adapter (LoRA) or a parametrization (both replace
    its class), a ``forward`` of its own (offloading), or an option of ``nn.Embedding`` that the kernels do not have.
    """
    return not any(GLOBAL_HOOKS) and all(_is_plain(module, kind) for module, kind in parts)


def hooks_of(module: nn.Module) -> list[dict[Any, Any]]:
    """The dictionaries in which a module's hooks are registered; a module never replaces them."""
    return [vars(module)[name] for name in _HOOKS]


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    if type(module) is not kind or "forward" in vars(module) or any(hooks_of(module)):
        return False
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    if isinstance(module, nn.LayerNorm):
        return module.weight is not None and module.bias is not None and module.weight.dim() == 1
    return not isinstance(module, nn.Dropout) or not module.training or module.p < 1
