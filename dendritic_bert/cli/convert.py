"""``dendritic-bert convert``: a model of this package from a checkpoint of BERT or PerforatedAI, and back."""

from __future__ import annotations

import argparse

from ..embedded_model import find_model
from .flag_types import positive_number
from .messages import say
from .models import expect_model

DESCRIPTION = """\
Make a model of this package, or with --perforated a checkpoint that PerforatedAI can train.

  dendritic-bert convert prajjwal1/bert-tiny my-dsn                       BERT's embeddings under a new head
  dendritic-bert convert prajjwal1/bert-tiny my-dsn --window-dendrites 32 --window-layers 5 --pooling gated_mean
                                                                          with dendrites on windows of tokens, to train
  dendritic-bert convert PAI/best_model.pt my-model --config config.json  a network that grew dendrites, with its head
  dendritic-bert convert my-model PAI --perforated                        and back, to continue its training there"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``convert``."""
    add = parser.add_argument
    add("source", metavar="FILE_OR_FOLDER", help="folder or hub id of a BERT or of a model of this package, or tiny, "
                                                 "which comes with it; or a file of PerforatedAI, or a folder that "
                                                 "holds one")
    add("out", metavar="OUT", help="new folder for the model")
    add("--config", metavar="F", help="BERT's config.json, for a file of PerforatedAI (default: the one beside the "
                                      "file)")
    add("--activation", choices=["sigmoid", "tanh", "relu", "gelu"],
        help="activation of the dendrites in a file of PerforatedAI (default: what the PAI_config.json beside the file "
             "says)")
    add("--perforated", action="store_true", help="write the form that PerforatedAI trains")
    add("--num-labels", type=positive_number, metavar="N", help="number of labels of the new head (default: BERT's)")
    add("--num-dendrites", type=int, metavar="N", help="number of dendrites for each label (default: 0)")
    add("--pooling", choices=["mean_masked", "gated_mean", "mean_all", "sum_all"],
        help="how tokens are pooled (default: mean_masked)")
    add("--window-dendrites", "--window_dendrites", type=positive_number, metavar="M",
        help="number of dendrites in each window layer (default: 0; the model then has no positions, and the mean of "
             "BERT's is added to every word)")
    add("--window-layers", "--window_layers", type=positive_number, metavar="J",
        help="number of window layers (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Convert the checkpoint that ``args`` name."""
    expect_model(args.source)
    from ..model.convert import convert

    options = {name: getattr(args, name)
               for name in ("num_labels", "num_dendrites", "pooling", "window_dendrites", "window_layers", "config",
                            "activation")}
    model = convert(find_model(args.source), args.out, to_perforated=args.perforated,
                    **{name: value for name, value in options.items() if value is not None})
    say(f"{args.out}: {model.num_parameters():,} parameters")
