"""A BERT checkpoint into a DSN: what is kept is kept to the bit, and one line says what was not."""

import os
import shutil

import huggingface_hub
import pytest
import torch
from helpers import shared_path, tiny_bert
from perforated_networks import batch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
)

from dendritic_bert import (
    DendriticBertConfig,
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
)
from dendritic_bert.model.convert import convert

EMBEDDINGS = ["word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
              "LayerNorm.weight", "LayerNorm.bias"]
DROPPED = {
    BertModel: "encoder, pooler",
    BertForMaskedLM: "cls, encoder",
    BertForPreTraining: "cls, encoder, pooler",
    BertForQuestionAnswering: "encoder, qa_outputs",
    BertForSequenceClassification: "encoder, pooler",
}


def save_bert(folder, model_class=BertForSequenceClassification, **config):
    model = tiny_bert(model_class, **config)
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film"])}
                  ).save_pretrained(folder)
    return model


@pytest.fixture
def bert(tmp_path):
    save_bert(tmp_path / "bert", num_labels=3)
    return tmp_path / "bert"


def rewrite_weights(folder, rename):
    file = folder / "model.safetensors"
    tensors = {rename(name): value for name, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("model_class", DROPPED)
@pytest.mark.parametrize("old_names", [False, True], ids=["weight_bias", "gamma_beta"])
def test_embeddings_are_kept_to_the_bit(tmp_path, caplog, model_class, old_names):
    bert = save_bert(tmp_path, model_class)
    if old_names:
        rewrite_weights(tmp_path, lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma")
                        .replace("LayerNorm.bias", "LayerNorm.beta"))
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path)
    for name in EMBEDDINGS:
        expected = bert.base_model.get_parameter(f"embeddings.{name}")
        assert torch.equal(model.get_parameter(f"bert.embeddings.{name}"), expected)
    model.save_pretrained(tmp_path / "dsn")
    assert load_file(tmp_path / "dsn" / "model.safetensors").keys() == {
        *(f"bert.embeddings.{name}" for name in EMBEDDINGS), "classifier.weight", "classifier.bias"}
    if model_class is BertForSequenceClassification:
        said = f"kept classifier, embeddings; dropped {DROPPED[model_class]}; newly initialised nothing."
    else:
        said = f"kept embeddings; dropped {DROPPED[model_class]}; newly initialised classifier (train it before use)."
    assert lines(caplog) == [f"{tmp_path}: {said}"]


def test_a_classifier_that_fits_is_kept(bert):
    kept = BertForSequenceClassification.from_pretrained(bert).classifier
    model = DendriticBertForSequenceClassification.from_pretrained(bert)
    assert torch.equal(model.classifier.weight, kept.weight)
    assert torch.equal(model.classifier.bias, kept.bias)


@pytest.mark.parametrize("options", [{"num_labels": 5}, {"num_dendrites": 2}])
def test_a_classifier_that_does_not_fit_is_new(bert, caplog, options):
    model = DendriticBertForSequenceClassification.from_pretrained(bert, **options)
    assert lines(caplog)[-1] == (f"{bert}: kept embeddings; dropped encoder, pooler; newly initialised classifier "
                                 "(train it before use).")
    assert not any("LOAD REPORT" in line for line in lines(caplog))
    main = model.classifier.weight[: model.num_labels]
    assert 0 < main.std() < 0.04  # as BERT initialises it, while tiny_bert draws from N(0, 0.5)


WINDOWS = {"window_dendrites": 8, "window_layers": 3, "pooling": "gated_mean"}
NO_POSITIONS = "with the mean of 20 positions added to every word in the place of positions"


