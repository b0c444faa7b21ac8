"""Every task of GLUE: its files, its metrics, and a training from files in the layout of the download."""

import statistics

import datasets
import numpy as np
import pytest
from glue_files import write_task

from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.glue_tasks import TASKS, find_task
from dendritic_bert.datasets.rows import hold_out
from dendritic_bert.training import TrainingOptions, evaluate, train

# ---- scores, against their definitions, by hand ----------------------------------------------------------------------

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
    """A correlation with it is undefined, and JSON knows no NaN."""
    constant = np.full((4, 2 if TASKS[name].labels else 1), 0.5)
    assert find_task(name).scores(constant, np.array([0, 1, 1, 0]))[find_task(name).metrics[0]] == 0


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_trained_and_scored(tmp_path, name):
    """What can be read off a word is learnt, files alone give the same scores, and those are all the task's."""
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


def test_mnli_and_qqp_as_they_are_downloaded(tmp_path):
    """MNLI's label is the last of 12 (train) or 16 (dev) columns; line ends in questions of QQP break their rows."""
    for split, extra in (("train", ["label1"]), ("dev_mismatched", [f"label{i}" for i in range(1, 6)])):
        header = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse",
                  "sentence1_parse", "sentence2_parse", "sentence1", "sentence2", *extra, "gold_label"]
        row = [*map(str, range(8)), "a premise", "a hypothesis", *["neutral"] * len(extra), "contradiction"]
        (tmp_path / "MNLI").mkdir(exist_ok=True)
        (tmp_path / "MNLI" / f"{split}.tsv").write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
        rows = read_rows("mnli", split, str(tmp_path))
        assert rows.columns == (["a premise"], ["a hypothesis"])
        assert TASKS["mnli"].labels[rows.labels[0]] == "contradiction"
    (tmp_path / "QQP").mkdir()
    (tmp_path / "QQP" / "train.tsv").write_text(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\twho?\twhat?\t0\n4\t5\t6\thow\n\twhen?\t1\n"
        "7\t8\t9\ta\tb\t1\n")
    rows = read_rows("qqp", "train", str(tmp_path))
    assert (rows.columns, rows.labels.tolist()) == ((["who?", "a"], ["what?", "b"]), [0, 1])


def test_mnli_of_the_hub(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_dict({"premise": ["a"], "hypothesis": ["c"], "label": [2]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_rows("mnli", "dev_matched").columns == (["a"], ["c"])
    assert asked == [(("nyu-mll/glue", "mnli"), {"split": "validation_matched"})]


@pytest.mark.parametrize(("text", "message"), [
    ("nan", r"train\.tsv line 2 has the label 'nan', expected a number\."),
    ("entailment", r"train\.tsv line 2 has the label 'entailment', expected a number\."),
])
def test_a_score_that_is_none(tmp_path, text, message):
    write_task(tmp_path, "stsb", {"train": 1})
    path = tmp_path / "STS-B" / "train.tsv"
    path.write_text(path.read_text().replace("4.500", text).replace("0.000", text))
    with pytest.raises(ValueError, match=message):
        read_rows("stsb", "train", str(tmp_path))


def test_a_split_that_is_not_there():
    with pytest.raises(ValueError, match=r"^split is 'dev', task 'mnli' has train, dev_matched, dev_mismatched\.$"):
        read_rows("mnli", "dev")
    with pytest.raises(ValueError, match=r"^split is 'test', task 'sst2' has train, dev\.$"):
        read_rows("sst2", "test")


# ---- a task without training rows ------------------------------------------------------------------------------------


def test_rows_held_out(tmp_path):
    write_task(tmp_path, "qnli", {"dev": 50})
    rows = read_rows("qnli", "dev", str(tmp_path))
    kept, held = hold_out(rows, 0.2)
    assert (len(kept.labels), len(held.labels)) == (40, 10)
    everything = sorted(zip(*rows.columns, rows.labels))
    assert sorted([*zip(*kept.columns, kept.labels), *zip(*held.columns, held.labels)]) == everything
    assert hold_out(rows, 0.2)[1].columns == held.columns
    with pytest.raises(ValueError, match=r"^hold_out is 0\.001, which of 50 rows leaves none on one side"):
        hold_out(rows, 0.001)


def test_training_on_a_part_of_the_dev_set(tmp_path):
    write_task(tmp_path, "qnli", {"dev": 200})
    options = {"task": "qnli", "dsn": True, "data_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    with pytest.raises(FileNotFoundError, match=r"holds no QNLI/train\.tsv, .*, or hold_out to train on dev rows\.$"):
        train(TrainingOptions(**options))
    results = train(TrainingOptions(**options, hold_out=0.2, lr=0.02, batch_size=20, epochs=10, word_dropout=0.0))
    assert (results["num_train"], results["num_dev"]) == (160, 40)
    assert results["mean"] > 0.8
