"""The recipe's loss is the study's, every option fits, and the tables have the figures of the rows."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from experiments import digest, run_experiments, summarise
from windows import CHANGES, CURVE, RECIPE, first_experiments, other_experiments, recipe_options, windows_tables

from dendritic_bert.training.distillation import distillation_loss


def test_the_loss_is_that_of_the_study_up_to_a_factor():
    """0.8 T BCE(student / T, sigmoid(teacher / T)) + 0.2 cross-entropy, by the margins of two logits."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 9, generator=generator, dtype=torch.float64) * 3
    student.requires_grad_()
    classes, t = torch.arange(9) % 2, RECIPE["temperature"]
    study = 0.8 * t * F.binary_cross_entropy_with_logits(student / t, torch.sigmoid(teacher / t))
    study = study + 0.2 * F.binary_cross_entropy_with_logits(student, classes.double())
    logits = torch.stack([-student / 2, student / 2], dim=1)
    labels = torch.stack([-teacher / 2, teacher / 2, classes.double()], dim=1)
    loss = distillation_loss(SimpleNamespace(logits=logits), labels, temperature=t, teacher_share=2 / 3)
    expected, found = (torch.autograd.grad(value, student)[0] for value in (study, loss))
    torch.testing.assert_close(found, expected * (5 / 3), rtol=1e-12, atol=0)
    assert RECIPE["teacher_share"] == pytest.approx(2 / 3, abs=1e-4)


def test_the_tables_have_the_figures_of_the_rows(tmp_path):
    def run(options):
        (tmp_path / options.output_dir).mkdir(parents=True)
        accuracy = 0.8 + options.seeds[0] / 100 + options.window_layers / 100
        runs = [{"seed": options.seeds[0], "accuracy": accuracy, "standard_error": 0.01, "seconds": 60}]
        return {"runs": runs, "metric": "accuracy", "majority": 0.5, "num_train": 100, "num_dev": 872,
                "num_natural": 10 * len(getattr(options, "extra_margins", ())),
                "live_parameters": {"all": options.hidden_size * 1000}}

    path, data = tmp_path / "windows.csv", ("glue", "texts", 1.0)
    first, others = ([experiment._replace(run=run) for experiment in make(*data)]
                     for make in (first_experiments, other_experiments))
    rows = run_experiments(first, [0, 1], path) + run_experiments(others, [0], path)
    text = "\n".join(windows_tables(summarise(rows, ["kind", "change", "texts"])))
    assert len(rows) == 4 + len(CHANGES) + len(CURVE) + 1
    for row in ("| the recipe | 85.5 ± 0.7 | 32,000 | 60 |", "| the small recipe | 85.5 ± 0.7 | 16,000 | 60 |",
                "| 2 layers | 82.0 | 32,000 | 60 | -3.5 |", "| 120 | train quotes | 85.0 | 32,000 | 60 |",
                "| 140 | train quotes movie_reviews imdb_top | 85.5 ± 0.7 | 32,000 | 60 |"):
        assert row in text


def test_where_the_texts_lie_does_not_make_it_another_training():
    assert digest(recipe_options("glue", "here")) == digest(recipe_options("data", "there"))
    assert digest(recipe_options("glue", "here")) != digest(recipe_options("glue", "here", files=("train",)))
