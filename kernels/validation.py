"""Bad input to the ops: one sentence that names the argument, the value, the row and the remedy.

Every check that Python makes is here. ``ops`` makes the first three for every backend. The others serve the reference,
which would otherwise fail late or, worse, wrap a negative index around, and the Triton backend, which leaves the values
of indices out, since reading them would wait for the GPU. The bindings in csrc make the same checks inside the call and
say the same; tests/kernels/test_validation.py compares them. What only a backend's kernels cannot do is refused there:
tables of more than 2^31 - 1 rows, and for the cpu backend's backward pass as many tokens.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from .contract import (
    ACTIVATION_LIMIT,
    ACTIVATION_STEPS,
    GATE_LIMIT,
    GATE_STEPS,
    LONGEST_INT8_ROW,
    ROW_SCALED,
    TABLE_DTYPES,
    WINDOW_DTYPES,
    DsnHead,
    DsnTable,
    FoldedDsn,
    QuantisedWindowedDsn,
    Tokens,
    WindowedDsn,
    padded_outputs,
)

INDEX_DTYPES = (torch.int32, torch.int64)
INT8_DTYPES = {  # of the tensors of QuantisedWindowedDsn that are not float32
    "values": torch.int16, "gate": torch.int32, "taps": torch.int16, "window_bias": torch.int32,
    "input_scale": torch.int16, "window_weight": torch.int8, "output_shift": torch.int32, "output_scale": torch.int16,
    "gate_weight": torch.int16, "gate_table": torch.int32}
NO_TENSORS = ("eps", "activation", "num_positions", "gate_bits")  # the fields of prepared tables that are none
OPTIONAL = ("word_scale", "gate")  # the tensors of prepared tables that may be None


def check_eps(eps: float) -> None:
    """Raises RuntimeError where LayerNorm's epsilon is negative or not finite."""
    if not 0 <= eps < math.inf:
        raise RuntimeError(f"eps is {eps}, expected a finite number >= 0.")


def check_dropout(p_embed: float, p_pool: float, p_window: float = 0.0) -> None:
    """Raises RuntimeError where a dropout probability is outside [0, 1)."""
    for name, p in (("p_embed", p_embed), ("p_pool", p_pool), ("p_window", p_window)):
        if not 0 <= p < 1:
            raise RuntimeError(f"{name} is {p}, expected 0 <= {name} < 1.")


def seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """The seed as an int64 tensor of one element, drawn where it is None. Raises RuntimeError for anything else."""
    if seed is None:
        return torch.randint(2**63 - 1, (1,), device=device)
    if isinstance(seed, int):
        if not -(2**63) <= seed < 2**63:
            raise RuntimeError(f"seed is {seed}, expected an int that fits 64 bits.")
        return torch.tensor([seed], device=device)
    if not isinstance(seed, Tensor):
        raise RuntimeError(f"seed is {seed!r}, expected an int, or an int64 tensor of one element.")
    if seed.numel() != 1 or seed.dtype != torch.int64 or seed.device != device:
        raise RuntimeError(f"seed has shape {list(seed.shape)}, dtype {seed.dtype} and lies on {seed.device}, expected "
                           f"one int64 on {device}.")
    return seed


def check_embed_pool(input_ids: Tensor, word_embeddings: Tensor, position_embeddings: Tensor,
                     token_type_embeddings: Tensor, ln_weight: Tensor, ln_bias: Tensor,
                     attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
                     position_ids: Tensor | None, pooling: str, values: bool = True) -> None:
    """Everything that ``embed_pool`` is given. ``values``: the indices too, which waits for a GPU. Raises RuntimeError.
    """
    tokens = Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    parameters = {"word_embeddings": word_embeddings, "position_embeddings": position_embeddings,
                  "token_type_embeddings": token_type_embeddings, "ln_weight": ln_weight, "ln_bias": ln_bias}
    _check_devices(input_ids, parameters.items())
    _expect_word_embeddings(word_embeddings)
    hidden_size = word_embeddings.shape[1]
    for name, tensor in parameters.items():
        is_table = name.endswith("embeddings")
        if tensor.dim() != (2 if is_table else 1) or tensor.shape[-1] != hidden_size:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {'[*, ' if is_table else '['}"
                               f"{hidden_size}], the hidden size of word_embeddings.")
        if tensor.dtype != word_embeddings.dtype:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected {word_embeddings.dtype}, that of "
                               "word_embeddings.")
    if position_embeddings.shape[0] == 0 or token_type_embeddings.shape[0] == 0:
        raise RuntimeError("position_embeddings or token_type_embeddings has no row.")
    check_layout(tokens)
    if values:
        check_values(tokens, pooling, word_embeddings.shape[0], token_type_embeddings.shape[0],
                     position_embeddings.shape[0])
    else:
        _check_padded_length(tokens, position_embeddings.shape[0])


