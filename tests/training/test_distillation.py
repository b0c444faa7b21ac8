"""Distillation: the loss is its formula, a teacher's logits are kept, and a student learns what its teacher knows."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from dendritic_bert import cli
from dendritic_bert.datasets.rows import RowDataset
from dendritic_bert.training import TrainingOptions, distillation, train
from dendritic_bert.training.distillation import NO_CLASS, TeacherLabelledGlue, distill, distillation_loss
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.teacher import label_texts, teacher_options


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_the_loss_is_its_formula(temperature, share):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    classes = torch.arange(7) % 3
    expected = 0.0
    for s, t, c in zip(student, teacher, classes):
        p, q = ((x / temperature).exp() / (x / temperature).exp().sum() for x in (t, s))
        expected += share * temperature**2 * (p * (p / q).log()).sum()
        expected -= (1 - share) * (s.exp() / s.exp().sum())[c].log()
    labels = torch.cat([teacher, classes[:, None]], dim=1)
    loss = distillation_loss(SimpleNamespace(logits=student), labels, temperature=temperature, teacher_share=share)
    assert loss.item() == pytest.approx(expected.item() / 7)


def test_a_text_without_a_class_adds_no_cross_entropy():
    """Nor do many: the loss stays a mean over the batch, and is 0 rather than NaN where none has a class."""
    logits = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    for classes, expected in (([1, NO_CLASS], np.log1p(np.exp(-1.0)) / 2), ([NO_CLASS, NO_CLASS], 0.0)):
        labels = torch.cat([logits, torch.tensor(classes, dtype=torch.float64)[:, None]], dim=1)
        loss = distillation_loss(SimpleNamespace(logits=logits), labels, temperature=2.0, teacher_share=0.0)
        assert loss.item() == pytest.approx(expected)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """Sentences and their parts, a third of whose training labels are wrong: a teacher can know better."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / "SST-2").mkdir()
    rng = np.random.default_rng(0)
    good, bad, nouns = ["charming", "warm", "fine"], ["bleak", "dull", "clumsy"], ["film", "plot", "cast", "score"]
    for split, size, noise in (("train", 200, 0.3), ("dev", 60, 0.0)):
        lines = ["sentence\tlabel"]
        for _ in range(size):
            label = rng.integers(0, 2)
            part = f"is {rng.choice([bad, good][label])}"
            text = f"{rng.choice(['the', 'this', 'its'])} {rng.choice(nouns)} {part}"
            parts = [text, part] if split == "train" else [text]
            lines += [f"{words}\t{label ^ int(rng.random() < noise)}" for words in parts]
        (folder / "SST-2" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """A classifier that was trained on correct labels of the words alone."""
    folder = str(tmp_path_factory.mktemp("oracle"))
    clean = tmp_path_factory.mktemp("clean")
    (clean / "SST-2").mkdir()
    words = (["bleak", "dull", "clumsy"], ["charming", "warm", "fine"])
    rows = [f"is {word}\t{label}" for label in (0, 1) for word in words[label]]
    for split in ("train", "dev"):
        (clean / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows * 20]) + "\n")
    train(TrainingOptions(dsn=True, data_dir=str(clean), output_dir=folder, lr=0.03, batch_size=12, epochs=8,
                          word_dropout=0.0))
    return folder


@pytest.fixture
def options(glue, oracle, tmp_path):
    def make(**changes) -> DistillationOptions:
        defaults = {"dsn": True, "data_dir": glue, "output_dir": str(tmp_path / "out"), "lr": 0.02, "batch_size": 20,
                    "teacher": oracle, "epochs": 6, "word_dropout": 0.0, "ema": 0.9}
        defaults["num_augmented"] = 60 if "extra_margins" not in changes else None
        return DistillationOptions(**defaults | changes)

    return make


def test_a_student_learns_what_its_teacher_knows(options):
    """Wrong labels do no harm beside right probabilities. The files are those of any training; the card names the
    teacher."""
    results = distill(options(teacher_share=1.0))
    assert results["teacher"] == 1
    assert results["mean"] > 0.95
    assert results["num_augmented"] == 60
    assert json.loads(json.dumps(results)) == results
    output = results["output_dir"]
    assert AutoModelForSequenceClassification.from_pretrained(output).config.dsn
    with open(f"{output}/README.md", encoding="utf-8") as file:
        card = file.read()
    assert "\ndendritic-bert distill --benchmark glue --task sst2" in card
    assert "Distilled from" in card
    assert "\n- The teacher's accuracy on the dev rows: 1.0000.\n" in card
    assert "--teacher_epochs" not in card
    assert "--teacher_lr" not in card


