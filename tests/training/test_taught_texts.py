"""A student of a Hugging Face classifier and of texts that nobody labelled agrees with it on texts that it has not
seen, and its card says how often."""

import itertools
import json
import os

import numpy as np
import pytest
import torch
from helpers import tiny_bert
from small_encoder import WINDOWS, save_encoder, small_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from dendritic_bert.datasets.vocabulary import train_vocabulary
from dendritic_bert.training.distillation import distill
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.taught_texts import TaughtTexts
from dendritic_bert.training.workspace import open_workspace

NAMES = {0: "bad", 1: "good", 2: "neither"}
CLASS = {"warm": 1, "charming": 1, "dull": 0, "bleak": 0, "long": 2, "new": 2}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of 864 texts, some of them twice."""
    words = itertools.product(("the", "this", "their", "a"), ("film", "plot", "cast", "score", "play", "show"),
                              ("is", "was", "seems"), ("", "very"), CLASS, ("today", ".", ""))
    found = [" ".join(" ".join(row).split()) for row in words]
    path = tmp_path_factory.mktemp("texts") / "unlabelled.txt"
    path.write_text("\n".join(found[:864] + found[:20]) + "\n")
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, texts):
    """A BERT that was fine-tuned on which texts are good, bad and neither."""
    folder, lines = tmp_path_factory.mktemp("teacher"), texts.read_text().splitlines()
    tokenizer = train_vocabulary(lines, 300)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=20, initializer_range=0.1, hidden_dropout_prob=0.0, id2label=NAMES,
        label2id={name: number for number, name in NAMES.items()})).train()
    targets = torch.tensor([next(CLASS[word] for word in line.split() if word in CLASS) for line in lines])
    batch = tokenizer(lines, padding=True, return_tensors="pt")
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(90):
        rows = slice(step % 6, None, 6)
        loss = model(**{name: values[rows] for name, values in batch.items()}, labels=targets[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A teacher\n")
    return folder


@pytest.fixture
def options(texts, teacher, tmp_path):
    def make(**changes) -> DistillationOptions:
        return DistillationOptions(**{
            "teacher": str(teacher), "text_file": str(texts), "output_dir": str(tmp_path / "student"), "epochs": 4,
            "window_dendrites": 8, "window_layers": 2, "hidden_size": 8, "lr": 0.02, "batch_size": 32, "ema": 0.9,
            "vocab_size": 300} | changes)

    return make


def test_a_student_agrees_with_its_teacher_on_texts_it_has_not_seen(options, teacher):
    results = distill(options(text_licence="cc0-1.0"))
    assert (results["num_train"], results["num_dev"]) == (778, 86)
    assert results["metric"] == "agreement"
    assert results["majority"] < 0.6
    assert results["mean"] > 0.9
    assert json.loads(json.dumps(results)) == results
    folder = results["output_dir"]
    student = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert student.config.id2label == NAMES
    assert (student.config.window_layers, student.config.max_position_embeddings) == (2, 0)
    tokens = AutoTokenizer.from_pretrained(folder)(["the plot was very warm"], return_tensors="pt")
    words = AutoTokenizer.from_pretrained(teacher)(["the plot was very warm"], return_tensors="pt")
    with torch.no_grad():
        theirs = AutoModelForSequenceClassification.from_pretrained(teacher)(**words).logits
        assert student(**tokens).logits.argmax() == theirs.argmax()
    with open(f"{folder}/README.md", encoding="utf-8") as file:
        card = file.read()
    assert f"gives the teacher's label for **{100 * results['mean']:.1f} %**" in card
    assert f"The teacher is `{teacher}`, licence: apache-2.0. The texts are those of unlabelled.txt, lic" in card
    assert "\ndendritic-bert distill " in card
    assert "--label_smoothing" not in card


def test_a_student_from_the_encoder_learns_from_a_teacher_that_is_sure(options, teacher, tmp_path, monkeypatch):
    """Whose logits are no classes, however large they are."""
    sure = BertForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        sure.classifier.weight *= 10
    sure.save_pretrained(tmp_path / "sure")
    AutoTokenizer.from_pretrained(teacher).save_pretrained(tmp_path / "sure")
    monkeypatch.setattr("dendritic_bert.training.options.EMBEDDED_ENCODER",
                        save_encoder(tmp_path / "encoder", small_encoder(**WINDOWS)))
    results = distill(options(teacher=str(tmp_path / "sure"), window_dendrites=None, window_layers=None,
                              hidden_size=None, vocab_size=None))
    assert results["start"] == "the pretrained encoder of the package"
    assert results["mean"] > 0.9


def test_a_tenth_of_the_texts_is_held_out_and_no_text_is_on_both_sides(options, texts):
    taught = TaughtTexts(options())
    train, dev = (set(rows.columns[0]) for rows in (taught.train, taught.dev))
    assert not train & dev
    assert train | dev == set(texts.read_text().splitlines())
    assert set(taught.texts()) == train
    logits = np.eye(3)[taught.dev.labels[:, -1].astype(int)]
    assert taught.scores(logits)["agreement"] == 1
    wrong = np.roll(logits, 1, axis=1)
    wrong[:43] = logits[:43]
    assert taught.scores(wrong) == {"agreement": 0.5, "standard_error": pytest.approx(0.5 / 86**0.5)}


def test_texts_or_a_teacher_that_do_not_fit(options, encoder, tmp_path):
    with pytest.raises(ValueError, match="has no classifier, and text_file has no labels to train one on: pass a seq"):
        distill(options(teacher=encoder))
    (tmp_path / "one.txt").write_text("one\none\n")
    with pytest.raises(ValueError, match="text_file has 1 different texts, of which none would be left to train on"):
        distill(options(text_file=str(tmp_path / "one.txt")))
    tiny_bert(BertForSequenceClassification, num_labels=1).save_pretrained(tmp_path / "number")
    with pytest.raises(ValueError, match="has 1 labels and the problem_type None: pass a classifier that gives a text"):
        distill(options(teacher=str(tmp_path / "number")))
    with pytest.raises(ValueError, match=r"^text_file and train_file are both given: the texts take the place of rows"):
        options(train_file="rows.csv")


def test_a_folder_in_use_is_left_alone(options):
    """It is found before the teacher is asked, whose logits would stay there."""
    with open_workspace(options().output_dir, {}) as workspace:
        with pytest.raises(BlockingIOError, match=r"^output_dir .*student is in use by another training: wait for it"):
            distill(options())
        assert sorted(os.listdir(options().output_dir)) == [".unfinished", ".unfinished.lock"]
        (workspace.folder / "config.json").write_text("{}")
