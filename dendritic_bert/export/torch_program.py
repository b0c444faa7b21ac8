"""A model as a ``torch.export`` program, or compiled ahead of time by AOTInductor, of PyTorch's own operators.

Either loads in a process that has torch alone:

    torch.export.load("model.pt2").module()(input_ids=..., attention_mask=..., token_type_ids=...)
    torch._inductor.aoti_load_package("model.aoti.pt2")(input_ids=..., ...)
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.reference import gated_mean_ref, pool_ref, token_places, window_layers_ref
from .tables import ExportTables, own_logits

# What a compiled package may use of a processor unless it is built for the one at hand. Inductor writes its own vector
# code for one instruction set only; without it the compiler vectorises for this.
BASELINES = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "armv8-a", "arm64": "armv8-a"}
METADATA_FILE = "metadata.json"  # among the extra files of a program


class PlainDsn(nn.Module):
    """A DSN in plain PyTorch, from the tables: ``[B, L]`` ids -> logits ``[B, C]``, or ``[B, L, 2]`` for questions."""

    word: Tensor
    word_scale: Tensor | None
    context: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    windows_input_weight: Tensor
    windows_weight: Tensor
    windows_bias: Tensor
    gate_weight: Tensor
    gate_word_bias: Tensor

    def __init__(self, tables: ExportTables) -> None:
        super().__init__()
        self.pooling, self.head, self.has_positions = tables.pooling, tables.head, tables.has_positions
        self.eps = None if tables.norm is None else tables.norm[2]
        self.has_windows, self.is_gated = tables.windows is not None, tables.gate is not None
        stored: dict[str, Any] = {"word": tables.word, "word_scale": tables.word_scale, "context": tables.context}
        for part, names in (("norm", ("weight", "bias")), ("windows", ("input_weight", "weight", "bias")),
                            ("gate", ("weight", "word_bias"))):
            stored |= {f"{part}_{name}": value for name, value in zip(names, getattr(tables, part) or ())}
        for name, value in stored.items():
            self.register_buffer(name, value)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        valid = attention_mask != 0
        if self.pooling in ("mean_all", "sum_all"):  # they count padding, so that it is looked up
            x = self._embed(input_ids, token_type_ids, torch.ones_like(valid))
        else:
            x = torch.where(valid[..., None], self._embed(input_ids, token_type_ids, valid), 0)
        if self.pooling is None:
            return torch.where(valid[..., None], self.head(x), 0)
        row, column = token_places(input_ids, None)
        h = x
        if self.has_windows:
            u = window_layers_ref(x, row, column, attention_mask, self.windows_input_weight, self.windows_weight,
                                  self.windows_bias)
            h = torch.cat([x, u], dim=-1)
        if self.is_gated:
            gate_logits = h @ self.gate_weight + self.gate_word_bias[torch.where(valid, input_ids, 0)]
            return self.head(gated_mean_ref(h, gate_logits, row, attention_mask, None))
        return self.head(pool_ref(h, row, attention_mask, None, self.pooling))

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor | None, valid: Tensor) -> Tensor:
        ids = torch.where(valid, input_ids, 0)
        types = 0 if token_type_ids is None else torch.where(valid, token_type_ids, 0)
        positions: Any = 0
        if self.has_positions:
            positions = torch.where(valid, torch.arange(ids.shape[1], device=ids.device), 0)
        words = self.word[ids].float()
        if self.word_scale is not None:
            words = words * self.word_scale[ids][..., None]
        x = words + self.context[types, positions]
        if self.eps is None:
            return x
        return F.layer_norm(x, self.norm_weight.shape, self.norm_weight, self.norm_bias, self.eps)


class PlainEncoder(nn.Module):
    """A model with BERT's encoder (``dsn=False``), whose one output is the logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return own_logits(self.model, {"input_ids": input_ids, "attention_mask": attention_mask,
                                       "token_type_ids": token_type_ids})


def trace(module: nn.Module, has_types: bool, num_positions: int | None) -> Any:
    """The ``ExportedProgram`` of a module, for any number of rows and 1 to ``num_positions`` columns of int64; None is
    any number of columns."""
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if has_types else [])
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=1, max=num_positions)
    example = {name: torch.ones(2, min(3, num_positions or 3), dtype=torch.int64) for name in names}
    with torch.no_grad():
        return torch.export.export(module.eval(), (), example,
                                   dynamic_shapes={name: {0: rows, 1: length} for name in names})


def write_program(program: Any, path: Path, metadata: dict[str, str]) -> None:
    """Write an ``ExportedProgram``, with ``metadata`` as the extra file metadata.json."""
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata, ensure_ascii=False)})


def run_program(path: Path, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    """The outputs of the file for every batch."""
    module = torch.export.load(path).module()
    with torch.no_grad():
        return [module(**batch) for batch in batches]


def write_package(program: Any, path: Path, metadata: dict[str, str], native: bool) -> None:
    """Compile an ``ExportedProgram`` with the machine's C++ compiler.

    The package runs on every processor of this architecture, or with ``native`` on those that have all that this one
    has. Raises RuntimeError where there is no compiler, or where this torch compiles for the processor at hand alone.
    """
    from torch._inductor import aoti_compile_and_package, config

    options: dict[str, Any] = {"aot_inductor.metadata": metadata}
    if not native:
        if not hasattr(config.cpp, "march") or platform.machine() not in BASELINES:
            raise RuntimeError(f"torch {torch.__version__} compiles for the processor at hand alone: pass --native, "
                               "or --format torch.")
        options |= {"cpp.march": BASELINES[platform.machine()], "cpp.simdlen": 1}
    try:
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except Exception as error:
        if "InvalidCxxCompiler" not in type(error).__name__ + str(error):
            raise
        raise RuntimeError("there is no C++ compiler, which AOTInductor needs: install g++, or pass --format torch."
                           ) from error


def run_package(path: Path, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    """The outputs of the package for every batch."""
    from torch._inductor import aoti_load_package

    compiled = aoti_load_package(str(path))
    return [compiled(**batch) for batch in batches]
