"""Training through the Trainer: it learns, a seed decides everything, and what is written is what was scored."""

import itertools
import os
import re
import statistics
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from helpers import shared_path
from trained_files import FILES, same, weights
from transformers import AutoTokenizer, Trainer

from dendritic_bert import DendriticBertForSequenceClassification
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.model.configuration import DendriticBertConfig
from dendritic_bert.training import TrainingOptions, evaluate, train
from dendritic_bert.training.initialization import build_model, live_parameters
from dendritic_bert.training.trainer import open_benchmark, open_own_rows


def test_a_slice_of_sst2_is_learnt(tmp_path):
    """6,000 real phrases: 3 standard errors (5 points) above the most frequent label, and so above chance, on dev."""
    source = shared_path("data/glue/SST-2")
    (tmp_path / "SST-2").mkdir()
    with open(source / "train.tsv", encoding="utf-8") as lines:
        (tmp_path / "SST-2" / "train.tsv").write_text("".join(itertools.islice(lines, 6001)), encoding="utf-8")
    (tmp_path / "SST-2" / "dev.tsv").write_bytes((source / "dev.tsv").read_bytes())
    results = train(TrainingOptions(dsn=True, data_dir=str(tmp_path), output_dir=str(tmp_path / "out"), lr=0.01))
    assert (results["num_train"], results["num_dev"]) == (6000, 872)
    assert results["majority"] == pytest.approx(444 / 872)
    assert results["mean"] > 444 / 872 + 0.05


@pytest.mark.parametrize("num_dendrites", [0, 2])
def test_what_is_scored_is_what_is_written(options, glue, capsys, num_dendrites, every_epoch):
    """90 % of the rows can be learnt, which is 8 standard errors above chance; the files alone give the same score."""
    results = train(options(num_dendrites=num_dendrites, save_dtype="float16", epochs=8, batch_size=30))
    run = results["runs"][0]
    assert 0.8 < run["accuracy"] < 0.97
    assert run["standard_error"] == pytest.approx((run["accuracy"] * (1 - run["accuracy"]) / 120) ** 0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(re.findall(r"seed 0, epoch \d of 8: loss \d\.\d+, dev accuracy \d\.\d+", err)) == 8

    scores = evaluate(results["output_dir"], "sst2", glue)
    assert (scores["accuracy"], scores["num_examples"]) == (run["accuracy"], 120)
    assert sorted(os.listdir(results["output_dir"])) == FILES
    assert {tensor.dtype for tensor in weights(results["output_dir"]).values()} == {torch.float16}
    classifier = TextClassifier.from_pretrained(results["output_dir"])
    assert [found["label"] for found in classifier(["a wonderful film", "a tedious film"])] == ["positive", "negative"]


def test_a_regression_of_pairs(options, glue):
    results = train(options(task="stsb", epochs=6))
    assert results["mean"] == results["runs"][0]["pearson"] > 0.5
    assert results["majority"] is None
    assert evaluate(results["output_dir"], "stsb", glue)["pearson"] == pytest.approx(results["mean"])


def test_matrix_products_in_bfloat16(options, tmp_path):
    """The rounding differs, and so do the weights; the parameters stay float32, and learn."""
    settings = {"epochs": 8, "batch_size": 30}
    results = train(options(**settings, bf16=True))
    assert results["mean"] > 0.8
    train(options(**settings, output_dir=str(tmp_path / "exact")))
    found, exact = weights(tmp_path / "out"), weights(tmp_path / "exact")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert not same(found, exact)


def test_words_are_dropped_in_training_alone(options, monkeypatch):
    """Words are dropped from the training sentences; [CLS] and [SEP] stay, and the dev set is complete."""
    found = []

    def look(trainer, **_):
        found.extend([np.concatenate([rows[i]["attention_mask"] for i in range(100)])
                      for rows in (trainer.train_dataset, trainer.eval_dataset)])
        ids = np.concatenate([trainer.train_dataset[i]["input_ids"] for i in range(100)])
        found.append(found[0][(ids == 2) | (ids == 3)])
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", look)
    with pytest.raises(KeyboardInterrupt):
        train(options(word_dropout=0.9))
    train_mask, dev_mask, special_mask = found
    assert train_mask.mean() < 0.4
    assert dev_mask.all()
    assert len(special_mask) == 200
    assert special_mask.all()


def test_the_learning_rate_rises_and_falls(options, monkeypatch):
    """It rises over the first half of 20 steps, as in the schedule of transformers."""
    from transformers import get_linear_schedule_with_warmup

    from dendritic_bert.training import fit as training

    rates = []
    monkeypatch.setattr(training, "LOGGING_STEPS", 1)
    monkeypatch.setattr(training._Progress, "on_log",
                        lambda self, args, state, control, logs, **_: rates.append(logs.get("learning_rate")))
    train(options(epochs=2, warmup=0.5))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.02)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 20)
    expected = []
    for _ in range(20):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [rate for rate in rates if rate is not None] == pytest.approx(expected)


def test_a_seed_decides_everything(options, tmp_path):
    folders = [str(tmp_path / name) for name in "abc"]
    for folder, seed in zip(folders, (3, 3, 4)):
        torch.rand(seed + len(folder))  # whatever ran before must not count
        train(options(seeds=[seed], output_dir=folder, hidden_dropout_prob=0.1))
    first, again, other = map(weights, folders)
    assert same(first, again)
    assert not same(first, other)
    vocabularies = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in folders]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


