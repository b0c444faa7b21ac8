"""Trains the models that come with the package, chooses the form in which each computes, and completes its card.

    python bench/accuracy/shipped_models.py --data_dir glue --text_dir sst2_distill

Both are the recipe of ``windows``, the second with a smaller vocabulary and shorter vectors. No seed and no epoch is
chosen: five seeds are trained, and the first is shipped. What is trained is kept in ``work_dir``. Writes the folders in
``assets``, and shipped_models.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import windows
from result_files import made_by, read_csv

from dendritic_bert import TextClassifier
from dendritic_bert.datasets.natural_text import read_texts
from dendritic_bert.inference.agreement import ENOUGH, label_agreement
from dendritic_bert.training.distillation import distill
from dendritic_bert.training.markdown import markdown_table

SEEDS = 5
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
CARD = "README.md"
FORMS = ("int8", "bfloat16")  # the fastest first; float32 is what a model computes in that names none
NUM_TEXTS = 20_000
EVERYDAY = Path(__file__).with_name("everyday.csv")
Right = dict[str, tuple[int, int]]  # how many sentences of each kind are labelled rightly, and of how many
KINDS = {"negation": "negations", "exclamation": "exclamations", "product": "products and services"}


class Model(NamedTuple):
    """A model that is shipped: what it changes in the recipe, its folder in ``assets``, and how it is loaded."""

    changes: dict[str, Any]
    folder: str
    argument: str


MODELS = {"embedded": Model({}, ".", ""), "tiny": Model(windows.SMALL, "tiny", '"tiny"')}

ORIGIN = """\
## Teacher and texts

