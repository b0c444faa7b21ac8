"""``dendritic-bert encode``: texts from the command line, a file or standard input, to embeddings."""

from __future__ import annotations

import argparse

from .models import load_model
from .text_flags import add_text_flags, write_results

DESCRIPTION = """\
Give texts their embeddings: one line or row for each, with text and embedding, in order.

  dendritic-bert encode "a dog runs across the beach" | jq .embedding
  dendritic-bert encode --file sentences.txt --output embeddings.parquet
  dendritic-bert encode --file reviews.csv --column review --keep-columns id --output embeddings.parquet

An embedding has six decimals, and length 1 unless --no-normalize is given: then the product of two is their cosine. In
Parquet and Arrow it is a list of float32. Texts, files and interruptions are those of classify."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``encode``."""
    add_text_flags(parser, "folder or hub id of an encoder (default: the one that comes with the package)")
    parser.add_argument("--no-windows", dest="windows", action="store_false",
                        help="of an encoder in two forms take the gated bag of words, which is faster and less exact")
    parser.add_argument("--no-normalize", dest="normalize", action="store_false",
                        help="write the embeddings as the projection gives them, not of length 1")


def run(args: argparse.Namespace) -> None:
    """Encode the texts that ``args`` name."""
    write_results(args, "encoded", lambda: load_model("TextEncoder", args.model, args.device, args.revision,
                                                      windows=args.windows),
                  lambda encoder, *paths, **options: encoder.encode_file(*paths, normalize=args.normalize, **options))