def test_an_encoder_is_fine_tuned_first_and_once(options, encoder, tmp_path, capsys):
    shared = str(tmp_path / "teacher")
    settings = {"teacher": encoder, "teacher_dir": shared, "teacher_epochs": 1, "epochs": 1, "teacher_lr": 1e-3}
    first = distill(options(**settings))
    assert "it is fine-tuned into" in capsys.readouterr().err
    teacher = AutoModelForSequenceClassification.from_pretrained(shared)
    assert (teacher.config.dsn, teacher.config.encoder_pooling) == (False, "mean")
    second = distill(options(**settings, head_hidden=4, output_dir=str(tmp_path / "other")))
    assert "fine-tuned" not in capsys.readouterr().err
    assert second["teacher"] == first["teacher"]
    assert len([name for name in os.listdir(shared) if name.startswith("logits")]) == 1


def test_a_fine_tuned_teacher_labels_no_other_rows(encoder, tmp_path, reviews):
    """Nor is it replaced; passed as the teacher it is taken as it is."""
    rows = (reviews / "reviews.csv").read_text()
    (tmp_path / "rows.csv").write_text(rows)
    settings = {"teacher": encoder, "teacher_epochs": 1, "epochs": 1, "batch_size": 64, "num_augmented": 0,
                "train_file": str(tmp_path / "rows.csv"), "label_column": "tone", "baseline": False, "seeds": [0],
                "output_dir": str(tmp_path / "out")}
    distill(DistillationOptions(**settings))
    weights = tmp_path / "out" / "teacher" / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(ValueError, match=r"^teacher_dir .*teacher holds .* otherwise \(what differs: teacher_lr\)"):
        distill(DistillationOptions(**settings, teacher_lr=1e-3))
    (tmp_path / "rows.csv").write_text(rows.replace("good", "new").replace("bad", "good").replace("new", "bad"))
    with pytest.raises(ValueError, match=r"otherwise \(what differs: rows\): name another teacher_dir, or pass"):
        distill(DistillationOptions(**settings))
    assert weights.read_bytes() == before
    distill(DistillationOptions(**settings | {"teacher": str(weights.parent)}))
    assert weights.read_bytes() == before
    (weights.parent / "fine_tuned.json").unlink()
    with pytest.raises(ValueError, match=r"holds a model that does not say what it was made of: name another"):
        distill(DistillationOptions(**settings))