def check_dsn_logits(input_ids: Tensor, table: DsnTable, head: DsnHead, attention_mask: Tensor | None,
                     cu_seqlens: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None,
                     pooling: str, values: bool = True) -> None:
    """Everything that ``dsn_logits`` is given, or ``dsn_token_logits``, whose tokens count as for "mean_masked".
    ``values``: the indices too, which waits for a GPU. Raises RuntimeError."""
    tokens = Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    tensors = _tensors(table, head, remedy="prepare tables and heads with kernels.prepare")
    _check_devices(input_ids, tensors.items())
    if table.word.dim() != 2 or table.word.shape[1] == 0:
        raise RuntimeError(f"word has shape {list(table.word.shape)}, expected [V, H] with H >= 1.")
    vocab_size, hidden_size = table.word.shape
    if table.context.dim() != 3 or table.context.shape[0] == 0 or table.context.shape[2] != hidden_size:
        raise RuntimeError(f"context has shape {list(table.context.shape)}, expected [K, P, {hidden_size}] with "
                           "K >= 1.")
    if head.top.dim() != 2:
        raise RuntimeError(f"top has shape {list(head.top.shape)}, expected [N, C].")
    num_types, num_positions, _ = table.context.shape
    num_dendrites, num_labels = head.top.shape
    outputs = (1 + num_dendrites) * num_labels
    _expect_shapes(tensors, {
        "word_scale": [vocab_size], "weight": [outputs, hidden_size], "bias": [outputs], "beta_bias": [outputs],
        "lateral": [num_dendrites, num_dendrites, num_labels]})
    wide = torch.float64 if table.word.dtype == torch.float64 else torch.float32
    _expect_dtypes(tensors, wide, word=(*TABLE_DTYPES, torch.float64))
    if (table.word.dtype in ROW_SCALED) != (table.word_scale is not None):
        raise RuntimeError("word_scale goes with an int8 or float8_e4m3fn word table and with no other.")
    check_layout(tokens)
    if values:
        check_values(tokens, pooling, vocab_size, num_types, num_positions)
    else:
        _check_padded_length(tokens, num_positions)


def check_dsn_logits_folded(input_ids: Tensor, folded: FoldedDsn, attention_mask: Tensor | None,
                            cu_seqlens: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None,
                            pooling: str) -> None:
    """Everything that ``dsn_logits_folded`` is given. Raises RuntimeError."""
    tokens = Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    tensors = _tensors(folded, remedy="fold table and head with kernels.prepare")
    _check_devices(input_ids, tensors.items())
    if folded.top.dim() != 2:
        raise RuntimeError(f"top has shape {list(folded.top.shape)}, expected [N, C].")
    num_dendrites, num_labels = folded.top.shape
    outputs = (1 + num_dendrites) * num_labels
    padded = padded_outputs(outputs)
    if folded.word.dim() != 2 or folded.word.shape[1] != padded:
        raise RuntimeError(f"word has shape {list(folded.word.shape)}, expected [V, {padded}].")
    vocab_size = folded.word.shape[0]
    if folded.rstd.dim() != 4 or folded.rstd.shape[0] == 0 or list(folded.rstd.shape[2:]) != [vocab_size, 16]:
        raise RuntimeError(f"rstd has shape {list(folded.rstd.shape)}, expected [K, P / 16, {vocab_size}, 16] with "
                           "K >= 1.")
    num_types, all_positions = folded.rstd.shape[0], 16 * folded.rstd.shape[1]
    _expect_shapes(tensors, {"context": [num_types, all_positions, padded], "bias": [outputs], "beta_bias": [outputs],
                             "lateral": [num_dendrites, num_dendrites, num_labels]})
    _expect_dtypes(tensors, torch.float32)
    if not 0 <= folded.num_positions <= all_positions:
        raise RuntimeError(f"num_positions is {folded.num_positions}, expected 0 to {all_positions}.")
    check_layout(tokens)
    check_values(tokens, pooling, vocab_size, num_types, folded.num_positions)


