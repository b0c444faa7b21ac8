"""`convert`, and that what it makes classifies."""

from helpers import tiny_bert
from small_classifier import hugging_face_tokenizer
from transformers import AutoConfig


def test_convert(run, tmp_path, expected):
    tiny_bert(vocab_size=600).save_pretrained(tmp_path / "bert")
    hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
    command = ("convert", tmp_path / "bert", tmp_path / "dsn", "--num-labels", "3", "--num-dendrites", "2",
               "--pooling", "mean_all")
    status, out, err = run(*command)
    assert (status, out) == (0, "")
    assert err.endswith(" parameters\n")
    config = AutoConfig.from_pretrained(tmp_path / "dsn")
    assert (config.model_type, config.num_labels, config.num_dendrites, config.pooling) == (
        "dendritic_bert", 3, 2, "mean_all")
    assert run("classify", "--model", tmp_path / "dsn", "a text")[0] == 0
    status, _, err = run(*command)
    assert status == 1
    assert "holds something already" in err


def test_convert_a_model_of_the_package(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no folder has its name
    status, _, err = run("convert", "tiny", "dsn")
    assert status == 0, err
    assert run("classify", "--model", "dsn", "a text") == run("classify", "--model", "tiny", "a text")


def test_convert_into_windows(run, tmp_path):
    tiny_bert(vocab_size=600).save_pretrained(tmp_path / "bert")
    hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
    status, _, err = run("convert", tmp_path / "bert", tmp_path / "windowed", "--window_dendrites", "8",
                         "--window-layers", "3", "--pooling", "gated_mean")
    assert status == 0, err
    config = AutoConfig.from_pretrained(tmp_path / "windowed")
    assert (config.window_dendrites, config.window_layers, config.pooling, config.max_position_embeddings) == (
        8, 3, "gated_mean", 0)
    assert run("classify", "--model", tmp_path / "windowed", " ".join(["word"] * 3000))[0] == 0
    status, _, err = run("convert", tmp_path / "bert", tmp_path / "other", "--window-layers", "3")
    assert status == 1
    assert "window_dendrites is 0 and window_layers 3, expected both above 0" in err