def test_a_teacher_is_not_replaced_by_its_student(options, encoder, oracle, tmp_path):
    """Neither the one that is given nor the one that is fine-tuned first."""
    with pytest.raises(ValueError, match=r"^teacher and output_dir are both .*, where the result would replace the te"):
        options(output_dir=f"{oracle}/")
    with pytest.raises(ValueError, match=r"^teacher_dir and output_dir are both .*out, where the result would replace"):
        distill(options(teacher=encoder, teacher_dir=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_teacher_is_fine_tuned_as_the_rows_need(encoder, tmp_path, reviews, capsys):
    """135 rows: 3 x (1,000,000 / n)^(1/4) epochs, of which BERT's encoder gets half, 10 at most (docs/own_data.md). For
    a benchmark it is what it was."""
    settings = {"train_file": str(reviews / "reviews.csv"), "label_column": "tone", "epochs": 1, "baseline": False,
                "output_dir": str(tmp_path / "out"), "teacher": encoder, "num_augmented": 0}
    results = distill(DistillationOptions(**settings))
    assert f"\nteacher: accuracy {results['teacher']:.4f} on the dev rows\n" in capsys.readouterr().err
    card = (tmp_path / "out" / "teacher" / "README.md").read_text()
    assert "trained for 10 epochs" in card
    assert "--ema" not in card
    assert "--lr" not in card, "the learning rate of train"
    given = teacher_options(DistillationOptions(**settings, teacher_epochs=3, teacher_lr=0.01), "out")
    assert (given.epochs, given.lr) == (3, 0.01)
    given = teacher_options(DistillationOptions(dsn=True, teacher=encoder), "out")
    assert (given.epochs, given.lr, given.ema, given.batch_size) == (2, 3e-5, 0.999, 32)


def test_what_is_left_to_own_rows_follows_the_texts_that_are_taught(tmp_path, reviews):
    """135 rows and as many texts made of them, or the 30 that are asked for: 3 x (1,000,000 / n)^(1/4) epochs at
    1.4 / steps, as docs/own_data.md has it."""
    settings = {"train_file": str(reviews / "reviews.csv"), "label_column": "tone", "hidden_size": 8,
                "vocab_size": 400, "baseline": False}
    train(TrainingOptions(**settings, epochs=1, output_dir=str(tmp_path / "teacher")))
    for number, output, expected, epochs, steps in ((None, "out", 135, 23, 23 * 17), (30, "other", 30, 26, 26 * 11)):
        results = distill(DistillationOptions(**settings, teacher=str(tmp_path / "teacher"), num_augmented=number,
                                              output_dir=str(tmp_path / output)))
        assert (results["num_train"], results["num_augmented"]) == (135, expected)
        card = (tmp_path / output / "README.md").read_text()
        assert f"and {expected} texts made from their parts" in card
        assert "--label_smoothing" not in card, "which the loss of a distillation has not"
        assert f" --epochs {epochs} --batch_size 16 --lr {1.4 / steps} " in card


def test_an_interrupted_fine_tuning_goes_on(options, encoder, tmp_path, monkeypatch, every_epoch):
    """The model of its last epoch is no teacher yet."""
    settings = {"teacher": encoder, "teacher_epochs": 2, "epochs": 1, "teacher_lr": 1e-3}
    whole = distill(options(**settings, output_dir=str(tmp_path / "whole")))
    set_epoch = RowDataset.set_epoch

    def interrupt(dataset, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        set_epoch(dataset, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(RowDataset, "set_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(options(**settings))
    assert (tmp_path / "out" / "teacher" / "config.json").exists()
    assert distill(options(**settings))["teacher"] == whole["teacher"]
    found, expected = (load_file(tmp_path / name / "teacher" / "model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_interrupted_distillation_goes_on_to_the_same_result(options, tmp_path, monkeypatch, every_epoch):
    """Including the average of the weights."""
    whole = distill(options(epochs=3, output_dir=str(tmp_path / "whole")))
    set_epoch = RowDataset.set_epoch

    def interrupt(dataset, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        set_epoch(dataset, epoch)

    monkeypatch.setattr(RowDataset, "set_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        distill(options(epochs=3))
    monkeypatch.setattr(RowDataset, "set_epoch", set_epoch)
    resumed = distill(options(epochs=3))
    assert resumed["mean"] == whole["mean"]
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_augmented_text_carries_the_teachers_class(options):
    distilled = TeacherLabelledGlue(options(num_augmented=20))
    labels, num_train = distilled.rows.labels, len(distilled.train.labels)
    assert labels.shape == (num_train + 20, 3)
    assert (labels[:num_train, 2] == distilled.train.labels).all()
    assert (labels[num_train:, 2] == labels[num_train:, :2].argmax(axis=1)).all()
    assert (labels[:num_train, 2] != labels[:num_train, :2].argmax(axis=1)).any()


def test_natural_text_and_margins(options, glue, tmp_path):
    """A text has the logits that its file gives it, else the teacher's, and no class; none is a training row or close
    to a dev row. The vocabulary is made of them too."""
    with open(f"{glue}/SST-2/dev.tsv", encoding="utf-8") as file:
        near = file.readlines()[1].split("\t")[0].upper()
    with open(f"{glue}/SST-2/train.tsv", encoding="utf-8") as file:
        row = file.readlines()[1].split("\t")[0]
    (tmp_path / "extra.txt").write_text(f"an odd thing\n{near}\n\nan odd thing\n{row}\nis charming indeed\n")
    (tmp_path / "margins.tsv").write_text(f"-3\t{row}\n1.5\ta zebra\n")
    rows = TeacherLabelledGlue(options(num_augmented=5, extra_text=str(tmp_path / "extra.txt"),
                                       extra_margins=[str(tmp_path / "margins.tsv")]))
    assert rows.natural == ["a zebra", "an odd thing", "is charming indeed"]
    assert list(rows.texts())[-3:] == rows.natural
    texts, labels = rows.rows.columns[0], rows.rows.labels
    assert texts[-3:] == rows.natural
    assert (labels[-3:, 2] == NO_CLASS).all()
    assert labels[-3].tolist() == [-0.75, 0.75, NO_CLASS]
    assert labels[-1, 1] > labels[-1, 0]
    assert {tuple(labels[place, :2]) for place, text in enumerate(texts) if text == row} == {(1.5, -1.5)}


def test_margins_in_place_of_a_teacher(options, glue, tmp_path):
    with open(f"{glue}/SST-2/train.tsv", encoding="utf-8") as file:
        rows = {line.split("\t")[0] for line in file.readlines()[1:]}
    margins = tmp_path / "margins.tsv"
    margins.write_text("".join(f"{9 if 'charming' in row or 'warm' in row or 'fine' in row else -9}\t{row}\n"
                               for row in rows))
    results = distill(options(teacher=None, extra_margins=[str(margins)], teacher_share=1.0, lr=0.01, epochs=8,
                              window_dendrites=4, window_layers=2))
    assert results["mean"] > 0.95
    assert (results["teacher"], results["num_augmented"], results["num_natural"]) == (None, 0, 0)
    margins.write_text("".join(f"1\t{row}\n" for row in sorted(rows)[1:]))
    with pytest.raises(ValueError, match=r"^extra_margins have no margin of \d+ texts, the first 'is bleak', and"):
        distill(options(teacher=None, extra_margins=[str(margins)]))


def test_a_teacher_or_texts_that_have_changed_are_noticed(options, glue, tmp_path):
    """By the digest, as the names of files stay what they were; an interrupted distillation then starts over."""
    with open(f"{glue}/SST-2/train.tsv", encoding="utf-8") as file:
        rows = [line.split("\t") for line in dict.fromkeys(file.read().splitlines()[1:])]
    own = tmp_path / "own.csv"
    own.write_text("text,label\n" + "".join(f'"{text}",{("bad", "good")[int(label)]}\n' for text, label in rows))
    margins, extra = tmp_path / "margins.tsv", tmp_path / "extra.txt"

    def digests(sign: int, text: str) -> list[str]:
        margins.write_text("".join(f"{sign * (3 + place)}\t{text}\n" for place, (text, _) in enumerate(rows))
                           + f"1\ta zebra\n1\t{text}\n")
        extra.write_text(f"a zebra\n{text}\n")
        given = {"teacher": None, "extra_margins": [str(margins)], "extra_text": [str(extra)]}
        of_own, _ = distillation._open_labelled(DistillationOptions(train_file=str(own), output_dir="out", **given))
        return [TeacherLabelledGlue(options(**given)).digest, of_own.digest]

    first = digests(1, "some other words")
    assert digests(1, "some other words") == first
    for changed in (digests(-1, "some other words"), digests(1, "no words at all")):
        assert not set(changed) & set(first)


def test_a_teacher_that_is_not_there(options, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"^teacher .*empty cannot be loaded \(\w+Error\): pass a folder or a hub id of"):
        distill(options(teacher=str(tmp_path / "empty")))
    assert cli.main(["distill", "--dsn"]) == 2
    assert "teacher is not given: name the sequence classifier" in capsys.readouterr().err


def test_rows_of_ones_own(reviews, tmp_path, oracle, capsys):
    """An own model teaches; its outputs are put in the order of the labels of the file."""
    labels = train(TrainingOptions(train_file=str(reviews / "reviews.csv"), label_column="tone", epochs=8,
                                   hidden_size=8, vocab_size=400, baseline=False,
                                   output_dir=str(tmp_path / "teacher")))
    assert labels["mean"] > 0.8
    folder = tmp_path / "teacher"
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good", "2": "mixed"}
    settings = {"train_file": str(reviews / "reviews.csv"), "label_column": "tone", "epochs": 2, "hidden_size": 8,
                "vocab_size": 400, "num_augmented": 30, "baseline": False, "output_dir": str(tmp_path / "out")}
    results = distill(DistillationOptions(**settings, teacher=str(folder)))
    assert results["teacher"] == labels["mean"]
    assert results["num_augmented"] > 0
    texts = ["the film is warm", "the cast is bleak"]
    straight = label_texts(str(folder), texts, 3, 512, tmp_path / "labels")
    turned = label_texts(str(folder), texts, 3, 512, tmp_path / "labels", names=["mixed", "bad", "good"])
    np.testing.assert_array_equal(turned, straight[:, [2, 0, 1]])
    with pytest.raises(ValueError, match=r"^teacher .* has 2 labels, the task has 3"):
        distill(DistillationOptions(**settings, teacher=oracle))
