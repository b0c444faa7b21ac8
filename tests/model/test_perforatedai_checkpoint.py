"""Checkpoints of PerforatedAI, written by the library itself: the same logits, and refused where it lost weights."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import each_backend
from perforated_networks import ACTIVATIONS, CONFIG, Dsn, TokenDsn, batch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from dendritic_bert import DendriticBertConfig, DendriticBertForSequenceClassification
from dendritic_bert.kernels import backends
from dendritic_bert.model.convert import convert
from dendritic_bert.model.modeling import DendriticBertForQuestionAnswering
from dendritic_bert.model.perforatedai_checkpoint import read_perforated, save_perforated


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(backends, "FORCED", "reference")


def load(path, **options):
    return DendriticBertForSequenceClassification.from_pretrained(path, **options)


# ---- the same logits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_dendrites", range(5))
@pytest.mark.parametrize("head_hidden", [None, 5])
def test_training_form(perforatedai, reference, num_dendrites, head_hidden):
    activation = list(ACTIVATIONS)[num_dendrites % len(ACTIVATIONS)]
    network = perforatedai.grown(num_dendrites, activation, head_hidden=head_hidden)
    perforatedai.save(network)
    model = load("PAI")
    assert (model.config.num_dendrites, model.config.head_hidden) == (num_dendrites, head_hidden)
    assert model.config.dendrite_activation == (activation if num_dendrites else "sigmoid")
    assert torch.equal(model(**batch()).logits, network(**batch()))


def test_loading_info_and_a_subfolder(perforatedai, reference):
    network = perforatedai.grown(2)
    perforatedai.save(network)
    model, info = load(".", subfolder="PAI", output_loading_info=True)
    assert torch.equal(model(**batch()).logits, network(**batch()))
    assert not any(info.values())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(perforatedai, reference, activation):
    network = perforatedai.grown(2, activation)
    assert torch.equal(load(perforatedai.save(network, "latest"))(**batch()).logits, network(**batch()))


@pytest.mark.parametrize("num_dendrites", [0, 2, 3, 4])
@pytest.mark.parametrize("layout", ["new", "old"])
def test_clean_form(perforatedai, reference, num_dendrites, layout):
    network = perforatedai.grown(num_dendrites, "tanh")
    expected = network(**batch())
    file = perforatedai.save_clean(network)
    assert any(name.startswith("classifier.layer_array.") for name in load_file(file))
    if layout == "old" and num_dendrites:
        to_old_layout(file)
    assert torch.equal(load(file)(**batch()).logits, expected)


def to_old_layout(file):
    """As the library's first step of cleaning leaves it: an empty place for what would feed the first dendrite."""
    tensors = load_file(file)
    skips = sorted(name for name in tensors if ".skip_weights." in name)
    shifted = [torch.empty(0), *(tensors.pop(name) for name in skips)]
    save_file(tensors | {f"classifier.skip_weights.{i}": tensor for i, tensor in enumerate(shifted)}, file)


def test_old_layout_is_the_librarys(perforatedai):
    """What ``to_old_layout`` writes is what the library makes before it drops the empty place."""
    from perforatedai import blockwise_perforatedai

    network = perforatedai.grown(3)
    file = perforatedai.save_clean(network)
    to_old_layout(file)
    expected = blockwise_perforatedai.blockwise_network(network).state_dict()
    found = load_file(file)
    for name, tensor in expected.items():
        if ".skip_weights." in name:
            assert torch.equal(found.pop(name), tensor)
    assert not any(".skip_weights." in name for name in found)


@each_backend
@pytest.mark.parametrize("num_dendrites", range(5))
def test_every_backend(perforatedai, monkeypatch, backend, device, num_dendrites):
    """The fused path, from ids to logits, on prepared tables."""
    network = perforatedai.grown(num_dendrites, "gelu")
    perforatedai.save(network)
    monkeypatch.setattr(backends, "FORCED", backend)
    model = load("PAI").to(device)
    with torch.no_grad():
        logits = model(**{name: values.to(device) for name, values in batch().items()}).logits.cpu()
        exact = network.double()(**batch())
    torch.testing.assert_close(logits.double(), exact, rtol=2e-5, atol=2e-5)


