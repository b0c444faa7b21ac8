"""The fields of windows, gates and positions: what goes together, and what a file and keywords make of each other."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, BertConfig

from dendritic_bert import DendriticBertConfig

WINDOWS = {"window_dendrites": 32, "window_layers": 5}


@pytest.mark.parametrize(("fields", "message"), [
    ({"window_layers": 5, "max_position_embeddings": 0}, "window_dendrites is 0 and window_layers 5, expected both"),
    ({"window_dendrites": 5, "max_position_embeddings": 0}, "window_dendrites is 5 and window_layers 0, expected both"),
    (WINDOWS, "window_layers is 5 and max_position_embeddings 512: pass max_position_embeddings=0"),
    ({"embedding_norm": "none"}, "embedding_norm is 'none' and max_position_embeddings 512: pass max_position_embedd"),
    ({**WINDOWS, "max_position_embeddings": 0, "pooling": "mean_all"}, "window_layers is 5 and pooling 'mean_all'"),
    ({**WINDOWS, "max_position_embeddings": 0, "pooling": "sum_all"}, "pass pooling=\"gated_mean\" or \"mean_masked\""),
    ({**WINDOWS, "max_position_embeddings": 0, "dsn": False}, "window_layers is 5 and dsn False, which keeps"),
    ({"pooling": "gated_mean", "dsn": False}, "pooling is 'gated_mean' and dsn False"),
    ({"max_position_embeddings": 0, "dsn": False}, "max_position_embeddings is 0 and dsn False"),
    ({"max_position_embeddings": -1}, "max_position_embeddings is -1, expected a number of at least 0"),
    ({"window_radius": 0}, "window_radius is 0, expected a number of at least 1"),
    ({"window_dropout_prob": 1.0}, "window_dropout_prob is 1.0, expected 0 <= p < 1"),
    ({"window_activation": "gelu"}, "window_activation"),
])
def test_what_does_not_go_together(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        DendriticBertConfig(**fields)


def test_which_ops_compute_a_model():
    def forms(**fields):
        config = DendriticBertConfig(**fields)
        return config.pools_embeddings, config.pools_windows

    assert forms() == (True, False)
    assert forms(dsn=False) == (False, False)
    assert forms(pooling="sum_all") == (True, False)
    assert forms(pooling="gated_mean") == (False, False)
    assert forms(max_position_embeddings=0) == (True, True)
    assert forms(max_position_embeddings=0, pooling="gated_mean") == (False, True)
    assert forms(max_position_embeddings=0, pooling="mean_all") == (True, False)
    assert forms(max_position_embeddings=0, pooling="mean_all", embedding_norm="none") == (False, False)
    assert forms(max_position_embeddings=0, **WINDOWS) == (False, True)


def test_round_trip(tmp_path):
    config = DendriticBertConfig(max_position_embeddings=0, pooling="gated_mean", embedding_norm="none",
                                 window_radius=2, window_dropout_prob=0.1, **WINDOWS)
    config.save_pretrained(tmp_path)
    for loaded in (DendriticBertConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}
    assert (config.pooled_size, config.longest_row) == (768 + 32, float("inf"))


@pytest.mark.parametrize("columns", [None, {"text_column": "body", "label_separator": ";"}])
def test_the_columns_of_the_training(tmp_path, columns):
    """They stand in the file of a model that has some, and of no other."""
    DendriticBertConfig(training_columns=columns).save_pretrained(tmp_path)
    assert ("training_columns" in (tmp_path / "config.json").read_text()) == (columns is not None)
    assert DendriticBertConfig.from_pretrained(tmp_path).training_columns == columns


def test_keywords_beside_a_file(tmp_path):
    """Windows take the positions away; what they do not go with is said although transformers sets it late."""
    BertConfig(hidden_size=24).save_pretrained(tmp_path)
    config = DendriticBertConfig.from_pretrained(tmp_path, **WINDOWS)
    assert (config.max_position_embeddings, config.window_dendrites, config.pooled_size) == (0, 32, 56)
    assert DendriticBertConfig.from_pretrained(tmp_path).longest_row == 512
    with pytest.raises(StrictDataclassError, match="window_dendrites is 32 and window_layers 0"):
        DendriticBertConfig.from_pretrained(tmp_path, window_dendrites=32)
    with pytest.raises(StrictDataclassError, match="window_layers is 5 and max_position_embeddings 80"):
        DendriticBertConfig.from_pretrained(tmp_path, max_position_embeddings=80, **WINDOWS)
    config.save_pretrained(tmp_path)
    with pytest.raises(StrictDataclassError, match="window_layers is 5 and dsn False"):
        AutoConfig.from_pretrained(tmp_path, dsn=False)


@pytest.mark.parametrize("content", ["[1]", "3", "null", '"bert"'])
def test_a_file_that_holds_no_object(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(OSError, match=r"^the config\.json of .* holds no JSON object: fetch the model again\.$"):
        DendriticBertConfig.from_pretrained(tmp_path)
