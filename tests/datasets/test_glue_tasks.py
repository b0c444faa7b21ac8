"""The tasks of GLUE: their metrics against the definitions, and a training on each of them."""

import statistics

import numpy as np
import pytest
from glue_files import write_task

from dendritic_bert.datasets.glue_tasks import TASKS, find_task
from dendritic_bert.training import TrainingOptions, evaluate, train

LOGITS, LABELS = np.array([[0, 1], [1, 0], [0, 1], [0, 1.0]]), np.array([1, 0, 0, 1])  # 2 TP, 1 FP, 1 TN


def test_metrics_of_two_classes():
    assert find_task("mrpc").scores(LOGITS, LABELS) == find_task("qqp").scores(LOGITS, LABELS) == {
        "accuracy": 0.75, "f1": pytest.approx(4 / 5), "standard_error": pytest.approx((0.75 * 0.25 / 4) ** 0.5)}
    matthews = (2 * 1 - 1 * 0) / (3 * 2 * 2 * 1) ** 0.5
    assert find_task("cola").scores(LOGITS, LABELS)["matthews_correlation"] == pytest.approx(matthews)


def test_metrics_of_a_regression():
    scores = find_task("stsb").scores(np.array([[1.0], [2.0], [9.0]]), np.array([1.0, 3.0, 4.0]))
    assert scores == {"pearson": pytest.approx(statistics.correlation([1, 2, 9], [1, 3, 4])),
                      "spearman": pytest.approx(1)}


def test_mnli_is_judged_twice():
    logits = np.eye(3)[[0, 1, 2, 2]]
    mnli = find_task("mnli")
    assert mnli.scores(logits, np.array([0, 1, 2, 1]), "dev_mismatched") == {
        "accuracy_mismatched": 0.75, "standard_error_mismatched": pytest.approx((0.75 * 0.25 / 4) ** 0.5)}
    assert mnli.main_metric == "accuracy_matched"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cola", "stsb"])
def test_a_constant_prediction_is_worth_nothing(name):
    """A correlation with it is undefined, and JSON has no NaN."""
    constant = np.full((4, 2 if TASKS[name].labels else 1), 0.5)
    assert find_task(name).scores(constant, np.array([0, 1, 1, 0]))[find_task(name).metrics[0]] == 0


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_trained_and_scored(tmp_path, name):
    """A label that one word decides is learnt, and the saved files alone give the same scores for every metric."""
    task = TASKS[name]
    write_task(tmp_path, name, {"train": 300, **dict.fromkeys(task.dev_splits, 60)})
    output = str(tmp_path / "out")
    results = train(TrainingOptions(task=name, dsn=True, data_dir=str(tmp_path), output_dir=output, epochs=10, lr=0.02,
                                    batch_size=30, hidden_size=8, word_dropout=0.0))
    assert results["metric"] == task.main_metric
    assert results["mean"] > 0.8
    scores = evaluate(output, name, str(tmp_path))
    expected = {metric + split.removeprefix("dev") for metric in task.metrics for split in task.dev_splits}
    assert expected == {key for key in scores if not key.startswith("standard_error")} - {
        "task", "num_examples", "num_truncated"}
    assert {key: scores[key] for key in expected} == pytest.approx({key: results["runs"][0][key] for key in expected})
    assert len(task.labels) == (3 if name == "mnli" else 0 if name == "stsb" else 2)


def test_training_on_a_part_of_the_dev_set(tmp_path):
    write_task(tmp_path, "qnli", {"dev": 200})
    options = {"task": "qnli", "dsn": True, "data_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    with pytest.raises(FileNotFoundError, match=r"holds no QNLI/train\.tsv, .*, or hold_out to train on dev rows\.$"):
        train(TrainingOptions(**options))
    results = train(TrainingOptions(**options, hold_out=0.2, lr=0.02, batch_size=20, epochs=10, word_dropout=0.0))
    assert (results["num_train"], results["num_dev"]) == (160, 40)
    assert results["mean"] > 0.8