@pytest.mark.parametrize("options", [{}, {"window_dendrites": 8, "window_layers": 3}], ids=["DSN", "windows"])
def test_loading_info(tmp_path, caplog, options):
    """As transformers gives it: what is new, what was left over, and what is of another shape."""
    def info_of(**others):
        model, info = DendriticBertForSequenceClassification.from_pretrained(
            tmp_path, **options, **others, output_loading_info=True)
        assert isinstance(model, DendriticBertForSequenceClassification)
        assert bool(model.config.max_position_embeddings) == (not options)
        return info

    bert = save_bert(tmp_path, BertForMaskedLM)
    info, new = info_of(), {"classifier.weight", "classifier.bias"}
    windows = {f"bert.windows.{name}" for name in ("input_weight", "weight", "bias")} if options else set()
    assert info["missing_keys"] == new | windows
    assert info["unexpected_keys"] == {name for name in bert.state_dict() if not name.startswith("bert.embeddings.")
                                       } - {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # tied
    assert not info["mismatched_keys"]
    save_bert(tmp_path, num_labels=3)
    info = info_of(num_labels=5)
    assert info["missing_keys"] == windows
    assert {name for name, _, _ in info["mismatched_keys"]} == new
    assert len([line for line in lines(caplog) if line.startswith(f"{tmp_path}: kept")]) == 2
    assert not any("LOAD REPORT" in line for line in lines(caplog))  # transformers' table


def test_a_bert_with_windows(bert, tmp_path, caplog):
    """The embedding of a word is what it is at a position that is the mean of all."""
    model = DendriticBertForSequenceClassification.from_pretrained(bert, **WINDOWS)
    assert lines(caplog) == [f"{bert}: kept embeddings, {NO_POSITIONS}; dropped encoder, pooler; newly initialised "
                             "classifier, gate, windows (train it before use)."]
    old = AutoModelForSequenceClassification.from_pretrained(bert).bert.embeddings
    ids = torch.arange(50)[None]
    with torch.no_grad():
        expected = old.LayerNorm(old.word_embeddings(ids) + old.token_type_embeddings.weight[1]
                                 + old.position_embeddings.weight.mean(dim=0))
        found = model.eval().bert.embeddings(ids, torch.ones_like(ids))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (model.config.max_position_embeddings, model.config.embedding_norm) == (0, "layer_norm")
    model.save_pretrained(tmp_path / "windowed")
    caplog.clear()
    again = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "windowed")
    assert not lines(caplog)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert again.config.to_dict() == model.config.to_dict() | {"_name_or_path": str(tmp_path / "windowed")}
    with torch.no_grad():
        assert torch.equal(again.eval()(ids).logits, model(ids).logits)


def test_a_model_of_ours_loses_its_positions(bert, tmp_path, caplog):
    """By keywords or by a configuration; into windows its head does not fit."""
    DendriticBertForSequenceClassification.from_pretrained(bert).save_pretrained(tmp_path / "dsn")
    caplog.clear()
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "dsn", max_position_embeddings=0)
    assert lines(caplog) == [f"{tmp_path / 'dsn'}: kept classifier, embeddings, {NO_POSITIONS}; dropped nothing; newly "
                             "initialised nothing."]
    config = DendriticBertConfig.from_pretrained(tmp_path / "dsn", max_position_embeddings=0)
    other = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "dsn", config=config)
    assert config.max_position_embeddings == 0
    assert not hasattr(config, "drops_positions")
    assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())
    caplog.clear()
    windowed = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "dsn", **WINDOWS)
    assert lines(caplog) == [f"{tmp_path / 'dsn'}: kept embeddings, {NO_POSITIONS}; dropped nothing; newly initialised "
                             "classifier, gate, windows (train it before use)."]
    assert windowed.classifier.weight.shape == (3, 32 + 8)
    assert windowed.prepare() is windowed
    with pytest.raises(ValueError, match=r"embedding_norm is 'none', but .* was trained with LayerNorm: leave"):
        DendriticBertForSequenceClassification.from_pretrained(bert, embedding_norm="none", **WINDOWS)


def test_encoder_can_be_kept(tmp_path, caplog):
    bert = save_bert(tmp_path, BertForMaskedLM)
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path, dsn=False)
    name = "bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(model.get_parameter(name), bert.get_parameter(name))
    assert lines(caplog) == [f"{tmp_path}: kept embeddings, encoder; dropped cls; newly initialised classifier, pooler "
                             "(train it before use)."]


