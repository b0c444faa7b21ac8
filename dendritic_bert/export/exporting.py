"""Export of a model's folder: the program, checked against our own logits, and the tokenizer beside it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..atomic_write import atomic_folder, expect_new
from ..inference.tokenization import PackedTokenizer
from ..model.convert import model_class_of
from . import onnx_graph, torch_program
from .engine_file import write_engine_file
from .tables import TABLE_DTYPES, describe, make_tables, own_logits, round_words, sample_inputs

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2", "aoti": "model.aoti.pt2"}  # and "engine", a file by itself
# The largest difference from our logits, as a share of the largest of them and at least of 1. The sums have some
# hundred terms in another order; float32 has 6e-8.
TOLERANCE = 1e-5


class ExportReport(NamedTuple):
    """What was written: the file of the program, its bytes, and how far its logits on random ids are from ours (None
    where nothing here can run it)."""

    path: Path
    size: int
    difference: float | None


def export(
    name_or_path: str | os.PathLike[str], output_dir: str | os.PathLike[str], format: str = "onnx", *,
    dtype: str = "float32", token_type_ids: bool = True, native: bool = False, max_length: int | None = None,
) -> ExportReport:
    """Write a model as a program that runs without this package, and its tokenizer beside it.

    The folder appears when it is complete. It holds ``FORMATS[format]`` and tokenizer.json, which cuts texts to the
    model's length and pads a batch; or, for the engine, one file with all of it.

    Args:
        name_or_path: a folder or a hub id of a model of this package (or of a BERT).
        output_dir: a folder that does not exist or is empty; for the engine a file that does not exist.
        format: "onnx"; "torch", a ``torch.export`` program; "aoti", an AOTInductor package; or "engine", a file for
            csrc/engine with the tables as a ``TextClassifier`` has them, for single texts.
        dtype: of the word table: "float32", "float16" or "int8" (with a scale per row, a quarter of the bytes). The
            engine's is not chosen.
        token_type_ids: whether the program takes token types, which pairs of texts have; without it all are 0.
        native: compile an AOTInductor package for this processor, not for every one of its architecture.
        max_length: for the engine, cut texts to this many tokens rather than to those that the model can take. The
            folded tables of BERT's vocabulary take 0.12 MB for each.

    Raises:
        ValueError: an unknown format or dtype; ``output_dir`` is not empty; ``max_length`` has no room for the special
            tokens; or the format cannot hold the model, where the message says which one can.
        OSError: the model or its tokenizer cannot be read, or ``output_dir`` cannot be written.
        ImportError: onnx is not installed.
        RuntimeError: there is no compiler for AOTInductor, or the program's logits are not ours.
    """
    if format not in FORMATS and format != "engine":
        raise ValueError(f"format is {format!r}, known are {', '.join(FORMATS)}, engine.")
    if dtype not in TABLE_DTYPES:
        raise ValueError(f"dtype is {dtype!r}, a table is exported as {', '.join(TABLE_DTYPES)}.")
    if max_length is not None and format != "engine":
        raise ValueError(f"max_length is {max_length}, but only the format \"engine\" takes it: leave it out.")
    if dtype != "float32" and format == "engine":
        raise ValueError(f"dtype is {dtype!r}, but the format \"engine\" has the tables as a TextClassifier has them: "
                         "leave it out, or pass another format.")
    output = Path(output_dir)
    if format == "engine":
        write_engine_file(name_or_path, output, max_length)
        return ExportReport(output, output.stat().st_size, 0.0)
    expect_new(output)
    if format == "onnx":
        onnx_graph.require("onnx")
    model = model_class_of(name_or_path).from_pretrained(name_or_path, dtype=torch.float32).eval()
    tokenizer = PackedTokenizer.from_pretrained(str(name_or_path))
    _refuse(model.config, format, dtype)
    with atomic_folder(output) as partial:
        longest = min(model.config.longest_row, tokenizer.model_max_length)
        max_length = None if longest == math.inf else int(longest)
        has_types = token_type_ids and model.config.type_vocab_size > 1
        difference = _write(model, partial / FORMATS[format], format, dtype, has_types, native,
                            describe(model, max_length, dtype))
        _write_tokenizer(tokenizer, partial / "tokenizer.json", max_length, model.config.pad_token_id or 0)
    path = output / FORMATS[format]
    return ExportReport(path, path.stat().st_size, difference)


def _refuse(config: Any, format: str, dtype: str) -> None:
    """Raise ValueError for what cannot be exported, with the option that can."""
    if config.dsn:
        return
    if format == "onnx":
        raise ValueError("the model has BERT's encoder (dsn is False), which the ONNX graph does not spell out: pass "
                         "--format torch, or give the folder to Hugging Face's optimum.")
    if dtype != "float32":
        raise ValueError(f"dtype is {dtype}, but the model has BERT's encoder (dsn is False) and no table of its own: "
                         "pass --dtype float32.")


def _write(model: Any, path: Path, format: str, dtype: str, has_types: bool, native: bool,
           metadata: dict[str, str]) -> float | None:
    """Write the program; returns its largest difference from our logits, None where nothing here can run it."""
    batches = sample_inputs(model.config, has_types)
    if model.config.dsn:
        tables = make_tables(model, dtype, has_types)
        round_words(model, tables)
    if format == "onnx":
        onnx_graph.write_onnx(tables, path, metadata)
        found = onnx_graph.run_onnx(path, batches)
    else:
        module = torch_program.PlainDsn(tables) if model.config.dsn else torch_program.PlainEncoder(model)
        program = torch_program.trace(module, has_types, model.config.max_position_embeddings or None)
        if format == "torch":
            torch_program.write_program(program, path, metadata)
            found = torch_program.run_program(path, batches)
        else:
            torch_program.write_package(program, path, metadata, native)
            found = torch_program.run_package(path, batches)
    return None if found is None else _compare(path.name, found, [own_logits(model, batch) for batch in batches])


def _compare(name: str, found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference. Raises RuntimeError where it is more than rounding explains."""
    ours = torch.cat([logits.flatten() for logits in expected])
    difference = (torch.cat([logits.flatten() for logits in found]) - ours).abs().max().item()
    allowed = TOLERANCE * max(1.0, ours.abs().max().item())
    if not difference <= allowed:  # NaN is not
        raise RuntimeError(f"the logits of {name} are {difference:.1e} off ours, {allowed:.1e} is allowed: please "
                           "report this with the model's config.json.")
    return difference


def _write_tokenizer(tokenizer: PackedTokenizer, path: Path, max_length: int | None, pad_id: int) -> None:
    """tokenizer.json, which cuts and pads as the program needs it."""
    settings = json.loads(tokenizer.backend.to_str())
    settings["truncation"] = None if max_length is None else {
        "direction": tokenizer.truncation_side.capitalize(), "max_length": max_length, "strategy": "LongestFirst",
        "stride": 0}
    settings["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
                           "pad_id": pad_id, "pad_type_id": 0,
                           "pad_token": tokenizer.backend.id_to_token(pad_id) or "[PAD]"}
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
