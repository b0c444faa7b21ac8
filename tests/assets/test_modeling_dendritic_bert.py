"""The file of plain PyTorch beside the weights: loaded by transformers in a process that cannot import this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny_bert
from safetensors.torch import load_file, save_file
from small_classifier import hugging_face_tokenizer, small_model
from transformers import AutoConfig, AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification
from windowed_models import KINDS, windowed_model

from dendritic_bert import (
    EMBEDDED_MODEL,
    DendriticBertConfig,
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
    DendriticBertModel,
    TextClassifier,
)
from dendritic_bert.model.files import MODEL_FILES, REMOTE_CODE, REMOTE_CODE_FILE

# Loads every folder of the current one, computes its outputs and its loss, and saves it again.
ELSEWHERE = """
import json, sys
from pathlib import Path

sys.modules["dendritic_bert"] = None  # importing it raises ImportError
import torch, transformers
from safetensors.torch import load_file, save_file

for folder in sorted(Path().iterdir()):
    if not folder.is_dir():
        continue
    load = getattr(transformers, (folder / "auto").read_text()).from_pretrained
    model = load(folder, trust_remote_code=True, local_files_only=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    tensors = load_file(folder / "inputs.safetensors")
    with torch.no_grad():
        output = model(**tensors)
    save_file({name: value.contiguous() for name, value in output.items()}, folder / "outputs.safetensors")
    model.save_pretrained(folder / "again")
    if (folder / "tokenizer.json").exists():
        pipe = transformers.pipeline("text-classification", str(folder), trust_remote_code=True, device="cpu")
        (folder / "labels.json").write_text(json.dumps(pipe(["the quick brown fox", "a charming journey"])))
print("done")
"""
CLASSIFIERS = {
    "plain": {}, "one_dendrite": {"num_dendrites": 1},
    "gelu": {"num_dendrites": 3, "dendrite_activation": "gelu"},
    "sum_all": {"pooling": "sum_all"}, "mean_all": {"pooling": "mean_all", "num_dendrites": 2},
    "head_hidden": {"head_hidden": 6, "num_dendrites": 1}, "regression": {"num_labels": 1, "temperature": 1.5},
    "encoder": {"dsn": False, "num_dendrites": 1}, "encoder_mean": {"dsn": False, "encoder_pooling": "mean"},
}
WINDOWED = {**KINDS, "gate_and_positions": {"pooling": "gated_mean", "max_position_embeddings": 24},
            "sum_without_positions": {"pooling": "sum_all"}}


def inputs_of(num_labels: int | None, with_types: bool) -> dict[str, torch.Tensor]:
    """Rows of 5, 9 and no tokens."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(3, 9, dtype=torch.int64)
    mask[0, :5] = mask[1] = 1
    inputs = {"input_ids": torch.randint(600, (3, 9), generator=generator), "attention_mask": mask}
    if with_types:
        inputs["token_type_ids"] = torch.randint(2, (3, 9), generator=generator)
    if num_labels is not None:
        inputs["labels"] = torch.rand(3) if num_labels == 1 else torch.randint(num_labels, (3,), generator=generator)
    return inputs


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, tuple[Path, torch.nn.Module]]:
    """Name -> folder and model; one process has loaded all of them."""
    root = tmp_path_factory.mktemp("elsewhere")
    models = {name: small_model(num_labels=config.pop("num_labels", 3), initializer_range=0.5, **config)
              for name, config in ((name, dict(config)) for name, config in CLASSIFIERS.items())}
    models |= {f"windowed_{name}": windowed_model(**config) for name, config in WINDOWED.items()}
    tiny_bert(vocab_size=600, num_labels=2).save_pretrained(root.parent / "bert")
    models["span"] = DendriticBertForQuestionAnswering.from_pretrained(root.parent / "bert", num_dendrites=2)
    models["body"] = DendriticBertModel.from_pretrained(root.parent / "bert")
    models["windowed_body"] = DendriticBertModel(models["windowed_recipe"].config).eval()
    models["windowed_span"] = DendriticBertForQuestionAnswering(models["windowed_no_positions"].config).eval()
    models["embedded"] = DendriticBertForSequenceClassification.from_pretrained(EMBEDDED_MODEL)
    folders = {}
    for name, model in models.items():
        folder = root / name
        model.save_pretrained(folder)
        kind = {"span": "AutoModelForQuestionAnswering", "body": "AutoModel"}
        kind |= {f"windowed_{name}": auto for name, auto in kind.items()}
        (folder / "auto").write_text(kind.get(name, "AutoModelForSequenceClassification"))
        inputs = inputs_of(None if name in kind else model.config.num_labels, len(name) % 2 == 1)
        save_file(inputs, folder / "inputs.safetensors")
        folders[name] = folder, model
    hugging_face_tokenizer().save_pretrained(root / "plain")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", ELSEWHERE], cwd=root, text=True,
                          env=environment | {"HF_HOME": str(root.parent / "cache"), "HF_HUB_OFFLINE": "1"},
                          capture_output=True)
    assert done.stdout.endswith("done\n"), done.stderr
    assert "arning" not in done.stderr
    assert "newly" not in done.stderr
    return folders