def test_other_misfits_are_errors(bert, caplog):
    """A table of another size, and a classifier where there was no BERT; unless the caller wants them begun anew."""
    message = r"has bert\.embeddings\.word_embeddings\.weight of shape \[50, 32\], its configuration asks for \[51"
    with pytest.raises(ValueError, match=message + r", 32\]: pass the configuration it was saved with\.$"):
        DendriticBertForSequenceClassification.from_pretrained(bert, vocab_size=51)
    DendriticBertForSequenceClassification.from_pretrained(bert).save_pretrained(bert)
    with pytest.raises(ValueError, match=r"has classifier\.bias of shape \[3\], its configuration asks for \[6\]: pass "
                                         "the configuration it was saved with, or ignore_mismatched_sizes=True for a"):
        DendriticBertForSequenceClassification.from_pretrained(bert, num_dendrites=1)
    caplog.clear()
    model = DendriticBertForSequenceClassification.from_pretrained(bert, num_dendrites=1, ignore_mismatched_sizes=True)
    assert model.classifier.bias.shape == (6,)
    assert lines(caplog) == [f"{bert}: kept embeddings; dropped nothing; newly initialised classifier (train it before "
                             "use)."]


def test_converted_checkpoint(bert, tmp_path):
    output = tmp_path / "new" / "dsn"
    model = convert(bert, output, pooling="mean_all", num_labels=4)
    assert sorted(path.name for path in output.iterdir()) == [
        "config.json", "model.safetensors", "modeling_dendritic_bert.py", "tokenizer.json", "tokenizer_config.json"]
    assert os.listdir(output.parent) == ["dsn"]
    loaded = AutoModelForSequenceClassification.from_pretrained(output)
    assert type(loaded) is DendriticBertForSequenceClassification
    assert loaded.config.pooling == "mean_all"
    assert loaded.config.architectures == ["DendriticBertForSequenceClassification"]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    text = "film no film"
    assert AutoTokenizer.from_pretrained(output)(text) == AutoTokenizer.from_pretrained(bert)(text)


