"""``dendritic-bert classify``: texts from the command line, a file or standard input, to labels and scores."""

from __future__ import annotations

import argparse

from .flag_types import number_or_all
from .models import load_model
from .text_flags import add_text_flags, write_results

DESCRIPTION = """\
Classify texts: one line for each, with text, label and score, in order.

  dendritic-bert classify "a charming journey" "unflinchingly bleak"
  cut -f1 reviews.tsv | dendritic-bert classify | jq .label
  dendritic-bert classify --file reviews.csv --column review --output labels.csv

Without TEXT and --file the texts are read from standard input, one per line. An output file appears when it is
complete. If the run is interrupted, or stops at a malformed line that is then mended, the same command continues where
that run ended; Parquet or Arrow that was mended starts over with --restart."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``classify``."""
    add_text_flags(parser, "folder or hub id of a model, or tiny, the smaller of the two that come with the package "
                           "(default: the larger one)")
    add = parser.add_argument
    add("--text-pair-column", metavar="NAME", help="column of the second texts, for a model that was trained on pairs")
    add("--top-k", type=number_or_all, metavar="K",
        help="write the K labels with the highest scores, or all of them, in a list: labels of a JSON object, "
             "label_1, score_1, label_2, ... elsewhere (default: the best, as label and score)")
    add("--threshold", type=float, metavar="P",
        help="write every label with this score or more, in such a list, which may be empty: for multi-label models")
    add("--abstain-below", type=float, metavar="P", help="write no label (null, or nothing) where the score is lower")
    add("--all-scores", action="store_true",
        help="write the score of every label too: scores of a JSON object, columns score_LABEL elsewhere (a regression "
             "with several targets writes them anyway)")
    add("--function-to-apply", choices=["sigmoid", "softmax", "none"],
        help="what makes scores of the logits (default: what the model's kind of problem asks for)")


def run(args: argparse.Namespace) -> None:
    """Classify the texts that ``args`` name."""
    write_results(
        args, "classified", lambda: load_model("TextClassifier", args.model, args.device, args.revision),
        lambda classifier, *paths, **options: classifier.classify_file(
            *paths, text_pair_column=args.text_pair_column, top_k={None: "", "all": None}.get(args.top_k, args.top_k),
            function_to_apply=args.function_to_apply, threshold=args.threshold, abstain_below=args.abstain_below,
            all_scores=args.all_scores, **options))