def check_window_pool(
    input_ids: Tensor, word_embeddings: Tensor, token_type_embeddings: Tensor, ln_weight: Tensor | None,
    ln_bias: Tensor | None, window_input_weight: Tensor, window_weight: Tensor, window_bias: Tensor,
    gate_weight: Tensor | None, gate_bias: Tensor | None, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
    token_type_ids: Tensor | None,
) -> None:
    """Everything that ``window_pool`` is given. Raises RuntimeError."""
    _expect_word_embeddings(word_embeddings)
    if window_input_weight.dim() != 3 or window_input_weight.shape[0] % 2 == 0 or window_bias.dim() != 2:
        raise RuntimeError(f"window_input_weight has shape {list(window_input_weight.shape)} and window_bias "
                           f"{list(window_bias.shape)}, expected [R, H, M] with an odd R, and [J, M].")
    for name, both in (("ln", (ln_weight, ln_bias)), ("gate", (gate_weight, gate_bias))):
        if (both[0] is None) != (both[1] is None):
            raise RuntimeError(f"one of {name}_weight and {name}_bias is missing: pass both, or None for both.")
    vocab_size, hidden_size = word_embeddings.shape
    taps, _, dendrites = window_input_weight.shape
    layers = window_bias.shape[0]
    shapes: dict[str, list[Any]] = {
        "token_type_embeddings": ["*", hidden_size], "ln_weight": [hidden_size], "ln_bias": [hidden_size],
        "window_input_weight": [taps, hidden_size, dendrites], "window_bias": [layers, dendrites],
        "window_weight": [max(0, layers - 1), taps, dendrites, dendrites],
        "gate_weight": [hidden_size + dendrites], "gate_bias": [vocab_size]}
    parameters = {"word_embeddings": word_embeddings, "token_type_embeddings": token_type_embeddings,
                  "ln_weight": ln_weight, "ln_bias": ln_bias, "window_input_weight": window_input_weight,
                  "window_weight": window_weight, "window_bias": window_bias, "gate_weight": gate_weight,
                  "gate_bias": gate_bias}
    if (layers == 0) != (dendrites == 0):
        raise RuntimeError(f"window_bias has shape {list(window_bias.shape)}: pass no layer of no dendrite, [0, 0], or "
                           "at least one of each.")
    for name, tensor in parameters.items():
        if tensor is None and not name.startswith(("ln_", "gate_")):
            raise RuntimeError(f"{name} is missing: without windows it is empty, see ops.window_pool.")
    _check_devices(input_ids, parameters.items())
    _expect_shapes(parameters, shapes)
    for name, tensor in parameters.items():
        if tensor is not None and tensor.dtype != word_embeddings.dtype:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected {word_embeddings.dtype}, that of "
                               "word_embeddings.")
    _check_window_tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, vocab_size,
                         token_type_embeddings.shape[0])