def test_question_answering_from_the_hub(tmp_path, monkeypatch, caplog):
    """Its class is that of the configuration there, as of one in a folder; the hub's client has fetched it already."""
    cached = tmp_path / "models--someone--answers"
    folder = cached / "snapshots" / ("0" * 40)
    save_bert(folder)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    model = DendriticBertForQuestionAnswering.from_pretrained(folder)
    model.save_pretrained(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    caplog.clear()
    converted = convert("someone/answers", tmp_path / "out")
    assert type(converted) is DendriticBertForQuestionAnswering
    assert torch.equal(converted.qa_outputs.weight, model.qa_outputs.weight)
    assert not lines(caplog)
    with pytest.raises(OSError, match=r"model of someone/other cannot be loaded \(no such folder, nor on the hub\)"):
        convert("someone/other", tmp_path / "other")


def test_the_real_bert_tiny(tmp_path):
    folder = shared_path("models/bert-tiny")
    convert(folder, tmp_path / "dsn", num_labels=2)
    raw = load_file(folder / "model.safetensors")
    converted = load_file(tmp_path / "dsn" / "model.safetensors")
    old_names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for name in EMBEDDINGS:
        expected = raw[f"bert.embeddings.{old_names.get(name, name)}"]
        assert torch.equal(converted.pop(f"bert.embeddings.{name}"), expected)
    assert converted.keys() == {"classifier.weight", "classifier.bias"}


def truncate(folder):
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def empty(folder):
    os.truncate(folder / "model.safetensors", 0)


def foreign_weights(folder):
    rewrite_weights(folder, lambda name: f"vision_tower.{name}")


def other_architecture(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"bert"', '"roberta"'))


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def not_there(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(("damage", "error", "message"), [
    (truncate, ValueError, r"the weights of {} cannot be read \(.*\): fetch or save them again\."),
    (empty, ValueError, r"the weights of {} cannot be read \(.*\): fetch or save them again\."),
    (foreign_weights, ValueError, r"{} lacks bert\.embeddings\..*: pass a checkpoint of BERT or of this model\."),
    (other_architecture, ValueError, r"{} holds a model of type 'roberta', expected .*: pass a BERT checkpoint\."),
    (no_weights, OSError, r"the model of {} cannot be loaded \(.*no file named.*\): pass a folder or a hub id\."),
    (no_tokenizer, ValueError, r"{} has no vocabulary: put its tokenizer\.json or vocab\.txt there\."),
    (not_there, OSError, r"the model of {} cannot be loaded \(no such folder.*\): pass a folder or a hub id\."),
])
def test_bad_checkpoints(bert, tmp_path, damage, error, message, caplog):
    damage(bert)
    with pytest.raises(error, match=f"^{message.format(bert)}$"):  # `.` matches no line end: it is one line
        convert(bert, tmp_path / "dsn")
    assert not any("LOAD REPORT" in line for line in lines(caplog))
    assert [path.name for path in tmp_path.iterdir() if path != bert] == []


def test_bad_outputs(bert, tmp_path):
    with pytest.raises(ValueError, match="holds something already"):
        convert(bert, bert)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="holds something already"):
        convert(bert, tmp_path / "file")
    with pytest.raises(OSError, match=r"cannot be written \(Not a directory\): name a folder that can"):
        convert(bert, tmp_path / "file" / "dsn")
    assert (tmp_path / "file").read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "file"]


def test_an_empty_folder_may_be_there(bert, tmp_path):
    (tmp_path / "dsn").mkdir()
    convert(bert, tmp_path / "dsn")
    assert (tmp_path / "dsn" / "config.json").exists()


# ---- PerforatedAI ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_network_of_perforatedai(perforatedai, bert, tmp_path, caplog, what):
    """Its logits, kept through our own format; the tokenizer is that beside the configuration."""
    network = perforatedai.grown(2, "tanh")
    file = perforatedai.save(network)
    (tmp_path / "PAI" / "config.json").rename(bert / "config.json")
    output = tmp_path / "out"
    convert(file if what == "file" else file.parent, output, config=bert / "config.json")
    assert AutoTokenizer.from_pretrained(output)("film")["input_ids"] == [2, 5, 3]
    model = AutoModelForSequenceClassification.from_pretrained(output)
    assert (model.config.num_dendrites, model.config.dendrite_activation) == (2, "tanh")
    torch.testing.assert_close(model(**batch()).logits, network(**batch()), rtol=2e-5, atol=2e-5)


def test_there_and_back(perforatedai, tmp_path, caplog):
    network = perforatedai.grown(3, "relu", head_hidden=4)
    perforatedai.save(network)
    for folder, to_perforated in (("ours", False), ("theirs", True), ("again", False)):
        convert({"ours": "PAI", "theirs": "ours", "again": "theirs"}[folder], folder, to_perforated=to_perforated)
    assert "there is no tokenizer in" in caplog.text
    assert sorted(os.listdir("theirs")) == ["best_model.pt", "config.json", "theirs_config.json"]
    once, twice = load_file("ours/model.safetensors"), load_file("again/model.safetensors")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_what_belongs_to_perforatedai_alone(bert, tmp_path):
    with pytest.raises(ValueError, match=r"is not a checkpoint of PerforatedAI: leave out config and activation\."):
        convert(bert, tmp_path / "out", activation="tanh")
    with pytest.raises(ValueError, match=r"is not a checkpoint of PerforatedAI in safetensors: pass the folder"):
        convert(bert / "model.safetensors", tmp_path / "out")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of PerforatedAI in safetensors"):
        convert(tmp_path / "pickled.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_ours_without_a_tokenizer(bert, tmp_path):
    DendriticBertForSequenceClassification.from_pretrained(bert).save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match=r"has no vocabulary"):
        convert(tmp_path / "ours", tmp_path / "out")
