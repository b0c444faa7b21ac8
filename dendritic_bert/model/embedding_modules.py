"""BERT's embeddings, all that a Dendritic Semantic Network (DSN) keeps of BERT: called as PyTorch's modules, or read by
a kernel if they are plain modules."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bert.modeling_bert import BertEmbeddings

from ..kernels import validation
from ..kernels.contract import Tokens
from ..kernels.reference import token_places
from .configuration import DendriticBertConfig

Parts = list[tuple[nn.Module, type[nn.Module]]]
# A function that is registered in these changes what a module computes. A kernel, which reads the weights, misses it.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
GLOBAL_HOOKS: list[dict[Any, Any]] = [getattr(nn_module, f"_global{name}") for name in _HOOKS]
_ANY_ID = 2**31 - 1  # the module itself checks the range of the ids


class DsnBody(nn.Module):
    """What a DSN keeps of ``BertModel``, under the names that it has there."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.num_positions = config.max_position_embeddings
        self.embeddings = BertEmbeddings(config)

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
        rows: Tensor = input_ids if inputs_embeds is None else inputs_embeds[..., 0].long()  # type: ignore[assignment]
        layout = Tokens(rows, attention_mask, cu_seqlens, token_type_ids, position_ids)
        validation.check_layout(layout)
        if rows.device.type == "cpu":
            validation.check_values(layout, "mean_masked", _ANY_ID, _ANY_ID, self.num_positions)
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


def parts_of(body: Any) -> Parts:
    """Every module of a DSN's body, with the class that a kernel takes it for; only the outermost ones if their classes
    are not ours and BERT's."""
    if type(body) is not DsnBody or type(body.embeddings) is not BertEmbeddings:
        return [(body, DsnBody), (getattr(body, "embeddings", body), BertEmbeddings)]
    embeddings = body.embeddings
    tables = (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings)
    return [(body, DsnBody), (embeddings, BertEmbeddings), *((table, nn.Embedding) for table in tables),
            (embeddings.LayerNorm, nn.LayerNorm), (embeddings.dropout, nn.Dropout)]


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
