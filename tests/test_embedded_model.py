"""The models that come with the package are what their cards say, and are found by their names."""

import re
import statistics
from pathlib import Path

import pytest
from helpers import shared_path
from transformers import AutoModelForSequenceClassification

from dendritic_bert import EMBEDDED_MODEL, TextClassifier, TextEncoder
from dendritic_bert.embedded_model import SHIPPED_MODELS, find_model
from dendritic_bert.training import evaluate

# Live parameters, bytes with the tokenizer, and mean accuracy of the five seeds in the card.
LIMITS = {None: (490_000, 1_500_000, 0.893), "tiny": (130_000, 700_000, 0.88)}


@pytest.mark.parametrize("name", LIMITS)
def test_a_shipped_model_is_what_its_card_says(name):
    """It keeps within its limits, and its weights are those of the card's first seed."""
    folder = Path(find_model(name))
    most_parameters, most_bytes, least_accuracy = LIMITS[name]
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")]
    assert sum(path.stat().st_size for path in files) <= most_bytes
    card = (folder / "README.md").read_text(encoding="utf-8")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters <= most_parameters
    assert f"Live parameters: **{parameters:,}**" in card
    assert model.config.id2label == {0: "negative", 1: "positive"}
    rows = re.findall(r"^\| (\d+) \| (0\.\d+) \|", card, re.MULTILINE)
    assert [int(seed) for seed, _ in rows] == [0, 1, 2, 3, 4]
    assert statistics.mean(float(accuracy) for _, accuracy in rows) >= least_accuracy

    scores = evaluate(str(folder), "sst2", str(shared_path("data/glue")))
    assert (scores["num_examples"], scores["num_truncated"]) == (872, 0)
    assert scores["accuracy"] == pytest.approx(float(rows[0][1]), abs=0.0024)  # two sentences: rounding elsewhere


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(None) == EMBEDDED_MODEL
    assert find_model("tiny") == SHIPPED_MODELS["tiny"]
    assert find_model("someone/model") == "someone/model"
    assert find_model(tmp_path) == str(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert find_model("tiny") == "tiny"


@pytest.mark.parametrize("name", ["./missing", "a/b/c", "", "what is this"])
@pytest.mark.parametrize("kind", [TextClassifier, TextEncoder])
def test_what_is_neither_a_folder_nor_an_id(kind, name):
    with pytest.raises(FileNotFoundError, match=rf"^model {name or repr(name)} does not exist: pass a folder or"):
        kind.from_pretrained(name)


def test_the_smaller_model_classifies():
    classifier = TextClassifier.from_pretrained("tiny")
    assert [result["label"] for result in classifier(["a charming journey", "no plot, no wit"])] == [
        "positive", "negative"]
    assert classifier.config.hidden_size == 16