def check_dsn_window_logits(input_ids: Tensor, windowed: WindowedDsn, attention_mask: Tensor | None,
                            cu_seqlens: Tensor | None, token_type_ids: Tensor | None, values: bool = True) -> None:
    """Everything that ``dsn_window_logits`` is given. ``values``: the indices too, which waits for a GPU. Raises
    RuntimeError."""
    tensors = _tensors(windowed, remedy="prepare the tables with kernels.prepare.prepare_windows")
    _check_devices(input_ids, tensors.items())
    _check_window_tables(windowed, tensors)
    num_types, vocab_size, _ = windowed.values.shape
    layers, dendrites = windowed.window_bias.shape
    _expect_shapes(tensors, {"window_weight": [max(0, layers - 1), windowed.taps.shape[2], dendrites, dendrites]})
    wide = torch.float64 if windowed.window_weight.dtype == torch.float64 else torch.float32
    _expect_dtypes(tensors, wide, window_weight=(*WINDOW_DTYPES, torch.float64))
    _check_window_tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, vocab_size, num_types, values)


def check_dsn_window_logits_int8(input_ids: Tensor, quantised: QuantisedWindowedDsn, attention_mask: Tensor | None,
                                 cu_seqlens: Tensor | None, token_type_ids: Tensor | None) -> None:
    """Everything that ``dsn_window_logits_int8`` is given. Raises RuntimeError."""
    tensors = _tensors(quantised, remedy="make the tables with kernels.prepare_int8.quantise_windows")
    _check_devices(input_ids, tensors.items())
    if quantised.window_bias.dim() == 2 and quantised.window_bias.shape[0] == 0:
        raise RuntimeError("window_bias has no layer, and int8 is for window layers: use dsn_window_logits.")
    _check_window_tables(quantised, tensors)
    num_types, vocab_size, width = quantised.values.shape
    layers, dendrites = quantised.window_bias.shape
    of_layers = [layers - 1, dendrites]
    activations = 0 if quantised.activation == "relu" else int(2 * ACTIVATION_LIMIT * ACTIVATION_STEPS) + 1
    _expect_shapes(tensors, {
        "input_scale": of_layers, "window_weight": [layers - 1, quantised.taps.shape[2], dendrites // 4, dendrites, 4],
        "output_shift": of_layers, "output_scale": of_layers,
        "gate_table": [int(2 * GATE_LIMIT * GATE_STEPS) + 1], "pooled_scale": [width + dendrites],
        "activation_table": [activations]})
    _expect_dtypes(tensors, torch.float32, **{name: (dtype,) for name, dtype in INT8_DTYPES.items()})
    if not 8 <= quantised.gate_bits <= 22:
        raise RuntimeError(f"gate_bits is {quantised.gate_bits}, expected 8 to 22.")
    _check_window_tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, vocab_size, num_types)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    lengths = [input_ids.shape[1]] * input_ids.shape[0] if cu_seqlens is None else cu_seqlens.diff().tolist()
    for row, length in enumerate(lengths):
        if length > LONGEST_INT8_ROW:
            raise RuntimeError(f"row {row} has {length} tokens, and int8 windows take at most {LONGEST_INT8_ROW}: "
                               "truncate the row.")


def _check_window_tables(windowed: WindowedDsn | QuantisedWindowedDsn, tensors: Mapping[str, Tensor]) -> None:
    """The shapes that the two forms of a windowed model have in common."""
    if windowed.values.dim() != 3 or windowed.values.shape[0] == 0:
        raise RuntimeError(f"values has shape {list(windowed.values.shape)}, expected [K, V, D] with K >= 1.")
    if windowed.taps.dim() != 4 or windowed.taps.shape[2] % 2 == 0 or windowed.taps.shape[3] % 16:
        raise RuntimeError(f"taps has shape {list(windowed.taps.shape)}, expected [K, V, R, M] with an odd R and an M "
                           "that is a multiple of 16.")
    for name, expected in (("window_bias", "[J, M]"), ("weight", "[(1 + N) * C, M] or [.., D + M]"),
                           ("top", "[N, C]")):
        if tensors[name].dim() != 2:
            raise RuntimeError(f"{name} has shape {list(tensors[name].shape)}, expected {expected}.")
    num_types, vocab_size, width = windowed.values.shape
    taps, dendrites = windowed.taps.shape[2:]
    layers = windowed.window_bias.shape[0]
    num_dendrites, num_labels = windowed.top.shape
    outputs = (1 + num_dendrites) * num_labels
    is_folded = windowed.weight.shape[1] == dendrites
    if is_folded and width != padded_outputs(outputs):
        raise RuntimeError(f"values has shape {list(windowed.values.shape)}, expected [K, V, {padded_outputs(outputs)}]"
                           ", since weight has no column for it.")
    if (layers == 0) != (dendrites == 0):
        raise RuntimeError(f"window_bias has shape {list(windowed.window_bias.shape)}, taps "
                           f"{list(windowed.taps.shape)}: expected both without dendrites, or neither.")
    _expect_shapes(tensors, {
        "gate": [num_types, vocab_size], "taps": [num_types, vocab_size, taps, dendrites],
        "window_bias": [layers, dendrites],
        "gate_weight": [dendrites], "weight": [outputs, dendrites if is_folded else width + dendrites],
        "bias": [outputs], "lateral": [num_dendrites, num_dendrites, num_labels]})


