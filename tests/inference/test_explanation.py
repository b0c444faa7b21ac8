"""Explanations: shares against the formula of the reference in float64, or with windows against slopes of the model in
float64; words against those of transformers' tokenizer, by both engines; and what a text loses without a word against
the classifier on that text."""

import copy
import json

import numpy as np
import pytest
import torch
from cases import case_id, covering_sample, generator
from small_classifier import MAX_LENGTH, hugging_face_tokenizer, small_model
from small_encoder import BAG, WINDOWS, small_encoder
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from windowed_models import KINDS, expected_logits, windowed_model

from dendritic_bert import TextClassifier, TextEncoder
from dendritic_bert.inference.explanation import Word
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.inference.tokenizer_engines import ENGINES
from dendritic_bert.kernels.reference import dendritic_linear_ref, embed_pool_ref
from dendritic_bert.model.dsn_checkpoint import DsnCheckpoint

TEXT = "It's a charming café, 世界 👍🏽 Unflinchingly bleak!"
LONG = "the quick brown fox " * 12
CONFIGS = covering_sample({
    "num_labels": [1, 2, 5], "num_dendrites": [0, 2, 3], "dendrite_activation": ["sigmoid", "tanh", "relu", "gelu"],
    "pooling": ["mean_masked", "mean_all", "sum_all"], "head_hidden": [None, None, 6],
    "dtype": [torch.float32, torch.float16]}, 8)


def model_with_dendrites(**config):
    """A small model whose dendrites count: those of a new layer are multiplied by 0."""
    model = small_model(**config)
    with torch.no_grad():
        for name, parameter in model.classifier.named_parameters():
            if name.endswith(("lateral", "top", "bias")):
                parameter.normal_(generator=generator(5))
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return hugging_face_tokenizer()


@pytest.fixture(scope="module")
def classifier(tokenizer):
    return TextClassifier(model_with_dendrites(num_labels=3), tokenizer)


def logits_in_float64(model, ids, types=None) -> np.ndarray:
    """The logits ``[C]`` of one row by the reference and the head's own modules, from the parameters in float64."""
    embeddings = model.bert.embeddings
    tables = [module.weight.double() for module in (embeddings.word_embeddings, embeddings.position_embeddings,
                                                    embeddings.token_type_embeddings, embeddings.LayerNorm)]
    types = None if types is None else torch.tensor([types])
    with torch.no_grad():
        x = embed_pool_ref(torch.tensor([ids]), *tables, embeddings.LayerNorm.bias.double(), pooling=model.pooling,
                           eps=embeddings.LayerNorm.eps, token_type_ids=types)
        for layer in [model.classifier] if model.config.head_hidden is None else model.classifier:
            if hasattr(layer, "top"):
                values = [None if value is None else value.double() for value in (
                    layer.weight, layer.bias, layer.lateral, layer.top)]
                x = dendritic_linear_ref(x, *values, layer.activation)
            else:
                x = layer(x)
    return x[0].numpy()


def assert_adds_up(explanation, within: float = 1e-6) -> None:
    parts = [word.shares for word in explanation.words] + [explanation.other]
    difference = explanation.logits - explanation.base_logits
    assert (abs(sum(parts) - difference) <= within * sum(map(abs, parts))).all()


