"""An encoder learns a tiny teacher, and a killed pretraining goes on to the same bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from small_teacher import save_teacher, some_texts
from transformers import AutoModelForSequenceClassification

from dendritic_bert import DendriticBertForSequenceClassification, TextEncoder, pretrain
from dendritic_bert.datasets.rows import RowDataset
from dendritic_bert.model.packed_encoder import pack_encoder
from dendritic_bert.pretraining.principal_axes import on_axes, principal_axes
from dendritic_bert.pretraining.sentence_encoder import SentenceEncoder

HELD_OUT = some_texts(500)[5::10]  # the middles of 50 parts of ten


def cosine(ours: np.ndarray, teacher: str) -> float:
    theirs = SentenceEncoder(teacher, max_length=20).encode(HELD_OUT)
    return float(((ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1)).mean())


@pytest.fixture
def options(options, tmp_path_factory):
    """The teacher is asked once for all tests of this file."""
    kept = tmp_path_factory.getbasetemp() / "kept"
    return lambda **changes: options(**{"teacher_dir": str(kept)} | changes)


def test_an_encoder_comes_near_its_teacher(options, teacher):
    results = pretrain(options(text_licence="cc0-1.0", epochs=2))
    assert json.loads(json.dumps(results)) == results
    assert (results["metric"], results["num_train"], results["num_dev"]) == ("cosine", 450, 50)
    folder = Path(results["output_dir"])
    ours = TextEncoder.from_pretrained(str(folder)).encode(HELD_OUT)
    assert cosine(ours, teacher) == pytest.approx(results["mean"], abs=2.0**-11)  # the kept embeddings are float16
    # Whoever gives the same embedding for every text comes as near as their mean at most.
    constant = SentenceEncoder(teacher, max_length=20).encode(some_texts(500)).mean(axis=0, keepdims=True)
    assert 1 - results["mean"] < (1 - cosine(constant, teacher)) / 2
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (model.config.num_labels, model.config.problem_type) == (32, "regression")
    card = (folder / "README.md").read_text()
    assert f"teacher's is **{results['mean']:.4f}**" in card
    assert "pooled by mean, licence: apache-2.0" in card
    assert "licence: cc0-1.0; they have no labels" in card
    assert "dendritic-bert pretrain" in card
    assert "Started from the teacher's embeddings of the words of the vocabulary" in card


def test_fewer_numbers_than_the_teachers(options, teacher, tmp_path):
    results = pretrain(options(embedding_size=24, epochs=2))
    folder = Path(results["output_dir"])
    ours = TextEncoder.from_pretrained(str(folder)).encode(HELD_OUT)
    assert ours.shape == (50, 24)
    theirs = SentenceEncoder(teacher, max_length=20).encode(some_texts(500))
    theirs = on_axes(theirs, principal_axes(theirs, 24))
    assert (ours * theirs[5::10]).sum(axis=1).mean() == pytest.approx(results["mean"], abs=2.0**-10)
    constant = theirs.mean(axis=0) / np.linalg.norm(theirs.mean(axis=0))
    assert 1 - results["mean"] < (1 - (theirs @ constant).mean()) / 2
    assert "projected to 24, are near the teacher's embedding of a text, on so many of its principal axes." in (
        folder / "README.md").read_text()
    with pytest.raises(ValueError, match=r"^embedding_size is 33, but the embeddings of teacher .* have 32 numbers"):
        pretrain(options(embedding_size=33, output_dir=str(tmp_path / "other")))


def test_a_teacher_of_fewer_tokens_is_said(options, tmp_path, capsys):
    with pytest.raises(ValueError, match="embedding_size is 33"):
        pretrain(options(teacher=save_teacher(tmp_path / "short", max_position_embeddings=19), embedding_size=33))
    assert "reads the first 19 tokens of a text, fewer than teacher_max_length, 20\n" in capsys.readouterr().err


def test_two_joint_encoders_have_one_word_table(options, teacher):
    results = pretrain(options(epochs=1, window_dendrites=8, window_layers=2, joint=True))
    run, folder = results["runs"][0], Path(results["output_dir"])
    embeddings = [TextEncoder.from_pretrained(str(path)).encode(HELD_OUT)
                  for path in (folder, folder / "without_windows")]
    assert not np.array_equal(*embeddings)
    for name, ours in zip(("cosine", "cosine_without_windows"), embeddings):
        assert cosine(ours, teacher) == pytest.approx(run[name], abs=2.0**-11)
    packed = folder / "packed"
    pack_encoder(folder, packed, folder / "without_windows")  # which refuses two word tables


@pytest.mark.parametrize("failing", ["pretraining.pretraining.write_encoder_card",
                                     "training.workspace.Workspace.publish",
                                     "model.modeling.DendriticBertForSequenceClassification.save_pretrained"])
def test_joint_encoders_outlive_a_failure_after_the_training(options, tmp_path, monkeypatch, failing):
    """The card, the move or the second of the two models cannot be written; the same command then gives both."""
    settings = {"epochs": 1, "window_dendrites": 8, "window_layers": 2, "joint": True}
    pretrain(options(**settings, output_dir=str(tmp_path / "whole")))
    name = failing.rpartition(".")[2]
    if name == "save_pretrained":
        written = DendriticBertForSequenceClassification.save_pretrained

        def fail(model, folder, **arguments):
            if Path(folder).name == "without_windows":
                raise OSError("no room")
            written(model, folder, **arguments)
    else:
        def fail(*_):
            raise OSError("no room")
    with monkeypatch.context() as patch:
        patch.setattr(f"dendritic_bert.{failing}", fail)
        with pytest.raises(OSError, match="no room"):
            pretrain(options(**settings))
    pretrain(options(**settings))
    for name in ("model.safetensors", "without_windows/model.safetensors", "without_windows/tokenizer.json"):
        assert (tmp_path / "encoder" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_joint_encoders_are_kept_apart_after_an_interruption(options, monkeypatch, every_epoch):
    set_epoch = RowDataset.set_epoch

    def stop(dataset, epoch):
        if dataset.word_dropout and epoch == 1:
            raise KeyboardInterrupt
        set_epoch(dataset, epoch)

    monkeypatch.setattr(RowDataset, "set_epoch", stop)
    given = options(epochs=2, word_dropout=0.1, window_dendrites=8, window_layers=2, joint=True)
    with pytest.raises(KeyboardInterrupt, match="the model of the last whole epoch is in"):
        pretrain(given)
    folder = Path(given.output_dir)
    for path, layers in ((folder, 2), (folder / "without_windows", 0)):
        encoder = TextEncoder.from_pretrained(str(path))
        assert encoder.encode(HELD_OUT).shape == (50, 32)
        assert json.loads((path / "config.json").read_text())["window_layers"] == layers
        assert not [name for name in load_file(path / "model.safetensors") if name.startswith("bag_")]


def test_words_are_a_better_start_than_random_numbers(options, tmp_path):
    far = {start: 1 - pretrain(options(words_from=start, epochs=1, output_dir=str(tmp_path / start)))["mean"]
           for start in ("teacher", "random")}
    assert far["teacher"] < far["random"] / 2


def test_a_killed_pretraining_goes_on_to_the_same_bytes(options, tmp_path, monkeypatch, every_epoch):
    def run(name: str):
        return pretrain(options(output_dir=str(tmp_path / name), epochs=2, word_dropout=0.1, window_dendrites=8,
                                window_layers=2))

    whole = run("whole")
    set_epoch = RowDataset.set_epoch

    def stop(dataset, epoch):
        if dataset.word_dropout and epoch == 1:
            raise SystemExit
        set_epoch(dataset, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(RowDataset, "set_epoch", stop)
        with pytest.raises(SystemExit):
            run("torn")
    assert run("torn")["mean"] == whole["mean"]
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_texts_of_the_same_number_start_over(options, tmp_path, monkeypatch):
    """An interrupted pretraining on other texts is not gone on with."""
    found = []

    def stop(*arguments, **_):
        found.append(arguments[7].training)
        raise SystemExit

    monkeypatch.setattr("dendritic_bert.training.trainer.fit", stop)
    for texts in (some_texts(40), [*some_texts(40)[:-1], "another text"]):
        (tmp_path / "texts.txt").write_text("\n".join(texts))
        with pytest.raises(SystemExit):
            pretrain(options(text_file=str(tmp_path / "texts.txt"), words_from="random"))
    assert found[0]["digest"] != found[1]["digest"]
    assert found[0] | {"digest": ""} == found[1] | {"digest": ""}
