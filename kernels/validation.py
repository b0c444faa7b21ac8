"""Bad input to the ops: one sentence naming the argument, the value, the row and the remedy.

The C++ backends make the same checks inside the call; these serve Triton's (without the values, which would wait for
the GPU) and the reference, which would otherwise fail late or, worse, wrap a negative index around.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .contract import POOLINGS, ROW_SCALED, TABLE_DTYPES, DsnHead, DsnTable, FoldedDsn, padded_outputs

INDEX_DTYPES = (torch.int32, torch.int64)


def check_eps(eps: float) -> None:
    """For every backend. Raises RuntimeError where LayerNorm's epsilon is negative or not finite."""
    if not 0 <= eps < math.inf:
        raise RuntimeError(f"eps is {eps}, expected a finite number >= 0.")


def check_dropout(p_embed: float, p_pool: float) -> None:
    """For every backend. Raises RuntimeError where a dropout probability is outside [0, 1)."""
    for name, p in (("p_embed", p_embed), ("p_pool", p_pool)):
        if not 0 <= p < 1:
            raise RuntimeError(f"{name} is {p}, expected 0 <= {name} < 1.")


def seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """For every backend: the seed as an int64 tensor of one element; drawn where it is None. Raises RuntimeError."""
    if seed is None:
        return torch.randint(2**63 - 1, (1,), device=device)
    if isinstance(seed, int):
        if not -(2**63) <= seed < 2**63:
            raise RuntimeError(f"seed is {seed}, expected an int that fits 64 bits.")
        return torch.tensor([seed], device=device)
    if seed.numel() != 1 or seed.dtype != torch.int64 or seed.device != device:
        raise RuntimeError(f"seed has shape {list(seed.shape)}, dtype {seed.dtype} and lies on {seed.device}, expected "
                           f"one int64 on {device}.")
    return seed


def check_embed_pool(input_ids: Tensor, word_embeddings: Tensor, position_embeddings: Tensor,
                     token_type_embeddings: Tensor, ln_weight: Tensor, ln_bias: Tensor,
                     attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
                     position_ids: Tensor | None, pooling: str, values: bool = True) -> None:
    """Everything ``embed_pool`` is given; with ``values`` the indices too, which waits for a GPU. Raises RuntimeError.
    """
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling)
    tables = (("word_embeddings", word_embeddings, 2), ("position_embeddings", position_embeddings, 2),
              ("token_type_embeddings", token_type_embeddings, 2), ("ln_weight", ln_weight, 1), ("ln_bias", ln_bias, 1))
    _check_devices(input_ids, ((name, tensor) for name, tensor, _ in tables))
    if word_embeddings.dim() != 2 or word_embeddings.shape[1] == 0:
        raise RuntimeError(f"word_embeddings has shape {list(word_embeddings.shape)}, expected [V, H] with H >= 1.")
    if not word_embeddings.is_floating_point():
        raise RuntimeError(f"word_embeddings has dtype {word_embeddings.dtype}, expected a floating one.")
    hidden_size = word_embeddings.shape[1]
    for name, tensor, dims in tables:
        if tensor.dim() != dims or tensor.shape[-1] != hidden_size:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected "
                               f"{'[*, ' if dims == 2 else '['}{hidden_size}], the hidden size of word_embeddings.")
        if tensor.dtype != word_embeddings.dtype:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected {word_embeddings.dtype}, that of "
                               "word_embeddings.")
    if position_embeddings.shape[0] == 0 or token_type_embeddings.shape[0] == 0:
        raise RuntimeError("position_embeddings or token_type_embeddings has no row.")
    check_layout(*tokens)
    if values:
        check_values(*tokens, word_embeddings.shape[0], token_type_embeddings.shape[0], position_embeddings.shape[0])


