"""A teacher's logits are those of transformers, and each text is labelled once."""

from functools import partial

import numpy as np
import pytest
import torch
from small_classifier import hugging_face_tokenizer
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    MPNetForSequenceClassification,
    RobertaForSequenceClassification,
)

from dendritic_bert.file_lock import locked
from dendritic_bert.training import inference_workers
from dendritic_bert.training import teacher as teacher_module
from dendritic_bert.training.teacher import label_texts


@pytest.fixture
def bert(encoder, tmp_path):
    model = BertForSequenceClassification.from_pretrained(encoder).eval()
    model.save_pretrained(tmp_path / "bert")
    hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
    return model


def test_logits_of_a_teacher_are_transformers_own(bert, tmp_path):
    """In any order of lengths, also when they are read from the file that keeps them."""
    texts = ["a charming journey", "", "The quick brown fox jumps over the lazy dog, " * 3, "bleak!"] * 3
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    logits = label_texts(str(tmp_path / "bert"), texts, 2, 20, tmp_path / "labels")
    for text, row in zip(texts, logits):
        with torch.no_grad():
            expected = bert(**tokenizer(text, truncation=True, max_length=20, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(row, expected, atol=2e-6)
    assert len(list((tmp_path / "labels").iterdir())) == 1
    again = label_texts(str(tmp_path / "bert"), texts, 2, 20, tmp_path / "labels")
    assert np.array_equal(again, logits)
    assert len(list((tmp_path / "labels").iterdir())) == 1
    with pytest.raises(ValueError, match=r" has 2 labels, the task has 3: pass a model trained on it\.$"):
        label_texts(str(tmp_path / "bert"), texts, 3, 20, tmp_path / "labels")


@pytest.mark.parametrize(("model_class", "positions", "model_max_length", "expected"), [
    (BertForSequenceClassification, 20, 512, 20), (BertForSequenceClassification, 40, 12, 12),
    (RobertaForSequenceClassification, 20, 512, 18), (MPNetForSequenceClassification, 20, 512, 18)])
def test_a_text_is_cut_to_what_the_teacher_reads(tmp_path, model_class, positions, model_max_length, expected):
    """RoBERTa and MPNet keep two rows of their position tables; one token more is an error of transformers."""
    tokenizer = hugging_face_tokenizer()
    tokenizer.model_max_length = model_max_length
    tokenizer.save_pretrained(tmp_path / "teacher")
    model = model_class(model_class.config_class(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=positions, pad_token_id=1)).eval()
    model.save_pretrained(tmp_path / "teacher")
    text = "the quick brown fox jumps over the lazy dog " * 9
    found = label_texts(str(tmp_path / "teacher"), [text], 2, 512, tmp_path / "labels")
    with torch.no_grad():
        cut = tokenizer(text, truncation=True, max_length=expected, return_tensors="pt")
        np.testing.assert_allclose(found, model(cut["input_ids"], cut["attention_mask"]).logits, atol=2e-6)
        if expected < model_max_length:
            longer = tokenizer(text, truncation=True, max_length=expected + 1, return_tensors="pt")
            with pytest.raises((IndexError, RuntimeError)):
                model(longer["input_ids"], longer["attention_mask"])


def test_a_teacher_of_pairs_warns(bert, tmp_path):
    bert.config.training_columns = {"text_column": "question", "text_pair_column": "answer", "label_column": "label"}
    bert.config.save_pretrained(tmp_path / "bert")
    with pytest.warns(UserWarning, match="^the model was trained on pairs, of the columns 'question' and 'answer', but "
                                         "single texts are labelled: pass a teacher of single texts"):
        label_texts(str(tmp_path / "bert"), ["bleak!"], 2, 20, tmp_path / "labels")


@pytest.mark.parametrize("changes", [{"problem_type": "multi_label_classification"}, {"num_labels": 1},
                                     {"problem_type": "regression"}])
def test_a_teacher_gives_one_of_several_classes(encoder, tmp_path, changes):
    model = BertForSequenceClassification.from_pretrained(encoder, **changes)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"^teacher .*other has [12] labels and the problem_type .*: pass a classifi"):
        label_texts(str(tmp_path / "other"), ["good"], model.config.num_labels, 20, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")  # and one worker, so that batches are seen in their order
def test_interrupted_labelling_goes_on(bert, tmp_path, monkeypatch):
    """What was labelled before the interruption is not labelled again, nor is a text that comes again."""
    texts = [f"{'very ' * number}good" for number in range(1, 13)]
    monkeypatch.setattr(inference_workers, "BATCH_TOKENS", 16)
    monkeypatch.setattr(teacher_module, "KEPT_BATCHES", 2)
    seen = []
    forward = BertForSequenceClassification.forward

    def count(self, input_ids, **tokens):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(len(input_ids))
        return forward(self, input_ids, **tokens)

    with monkeypatch.context() as patch:
        patch.setattr(BertForSequenceClassification, "forward", count)
        with pytest.raises(KeyboardInterrupt):
            label_texts(str(tmp_path / "bert"), texts, 2, 20, tmp_path / "labels")
    labelled = sum(seen[:4])
    seen.clear()
    seen.extend([0] * 6)  # no more interruptions
    monkeypatch.setattr(BertForSequenceClassification, "forward", count)
    found = label_texts(str(tmp_path / "bert"), texts, 2, 20, tmp_path / "labels")
    assert sum(seen) == len(texts) - labelled
    whole = label_texts(str(tmp_path / "bert"), texts, 2, 20, tmp_path / "others")
    np.testing.assert_allclose(found, whole, atol=2e-6)
    with torch.no_grad():
        monkeypatch.setattr(BertForSequenceClassification, "forward", None)
        assert np.array_equal(label_texts(str(tmp_path / "bert"), texts[::-1], 2, 20, tmp_path / "labels"), found[::-1])


def test_two_trainings_do_not_keep_logits_in_one_file(bert, tmp_path, monkeypatch):
    """While one labels, the other ends with an error, before the file is touched."""
    ask = partial(label_texts, str(tmp_path / "bert"), ["good"], 2, 20, tmp_path / "labels")
    label, errors = teacher_module._label, []

    def label_while_another_asks(*args):
        with pytest.raises(BlockingIOError, match=r"^teacher_dir .*labels is in use by another training: ") as error:
            ask()
        errors.append(error)
        label(*args)

    monkeypatch.setattr(teacher_module, "_label", label_while_another_asks)
    found = ask()
    assert len(errors) == 1
    assert np.array_equal(ask(), found)
    kept, = (tmp_path / "labels").glob("*.kept")
    with locked(kept.with_suffix(".lock"), "the folder"):
        assert np.array_equal(ask(), found), "where nothing is to be labelled, any number may read"
