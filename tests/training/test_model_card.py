"""The model card tells how a model was made and how it scores; the embedded model is what its card says."""

import json
import re
import shlex
import statistics
from pathlib import Path

import pytest
from helpers import shared_path
from trained_files import FILES
from transformers import AutoModelForSequenceClassification, HfArgumentParser

from dendritic_bert import EMBEDDED_MODEL
from dendritic_bert.training import TrainingOptions, evaluate, train


def test_the_model_card_tells_how(options):
    """Its command gives the same options again, and its figures are those of the results."""
    asked = options(seeds=[2, 7], epochs=1, num_dendrites=1, hidden_size=8, output_dir=options().output_dir + " 2")
    results = train(asked)
    with open(f"{asked.output_dir}/README.md", encoding="utf-8") as file:
        card = file.read()
    command = shlex.split(re.search(r"```\n(dendritic-bert train .*)\n```", card)[1])
    assert HfArgumentParser(TrainingOptions).parse_args_into_dataclasses(command[2:]) == (asked,)
    assert f"**{results['live_parameters']['all']:,}**" in card
    for run in results["runs"]:
        assert f"| {run['seed']} | {run['accuracy']:.4f} |" in card
    assert f"**{results['mean']:.4f}**, standard deviation {results['sd']:.4f}" in card
    assert f"value: {results['runs'][0]['accuracy']}" in card
    assert json.loads(json.dumps(results)) == results


def test_the_embedded_model_is_what_its_card_says():
    """At most 0.49 M live parameters and 2 MB; the card's five seeds average at least 81 %, and it holds the first."""
    files = {path.name: path.stat().st_size for path in Path(EMBEDDED_MODEL).iterdir()}
    assert sorted(files) == FILES
    assert sum(files.values()) <= 2_000_000
    card = (Path(EMBEDDED_MODEL) / "README.md").read_text(encoding="utf-8")
    model = AutoModelForSequenceClassification.from_pretrained(EMBEDDED_MODEL)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 490_000
    assert model.config.id2label == {0: "negative", 1: "positive"}
    rows = re.findall(r"^\| (\d+) \| (0\.\d+) \|", card, re.MULTILINE)
    assert [int(seed) for seed, _ in rows] == [0, 1, 2, 3, 4]
    assert statistics.mean(float(accuracy) for _, accuracy in rows) >= 0.81

    scores = evaluate(EMBEDDED_MODEL, "sst2", str(shared_path("data/glue")))
    assert (scores["num_examples"], scores["num_truncated"]) == (872, 0)
    assert scores["accuracy"] == pytest.approx(float(rows[0][1]), abs=0.0024)  # two sentences: rounding elsewhere
