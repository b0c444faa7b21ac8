"""Models that cannot be loaded, and why."""

import json
import shutil

import huggingface_hub
import pytest


@pytest.mark.parametrize(("field", "value", "message"), [
    ("num_dendrites", 3, r"classifier.bias of shape [6], its configuration asks for [8]"),
    ("hidden_size", 32, r"bert.embeddings.LayerNorm.bias of shape [16], its configuration asks for [32]"),
])
def test_a_configuration_that_does_not_fit_the_weights(run, model_path, tmp_path, field, value, message):
    shutil.copytree(model_path, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {field: value}))
    status, out, err = run("classify", "--model", tmp_path / "model", "a text")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"{message}: pass the configuration it was saved with" in err


def test_a_model_that_is_not_on_the_hub(run, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    status, out, err = run("classify", "--model", "no-such/model", "a text")
    assert (status, out) == (1, "")
    first, second = err.splitlines()
    assert first == "dendritic-bert: there is no folder no-such/model, asking the Hugging Face hub"
    assert second.startswith("dendritic-bert: error: model no-such/model cannot be loaded (")
    assert second.endswith("): pass a folder or a hub id.")
