"""Bad input to the ops: one sentence naming the argument, the value, the row and the remedy.

The C++ backends make the same checks inside the call; these serve the reference, which would otherwise fail late or,
worse, wrap a negative index around.
"""

import torch
from torch import Tensor

from .reference import POOLINGS
from .weights import DsnHead, DsnTable

INDEX_DTYPES = (torch.int32, torch.int64)


def check_dropout(p_embed: float, p_pool: float) -> None:
    """Raises RuntimeError where a dropout probability is outside [0, 1)."""
    for name, p in (("p_embed", p_embed), ("p_pool", p_pool)):
        if not 0 <= p < 1:
            raise RuntimeError(f"{name} is {p}, expected 0 <= {name} < 1.")


def check_embed_pool(input_ids: Tensor, word_embeddings: Tensor, position_embeddings: Tensor,
                     token_type_embeddings: Tensor, ln_weight: Tensor, ln_bias: Tensor,
                     attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
                     position_ids: Tensor | None, pooling: str) -> None:
    """Everything ``embed_pool`` is given. Raises RuntimeError."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling)
    hidden_size = word_embeddings.shape[-1]
    for name, tensor, dims in (("word_embeddings", word_embeddings, 2), ("position_embeddings", position_embeddings, 2),
                               ("token_type_embeddings", token_type_embeddings, 2), ("ln_weight", ln_weight, 1),
                               ("ln_bias", ln_bias, 1)):
        if tensor.dim() != dims or tensor.shape[-1] != hidden_size:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected "
                               f"{'[*, ' if dims == 2 else '['}{hidden_size}], the hidden size of word_embeddings.")
        if tensor.dtype != word_embeddings.dtype:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected {word_embeddings.dtype}, that of "
                               "word_embeddings.")
    check_layout(*tokens)
    check_values(*tokens, word_embeddings.shape[0], token_type_embeddings.shape[0], position_embeddings.shape[0])


def check_dsn_logits(input_ids: Tensor, table: DsnTable, head: DsnHead, attention_mask: Tensor | None,
                     cu_seqlens: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None,
                     pooling: str) -> None:
    """Everything ``dsn_logits`` is given. Raises RuntimeError."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling)
    hidden_size = table.word.shape[-1]
    num_dendrites, num_labels = head.top.shape
    rows = (1 + num_dendrites) * num_labels
    for name, tensor, shape in (("context", table.context, [*table.context.shape[:2], hidden_size]),
                                ("weight", head.weight, [rows, hidden_size]), ("bias", head.bias, [rows]),
                                ("beta_bias", head.beta_bias, [rows]),
                                ("lateral", head.lateral, [num_dendrites, num_dendrites, num_labels])):
        if list(tensor.shape) != shape:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {shape}.")
    if (table.word.dtype == torch.int8) != (table.word_scale is not None):
        raise RuntimeError("word_scale goes with an int8 word table and with no other.")
    check_layout(*tokens)
    check_values(*tokens, table.word.shape[0], *table.context.shape[:2])


def check_layout(input_ids: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
                 token_type_ids: Tensor | None, position_ids: Tensor | None, pooling: str) -> None:
    """Shapes, dtypes and devices; reads no value. Raises RuntimeError."""
    if pooling not in POOLINGS:
        raise RuntimeError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}.")
    if input_ids.dim() != (2 if cu_seqlens is None else 1):
        raise RuntimeError(f"input_ids has shape {list(input_ids.shape)}, expected [B, L], or [T] beside cu_seqlens.")
    if cu_seqlens is not None and (cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0):
        raise RuntimeError(f"cu_seqlens has shape {list(cu_seqlens.shape)}, expected [B + 1].")
    if cu_seqlens is not None and attention_mask is not None:
        raise RuntimeError("attention_mask and cu_seqlens are both given: pass the mask with [B, L], cu_seqlens with [T].")
    for name, tensor in (("input_ids", input_ids), ("cu_seqlens", cu_seqlens), ("token_type_ids", token_type_ids),
                         ("position_ids", position_ids)):
        if tensor is not None and tensor.dtype not in INDEX_DTYPES:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected int32 or int64.")
    for name, tensor in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids),
                         ("position_ids", position_ids)):
        if tensor is not None and tensor.shape != input_ids.shape:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {list(input_ids.shape)}, that of input_ids.")
    for name, tensor in (("attention_mask", attention_mask), ("cu_seqlens", cu_seqlens),
                         ("token_type_ids", token_type_ids), ("position_ids", position_ids)):
        if tensor is not None and tensor.device != input_ids.device:
            raise RuntimeError(f"{name} is on {tensor.device}, input_ids on {input_ids.device}: move one of them.")


def check_values(input_ids: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
                 token_type_ids: Tensor | None, position_ids: Tensor | None, pooling: str, vocab_size: int,
                 num_types: int, num_positions: int) -> None:
    """Every index inside its table, cu_seqlens rising from 0 to T; synchronises a GPU. Raises RuntimeError."""
    if torch.compiler.is_compiling():
        return
    if cu_seqlens is not None:
        _check_cu_seqlens(cu_seqlens, input_ids.numel())
        longest = int(cu_seqlens.diff().max()) if cu_seqlens.numel() > 1 else 0
    else:
        longest = input_ids.shape[1] if input_ids.shape[0] else 0
    if position_ids is None and longest > num_positions:
        row = int(cu_seqlens.diff().argmax()) if cu_seqlens is not None else 0
        raise RuntimeError(f"row {row} has {longest} tokens, the position table {num_positions}: truncate the row.")
    shown = None if attention_mask is None or pooling != "mean_masked" else attention_mask != 0
    for name, tensor, size in (("input_ids", input_ids, vocab_size), ("token_type_ids", token_type_ids, num_types),
                               ("position_ids", position_ids, num_positions)):
        if tensor is None:
            continue
        bad = (tensor < 0) | (tensor >= size)
        if shown is not None:
            bad &= shown
        if bool(bad.any()):
            first = bad.flatten().nonzero()[0, 0]
            if cu_seqlens is None:
                row = int(first) // input_ids.shape[1]
            else:
                row = int(torch.searchsorted(cu_seqlens.contiguous(), first.to(cu_seqlens.dtype), right=True)) - 1
            raise RuntimeError(f"{name} holds {int(tensor.flatten()[first])} in row {row}, expected 0 to {size - 1}.")


def _check_cu_seqlens(cu_seqlens: Tensor, num_tokens: int) -> None:
    if int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != num_tokens:
        raise RuntimeError(f"cu_seqlens runs from {int(cu_seqlens[0])} to {int(cu_seqlens[-1])}, expected 0 to "
                           f"{num_tokens}, the number of input_ids.")
    falls = (cu_seqlens.diff() < 0).nonzero()
    if falls.numel():
        row = int(falls[0, 0])
        raise RuntimeError(f"cu_seqlens falls from {int(cu_seqlens[row])} to {int(cu_seqlens[row + 1])} at row {row}.")
