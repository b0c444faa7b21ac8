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
