"""``dendritic-bert export``: a model as a program that runs where this package is not installed."""

from __future__ import annotations

import argparse

from ..embedded_model import find_model
from .flag_types import positive_number
from .messages import say
from .models import expect_model

DESCRIPTION = """\
Write a model as a program that runs without this package, and its tokenizer.json beside it.

  dendritic-bert export my-model my-onnx                    an ONNX graph of standard operators
  dendritic-bert export my-model my-onnx --dtype int8       a quarter of the bytes
  dendritic-bert export my-model my-program --format torch  a torch.export program
  dendritic-bert export my-model my-package --format aoti   the same, compiled ahead of time by AOTInductor
  dendritic-bert export my-model my.dsn --format engine     one file for the engine in C++, which needs nothing else

The logits of what was written are compared with the model's own on random ids."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``export``."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or hub id of a model, or tiny, which comes with the package")
    add("out", metavar="OUT", help="new folder for the program and its tokenizer.json, or new file (--format engine)")
    add("--format", choices=["onnx", "torch", "aoti", "engine"], default="onnx",
        help="what is written (default: %(default)s)")
    add("--dtype", choices=["float32", "float16", "int8"], default="float32",
        help="how the word table is stored, but for --format engine; int8 has a scale per row (default: %(default)s)")
    add("--no-token-type-ids", dest="token_type_ids", action="store_false",
        help="leave out the input token_type_ids, for single texts: all types are 0")
    add("--max-length", "--max_length", type=positive_number, metavar="N",
        help="cut texts to N tokens, rather than to what the model can take; its tables are smaller (--format engine)")
    add("--native", action="store_true",
        help="compile for the processor of this machine; it need not run on another (--format aoti)")


def run(args: argparse.Namespace) -> None:
    """Export the model that ``args`` name."""
    if args.native and args.format != "aoti":
        args.parser.error(f"--native is for --format aoti, but the format is {args.format}")
    expect_model(args.model)
    from ..export import export

    report = export(find_model(args.model), args.out, args.format, dtype=args.dtype, token_type_ids=args.token_type_ids,
                    native=args.native, max_length=args.max_length)
    checked = ("not compared with the model, since onnxruntime is not installed" if report.difference is None
               else f"logits at most {report.difference:.1e} from the model's")
    say(f"{report.path}: {report.size / 1e6:,.2f} MB, {checked}")
