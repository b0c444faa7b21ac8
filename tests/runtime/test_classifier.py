"""The runtime without PyTorch: the results of the package, from numpy and the engine alone."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from runtime_models import MAX_LENGTH, TEXTS, Counted
from small_classifier import hugging_face_tokenizer, small_model

from dendritic_bert import TextClassifier
from dendritic_bert.inference.engine_model import model_file


def test_results_are_the_packages(runtime):
    ours, theirs = TextClassifier.from_pretrained("tiny"), runtime.TextClassifier()
    ours.max_length = MAX_LENGTH
    assert theirs.labels == ours.labels
    for threads in (None, 1, 2):
        assert theirs(TEXTS, threads) == ours(TEXTS)
    assert theirs("good film") == ours("good film")
    assert theirs.num_truncated == ours.num_truncated == 3
    texts = TEXTS[:-1]
    for given in (texts, tuple(texts), pa.array(texts)):
        for expected, found in zip(ours.predict_array(texts), theirs.predict_array(given, threads=2), strict=True):
            assert np.array_equal(found, expected)
            assert found.dtype == expected.dtype
    assert pickle.loads(pickle.dumps(theirs))(TEXTS) == ours(TEXTS)


def test_many_texts_are_given_to_the_engine_in_slices(runtime, monkeypatch):
    """Between which Python sees an interrupt from the keyboard; nothing else depends on them."""
    classifier = runtime.TextClassifier()
    given = (TEXTS, tuple(TEXTS), pa.array(TEXTS[:-1]))
    best, expected = classifier(TEXTS), [classifier.predict_array(texts) for texts in given]
    num_truncated = classifier.num_truncated
    classifier._model = Counted(classifier._model)
    monkeypatch.setattr(runtime.classifier, "ENGINE_TEXTS", 4)
    assert classifier(TEXTS) == best
    for texts, whole in zip(given, expected):
        assert all(map(np.array_equal, classifier.predict_array(texts), whole))
    assert set(classifier._model.sizes) == {4, len(TEXTS) % 4, (len(TEXTS) - 1) % 4} - {0}
    assert classifier.num_truncated == 2 * num_truncated
    for call in (classifier, classifier.predict_array):
        with pytest.raises(TypeError, match=r"^texts\[6\] is 3 of type int, every text must be a str"):
            call([*TEXTS[:6], 3])


def test_a_score_that_is_nan_names_its_text(runtime, tmp_path, monkeypatch):
    model = small_model()
    classifier = TextClassifier(model, hugging_face_tokenizer())
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[classifier.tokenizer(["fox"]).input_ids[1]] = torch.nan
        file = model_file(model.current_tables(), model.config, classifier.tokenizer, 24, 24, classifier.labels)
    (tmp_path / "model.dsn").write_bytes(file.tobytes())
    theirs = runtime.TextClassifier(tmp_path / "model.dsn")
    monkeypatch.setattr(runtime.classifier, "ENGINE_TEXTS", 2)
    for call in (theirs, theirs.predict_array):
        with pytest.raises(ValueError, match=r"^the model gives texts\[3\] a score that is NaN or infinite: load anot"):
            call(["a", "b", "a", "fox"])


def test_errors(runtime, tmp_path):
    with pytest.raises(FileNotFoundError):
        runtime.TextClassifier(tmp_path / "missing.dsn")
    (tmp_path / "cut.dsn").write_bytes(runtime.classifier.EMBEDDED_MODEL.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"cut\.dsn cannot be read: it has .* bytes and should have .*: copy it again"):
        runtime.TextClassifier(tmp_path / "cut.dsn")
    with pytest.raises(ValueError, match="threads is 0, it must be at least 1"):
        runtime.TextClassifier()(["a"], threads=0)


@pytest.mark.parametrize(("texts", "message"), [
    ({"text": "a"}, "texts is a dict, pass one column of it."),
    ({"a"}, "texts is a set, which has no order: pass a list of str."),
    (b"ab", "texts is a bytes, pass a list of str."),
    (None, "texts is a NoneType, pass a list of str."),
    ([None], "texts[0] is None of type NoneType, every text must be a str: convert it or leave it out."),
    (("a", 1), "texts[1] is 1 of type int, every text must be a str: convert it or leave it out."),
    ("a", "texts is a str, pass a list of str."),
])
def test_what_is_no_text(runtime, texts, message):
    classifier = runtime.TextClassifier()
    for call in (classifier, classifier.predict_array)[isinstance(texts, str):]:
        with pytest.raises(TypeError) as error:
            call(texts)
        assert str(error.value) == message


def test_a_text_of_more_tokens_than_the_model_takes(runtime, tmp_path):
    """Tables for rows of 64, as a file without a limit of length may have them."""
    model = small_model(hidden_size=64, max_position_embeddings=300)
    classifier = TextClassifier(model, hugging_face_tokenizer())
    with torch.no_grad():
        file = model_file(model.current_tables(), model.config, classifier.tokenizer, None, 1, classifier.labels)
    (tmp_path / "model.dsn").write_bytes(file.tobytes())
    theirs = runtime.TextClassifier(tmp_path / "model.dsn")
    for call in (theirs, theirs.predict_array):
        with pytest.raises(ValueError, match=r"^a text has 102 tokens, more than the model takes \(64\): split it"):
            call(["a", "a " * 100])
        assert len(call(["a " * 62])) > 0