def _check_window_tokens(input_ids: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
                         token_type_ids: Tensor | None, vocab_size: int, num_types: int, values: bool = True) -> None:
    """The token arguments of a model without positions."""
    tokens = Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids)
    check_layout(tokens)
    if values:
        check_values(tokens, "mean_masked", vocab_size, num_types, None)


def _expect_word_embeddings(word_embeddings: Tensor) -> None:
    if word_embeddings.dim() != 2 or word_embeddings.shape[1] == 0:
        raise RuntimeError(f"word_embeddings has shape {list(word_embeddings.shape)}, expected [V, H] with H >= 1.")
    if not word_embeddings.is_floating_point():
        raise RuntimeError(f"word_embeddings has dtype {word_embeddings.dtype}, expected a floating one.")


def _expect_dtypes(tensors: Mapping[str, Tensor], usual: torch.dtype, **others: tuple[torch.dtype, ...]) -> None:
    """``others`` by name, and ``usual`` for all tensors beside them."""
    for name, tensor in tensors.items():
        dtypes = others.get(name, (usual,))
        if tensor.dtype not in dtypes:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected {', '.join(map(str, dtypes))}.")


def _expect_shapes(tensors: Mapping[str, Tensor | None], shapes: Mapping[str, list[Any]]) -> None:
    """``shapes`` by name, where "*" is any number from 1 on."""
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is not None and (tensor.dim() != len(shape) or any(
                size != expected and (expected != "*" or size == 0) for size, expected in zip(tensor.shape, shape))):
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {str(shape).replace(chr(39), '')}.")


def check_layout(tokens: Tokens) -> None:
    """The shapes, dtypes and devices of the token arguments. It reads no value. Raises RuntimeError."""
    input_ids, attention_mask, cu_seqlens, _, _ = tokens
    if input_ids.dim() != (2 if cu_seqlens is None else 1):
        raise RuntimeError(f"input_ids has shape {list(input_ids.shape)}, expected [B, L], or [T] beside cu_seqlens.")
    if cu_seqlens is not None:
        if attention_mask is not None:
            raise RuntimeError("attention_mask and cu_seqlens are both given: pass the mask with [B, L], cu_seqlens "
                               "with [T].")
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0:
            raise RuntimeError(f"cu_seqlens has shape {list(cu_seqlens.shape)}, expected [B + 1].")
        if cu_seqlens.numel() == 1 and input_ids.numel() > 0:
            raise RuntimeError(f"cu_seqlens has shape [1], no row, beside {input_ids.numel()} input_ids: pass the end "
                               "of each row too.")
    for name, tensor in tokens._asdict().items():
        if tensor is None:
            continue
        if name != "attention_mask" and tensor.dtype not in INDEX_DTYPES:
            raise RuntimeError(f"{name} has dtype {tensor.dtype}, expected int32 or int64.")
        if name != "cu_seqlens" and tensor.shape != input_ids.shape:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, expected {list(input_ids.shape)}, that of "
                               "input_ids.")
    _check_devices(input_ids, tokens._asdict().items())


