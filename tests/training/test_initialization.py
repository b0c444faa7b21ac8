"""What a training starts from: a new vocabulary, a tokenizer under random numbers, or a BERT checkpoint."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_bert
from small_classifier import hugging_face_tokenizer
from small_encoder import BAG, DIMENSION, WINDOWS, save_encoder, small_encoder
from trained_files import weights
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel
from windowed_models import KINDS, windowed_model

from dendritic_bert import DendriticBertForSequenceClassification
from dendritic_bert.datasets.glue import Glue
from dendritic_bert.embedded_model import SHIPPED_MODELS
from dendritic_bert.model.configuration import DendriticBertConfig
from dendritic_bert.model.packed_encoder import pack_encoder
from dendritic_bert.model.perforatedai_checkpoint import save_perforated
from dendritic_bert.training import TrainingOptions, train
from dendritic_bert.training.defaults import fit_to_rows
from dendritic_bert.training.initialization import (
    WITHOUT_POSITIONS,
    build_model,
    choose_start,
    given_labels,
    live_parameters,
    longest_row,
    longest_row_to_be,
    make_tokenizer,
    start_added_words,
)


def test_a_new_vocabulary(options):
    results = train(options(vocab_size=300, hidden_size=8, max_position_embeddings=64, max_length=32, epochs=1))
    tokenizer = AutoTokenizer.from_pretrained(results["output_dir"])
    assert 200 < len(tokenizer) <= 300
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.model_max_length) == (0, 2, 64)
    assert tokenizer.tokenize("The FILM is charming") == ["the", "film", "is", "charming"]
    assert tokenizer.unk_token_id not in tokenizer("Zq@9 \"#~^\"").input_ids  # ASCII that no training text holds
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer)
    shapes = {name: list(tensor.shape) for name, tensor in weights(results["output_dir"]).items()}
    assert shapes["bert.embeddings.word_embeddings.weight"] == [len(tokenizer), 8]
    assert shapes["bert.embeddings.position_embeddings.weight"] == [64, 8]
    assert results["live_parameters"] == {
        "embeddings": (len(tokenizer) + 64 + 2 + 2) * 8, "windows": 0, "encoder": 0, "head": 2 * 9,
        "all": sum(int(np.prod(shape)) for shape in shapes.values())}


def test_a_tokenizer_under_random_numbers(options, tmp_path):
    tokenizer = hugging_face_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    results = train(options(tokenizer_name=str(tmp_path / "tokenizer"), epochs=1, fraction=0.1, head_hidden=5))
    assert results["num_train"] == 60
    assert AutoTokenizer.from_pretrained(results["output_dir"]).get_vocab() == tokenizer.get_vocab()
    assert len(weights(results["output_dir"])["bert.embeddings.word_embeddings.weight"]) == len(tokenizer)
    assert results["live_parameters"]["head"] == 5 * 17 + 2 * 6


def test_a_vocabulary_that_is_too_small(options):
    with pytest.raises(ValueError, match=r"^vocab_size is 100, the characters of the texts alone take \d+: raise it"):
        train(options(vocab_size=100))


@pytest.mark.parametrize("dsn", [True, False])
def test_a_bert_checkpoint(options, tmp_path, dsn, monkeypatch):
    """The embeddings start as BERT's, where a rate of 1e-9 leaves them; the encoder stays if it is asked for."""
    bert = tiny_bert(BertModel, vocab_size=600, max_position_embeddings=40, num_hidden_layers=1)
    bert.save_pretrained(tmp_path / "bert")
    tokenizer = hugging_face_tokenizer()
    tokenizer.save_pretrained(tmp_path / "bert")
    judged, scores = [], Glue.scores
    monkeypatch.setattr(Glue, "scores", lambda self, *args: judged.append(args[0]) or scores(self, *args))
    results = train(options(model_name=str(tmp_path / "bert"), dsn=dsn, lr=1e-9, epochs=1, max_length=40))
    # The epoch is scored as the end is, in the order of the rows, whatever order training takes them in.
    np.testing.assert_allclose(judged[0], np.stack(judged[1]), atol=1e-4)
    assert np.ptp(judged[0], axis=0).min() > 0.01
    model = AutoModelForSequenceClassification.from_pretrained(results["output_dir"])
    assert model.config.dsn is dsn
    assert model.config.id2label == {0: "negative", 1: "positive"}
    theirs = bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(model.bert.embeddings.word_embeddings.weight, theirs, rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(results["output_dir"]).get_vocab() == tokenizer.get_vocab()
    encoder = 0 if dsn else sum(p.numel() for part in (bert.encoder, bert.pooler) for p in part.parameters())
    assert results["live_parameters"]["encoder"] == encoder


def test_a_file_of_perforatedai_keeps_its_dendrites(options, tmp_path):
    """Beside it lies the configuration of the BERT that it was trained from, which knows of none."""
    bert = tiny_bert(BertModel, vocab_size=600, max_position_embeddings=40)
    bert.save_pretrained(tmp_path / "bert")
    model = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "bert", num_dendrites=2, dsn=True)
    save_perforated(model, tmp_path / "PAI")
    bert.config.save_pretrained(tmp_path / "PAI")
    hugging_face_tokenizer().save_pretrained(tmp_path / "PAI")
    for asked in (0, 2):
        train(options(model_name=str(tmp_path / "PAI"), epochs=1, max_length=40, num_dendrites=asked))
        assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.num_dendrites == 2