@pytest.mark.parametrize("name", [*CLASSIFIERS, *(f"windowed_{name}" for name in WINDOWED), "span", "windowed_body",
                                  "windowed_span", "body", "embedded"])
def test_outputs_without_the_package(folders, name):
    """Those of the fused op, where there is one. The embedded model's tables are half, which it rounds once more."""
    folder, model = folders[name]
    with torch.no_grad():
        expected = model(**load_file(folder / "inputs.safetensors"))
    found = load_file(folder / "outputs.safetensors")
    assert found.keys() == expected.keys()
    tolerance = 2e-3 if name == "embedded" else 2e-5
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value.float(), rtol=tolerance, atol=tolerance)


def test_pipeline_without_the_package(folders):
    folder, _ = folders["plain"]
    expected = TextClassifier.from_pretrained(folder)(["the quick brown fox", "a charming journey"])
    for found, wanted in zip(json.loads((folder / "labels.json").read_text()), expected, strict=True):
        assert found["label"] == wanted["label"]
        assert found["score"] == pytest.approx(wanted["score"], abs=1e-6)


def test_what_is_saved_elsewhere_is_loaded_here(folders):
    folder, model = folders["regression"]
    assert (folder / "again" / REMOTE_CODE_FILE).read_bytes() == (folder / REMOTE_CODE_FILE).read_bytes()
    again = DendriticBertForSequenceClassification.from_pretrained(folder / "again")
    assert again.config.temperature == model.config.temperature == 1.5
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("trust", [None, False, True])
@pytest.mark.parametrize(("name", "auto"), [("plain", AutoModelForSequenceClassification), ("body", AutoModel),
                                            ("span", AutoModelForQuestionAnswering)], ids=["plain", "body", "span"])
def test_where_the_package_is_imported_its_own_classes_are_loaded(folders, name, auto, trust, caplog):
    folder, model = folders[name]
    assert type(auto.from_pretrained(folder, trust_remote_code=trust)) is type(model)
    assert type(AutoConfig.from_pretrained(folder, trust_remote_code=trust)) is DendriticBertConfig
    assert not caplog.records


def test_every_class_of_the_configuration_is_in_the_file():
    source = Path(EMBEDDED_MODEL, REMOTE_CODE_FILE).read_text(encoding="utf-8")
    for reference in REMOTE_CODE.values():
        file, _, name = reference.partition(".")
        assert f"{file}.py" == REMOTE_CODE_FILE
        assert f"\nclass {name}(" in source
    assert "dendritic_bert." not in source.replace("modeling_dendritic_bert.", "")


def test_saved_files(folders):
    """What the hub shows of a model, but for the model card, which a training writes."""
    folder, model = folders["plain"]
    assert {path.name for path in folder.iterdir()} & set(MODEL_FILES) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", REMOTE_CODE_FILE}
    assert json.loads((folder / "config.json").read_text())["auto_map"] == REMOTE_CODE
    before = (folder / REMOTE_CODE_FILE).stat()
    model.save_pretrained(folder)
    assert (folder / REMOTE_CODE_FILE).stat().st_mtime_ns == before.st_mtime_ns
    model.save_pretrained(folder / "not_main", is_main_process=False)
    assert not (folder / "not_main" / REMOTE_CODE_FILE).exists()