def test_tracked_and_perforated_modules_of_bert(perforatedai, reference):
    """BERT tracked as a whole, and its pooler wrapped but never grown."""
    perforatedai.settings.set_module_ids_to_track([".bert"])
    network = perforatedai.grown(2)
    assert "bert.main_module.embeddings.LayerNorm.weight" in network.state_dict()
    perforatedai.save(network)
    assert torch.equal(load("PAI")(**batch()).logits, network(**batch()))


def test_encoder_is_kept(perforatedai):
    perforatedai.settings.set_module_ids_to_track([".bert"])
    bert = perforatedai.perforate(BertForSequenceClassification(BertConfig(**CONFIG)).eval(), "relu")
    bert(**batch()).logits.sum().backward()
    perforatedai.utils.simulate_cycles(bert.classifier, 4, True)
    perforatedai.save(bert)
    model = load("PAI")
    assert not model.config.dsn
    torch.testing.assert_close(model(**batch()).logits, bert(**batch()).logits, rtol=1e-5, atol=1e-5)


def test_our_own_format_keeps_the_activation(perforatedai, tmp_path):
    network = perforatedai.grown(2, "relu")
    perforatedai.save(network)
    load("PAI").save_pretrained(tmp_path / "ours")
    model = load(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["dendrite_activation"] == "relu"
    torch.testing.assert_close(model(**batch()).logits, network(**batch()), rtol=2e-5, atol=2e-5)


def test_configuration_elsewhere(perforatedai, tmp_path, reference):
    network = perforatedai.grown(1)
    file = perforatedai.save(network)
    Path("PAI/config.json").rename(tmp_path / "bert.json")
    with pytest.raises(ValueError, match=r"PAI/config\.json is not there, .*: pass config, the path of the config"):
        load(file)
    model = load(file, config=tmp_path / "bert.json", id2label={0: "a", 1: "b", 2: "c"})
    assert model.config.id2label[1] == "b"
    assert torch.equal(model(**batch()).logits, network(**batch()))


@pytest.mark.parametrize("text", ["no JSON", "[]"])
def test_a_configuration_that_is_none(tmp_path, text):
    file = save_perforated(DendriticBertForSequenceClassification(DendriticBertConfig(**CONFIG)), tmp_path / "PAI")
    config = tmp_path / "bert.json"
    config.write_text(text)
    message = rf"config is {re.escape(str(config))}, which cannot be read \(.*JSON.*\): pass the path of the config"
    with pytest.raises(ValueError, match=message):
        load(file, config=config)
    with pytest.raises(ValueError, match=message):
        convert(file, tmp_path / "out", config=config)


def test_labels_go_by_the_weights(perforatedai):
    perforatedai.save(perforatedai.grown(1, num_labels=4))
    assert load("PAI").config.num_labels == 4


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"num_labels": 7}, "num_labels is 7, but the weights in {} have 3: pass 3 or leave it out."),
    ({"num_dendrites": 0}, "num_dendrites is 0, but the weights in {} have 2: pass 2 or leave it out."),
    ({"num_labels": 3, "num_dendrites": 2}, None),
])
@pytest.mark.parametrize("head_hidden", [None, 4])
def test_options_that_the_weights_contradict(tmp_path, options, message, head_hidden):
    """Passed as they are they change nothing, least of all the names of the labels."""
    names = {0: "sports", 1: "world", 2: "tech"}
    config = DendriticBertConfig(**{**CONFIG, "id2label": names, "num_dendrites": 2, "head_hidden": head_hidden})
    file = save_perforated(DendriticBertForSequenceClassification(config), tmp_path / "PAI")
    if message is None:
        assert load(tmp_path / "PAI", **options).config.id2label == names
    else:
        with pytest.raises(ValueError, match=f"^{re.escape(message.format(file))}$"):
            convert(tmp_path / "PAI", tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


def test_clean_form_of_one_dendrite_is_refused(perforatedai):
    """The library's own loader gives the logits of the main layer alone."""
    network = perforatedai.grown(1)
    expected = network(**batch())
    file = perforatedai.save_clean(network)
    theirs = perforatedai.networks.load_pai_model(Dsn().eval(), str(file))
    assert not torch.allclose(theirs(**batch()), expected, atol=0.1)
    with pytest.raises(ValueError, match=r"one dendrite, in which PerforatedAI does not keep the weights from dendrite "
                                         r"to output: pass the training form, best_model\.pt\.$"):
        load(file)


def test_activation_is_never_guessed(perforatedai, reference):
    network = perforatedai.grown(2, "tanh")
    file = perforatedai.save(network)
    with pytest.raises(ValueError, match=r"activation is 'relu', but .*PAI_config\.json says 'tanh': remove the one"):
        load(file, dendrite_activation="relu")
    Path("PAI/PAI_config.json").unlink()
    with pytest.raises(ValueError, match=r"does not say which activation its dendrites have.*: pass activation"):
        load(file)
    with pytest.raises(ValueError, match="activation is 'swish', expected one of sigmoid, tanh, relu, gelu"):
        load(file, dendrite_activation="swish")
    model = load(file, dendrite_activation="tanh")
    assert torch.equal(model(**batch()).logits, network(**batch()))


def test_unknown_activation_is_named(perforatedai):
    network = perforatedai.grown(2)
    file = perforatedai.save(network)
    Path("PAI/PAI_config.json").write_text('{"pai_forward_function": "torch.nn.functional.silu"}')
    with pytest.raises(ValueError, match=r"names torch\.nn\.functional\.silu as the activation of the dendrites"):
        load(file)


def test_dendrites_below_the_head_are_refused(perforatedai):
    perforatedai.settings.set_module_ids_to_track([".bert.embeddings", ".bert.encoder"])
    bert = perforatedai.perforate(BertForSequenceClassification(BertConfig(**CONFIG)))
    bert(**batch()).logits.sum().backward()
    for module in perforatedai.utils.get_pai_modules(bert, 0):
        perforatedai.utils.simulate_cycles(module, 2, True)
    file = perforatedai.save(bert)
    with pytest.raises(ValueError, match=r"has dendrites on bert\.pooler\.dense, but here only the head can have them"):
        load(file)


def test_damaged_files(perforatedai, tmp_path):
    file = perforatedai.save(perforatedai.grown(2))
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if "dendrites_to_top" not in name}, file)
    with pytest.raises(ValueError, match=r"by weights of the shapes .*, expected \[\(1, 3\), \(2, 3\)\]: save"):
        load(file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read"):
        load("PAI")


@pytest.mark.parametrize("other", ["best_model.pt", "epoch_1.pt", "folder.pt", "best_model.pt/"])
@pytest.mark.parametrize("shards", [False, True])
def test_what_others_save_beside_their_weights(tmp_path, other, shards):
    """It is neither PerforatedAI's nor in the way, be it a file of ``torch.save`` or a folder."""
    model = DendriticBertForSequenceClassification(DendriticBertConfig(**CONFIG))
    model.save_pretrained(tmp_path, **{"max_shard_size": "4KB"} if shards else {})
    if not shards:
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    if other in ("folder.pt", "best_model.pt/"):
        (tmp_path / other).mkdir()
    else:
        torch.save(model.state_dict(), tmp_path / other)
    again = load(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_best_model_of_perforatedai_beside_other_weights(tmp_path):
    model = DendriticBertForSequenceClassification(DendriticBertConfig(**CONFIG, num_dendrites=2))
    save_perforated(model, tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert load(tmp_path).config.num_dendrites == 2


def test_several_files_need_a_name(perforatedai):
    network = perforatedai.grown(1)
    perforatedai.save(network, "latest")
    perforatedai.save(network, "switch_2")
    with pytest.raises(ValueError, match=re.escape("PAI holds latest.pt, switch_2.pt and no best_model.pt: name one")):
        load("PAI")
    assert load("PAI/latest.pt").config.num_dendrites == 1


# ---- written back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_dendrites", range(4))
@pytest.mark.parametrize("head_hidden", [None, 5])
def test_perforatedai_goes_on_from_our_file(perforatedai, reference, num_dendrites, head_hidden, tmp_path):
    """It loads the file strictly, computes the same logits, trains, and grows the next dendrite."""
    perforatedai.save(perforatedai.grown(num_dendrites, "tanh", head_hidden=head_hidden))
    model = load("PAI")
    save_perforated(model, tmp_path / "run")
    perforatedai.settings.set_n_epochs_to_switch(1)
    network = perforatedai.perforate(Dsn(head_hidden).eval(), "tanh", name="run")
    network = perforatedai.utils.load_system(network, "run", "best_model", True)
    assert torch.equal(network(**batch()), model(**batch()).logits)
    for _ in range(3):
        optimizer = torch.optim.Adam(p for p in network.parameters() if p.requires_grad)
        perforatedai.tracker.set_optimizer_instance(optimizer)
        network(**batch()).sum().backward()
        optimizer.step()
        network, restructured, done = perforatedai.tracker.add_validation_score(0.5, network)
        if restructured:
            break
    assert not done
    assert perforatedai.tracker.member_vars["num_dendrites_added"] == num_dendrites + 1
    perforatedai.save(network, folder="grown")
    assert read_perforated(Path("grown/best_model.pt"), "tanh").num_dendrites == num_dendrites + 1


@pytest.mark.parametrize("head_hidden", [None, 4])
def test_question_answering(perforatedai, tmp_path, head_hidden):
    """A head on every token, both ways: the library takes our file and goes on, we take what it saves."""
    ours = DendriticBertForQuestionAnswering(DendriticBertConfig(
        **CONFIG | {"num_labels": 2}, num_dendrites=2, dendrite_activation="tanh", head_hidden=head_hidden)).eval()
    save_perforated(ours, tmp_path / "run")
    network = perforatedai.perforate(TokenDsn(head_hidden).eval(), "tanh", name="run")
    for module in perforatedai.utils.get_pai_modules(network, 0):
        module.set_this_output_dimensions([-1, -1, 0])
    network = perforatedai.utils.load_system(network, "run", "best_model", True)
    input_ids = batch()["input_ids"]
    logits = torch.stack(list(ours(input_ids=input_ids).to_tuple()), dim=-1)
    assert torch.equal(network(input_ids), logits)
    network(input_ids).sum().backward()
    for module in perforatedai.utils.get_pai_modules(network, 0):
        perforatedai.utils.simulate_cycles(module, 2, True)
    perforatedai.save(network)
    again = DendriticBertForQuestionAnswering.from_pretrained("PAI", dendrite_activation="tanh")
    assert (again.config.num_dendrites, again.config.head_hidden) == (3, head_hidden)
    assert torch.equal(torch.stack(list(again(input_ids=input_ids).to_tuple()), dim=-1), network(input_ids))
    assert type(convert("PAI", tmp_path / "out", activation="tanh")) is DendriticBertForQuestionAnswering


def test_our_file_is_read_again(tmp_path):
    """Without the library: what is written is what was there."""
    model = DendriticBertForSequenceClassification(DendriticBertConfig(**CONFIG, num_dendrites=3, head_hidden=4,
                                                                       dendrite_activation="gelu", pooling="sum_all"))
    save_perforated(model, tmp_path / "PAI")
    again = load(tmp_path / "PAI")
    assert again.config.pooling == "sum_all"
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