def check_dsn_logits(input_ids: Tensor, table: DsnTable, head: DsnHead, attention_mask: Tensor | None,
                     cu_seqlens: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None,
                     pooling: str, values: bool = True) -> None:
    """Everything ``dsn_logits`` is given, and ``dsn_token_logits`` but for the pooling; ``values`` as above. Raises
    RuntimeError."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling)
    tensors = {name: value for name, value in (table._asdict() | head._asdict()).items() if isinstance(value, Tensor)}
    for name in {*DsnTable._fields, *DsnHead._fields} - {"word_scale", "eps", "activation"} - set(tensors):
        raise RuntimeError(f"{name} is missing or no tensor: prepare tables and heads with kernels.weights.")
    _check_devices(input_ids, tensors.items())
    for name, dims, symbols in (("word", 2, "V, H"), ("context", 3, "K, P, H"), ("top", 2, "N, C")):
        if tensors[name].dim() != dims:
            raise RuntimeError(f"{name} has shape {list(tensors[name].shape)}, expected [{symbols}].")
    (vocab_size, hidden_size), (num_types, num_positions, _) = table.word.shape, table.context.shape
    if hidden_size == 0 or num_types == 0:
        raise RuntimeError(f"context has shape {list(table.context.shape)}, expected [K, P, H] with K and H >= 1.")
    num_dendrites, num_labels = head.top.shape
    rows = (1 + num_dendrites) * num_labels
    shapes = {"word": [vocab_size, hidden_size], "word_scale": [vocab_size],
              "context": [num_types, num_positions, hidden_size], "weight": [rows, hidden_size], "bias": [rows],
              "beta_bias": [rows], "lateral": [num_dendrites, num_dendrites, num_labels],
              "top": [num_dendrites, num_labels]}
    wide = torch.float64 if table.word.dtype == torch.float64 else torch.float32
    for name, tensor in tensors.items():
        if list(tensor.shape) != shapes[name]:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {shapes[name]}.")
        dtypes = (*TABLE_DTYPES, torch.float64) if name == "word" else (wide,)
        if tensor.dtype not in dtypes:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected {', '.join(map(str, dtypes))}.")
    if (table.word.dtype in ROW_SCALED) != (table.word_scale is not None):
        raise RuntimeError("word_scale goes with an int8 or float8_e4m3fn word table and with no other.")
    check_layout(*tokens)
    if values:
        check_values(*tokens, vocab_size, num_types, num_positions)


def check_dsn_logits_folded(input_ids: Tensor, folded: FoldedDsn, attention_mask: Tensor | None,
                            cu_seqlens: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None,
                            pooling: str) -> None:
    """Everything ``dsn_logits_folded`` is given. Raises RuntimeError."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling)
    tensors = {name: value for name, value in folded._asdict().items() if isinstance(value, Tensor)}
    for name in {*FoldedDsn._fields} - {"num_positions", "activation"} - set(tensors):
        raise RuntimeError(f"{name} is missing or no tensor: fold tables and head with kernels.folding.")
    _check_devices(input_ids, tensors.items())
    for name, dims, symbols in (("rstd", 4, "K, P / 16, V, 16"), ("top", 2, "N, C")):
        if tensors[name].dim() != dims:
            raise RuntimeError(f"{name} has shape {list(tensors[name].shape)}, expected [{symbols}].")
    num_types, tiles, vocab_size, tile = folded.rstd.shape
    num_dendrites, num_labels = folded.top.shape
    outputs = (1 + num_dendrites) * num_labels
    shapes = {"rstd": [max(1, num_types), tiles, vocab_size, 16], "word": [vocab_size, padded_outputs(outputs)],
              "context": [num_types, tiles * tile, padded_outputs(outputs)], "bias": [outputs], "beta_bias": [outputs],
              "lateral": [num_dendrites, num_dendrites, num_labels], "top": [num_dendrites, num_labels]}
    for name, tensor in tensors.items():
        if list(tensor.shape) != shapes[name]:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {shapes[name]}.")
        if tensor.dtype != torch.float32:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected torch.float32.")
    if not 0 <= folded.num_positions <= tiles * tile:
        raise RuntimeError(f"num_positions is {folded.num_positions}, expected 0 to {tiles * tile}.")
    check_layout(*tokens)
    check_values(*tokens, vocab_size, num_types, folded.num_positions)


def check_layout(input_ids: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
                 token_type_ids: Tensor | None, position_ids: Tensor | None, pooling: str) -> None:
    """Shapes, dtypes and devices; reads no value. Raises RuntimeError."""
    if pooling not in POOLINGS:
        raise RuntimeError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}.")
    if input_ids.dim() != (2 if cu_seqlens is None else 1):
        raise RuntimeError(f"input_ids has shape {list(input_ids.shape)}, expected [B, L], or [T] beside cu_seqlens.")
    if cu_seqlens is not None and (cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0):
        raise RuntimeError(f"cu_seqlens has shape {list(cu_seqlens.shape)}, expected [B + 1].")
    if cu_seqlens is not None and cu_seqlens.numel() == 1 and input_ids.numel() > 0:
        raise RuntimeError(f"cu_seqlens has shape [1], no row, beside {input_ids.numel()} input_ids: pass the end of "
                           "each row too.")
    if cu_seqlens is not None and attention_mask is not None:
        raise RuntimeError("attention_mask and cu_seqlens are both given: pass the mask with [B, L], cu_seqlens with "
                           "[T].")
    for name, tensor in (("input_ids", input_ids), ("cu_seqlens", cu_seqlens), ("token_type_ids", token_type_ids),
                         ("position_ids", position_ids)):
        if tensor is not None and tensor.dtype not in INDEX_DTYPES:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected int32 or int64.")
    for name, tensor in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids),
                         ("position_ids", position_ids)):
        if tensor is not None and tensor.shape != input_ids.shape:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {list(input_ids.shape)}, that of "
                               "input_ids.")
    _check_devices(input_ids, (("attention_mask", attention_mask), ("cu_seqlens", cu_seqlens),
                               ("token_type_ids", token_type_ids), ("position_ids", position_ids)))


def check_values(input_ids: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
                 token_type_ids: Tensor | None, position_ids: Tensor | None, pooling: str, vocab_size: int,
                 num_types: int, num_positions: int) -> None:
    """Every index inside its table, cu_seqlens rising from 0 to T; synchronises a GPU. Raises RuntimeError."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return  # there are no values to look at
    if cu_seqlens is not None:
        _check_cu_seqlens(cu_seqlens, input_ids.numel())
        lengths = cu_seqlens.diff()
    else:
        lengths = torch.full(input_ids.shape[:1], input_ids.shape[1])
    if position_ids is None and bool((lengths > num_positions).any()):
        row = int((lengths > num_positions).nonzero()[0, 0])
        raise RuntimeError(f"row {row} has {int(lengths[row])} tokens, the position table {num_positions}: "
                           "truncate the row.")
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


def _check_devices(input_ids: Tensor, tensors: Iterable[tuple[str, Tensor | None]]) -> None:
    for name, tensor in tensors:
        if tensor is not None and tensor.device != input_ids.device:
            raise RuntimeError(f"{name} is on {tensor.device}, input_ids on {input_ids.device}: move one of them.")
