"""The report holds the metrics, the confusion and the rows that are wrong, for classes, labels and values."""

import csv
import json

import numpy as np
import pandas
import pytest
from sklearn.metrics import classification_report, confusion_matrix

from dendritic_bert.training.evaluation import Evaluation, scores
from dendritic_bert.training.evaluation_report import report_sections, write_evaluation

CLASSES, LABELS, VALUES = "single_label_classification", "multi_label_classification", "regression"
BASELINE = {"accuracy": 0.5, "macro_f1": 0.25, "log_loss": 1.5, "ece": 0.125, "name": "TF-IDF", "num_train": 1234,
            "seconds": 1.0}


def classes(count: int, rows: int = 60, temperature: float = 1.0) -> Evaluation:
    rng = np.random.default_rng(count)
    logits = rng.normal(size=(rows, count)).astype(np.float32)
    labels = np.where(rng.random(rows) < 0.7, logits.argmax(axis=1), rng.integers(0, count, rows))
    return Evaluation(logits, labels, [f"class {i}" for i in range(count)], CLASSES, temperature)


def table_of(text: str, header: str) -> list[list[str]]:
    """The cells below a header of a Markdown table."""
    lines = text[text.index(header):].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return cells[:next((i for i, line in enumerate(lines) if not line), len(lines))]


def test_the_files_of_classes(tmp_path):
    """The tables are scikit-learn's; wrong.csv has each wrong row once, the most confident first."""
    case = classes(3, temperature=2.0)
    texts = [(f'text {i}, with "quotes"\rand line\nends',) for i in range(60)]
    places = [f"rows.csv, line {i + 2}" for i in range(60)]
    found = write_evaluation(tmp_path / "new", case, iter(texts), iter(places), BASELINE)
    assert found == scores(case.logits, case.labels, CLASSES, 2.0)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["confusion_matrix.png", "evaluation.json", "evaluation.md", "reliability.png", "wrong.csv"]

    answers = case.logits.argmax(axis=1)
    figures = json.loads((tmp_path / "new/evaluation.json").read_text())
    assert figures["scores"] == found
    assert figures["confusion_matrix"] == confusion_matrix(case.labels, answers).tolist()
    assert sum(figures["reliability"]["counts"]) == 60
    without = scores(case.logits, case.labels, CLASSES)
    assert figures["without_temperature"] == {name: without[name] for name in ("log_loss", "ece")}
    text = (tmp_path / "new/evaluation.md").read_text()
    assert f"| this model | {found['accuracy']:.4f} | {found['macro_f1']:.4f} |" in text
    assert "| TF-IDF, trained on 1,234 rows in 1 s | 0.5000 | 0.2500 | 1.5000 | 0.1250 |" in text
    assert table_of(text, "| label | class 0 |") == [
        [f"class {i}", *map(str, row)] for i, row in enumerate(confusion_matrix(case.labels, answers).tolist())]
    expected = classification_report(case.labels, answers, output_dict=True)
    assert table_of(text, "| label | precision |") == [
        [f"class {i}", *(f"{expected[str(i)][name]:.4f}" for name in ("precision", "recall", "f1-score")),
         f"{expected[str(i)]['support']:.0f}"] for i in range(3)]

    wrong = pandas.read_csv(tmp_path / "new/wrong.csv", lineterminator="\n")
    rows = [int(place.split()[-1]) - 2 for place in wrong["place"]]
    assert sorted(rows) == np.flatnonzero(answers != case.labels).tolist()
    assert wrong["score"].is_monotonic_decreasing
    exp = np.exp(case.logits.astype(float) / 2)
    assert wrong["score"].tolist() == pytest.approx((exp / exp.sum(axis=1, keepdims=True)).max(axis=1)[rows], abs=1e-6)
    assert wrong["label"].tolist() == [f"class {i}" for i in case.labels[rows]]
    assert wrong["predicted"].tolist() == [f"class {i}" for i in answers[rows]]
    with open(tmp_path / "new/wrong.csv", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [texts[i][0] for i in rows]


def test_labels_and_pairs(tmp_path):
    """The score of a row is that of its most confident wrong label."""
    logits = np.log(np.array([[0.9, 0.8], [0.3, 0.6], [0.05, 0.9]]) / np.array([[0.1, 0.2], [0.7, 0.4], [0.95, 0.1]]))
    labels = np.array([[1, 1], [0, 0], [1, 0]])
    case = Evaluation(logits, labels, ["fun", "war"], LABELS)
    write_evaluation(tmp_path, case, [("a", "A"), ("b", "B"), ("c", "C")])
    assert (tmp_path / "wrong.csv").read_text().splitlines() == [
        '"text","text_pair","label","predicted","score"', '"c","C","fun","war",0.95', '"b","B","","war",0.6']
    text = (tmp_path / "evaluation.md").read_text()
    assert "| fun | 1.0000 | 0.5000 | 0.6667 | 2 |" in text
    assert "confusion" not in text
    assert not (tmp_path / "confusion_matrix.png").exists()


def test_values(tmp_path):
    """Errors of 0, 1 and 3 have a root mean square of 1.83, above which one is."""
    case = Evaluation(np.array([[1.0], [2.0], [6.5]]), np.array([1.0, 1.0, 3.5]), ["score"], VALUES)
    found = write_evaluation(tmp_path, case, [("a",), ("b",), ("c",)])
    assert found["rmse"] == pytest.approx((10 / 3) ** 0.5)
    assert (tmp_path / "wrong.csv").read_text().splitlines() == [
        '"text","label","predicted","error"', '"c","3.5","6.5",3.0']
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation.json", "evaluation.md", "predicted_values.png", "wrong.csv"]
    assert "(predicted_values.png)" in (tmp_path / "evaluation.md").read_text()


def test_values_have_all_digits(tmp_path):
    case = Evaluation(np.float32([[1281712.6], [1], [1]]), np.float32([1234567.9, 1, 1]), ["price"], VALUES)
    write_evaluation(tmp_path, case, [("a",), ("b",), ("c",)])
    assert (tmp_path / "wrong.csv").read_text().splitlines()[1] == '"a","1234567.9","1281712.6",47144.75'


def test_nothing_is_wrong(tmp_path):
    case = classes(4)
    case = case._replace(labels=case.logits.argmax(axis=1))
    assert write_evaluation(tmp_path, case, [("a",)] * 60)["accuracy"] == 1
    assert (tmp_path / "wrong.csv").read_text() == '"text","label","predicted","score"\n'


def test_many_classes_are_told_by_their_confused_pairs():
    case = classes(13, 500)
    text = "\n".join(report_sections(case))
    matrix = confusion_matrix(case.labels, case.logits.argmax(axis=1))
    np.fill_diagonal(matrix, 0)
    rows = table_of(text, "| label | predicted | rows |")
    assert [int(row[2]) for row in rows] == sorted(matrix.ravel().tolist(), reverse=True)[:20]
    assert all(matrix[int(row[0][6:]), int(row[1][6:])] == int(row[2]) for row in rows)


def test_names_that_markdown_would_read():
    case = classes(3)._replace(label_names=["a|b\nc", "", "<script>d</script>"])
    text = "\n".join(report_sections(case))
    assert "| label | a\\|b c | (empty) | &lt;script>d&lt;/script> |" in text
    assert "<" not in text
