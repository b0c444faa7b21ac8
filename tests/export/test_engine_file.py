"""The file of the engine, by the command line and from Python."""

import numpy as np
import pytest
from small_classifier import WORDS, hugging_face_tokenizer, small_model
from small_encoder import save_encoder, small_encoder
from windowed_models import KINDS, windowed_model

from dendritic_bert import TextClassifier, TextEncoder
from dendritic_bert._engine import Model
from dendritic_bert.cli import main
from dendritic_bert.export import export

TEXTS = ["", *WORDS, " ".join(WORDS * 2)]


@pytest.fixture
def folder(tmp_path):
    model = small_model(num_labels=3, id2label={0: "no", 1: "caf\u00e9", 2: "3"})
    model.save_pretrained(tmp_path / "model")
    hugging_face_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_command_line(folder, tmp_path, capsys):
    assert main(["export", str(folder), str(tmp_path / "a.dsn"), "--format", "engine"]) in (0, None)
    model = Model.open(tmp_path / "a.dsn")
    assert model.labels == ["no", "caf\u00e9", "3"]
    assert model.scoring == (1, 1.0)
    classifier = TextClassifier.from_pretrained(folder)
    logits, num_truncated, _, _ = model.logits(TEXTS, 2)
    expected, expected_truncated = classifier.logits(TEXTS)
    assert np.array_equal(np.frombuffer(logits, np.float32).reshape(expected.shape), expected)
    assert num_truncated == expected_truncated > 0
    with pytest.raises(ValueError, match=r"a\.dsn is there already: name a new file"):
        export(folder, tmp_path / "a.dsn", "engine")


def test_max_length(folder, tmp_path):
    export(folder, tmp_path / "a.dsn", "engine", max_length=7)
    _, num_truncated, _, _ = Model.open(tmp_path / "a.dsn").logits(["a b c d e", "a b c d e f"], 1)
    assert num_truncated == 1
    with pytest.raises(ValueError, match="max_length is 7, but only the format"):
        export(folder, tmp_path / "b", "onnx", max_length=7)
    export(folder, tmp_path / "two.dsn", "engine", max_length=2)
    with pytest.raises(ValueError, match=r"^max_length is 1, but the special tokens alone take 2: pass a larger one"):
        export(folder, tmp_path / "one.dsn", "engine", max_length=1)
    assert not (tmp_path / "one.dsn").exists()


def test_the_folder_is_made(folder, tmp_path):
    assert export(folder, tmp_path / "new" / "folder" / "a.dsn", "engine").size > 0
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^output_dir .*file.a\.dsn cannot be written \(.+\): name a file that can\.$"):
        export(folder, tmp_path / "file" / "a.dsn", "engine")


def test_an_encoder(tmp_path):
    save_encoder(tmp_path / "encoder", small_encoder())
    export(tmp_path / "encoder", tmp_path / "a.dsn", "engine")
    expected = TextEncoder.from_pretrained(tmp_path / "encoder").encode(TEXTS, normalize=False)
    found = np.frombuffer(Model.open(tmp_path / "a.dsn").logits(TEXTS, 1)[0], np.float32)
    assert np.array_equal(found.reshape(expected.shape), expected)


def test_what_the_engine_does_not_have(tmp_path):
    """The format that the message names takes the model."""
    for name, changes, message, format in [
            ("bert", {"dsn": False}, r"bert has BERT's encoder \(dsn is False\), .*: pass --format torch\.$", "torch"),
            ("two_layers", {"head_hidden": 8}, r"the engine does not serve .*: pass --format onnx\.$", "onnx")]:
        small_model(**changes).save_pretrained(tmp_path / name)
        hugging_face_tokenizer().save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            export(tmp_path / name, tmp_path / "a.dsn", "engine")
        assert not (tmp_path / "a.dsn").exists()
        assert export(tmp_path / name, tmp_path / format, format).size > 0


def test_a_windowed_model(tmp_path):
    windowed_model(**KINDS["recipe"]).save_pretrained(tmp_path / "model")
    hugging_face_tokenizer().save_pretrained(tmp_path / "model")
    assert export(tmp_path / "model", tmp_path / "a.dsn", "engine").difference == 0
    assert Model.open(tmp_path / "a.dsn").logits([" ".join(WORDS * 100)], 1)[1:] == (0, 0, -1)


def test_a_model_gives_the_same_file_each_time(folder, tmp_path):
    for name in ("a.dsn", "b.dsn"):
        export(folder, tmp_path / name, "engine")
    assert (tmp_path / "a.dsn").read_bytes() == (tmp_path / "b.dsn").read_bytes()


@pytest.mark.parametrize("columns", [None, {"text_column": "title"},
                                     {"text_column": "title", "text_pair_column": "body"}])
def test_a_model_of_pairs(tmp_path, capsys, columns):
    """It is written, and who runs the file is told that it takes single texts."""
    small_model(training_columns=columns).save_pretrained(tmp_path / "model")
    hugging_face_tokenizer().save_pretrained(tmp_path / "model")
    capsys.readouterr()  # the bars of transformers
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "a.dsn"), "--format", "engine"]) == 0
    *warned, written = capsys.readouterr().err.splitlines()
    assert written.startswith(f"dendritic-bert: {tmp_path / 'a.dsn'}: ")
    assert warned == ["dendritic-bert: warning: the model was trained on pairs, of the columns 'title' and 'body', but "
                      "single texts are read by the runtime of this file: pass --format onnx for pairs."] * (
                          columns is not None and len(columns) == 2)


def test_dtype_is_not_the_engines(folder, tmp_path):
    with pytest.raises(ValueError, match=r"^dtype is 'int8', but the format .engine. has the tables as a "):
        export(folder, tmp_path / "a.dsn", "engine", dtype="int8")
    assert not (tmp_path / "a.dsn").exists()