The teacher is all-mpnet-base-v2 (Apache-2.0), fine-tuned on the training rows of SST-2, whose accuracy on the dev set
is 93.3 to 93.9 %. Its margins came with the texts: the training rows of SST-2 (67,349 phrases and sentences, GLUE),
3,972 quotes of reviews (subjectivity corpus, Pang and Lee 2004), 57,997 sentences of film reviews (polarity corpus 2.0,
Pang and Lee 2004) and 300,000 sentences of the Large Movie Review Dataset (Maas et al. 2011), which are published for
research and of which nothing is contained here but the vocabulary. None of the texts beside the training rows shares
six words in a row with a dev or a test sentence. The training rows are as GLUE has them: of 67,349, 148 share six words
in a row with one of the 872 dev sentences.
"""


def choose_form(folder: Path, texts: list[str]) -> tuple[str | None, dict[str, float]]:
    """The fastest form whose labels are those of float32 for enough of ``texts``, None for float32; and the share of
    equal labels by form."""
    classifier = TextClassifier.from_pretrained(folder)
    agreement = {form: label_agreement(classifier.model, classifier.tokenizer, form, texts) for form in FORMS}
    return next((form for form in FORMS if agreement[form] >= ENOUGH), None), agreement


def count_right(folder: str | Path | None) -> Right:
    """How many everyday sentences a model gives the label that a person gives, and how many there are, by kind."""
    rows = read_csv(EVERYDAY)
    found = TextClassifier.from_pretrained(folder)([row["text"] for row in rows])
    right = [row["label"] == result["label"] for row, result in zip(rows, found)]
    return {kind: (sum(r for r, row in zip(right, rows) if row["kind"] == kind),
                   sum(row["kind"] == kind for row in rows)) for kind in KINDS}


def ship(model: Model, trained: Path, assets: Path, texts: list[str]) -> dict[str, Any]:
    """Write the folder of a trained model into ``assets``, with its form and the whole card; returns what was found."""
    form, agreement = choose_form(trained, texts)
    folder = assets / model.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(trained / name, folder)
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    if form is not None:
        config["table_dtype"] = form
    if model.folder != ".":  # the code that auto_map names lies beside the first model alone
        config.pop("auto_map", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    right = count_right(folder)
    card = (trained / CARD).read_text(encoding="utf-8").replace(f'from_pretrained("{trained}")',
                                                               f"from_pretrained({model.argument})")
    (folder / CARD).write_text("\n".join([card.rstrip(), "", ORIGIN, *_form_section(form, agreement, len(texts)),
                                          *_everyday_section(right)]), encoding="utf-8")
    scores = [float(score) for score in re.findall(r"^\| \d+ \| (0\.\d+) \|", card, re.MULTILINE)]
    parameters = re.search(r"Live parameters: \*\*([\d,]+)\*\*", card)
    assert parameters is not None
    return {"accuracy": f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores, ddof=1):.1f}",
            "parameters": parameters[1], "bytes": f"{sum((folder / name).stat().st_size for name in FILES):,}",
            "form": form or "float32", "agreement": f"{100 * agreement[form]:.2f}" if form else "100",
            "right": right}


def _form_section(form: str | None, agreement: dict[str, float], num_texts: int) -> list[str]:
    shares = ", ".join(f"{name} {100 * share:.2f} %" for name, share in agreement.items())
    return ["## How it computes\n",
            f"`TextClassifier` computes it in {form or 'float32'}: the fastest form whose labels are those of float32 "
            f"for at least {100 * ENOUGH:g} % of {num_texts:,} sentences of film reviews that it was not trained on "
            f"({shares}). In int8 all layers are integers, so that every processor gives the same logits.\n"]


def _everyday_section(right: Right) -> list[str]:
    total = sum(number for number, _ in right.values())
    parts = ", ".join(f"{number} of {of} {KINDS[kind]}" for kind, (number, of) in right.items())
    return ["## Everyday sentences\n",
            f"Of a hundred sentences that people type (bench/accuracy/everyday.csv) it gives {total} the label that a "
            f"person gives: {parts}.\n"]


def write_results(found: dict[str, dict[str, Any]], beside: dict[str, Right], output: Path) -> Path:
    """Write shipped_models.md, in which ``beside`` are further models' everyday sentences by name."""
    output.mkdir(parents=True, exist_ok=True)
    columns = ("accuracy", "parameters", "bytes", "form", "agreement")
    models = [[name, *(result[column] for column in columns)] for name, result in found.items()]
    everyday = {**{name: result["right"] for name, result in found.items()}, **beside}
    sentences = [[name, *(f"{right[kind][0]} of {right[kind][1]}" for kind in KINDS),
                  str(sum(number for number, _ in right.values()))] for name, right in everyday.items()]
    path = output / "shipped_models.md"
    path.write_text("\n".join([
        "# The models that come with the package\n",
        f"Accuracy on SST-2's dev sentences in percent, mean ± standard deviation over {SEEDS} seeds, of which the "
        "first is shipped; live parameters; bytes on disk with the tokenizer; the form in which it computes, and how "
        f"many of {NUM_TEXTS:,} labels are those of float32, in percent.\n",
        markdown_table(["model", *columns], models, num_text_columns=1),
        "A hundred sentences that people type, with the labels that a person gives: how many a model labels so.\n",
        markdown_table(["model", *KINDS.values(), "all"], sentences, num_text_columns=1),
        made_by("shipped_models")]), encoding="utf-8")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and print the path of the results."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder of the GLUE download")
    parser.add_argument("--text_dir", type=Path, required=True, help="folder of natural texts and a teacher's margins")
    parser.add_argument("--assets", type=Path, default=Path("dendritic_bert/assets"), help="folder of the models")
    parser.add_argument("--output", type=Path, default=Path("bench/results/accuracy"), help="folder for the results")
    parser.add_argument("--work_dir", type=Path, default=Path("build/shipped_models"), help="folder for the trainings")
    parser.add_argument("--beside", nargs="*", default=[], metavar="NAME=FOLDER",
                        help="further models, whose everyday sentences stand beside")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training rows, for a trial run")
    args = parser.parse_args(argv)
    texts = read_texts([str(args.text_dir / "imdb_rest.txt.xz")])[:NUM_TEXTS]
    found = {}
    for name, model in MODELS.items():
        trained = args.work_dir / name
        if not (trained / CARD).exists():
            distill(windows.recipe_options(args.data_dir, str(args.text_dir), args.fraction, **model.changes,
                                           seeds=list(range(SEEDS)), output_dir=str(trained)))
        found[name] = ship(model, trained, args.assets, texts)
    beside = {name: count_right(folder) for name, _, folder in (entry.partition("=") for entry in args.beside)}
    print(write_results(found, beside, args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