@pytest.mark.parametrize("config", CONFIGS, ids=case_id)
def test_shares_add_up_to_the_logits_less_those_of_an_empty_row(tokenizer, config):
    dtype = config.pop("dtype")
    classifier = TextClassifier(model_with_dendrites(**config).to(dtype), tokenizer)
    explanation = classifier.explain(TEXT)
    assert_adds_up(explanation)
    np.testing.assert_allclose(explanation.logits, logits_in_float64(classifier.model, tokenizer(TEXT)["input_ids"]),
                               rtol=1e-10, atol=1e-12)
    if dtype == torch.float32:  # the classifier's table of 16 bits is rounded once more after centring
        with torch.no_grad():
            empty = classifier.model(input_ids=torch.zeros(0, dtype=torch.int64), cu_seqlens=torch.tensor([0, 0]))
            full = classifier.model(**tokenizer(TEXT, return_tensors="pt"))
        np.testing.assert_allclose(explanation.base_logits, empty.logits[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(explanation.logits, full.logits[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_and_gates(tokenizer, kind):
    model = windowed_model(**KINDS[kind], vocab_size=600)
    classifier = TextClassifier(model, tokenizer)
    assert classifier.max_length is None
    for text, text_pair in ((LONG[:140] if kind == "mean" else "a charming fox", None), (TEXT, "the fox"), ("", None)):
        explanation = classifier.explain(text, text_pair)
        assert_adds_up(explanation, 1e-3)
        assert not explanation.not_read, "a model without positions reads all"
        assert len(explanation.words) == len([pair for pair in explanation.runs() if pair[1]]) + (
            0 if text_pair is None else 2)
        row = tokenizer([text], None if text_pair is None else [text_pair], return_tensors="pt")
        expected = expected_logits(model, row)[0].detach()
        np.testing.assert_allclose(explanation.logits, expected, rtol=1e-9, atol=1e-10)
    assert explanation.baseline == ("row of zeros" if model.config.window_layers else "empty row")
    if not model.config.window_layers:
        np.testing.assert_allclose(explanation.base_logits, head_of_zeros(model), rtol=1e-9)


def head_of_zeros(model) -> np.ndarray:
    """The logits of the empty row."""
    with torch.no_grad():
        return copy.deepcopy(model.classifier).double()(torch.zeros(model.config.pooled_size).double()).numpy()


@pytest.mark.parametrize("kind", ["recipe", "wide", "plain_gate"])
def test_shares_of_windows_are_mean_slopes(tokenizer, kind):
    """Slopes of the model's own differentiable forward, in float64, by a factor of every word's rows of the tables. No
    word occurs twice."""
    model = windowed_model(**{**KINDS[kind], "embedding_norm": "none", "type_vocab_size": 1})
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight.zero_()
    words = ["the", "fox", "a", "dog"]
    explanation = TextClassifier(model, tokenizer).explain(" ".join(words))
    exact, row = copy.deepcopy(model).double(), tokenizer(" ".join(words), return_tensors="pt")
    ids, of_words = row["input_ids"], np.array([-1 if word is None else word for word in row.word_ids()])
    assert len(ids.unique()) == ids.shape[1] > len(words) + 2
    tables = {name: exact.get_parameter(name).detach() for name in (
        "bert.embeddings.word_embeddings.weight", "bert.gate.word_bias")}
    total, nodes = torch.zeros(len(explanation.labels), ids.shape[1], dtype=torch.float64), 128
    for node in range(nodes):
        factors = torch.full((600,), (node + 0.5) / nodes, dtype=torch.float64, requires_grad=True)
        scaled = {name: factors.view(-1, *[1] * (table.dim() - 1)) * table for name, table in tables.items()}
        logits = torch.func.functional_call(exact, scaled, kwargs={"input_ids": ids}).logits[0]
        for label, logit in enumerate(logits):
            total[label] += torch.autograd.grad(logit, factors, retain_graph=True)[0][ids[0]]
    expected = (total / nodes).numpy()
    sizes, found = abs(expected).sum(axis=1), [*(word.shares for word in explanation.words), explanation.other]
    for share, part in zip(found, [*range(len(words)), -1], strict=True):  # SETTLED, and 9e-3 for the midpoints
        assert (abs(share - expected[:, of_words == part].sum(axis=1)) <= 1e-2 * sizes).all()


def test_the_shares_of_a_linear_head_are_the_formula(tokenizer):
    """A x_t / n, with x_t by transformers' own BertEmbeddings."""
    model = small_model(num_dendrites=0, num_labels=3)
    explanation = TextClassifier(model, tokenizer).explain(TEXT)
    exact = model.double()
    with torch.no_grad():
        row = tokenizer(TEXT, return_tensors="pt")
        x = exact.bert.embeddings(input_ids=row["input_ids"], token_type_ids=row["token_type_ids"])[0]
        shares = (x @ exact.classifier.weight.T / len(x)).numpy()
    words = np.array([-1 if word is None else word for word in row.word_ids()])
    np.testing.assert_allclose([word.shares for word in explanation.words],
                               [shares[words == word].sum(axis=0) for word in range(words.max() + 1)], rtol=1e-9)
    np.testing.assert_allclose(explanation.other, shares[words < 0].sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(explanation.base_logits, exact.classifier.bias.detach(), rtol=1e-12)


@pytest.mark.parametrize("config", [{}, {"head_hidden": 6}, {"pooling": "sum_all"}, {"num_labels": 40}, "recipe"],
                         ids=str)
def test_left_out_is_the_fall_of_the_classifiers_logits(tokenizer, config, monkeypatch):
    monkeypatch.setattr("dendritic_bert.inference.explanation.LEFT_OUT_TOKENS", 30)  # two rows at a time
    model = windowed_model(**KINDS[config]) if config == "recipe" else model_with_dendrites(**config)
    classifier = TextClassifier(model, tokenizer)
    words = ["the", "unaffable", "fox", "jumps", "unflinchingly", "the"]

    def logits(text: str) -> np.ndarray:
        with torch.no_grad():
            return classifier.model(**tokenizer(text, return_tensors="pt")).logits[0].numpy()

    explanation = classifier.explain(" ".join(words))
    expected = [logits(" ".join(words)) - logits(" ".join(words[:word] + words[word + 1:])) for word in range(6)]
    np.testing.assert_allclose([word.left_out for word in explanation.words], expected, rtol=1e-4, atol=1e-5)
    assert max(len(word.tokens) for word in explanation.words) > 1, "a word of several pieces is left out as a whole"


@pytest.mark.parametrize("text", [TEXT, "", "   ", "naïve a\u0301b \t c\x00d\x1be", "[SEP] in the [MASK] text",
                                  "سلام دنیا", "x\ud83d y", LONG])
def test_words_and_offsets_are_the_tokenizers(classifier, tokenizer, text):
    explanation = classifier.explain(text)
    text = explanation.text
    encoding = tokenizer(text, truncation=True, max_length=MAX_LENGTH)
    of_words = [word for word in dict.fromkeys(encoding.word_ids()) if word is not None]
    spans = [tuple(encoding.word_to_chars(word)) for word in of_words]
    assert [(word.start, word.end) for word in explanation.words] == spans
    assert [word.text for word in explanation.words] == [text[start:end] for start, end in spans]
    tokens = tokenizer.convert_ids_to_tokens(encoding["input_ids"])
    assert [token for word in explanation.words for token in word.tokens] == tokens[1:-1]
    assert "".join(piece for piece, _ in explanation.runs()) == text
    assert_adds_up(explanation)


def test_words_by_hand(classifier):
    words = classifier.explain("It's naïve, 世界👍🏽").words
    assert [word.text for word in words] == ["It", "'", "s", "naïve", ",", "世", "界", "👍🏽"]
    assert [word.start for word in words] == [0, 2, 3, 5, 10, 12, 13, 14]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("texts", [
    (TEXT,), (LONG,), (TEXT, LONG), (LONG, ""), ("e\u0301\u0345\u0334 \u1e69", "x <m> \t")])
def test_both_engines_find_the_same_words(texts, side):
    tokenizer = hugging_face_tokenizer()
    tokenizer.truncation_side = side
    tokenizer.add_tokens([AddedToken("<m>", lstrip=True, rstrip=True, normalized=False)])
    model = model_with_dendrites(vocab_size=601)
    native, other = (TextClassifier(model, PackedTokenizer(tokenizer, engine)) for engine in ENGINES)
    assert native.tokenizer.engine == "native"
    assert native.explain(*texts).to_dict() == other.explain(*texts).to_dict()


def byte_level_tokenizer() -> Tokenizer:
    """As RoBERTa's, which the native engine does not serve: a word begins with a space, which is no part of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator([TEXT, LONG], trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def test_a_tokenizer_of_another_make():
    """Places are those of the library's encoding of the pair."""
    tokenizer = byte_level_tokenizer()
    explanation = TextClassifier(model_with_dendrites(max_position_embeddings=300), tokenizer).explain(TEXT, LONG)
    encoding = tokenizer.encode(TEXT, LONG)
    places = dict.fromkeys(place for place in zip(encoding.sequence_ids, encoding.word_ids) if None not in place)
    expected = [(sequence, *encoding.word_to_chars(word, sequence)) for sequence, word in places]
    assert [(word.sequence, word.start, word.end) for word in explanation.words] == expected
    assert [token for word in explanation.words for token in word.tokens] == [
        token for token, owner in zip(encoding.tokens, encoding.sequence_ids) if owner is not None]


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_is_cut_off_is_not_read(side):
    tokenizer = hugging_face_tokenizer()
    tokenizer.truncation_side = side
    classifier = TextClassifier(model_with_dendrites(), tokenizer)
    explanation = classifier.explain(LONG)
    every = LONG.split()
    read = [word.text for word in explanation.words]
    not_read = [word.text for word in explanation.not_read]
    assert (read + not_read if side == "right" else not_read + read) == every
    assert not any(isinstance(word, Word) for word in explanation.not_read)
    assert [LONG[word.start:word.end] for word in explanation.not_read] == not_read
    assert classifier.num_truncated == 0, "which counts what was classified"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("text", "text_pair"), [
    ("the quick fox", "jumps over it"), ("", "fox"), ("fox", ""), (LONG, "fox"), ("the fox", LONG), (LONG, LONG)])
def test_pairs(text, text_pair, side):
    tokenizer = hugging_face_tokenizer()
    tokenizer.truncation_side = side
    classifier = TextClassifier(model_with_dendrites(), tokenizer)
    explanation = classifier.explain(text, text_pair)
    row = tokenizer([text], [text_pair], truncation=True, max_length=MAX_LENGTH)  # not a list, "" would be no text
    tokens = [token for token, owner in zip(row.tokens(0), row.sequence_ids(0)) if owner is not None]
    assert [token for word in explanation.words for token in word.tokens] == tokens
    for word in (*explanation.words, *explanation.not_read):
        assert (text, text_pair)[word.sequence][word.start:word.end] == word.text
    assert "".join(piece for piece, _ in explanation.runs(1)) == explanation.text_pair == text_pair
    np.testing.assert_allclose(
        explanation.logits, logits_in_float64(classifier.model, row["input_ids"][0], row["token_type_ids"][0]),
        rtol=1e-10)
    assert_adds_up(explanation)


def test_labels(classifier):
    every = classifier.explain(TEXT)
    assert every.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    said = classifier(TEXT, top_k=None)
    assert every.label == said[0]["label"]
    scores = {row["label"]: row["score"] for row in said}
    assert dict(zip(every.labels, every.scores)) == pytest.approx(scores, abs=1e-6)
    some = classifier.explain(TEXT, labels=["LABEL_2", "LABEL_0"])
    assert (some.labels, some.label) == (("LABEL_2", "LABEL_0"), every.label)
    assert np.array_equal(some.logits, every.logits[[2, 0]])
    assert np.array_equal(some.words[1].shares, every.words[1].shares[[2, 0]])
    assert np.array_equal(some.words[1].left_out, every.words[1].left_out[[2, 0]])


@pytest.mark.parametrize("labels", [["LABEL_3"], "LABEL_1", []])
def test_labels_that_the_model_does_not_have(classifier, labels):
    with pytest.raises(ValueError, match="pass a list of labels of the model: LABEL_0, LABEL_1, LABEL_2"):
        classifier.explain(TEXT, labels=labels)


def test_as_json(classifier):
    explanation = classifier.explain("the fox", "jumps")
    found = json.loads(json.dumps(explanation.to_dict()))
    assert found["logits"] == dict(zip(explanation.labels, explanation.logits))
    assert [(word["text"], word["sequence"]) for word in found["words"]] == [("the", 0), ("fox", 0), ("jumps", 1)]
    total = {label: found["base_logits"][label] + found["other"][label] + sum(
        word["shares"][label] for word in found["words"]) for label in explanation.labels}
    assert total == pytest.approx(found["logits"])
    assert found["words"][1]["left_out"]["LABEL_1"] == explanation.words[1].left_out[1]


def test_the_model_of_the_package():
    classifier = TextClassifier.from_pretrained()
    explanation = classifier.explain("A charming but bleak journey.")
    assert_adds_up(explanation, 1e-3)
    assert isinstance(classifier._source, DsnCheckpoint), "no model is made for an explanation"
    as_model = TextClassifier(classifier.model, classifier.tokenizer).explain("A charming but bleak journey.")
    assert explanation.to_dict() == as_model.to_dict()
    shares = {word.text: word.shares[1] for word in explanation.words}
    assert max(shares, key=shares.get) == "charming"
    assert min(shares, key=shares.get) == "bleak"


def test_a_gate_beside_positions(tokenizer):
    classifier = TextClassifier(model_with_dendrites(pooling="gated_mean"), tokenizer)
    with torch.no_grad():
        classifier.model.bert.gate.weight.normal_(generator=generator(6))
    explanation = classifier.explain(TEXT)
    assert_adds_up(explanation, 1e-3)
    assert explanation.baseline == "empty row"
    np.testing.assert_allclose(explanation.logits, classifier.logits([TEXT])[0][0], rtol=1e-5, atol=1e-5)


def test_windows_from_a_checkpoint(tokenizer, tmp_path):
    model = windowed_model(**KINDS["recipe"])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classifier = TextClassifier.from_pretrained(tmp_path)
    explanation = classifier.explain(TEXT)
    assert isinstance(classifier._source, DsnCheckpoint), "no model is made for an explanation"
    assert explanation.to_dict() == TextClassifier(model, tokenizer).explain(TEXT).to_dict()


def test_what_cannot_be_explained(classifier, tokenizer):
    with pytest.raises(ValueError, match="explain needs a DSN, but dsn is False"):
        TextClassifier(small_model(dsn=False), tokenizer).explain(TEXT)
    hooked = small_model()
    hooked.bert.embeddings.word_embeddings.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="hooks, an adapter or another module changes"):
        TextClassifier(hooked, tokenizer).explain(TEXT)
    broken = small_model()
    with torch.no_grad():
        broken.classifier.bias[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        TextClassifier(broken, tokenizer).explain(TEXT)
    for arguments in (([TEXT],), (TEXT, 3)):
        with pytest.raises(TypeError, match="pass one str"):
            classifier.explain(*arguments)


@pytest.mark.parametrize("config", [WINDOWS, BAG], ids=["windows", "bag"])
def test_numbers_of_an_embedding(config):
    """An encoder's outputs have no names of their own; each is explained as a label's is."""
    model, tokenizer = small_encoder(**config), hugging_face_tokenizer()
    explanation = TextClassifier(model, tokenizer).explain("the quick brown fox", labels=["LABEL_7", "LABEL_0"])
    embedding = TextEncoder(model, tokenizer).encode(["the quick brown fox"], normalize=False)[0]
    assert explanation.logits == pytest.approx(embedding[[7, 0]].tolist(), rel=1e-5, abs=1e-5)


def test_it_takes_one_thread(monkeypatch):
    """The user's number of threads is as before."""
    classifier, before = TextClassifier(small_model(), hugging_face_tokenizer()), torch.get_num_threads()
    monkeypatch.setattr("dendritic_bert.inference.explanation.explain", lambda *arguments: torch.get_num_threads())
    torch.set_num_threads(2)
    try:
        assert classifier.explain("a") == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
