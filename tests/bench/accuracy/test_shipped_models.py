"""A trained model is shipped in the fastest form that keeps its labels, with a card that says what was counted."""

import csv
import json

import pytest
import shipped_models
from shipped_models import EVERYDAY, KINDS, Model, choose_form, count_right, ship, write_results
from small_classifier import hugging_face_tokenizer
from windowed_models import KINDS as WINDOWED
from windowed_models import windowed_model

from dendritic_bert import TextClassifier

CARD = """# A model

```python
classifier = TextClassifier.from_pretrained("{folder}")
```

- Live parameters: **1,234** (all in the embeddings), written as float16.

| seed | accuracy | seconds |
| --- | ---: | ---: |
| 0 | 0.8000 | 1 |
| 1 | 0.9000 | 1 |
"""


@pytest.fixture
def trained(tmp_path):
    """A model that says positive of every text; the words of its tokenizer are not those of the sentences."""
    folder = tmp_path / "trained"
    model = windowed_model(**WINDOWED["recipe"])
    model.config.id2label, model.config.label2id = {0: "negative", 1: "positive"}, {"negative": 0, "positive": 1}
    model.classifier.bias.data[1] += 100
    model.save_pretrained(folder)
    hugging_face_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text(CARD.format(folder=folder))
    return folder


def test_a_hundred_sentences():
    with open(EVERYDAY, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["text"] for row in rows}) == 100
    assert {row["kind"] for row in rows} == set(KINDS)
    assert {row["label"] for row in rows} == {"negative", "positive"}
    assert sum(row["label"] == "positive" for row in rows) in range(40, 61)


def test_shipping(trained, tmp_path):
    assets = tmp_path / "assets"
    found = ship(Model({}, "tiny", '"tiny"'), trained, assets, ["one text", "and another"])
    config = json.loads((assets / "tiny" / "config.json").read_text())
    assert config["table_dtype"] == "int8" == found["form"]
    assert "auto_map" not in config
    assert (found["accuracy"], found["parameters"], found["agreement"]) == ("85.0 ± 7.1", "1,234", "100.00")
    assert repr(TextClassifier.from_pretrained(assets / "tiny")).endswith("in int8)")

    with open(EVERYDAY, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    positive = sum(row["label"] == "positive" for row in rows)  # all of which are right
    card = (assets / "tiny" / "README.md").read_text(encoding="utf-8")
    assert 'from_pretrained("tiny")' in card
    assert str(trained) not in card
    assert f"it gives {positive} the label" in card
    assert "int8 100.00 %" in card

    path = write_results({"tiny": found}, {"another": count_right(trained)}, tmp_path / "results")
    text = path.read_text(encoding="utf-8")
    assert "| tiny | 85.0 ± 7.1 | 1,234 |" in text
    for name in ("tiny", "another"):
        assert any(line.startswith(f"| {name} |") and line.endswith(f"| {positive} |") for line in text.splitlines())


def test_a_form_that_changes_labels_is_not_taken(trained, monkeypatch):
    shares = {"int8": 0.99, "bfloat16": 0.999}
    monkeypatch.setattr(shipped_models, "label_agreement", lambda model, tokenizer, form, texts: shares[form])
    assert choose_form(trained, ["a text"]) == ("bfloat16", shares)
    shares["bfloat16"] = 0.9969
    assert choose_form(trained, ["a text"])[0] is None
