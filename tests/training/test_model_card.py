"""The model card tells how a model was made and how it scores."""

import json
import re
import shlex

from transformers import HfArgumentParser

from dendritic_bert.training import TrainingOptions, train
from dendritic_bert.training.model_card import licence_of, seeds_table


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


def test_a_table_of_seeds():
    runs = [{"seed": seed, "num_dendrites": 2, "micro_f1": 0.5 + seed, "standard_error": 0.1, "seconds": 2.4}
            for seed in (0, 1)]
    assert seeds_table({"runs": runs}).splitlines() == [
        "| seed | micro f1 | seconds |", "| --- | ---: | ---: |", "| 0 | 0.5000 | 2 |", "| 1 | 1.5000 | 2 |"]


def test_a_teacher_without_a_card_has_no_licence(tmp_path):
    assert licence_of(str(tmp_path)) is None
