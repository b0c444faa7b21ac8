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
from torch import Tensor, nn

from ..kernels.contract import DsnHead, DsnTable
from ..kernels.reference import dsn_logits_ref, dsn_token_logits_ref
from .tables import ExportTables

# What a compiled package may use of a processor unless it is built for the one at hand. Inductor writes its own vector
# code for one instruction set only; without it the compiler vectorises for this.
BASELINES = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "armv8-a", "arm64": "armv8-a"}
METADATA_FILE = "metadata.json"  # among the extra files of a program


class PlainDsn(nn.Module):
    """A DSN in plain PyTorch, from the tables: ``[B, L]`` ids -> logits ``[B, C]``, or ``[B, L, 2]`` for questions."""

    def __init__(self, tables: ExportTables) -> None:
        super().__init__()
        self.pooling, self.rest = tables.pooling, tables.rest
        self.eps, self.activation = tables.table.eps, tables.head.activation
        for parts in (tables.table, tables.head):
            for name, value in parts._asdict().items():
                if isinstance(value, Tensor):
                    self.register_buffer(name, value)
        if tables.table.word_scale is None:
            self.word_scale: Tensor | None = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        table = DsnTable(self.word, self.word_scale, self.context, self.eps)  # type: ignore[arg-type]
        head = DsnHead(self.weight, self.bias, self.beta_bias, self.lateral, self.top,  # type: ignore[arg-type]
                       self.activation)
        tokens: dict[str, Any] = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        if self.pooling is not None:
            return self.rest(dsn_logits_ref(input_ids, table, head, pooling=self.pooling, **tokens))
        logits = self.rest(dsn_token_logits_ref(input_ids, table, head, **tokens))
        return torch.where(attention_mask[..., None] != 0, logits, 0)


class PlainEncoder(nn.Module):
    """A model with BERT's encoder (``dsn=False``), whose one output is the logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], dim=-1)


def trace(module: nn.Module, has_types: bool, num_positions: int) -> Any:
    """The ``ExportedProgram`` of a module, for any number of rows and 1 to ``num_positions`` columns of int64."""
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if has_types else [])
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=1, max=num_positions)
    example = {name: torch.ones(2, min(3, num_positions), dtype=torch.int64) for name in names}
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
