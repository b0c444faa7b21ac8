"""The table has the teacher's and the student's accuracy on test rows, and their agreement, counted by hand."""

import csv

import students
from own_rows import Table
from small_classifier import hugging_face_tokenizer
from windowed_models import KINDS, windowed_model

from dendritic_bert import TextClassifier

TABLE = Table(["title", "text", "label"], {
    "train": [["so", f"glad\n{i}", "happy"] for i in range(8)] + [["so", f"sad {i}", "unhappy"] for i in range(8)],
    "dev": [["not", "glad", "unhappy"]], "test": [["a", f"word {i}", ("happy", "unhappy")[i % 2]] for i in range(11)]})


def save_model(folder, shift):
    model = windowed_model(**KINDS["recipe"])
    model.classifier.bias.data[1] += shift
    model.config.id2label, model.config.label2id = {0: "happy", 1: "unhappy"}, {"happy": 0, "unhappy": 1}
    model.save_pretrained(folder)
    hugging_face_tokenizer().save_pretrained(folder)


def test_a_small_measurement(tmp_path, monkeypatch):
    asked = []

    def train(options):
        asked.append(options)
        save_model(options.output_dir, shift=0)

    def distill(options):
        asked.append(options)
        save_model(options.output_dir, shift=0.5)
        return {"num_train": 16, "live_parameters": {"all": 1234}, "seconds": 7.0}

    monkeypatch.setattr(students, "train", train)
    monkeypatch.setattr(students, "distill", distill)
    monkeypatch.setattr(students, "read_table", lambda *arguments: TABLE)
    assert students.main(["--own_dir", "own", "--data_dir", "glue", "--bert", "bert-tiny", "--tables", "irony",
                          "--output", str(tmp_path / "results"), "--work_dir", str(tmp_path / "work")]) == 0
    teacher, student = asked
    assert (teacher.model_name, teacher.dsn, teacher.label_column) == ("bert-tiny", False, "label")
    assert student.teacher == teacher.output_dir
    assert (tmp_path / "work" / "irony" / "texts.txt").read_text().splitlines()[:2] == ["so glad 0", "so glad 1"]

    with open(tmp_path / "results" / "students.csv", newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    texts = [" ".join(fields[:-1]) for fields in TABLE.rows["test"]]
    labels = [[result["label"] for result in TextClassifier.from_pretrained(options.output_dir)(texts)]
              for options in asked]
    truth = [fields[-1] for fields in TABLE.rows["test"]]
    pairs = {"teacher": (labels[0], truth), "student": (labels[1], truth), "agreement": labels}
    for name, (one, other) in pairs.items():
        assert float(row[name]) == sum(a == b for a, b in zip(one, other)) / 11
    assert (row["classes"], row["test"], row["parameters"]) == ("2", "11", "1234")
    assert "| irony | 16 | 2 | 11 |" in (tmp_path / "results" / "students.md").read_text(encoding="utf-8")