@pytest.mark.parametrize("dsn", [True, False])
def test_word_embeddings_are_left_as_they_are(options, tmp_path, dsn):
    tiny_bert(BertModel, vocab_size=600, max_position_embeddings=128).save_pretrained(tmp_path / "bert")
    hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
    train(options(model_name=str(tmp_path / "bert"), dsn=dsn, freeze_word_embeddings=True, epochs=1))
    before, after = weights(tmp_path / "bert"), weights(tmp_path / "out")
    for name in ("word_embeddings", "position_embeddings"):
        kept = torch.equal(after[f"bert.embeddings.{name}.weight"], before[f"embeddings.{name}.weight"])
        assert kept == (name == "word_embeddings")


def test_a_checkpoint_without_a_tokenizer(options, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"^the tokenizer of model_name .*empty cannot be loaded \(\w+Error\): pass a "):
        train(options(model_name=str(tmp_path / "empty")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("norm", ["layer_norm", "none"])
def test_a_windowed_model_starts_as_its_norm_needs(norm):
    """With LayerNorm words are small beside a large vector that all share; without, they are larger and alone."""
    options = TrainingOptions(window_dendrites=6, window_layers=3, hidden_size=64, embedding_norm=norm)
    torch.manual_seed(0)
    model = build_model(DendriticBertForSequenceClassification, options, {"num_labels": 3}, 500)
    embeddings, config = model.bert.embeddings, model.config
    assert (config.window_dendrites, config.window_layers, config.max_position_embeddings) == (6, 3, 0)
    assert (config.pooling, config.embedding_norm) == ("gated_mean", norm)
    large, words = (1.0, 0.02) if norm == "layer_norm" else (0.02, 0.1)
    # 128 and 32,000 draws: their deviation is off by less than a third and a twentieth.
    assert embeddings.token_type_embeddings.weight.std().item() == pytest.approx(large, rel=0.33)
    assert embeddings.word_embeddings.weight.std().item() == pytest.approx(words, rel=0.05)
    assert live_parameters(model) == {
        "embeddings": 502 * 64 + (128 if norm == "layer_norm" else 0),
        "windows": 3 * 64 * 6 + 2 * 3 * 6 * 6 + 3 * 6 + (70 + 500), "encoder": 0, "head": 3 * 71,
        "all": sum(parameter.numel() for parameter in model.parameters())}


def test_a_model_of_the_package_is_known_by_its_name(own_options):
    results = train(own_options(model_name="tiny", lr=1e-9, head_lr_factor=1.0, epochs=1, hidden_size=None,
                                vocab_size=None))
    assert results["start"] == "the checkpoint `tiny`"
    before, after = weights(SHIPPED_MODELS["tiny"]), weights(results["output_dir"])
    words = "bert.embeddings.word_embeddings.weight"
    torch.testing.assert_close(after[words], before[words].float(), rtol=0, atol=1e-6)
    assert "base_model" not in Path(results["output_dir"], "README.md").read_text()


@pytest.fixture
def encoder(tmp_path):
    """Makes the folder of a small encoder, with windows or another form."""
    return lambda **form: save_encoder(tmp_path / "encoder", small_encoder(**(form or WINDOWS)))


@pytest.mark.parametrize("form", [WINDOWS, BAG])
def test_a_pretrained_encoder(own_options, encoder, form):
    """It brings all but the head, which is new, and a rate of 1e-9 leaves it as it was."""
    folder = encoder(**form)
    results = train(own_options(model_name=folder, lr=1e-9, head_lr_factor=1e6, epochs=1, hidden_size=None,
                                vocab_size=None, num_dendrites=1, add_words=0))
    assert results["start"] == f"the pretrained encoder `{folder}`"
    before, after = weights(folder), weights(results["output_dir"])
    for name in before.keys() - {"classifier.weight", "classifier.bias"}:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    model = AutoModelForSequenceClassification.from_pretrained(results["output_dir"])
    config = model.config
    assert (config.num_labels, config.num_dendrites, config.problem_type) == (3, 1, "single_label_classification")
    assert sorted(config.id2label.values()) == ["bad", "good", "mixed"]
    assert (config.window_layers, config.hidden_size) == (form.get("window_layers", 0), 19)
    assert after["classifier.weight"].shape == (6, config.pooled_size)
    vocabularies = [AutoTokenizer.from_pretrained(name).get_vocab() for name in (results["output_dir"], folder)]
    assert vocabularies[0] == vocabularies[1]
    card = (Path(results["output_dir"]) / "README.md").read_text(encoding="utf-8")
    assert f"Started from the pretrained encoder `{folder}`" in card


@pytest.mark.parametrize("form", [WINDOWS, BAG, BAG | {"pooling": "mean_masked"}])
def test_added_words_start_as_their_pieces_together(encoder, form):
    """Of a gated bag the pooled rows stay, and every word's gate is the sum of those of its pieces."""
    folder, texts = encoder(**form), ["zebrafishes quaggas the fox", "quaggas zebrafishes", "zebrafishes quaggas"]
    options = TrainingOptions(train_file="a.csv", model_name=folder, init="encoder", add_words=3)
    tokenizers = AutoTokenizer.from_pretrained(folder), make_tokenizer(options, texts)
    size = len(tokenizers[0])
    assert tokenizers[1].convert_ids_to_tokens([size, size + 1]) == ["quaggas", "zebrafishes"]
    assert len(tokenizers[1]) == size + 2
    model = build_model(DendriticBertForSequenceClassification, options, {"num_labels": 3}, 0).eval()
    with torch.no_grad():
        model.classifier.weight.copy_(torch.eye(3, model.config.pooled_size))  # logits are three channels of the row
        model.classifier.bias.zero_()
    texts.append("a fox")
    before = model(**tokenizers[0](texts, padding=True, return_tensors="pt")).logits
    start_added_words(model, tokenizers[1])
    words, gate = model.get_input_embeddings().weight.detach().double(), model.bert.gate
    assert (model.config.vocab_size, len(words)) == (size + 2, size + 2)
    logits = torch.zeros(size + 2, dtype=torch.float64)
    if gate is not None:
        logits = words @ gate.weight[:19].detach().double() + gate.word_bias.detach().double()
    for place, word in enumerate(["quaggas", "zebrafishes"]):
        pieces = tokenizers[0](word, add_special_tokens=False).input_ids
        gates = logits[pieces].exp()
        if gate is not None:
            assert logits[size + place].exp().item() == pytest.approx(gates.sum().item(), rel=1e-5)
        torch.testing.assert_close(words[size + place], (gates[:, None] * words[pieces]).sum(dim=0) / gates.sum(),
                                   rtol=1e-4, atol=1e-6)
    after = model(**tokenizers[1](texts, padding=True, return_tensors="pt")).logits
    if form is BAG:
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[3], before[3], rtol=0, atol=0)


@pytest.fixture
def both(tmp_path):
    """The packed folder of a windowed encoder and of a bag with its word table."""
    windowed, bag = small_encoder(**WINDOWS), small_encoder(**BAG, seed=3)
    with torch.no_grad():
        bag.bert.embeddings.word_embeddings.weight.copy_(windowed.bert.embeddings.word_embeddings.weight)
    folders = save_encoder(tmp_path / "windowed", windowed), save_encoder(tmp_path / "bag", bag)
    pack_encoder(folders[0], tmp_path / "packed", without_windows=folders[1])
    return str(tmp_path / "packed")


@pytest.mark.parametrize(("num_labels", "wanted", "layers"), [
    (2, None, 2), (4, None, 0), (30, None, 2), (4, "on", 2), (30, "off", 0)])
def test_windows_fit_the_rows_where_an_encoder_has_both_forms(both, num_labels, wanted, layers):
    settings = {"num_labels": num_labels}
    options = TrainingOptions(train_file="a.csv", model_name=both, encoder_windows=wanted)
    options = fit_to_rows(choose_start(options, [], settings), 1000, num_labels)
    model = build_model(DendriticBertForSequenceClassification, options, settings, 0)
    assert (model.config.window_layers, model.bert.windows is not None) == (layers, layers > 0)
    assert options.start.endswith(", without its windows") == (layers == 0)
    tables = DendriticBertForSequenceClassification.from_pretrained(
        both, **({} if layers else {"window_layers": 0, "window_dendrites": 0})).bert.state_dict()
    assert all(torch.equal(value, tables[name]) for name, value in model.bert.state_dict().items())


def test_an_encoder_of_one_form_has_it_whatever_the_rows(encoder):
    options = TrainingOptions(train_file="a.csv", model_name=encoder())
    assert fit_to_rows(choose_start(options, [], {"num_labels": 2}), 1000, 2).encoder_windows == "on"
    options = TrainingOptions(train_file="a.csv", model_name=encoder(), encoder_windows="off", init="encoder")
    with pytest.raises(ValueError, match=r"^encoder_windows is off, but .* has no without_windows\.safetensors: leave"):
        build_model(DendriticBertForSequenceClassification, options, {"num_labels": 2}, 0)


def test_a_regression_goes_on_from_one_of_as_many_outputs_and_starts_from_any_other(encoder):
    options = TrainingOptions(train_file="a.csv", model_name=encoder())
    settings = {"problem_type": "regression", "num_labels": DIMENSION}
    assert choose_start(options, [], settings).init is None
    assert choose_start(options, [], settings | {"num_labels": 2}).init == "encoder"
    assert choose_start(options, [], settings | {"problem_type": None}).init == "encoder"


def test_what_is_no_encoder_is_named(tmp_path):
    options = TrainingOptions(train_file="a.csv", model_name=str(tmp_path), init="encoder")
    with pytest.raises(ValueError, match=r"^init is encoder, but model_name .* is no pretrained encoder: leave"):
        choose_start(options, [], {"num_labels": 2})


@pytest.mark.parametrize(("name", "value"), [("encoder_windows", "off"), ("add_words", 3), ("word_share", 0.4)])
def test_what_an_encoder_alone_has_a_use_for_is_refused_without_one(name, value):
    for start, words in (({"init": "random"}, "random numbers"), ({"model_name": "tiny"}, "tiny")):
        options = TrainingOptions(train_file="a.csv", **start, **{name: value})
        with pytest.raises(ValueError, match=f"^{name} is {value}, but what training starts from, {words}, is no "
                                             "pretrained encoder: leave it out"):
            choose_start(options, [], {"num_labels": 2})
    options = TrainingOptions(train_file="a.csv", **{name: value})
    with pytest.warns(UserWarning, match="are not in the vocabulary of the pretrained encoder"):
        found = choose_start(options, ["ⰳⰴ ⰵⰶ"] * 9, {"num_labels": 2})  # Glagolitic
    assert (found.init, getattr(found, name)) == ("random", None)


def test_names_that_nobody_gave_are_no_labels():
    assert given_labels(None) == given_labels(DendriticBertConfig(num_labels=3)) == []
    names = {0: "LABEL_0", 1: "spam"}
    assert given_labels(DendriticBertConfig(id2label=names)) == ["LABEL_0", "spam"]


@pytest.mark.parametrize(("given", "longest"), [
    ({}, 512), ({"max_position_embeddings": 600}, 600), ({"max_position_embeddings": 0}, WITHOUT_POSITIONS),
    ({"window_layers": 2, "window_dendrites": 4}, WITHOUT_POSITIONS), ({"model_name": "bert"}, 40),
    ({"model_name": "bert", "window_layers": 2, "window_dendrites": 4}, WITHOUT_POSITIONS),
    ({"model_name": "encoder", "init": "encoder"}, WITHOUT_POSITIONS),
], ids=str)
def test_the_longest_row_is_known_before_the_model_is_built(encoder, tmp_path, given, longest):
    encoder()
    tiny_bert(BertModel, vocab_size=600, max_position_embeddings=40, num_hidden_layers=1).save_pretrained(
        tmp_path / "bert")
    if "model_name" in given:
        given = given | {"model_name": str(tmp_path / given["model_name"])}
    options = TrainingOptions(task="sst2", dsn=True, **given)
    model = build_model(DendriticBertForSequenceClassification, options, {"num_labels": 2}, 600)
    assert longest_row_to_be(options) == longest_row(model.config) == longest


@pytest.mark.parametrize(("num_strange", "init"), [(0, "encoder"), (1, "encoder"), (2, "random")])
def test_words_that_the_encoder_does_not_know(encoder, monkeypatch, num_strange, init):
    """One word in twenty may be [UNK]; here each text has one word, and the strange ones are of another script."""
    monkeypatch.setattr("dendritic_bert.training.options.EMBEDDED_ENCODER", encoder())
    texts = ["fox"] * (20 - num_strange) + ["\u0f40"] * num_strange
    options = TrainingOptions(train_file="a.csv")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = choose_start(options, texts, {"num_labels": 2})
    assert chosen.init == init
    assert chosen.pooling == (None if init == "encoder" else "mean_masked")
    assert [str(warning.message).startswith("10% of the words are not in the vocabulary") for warning in caught] == (
        [] if init == "encoder" else [True])


@pytest.mark.parametrize("form", [WINDOWS, BAG])
def test_an_interrupted_training_on_an_encoder_goes_on_to_the_same_weights(own_options, encoder, tmp_path, monkeypatch,
                                                                           form):
    """The head is drawn and its rows are measured again, before the checkpoint is read; words are added again, too."""
    given = {"model_name": encoder(**form), "hidden_size": None, "vocab_size": None, "epochs": 3, "add_words": 2,
             "word_share": 0.4}
    whole = weights(train(own_options(**given))["output_dir"])

    def interrupt(self, args, state, control, **_):
        if state.epoch == 2:
            raise KeyboardInterrupt

    options = own_options(**given, output_dir=str(tmp_path / "again"))
    with monkeypatch.context() as patch:
        patch.setattr("dendritic_bert.training.fit._Progress.on_epoch_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(options)
    monkeypatch.setattr("dendritic_bert.training.fit._Progress.on_epoch_begin", lambda *_, **__: None)
    assert not options.word_dropout  # drawn in on_epoch_begin
    again = weights(train(options)["output_dir"])
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_saved_model_forgets_what_was_fitted_to_its_weights(tmp_path):
    """The form of its tables, which was chosen by the labels that it gave, the temperature, and the columns."""
    model = windowed_model(**KINDS["recipe"])
    model.config.table_dtype, model.config.temperature = "int8", 2.5
    model.config.training_columns = {"text_column": "review"}
    model.save_pretrained(tmp_path)
    options = TrainingOptions(task="sst2", model_name=str(tmp_path), dsn=True)
    built = build_model(type(model), options, {"num_labels": 2}, model.config.vocab_size)
    assert built.config.table_dtype is None
    assert built.config.temperature == 1.0
    assert built.config.training_columns is None


@pytest.fixture
def saved(tmp_path):
    """The folder of a model with three labels, two dendrites each, and windows."""
    return save_encoder(tmp_path / "saved", small_encoder(**WINDOWS, num_labels=3, num_dendrites=2,
                                                          problem_type="single_label_classification"))


@pytest.mark.parametrize(("given", "brought"), [
    ({"window_dendrites": 8, "window_layers": 2}, "24"), ({"window_dendrites": 24, "window_layers": 3}, "2"),
    ({"window_radius": 2}, "1"), ({"pooling": "mean_masked"}, "gated_mean"), ({"embedding_norm": "layer_norm"}, "none"),
    ({"encoder_pooling": "mean"}, "cls"), ({"head_hidden": 5}, "None"), ({"dendrite_activation": "tanh"}, "sigmoid"),
    ({"num_dendrites": 1}, "2, of which none is taken away"),
], ids=str)
def test_another_form_than_a_saved_model_has_is_refused(saved, given, brought):
    options = TrainingOptions(train_file="a.csv", model_name=saved, **given)
    message = rf"^\w+ is \w+, but model_name .*saved brings {brought}: leave it out\.$"
    with pytest.raises(ValueError, match=message) as error:
        choose_start(options, [], {"num_labels": 3})
    assert str(error.value).split()[0] in given


def test_the_form_that_a_saved_model_has_may_be_named(saved):
    given = WINDOWS | {"num_dendrites": 2, "dendrite_activation": "sigmoid", "window_radius": 1}
    options = TrainingOptions(train_file="a.csv", model_name=saved, **given)
    assert choose_start(options, [], {"num_labels": 3}) == options
    assert choose_start(replace(options, num_dendrites=3), [], {"num_labels": 3}).num_dendrites == 3


@pytest.mark.parametrize("given", [{"window_radius": 2}, {"encoder_pooling": "mean"}], ids=str)
def test_another_form_than_the_encoder_has_is_refused(given):
    (name, value), = given.items()
    with pytest.raises(ValueError, match=rf"^{name} is {value}, but the pretrained encoder brings \w+: leave it out"):
        choose_start(TrainingOptions(train_file="a.csv", **given), [], {"num_labels": 3})


def test_dropout_is_applied_to_what_is_loaded(saved, both):
    """To the modules, as well as to the configuration; that of windows asks an encoder of two forms for them."""
    given = {"train_file": "a.csv", "hidden_dropout_prob": 0.1, "classifier_dropout": 0.2, "window_dropout": 0.3}
    settings = {"num_labels": 4}
    for folder in (saved, both):
        options = fit_to_rows(choose_start(TrainingOptions(model_name=folder, **given), [], settings), 1000, 4)
        model = build_model(DendriticBertForSequenceClassification, options, settings, 0)
        config = model.config
        assert (config.hidden_dropout_prob, config.classifier_dropout, config.window_dropout_prob) == (0.1, 0.2, 0.3)
        assert (model.bert.embeddings.dropout.p, model.dropout.p, model.bert.windows.dropout.p) == (0.1, 0.2, 0.3)
    with pytest.raises(ValueError, match=r"^window_dropout is 0\.3, but model_name .* is taken without windows: leave"):
        choose_start(TrainingOptions(model_name=both, encoder_windows="off", **given), [], settings)


def test_dendrites_to_come_have_the_activation_that_is_asked_for(tmp_path):
    folder = save_encoder(tmp_path / "linear", small_encoder(**BAG, num_labels=3, problem_type=None))
    options = TrainingOptions(train_file="a.csv", model_name=folder, num_dendrites=2, dendrite_activation="tanh")
    model = build_model(DendriticBertForSequenceClassification, choose_start(options, [], {"num_labels": 3}),
                        {"num_labels": 3}, 0)
    assert (model.classifier.num_dendrites, model.classifier.activation) == (2, "tanh")
    assert model.config.dendrite_activation == "tanh"


def test_capitals_that_a_tokenizer_does_not_keep(saved, tmp_path):
    with pytest.raises(ValueError, match=r"^cased is True, but model_name .*saved brings a tokenizer that makes texts"):
        make_tokenizer(TrainingOptions(train_file="a.csv", model_name=saved, cased=True), [])
    hugging_face_tokenizer(lowercase=False).save_pretrained(tmp_path / "cased")
    options = TrainingOptions(train_file="a.csv", tokenizer_name=str(tmp_path / "cased"), cased=True)
    assert make_tokenizer(options, []).tokenize("The") == ["The"]


def test_a_max_length_without_room_for_a_text(saved):
    message = r"^max_length is 2, of which the special tokens take 2 and a text at least one: pass 3 or more\.$"
    for start in ({"model_name": saved}, {"init": "random"}):
        with pytest.raises(ValueError, match=message):
            make_tokenizer(TrainingOptions(train_file="a.csv", max_length=2, **start), ["a fox"] * 9)