def test_short_epochs_share_scores_and_a_checkpoint(options, tmp_path, capsys, monkeypatch):
    for name, seconds, lines in (("each", 0.0, 3), ("last", 1e9, 1)):
        monkeypatch.setattr("dendritic_bert.training.fit.CHECKPOINT_SECONDS", seconds)
        train(options(output_dir=str(tmp_path / name), hidden_dropout_prob=0.1, epochs=3))
        assert len(re.findall(r"seed 0, epoch \d of 3: loss", capsys.readouterr().err)) == lines
    assert same(weights(tmp_path / "each"), weights(tmp_path / "last"))


def test_several_seeds_are_reported_and_the_first_is_kept(options, tmp_path):
    alone = train(options(seeds=[5], output_dir=str(tmp_path / "alone"), epochs=1))
    results = train(options(seeds=[5, 1, 2], epochs=1))
    assert [run["seed"] for run in results["runs"]] == [5, 1, 2]
    assert results["runs"][0]["accuracy"] == alone["mean"]
    assert same(weights(results["output_dir"]), weights(alone["output_dir"]))
    accuracies = [run["accuracy"] for run in results["runs"]]
    assert results["mean"] == pytest.approx(statistics.mean(accuracies))
    assert results["sd"] == pytest.approx(statistics.stdev(accuracies))
    assert len(set(accuracies)) > 1
    assert alone["sd"] is None


def test_what_is_described_is_the_model_that_is_kept(options):
    """Where each seed's model has grown otherwise; here they start so."""
    sizes = iter([2, 0])

    def build(model_class, options, *rest):
        return build_model(model_class, replace(options, num_dendrites=next(sizes)), *rest)

    results = train(options(seeds=[0, 1], epochs=1), build=build)
    kept = DendriticBertForSequenceClassification.from_pretrained(results["output_dir"])
    assert kept.config.num_dendrites == 2
    assert results["live_parameters"] == live_parameters(kept)
    assert "2 dendrites for each label" in Path(results["output_dir"], "README.md").read_text(encoding="utf-8")


def test_a_loss_that_is_no_number(options, tmp_path):
    with pytest.raises(RuntimeError, match=r"^(eval_)?loss is (nan|inf) at step \d+ of 30, with a highest lr of 1e"):
        train(options(lr=1e30))
    assert not (tmp_path / "out").exists()


def test_tensorboard(options, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    results = train(options(report_to="tensorboard", seeds=[0, 1]))
    for run in results["runs"]:
        events = reader.EventAccumulator(str(tmp_path / "out" / "runs" / f"seed-{run['seed']}")).Reload()
        scores = [event.value for event in events.Scalars("eval/accuracy")]
        assert (len(scores), scores[-1]) == (3, pytest.approx(run["accuracy"]))


def test_wandb_without_an_account(options, tmp_path, monkeypatch):
    """Offline, there is one run per seed, and neither files outside output_dir nor settings are left."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    train(options(report_to="wandb", seeds=[0, 1], epochs=1))
    assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))) == 2
    assert os.listdir(tmp_path) == ["out"]
    assert not {"WANDB_DIR", "WANDB_PROJECT"} & os.environ.keys()


def test_a_model_of_another_task(options, glue):
    output = train(options(epochs=1))["output_dir"]
    with pytest.raises(ValueError, match=r" has 2 labels, task 'stsb' has 1: pass a model trained on it\.$"):
        evaluate(output, "stsb", glue)


def test_data_that_is_not_there(options, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^data_dir .* holds no SST-2/train\.tsv"):
        train(options(data_dir=str(tmp_path)))
    assert not (tmp_path / "out").exists()


def test_a_share_takes_the_place_of_a_dev_split(monkeypatch):
    table = datasets.Dataset.from_dict({"text": [f"a text of row {n}" for n in range(40)], "label": ["no", "yes"] * 20})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(train=table, test=table))
    for hold_out, counts in ((None, (40, 40)), (0.2, (32, 8))):
        rows = open_benchmark(TrainingOptions(dataset_name="some/set", hold_out=hold_out))
        assert (rows.num_train, rows.num_dev) == counts


@pytest.mark.parametrize(("label_column", "trained", "labels"), [
    ("label", {"label_column": "label"}, ["maybe", "no", "yes"]),
    ("label", {"label_column": "tone"}, ["no", "yes"]),
    ("label", {}, ["maybe", "no", "yes"]),  # as where a teacher labelled texts
    ("rating", {"label_column": "label"}, []),
])
def test_another_label_column_has_its_own_kind_and_classes(tmp_path, label_column, trained, labels):
    """What a model knows comes first only in the column that it was trained on."""
    lines = [f"a text of row {n},{('no', 'yes')[n % 2]},{n % 7 + 0.5}" for n in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,rating", *lines]) + "\n")
    saved = DendriticBertConfig(id2label=dict(enumerate(["maybe", "no", "yes"])),
                                problem_type="single_label_classification",
                                training_columns={"text_column": "text"} | trained)
    rows = open_own_rows(TrainingOptions(train_file=str(tmp_path / "rows.csv"), label_column=label_column), saved)
    assert rows.labels == labels
    assert rows.settings["problem_type"] == ("single_label_classification" if labels else "regression")