def check_values(tokens: Tokens, pooling: str, vocab_size: int, num_types: int, num_positions: int | None) -> None:
    """That every index lies inside its table, and that cu_seqlens rises from 0 to T. It waits for a GPU. An index at a
    token that is not valid counts unless the pooling is "mean_masked". A model whose ``num_positions`` is None has no
    positions, and reads rows of any length. Raises RuntimeError."""
    input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids = tokens
    if not _has_values(input_ids):
        return
    if num_positions is not None:
        _check_padded_length(tokens, num_positions)
    if cu_seqlens is not None:
        _check_cu_seqlens(cu_seqlens, input_ids.numel())
        lengths = cu_seqlens.diff()
        if num_positions is not None and position_ids is None and bool((lengths > num_positions).any()):
            row = int((lengths > num_positions).nonzero()[0, 0])
            _fail_row_too_long(row, int(lengths[row]), num_positions)
    is_valid = None if attention_mask is None or pooling != "mean_masked" else attention_mask != 0
    for name, tensor, size in (("input_ids", input_ids, vocab_size), ("token_type_ids", token_type_ids, num_types),
                               ("position_ids", position_ids, num_positions)):
        if tensor is None or size is None:
            continue
        is_outside = (tensor < 0) | (tensor >= size)
        if is_valid is not None:
            is_outside &= is_valid
        if bool(is_outside.any()):
            first = is_outside.flatten().nonzero()[0, 0]
            if cu_seqlens is None:
                row = int(first) // input_ids.shape[1]
            else:
                row = int(torch.searchsorted(cu_seqlens.contiguous(), first.to(cu_seqlens.dtype), right=True)) - 1
            raise RuntimeError(f"{name} holds {int(tensor.flatten()[first])} in row {row}, expected 0 to {size - 1}.")


def _has_values(input_ids: Tensor) -> bool:
    """Whether there are values to look at, and sizes that are numbers."""
    return not (input_ids.is_meta or torch.compiler.is_compiling() or torch.jit.is_tracing()
                or torch._C._are_functorch_transforms_active())


def _check_padded_length(tokens: Tokens, num_positions: int) -> None:
    """That padded rows without position_ids, whose tokens' positions are their columns, are no longer than the position
    table. It reads no value."""
    input_ids, _, cu_seqlens, _, position_ids = tokens
    if cu_seqlens is None and position_ids is None and _has_values(input_ids):
        num_rows, length = input_ids.shape
        if num_rows and length > num_positions:
            _fail_row_too_long(0, length, num_positions)


def _fail_row_too_long(row: int, length: int, num_positions: int) -> NoReturn:
    raise RuntimeError(f"row {row} has {length} tokens, the position table {num_positions}: truncate the row.")


def _check_cu_seqlens(cu_seqlens: Tensor, num_tokens: int) -> None:
    if int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != num_tokens:
        raise RuntimeError(f"cu_seqlens runs from {int(cu_seqlens[0])} to {int(cu_seqlens[-1])}, expected 0 to "
                           f"{num_tokens}, the number of input_ids.")
    falls = (cu_seqlens.diff() < 0).nonzero()
    if falls.numel():
        row = int(falls[0, 0])
        raise RuntimeError(f"cu_seqlens falls from {int(cu_seqlens[row])} to {int(cu_seqlens[row + 1])} at row {row}.")


def _tensors(*prepared: DsnTable | DsnHead | FoldedDsn | WindowedDsn | QuantisedWindowedDsn, remedy: str
             ) -> dict[str, Tensor]:
    """The tensors of prepared tables by name; ``OPTIONAL`` ones may be None. Raises RuntimeError where another one is
    not a tensor."""
    fields = {name: value for named in prepared for name, value in named._asdict().items()
              if name not in NO_TENSORS and not (name in OPTIONAL and value is None)}
    for name, value in fields.items():
        if not isinstance(value, Tensor):
            raise RuntimeError(f"{name} is missing or no tensor: {remedy}.")
    return fields


def _check_devices(input_ids: Tensor, tensors: Iterable[tuple[str, Tensor | None]]) -> None:
    for name, tensor in tensors:
        if tensor is not None and tensor.device != input_ids.device:
            raise RuntimeError(f"{name} is on {tensor.device}, input_ids on {input_ids.device}: move one of them.")
