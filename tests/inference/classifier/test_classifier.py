"""TextClassifier against transformers' own text-classification pipeline, and against the model called by hand."""

import pickle
import shutil
import warnings
from functools import partial

import huggingface_hub
import numpy as np
import pytest
import torch
from small_classifier import MAX_LENGTH, WORDS, hugging_face_tokenizer, small_model, train_tokenizer
from transformers import pipeline

from dendritic_bert.inference.classifier import TextClassifier

TEXTS = ["", "a", "the quick brown fox", "[SEP] in the text", "Unflinchingly bleak!", "世界 hello", *WORDS]


@pytest.fixture(scope="module")
def tokenizer():
    return hugging_face_tokenizer()


@pytest.fixture(scope="module")
def classifier(tokenizer):
    return TextClassifier(small_model(num_labels=3), tokenizer)


def assert_same(results, expected):
    assert [result["label"] for result in results] == [result["label"] for result in expected]
    np.testing.assert_allclose([result["score"] for result in results], [result["score"] for result in expected],
                               rtol=1e-5, atol=1e-6)
    assert all(type(result["score"]) is float and set(result) == {"label", "score"} for result in results)


@pytest.mark.parametrize("config", [
    {"num_labels": 2},
    {"num_labels": 3, "problem_type": "single_label_classification", "id2label": {0: "bad", 1: "so-so", 2: "good"}},
    {"num_labels": 3, "problem_type": "multi_label_classification"},
    {"num_labels": 1},
    {"num_labels": 1, "problem_type": "regression"},
    {"num_labels": 2, "problem_type": "regression"},
    {"num_labels": 2, "dsn": False},
], ids=str)
def test_same_as_the_pipeline(tokenizer, config, monkeypatch):
    monkeypatch.setattr("dendritic_bert.inference.text_logits.ENCODER_ROWS", 3)  # several portions, one not full
    model = small_model(**config)
    theirs = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    ours = TextClassifier(model, tokenizer)
    expected = theirs(TEXTS)
    assert len({result["score"] for result in expected}) > 5, "scores that hardly differ would prove nothing"
    assert_same(ours(TEXTS, batch_size=4), expected)
    assert_same(ours(TEXTS[2]), theirs(TEXTS[2]))


PAIR = {"text": "the quick brown fox", "text_pair": "Unflinchingly bleak!"}


@pytest.fixture(scope="module")
def theirs(classifier, tokenizer):
    return pipeline("text-classification", model=classifier.model, tokenizer=tokenizer, device="cpu")


def rounded(result):
    """Scores at five digits, whatever they are nested in."""
    if isinstance(result, list):
        return [rounded(element) for element in result]
    return {**result, "score": pytest.approx(result["score"], rel=1e-5)}


@pytest.mark.parametrize("options", [
    {}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"top_k": None, "function_to_apply": "none"}], ids=str)
@pytest.mark.parametrize("texts", [
    "fox", ["fox"], ["fox", "dog"], {"text": "fox"}, PAIR, [PAIR], [PAIR, {"text": "", "text_pair": "!"}]], ids=str)
def test_results_have_the_pipelines_shape(classifier, theirs, texts, options):
    assert classifier(texts, **options) == rounded(theirs(texts, **options))


def test_labels_above_a_threshold(classifier):
    every = classifier(TEXTS, top_k=None)
    assert classifier(TEXTS, threshold=0.4, batch_size=4) == [
        [answer for answer in row if answer["score"] >= 0.4] for row in every]
    assert classifier(TEXTS[0], threshold=0.4) == classifier(TEXTS[:1], threshold=0.4)[0]


def test_abstaining(classifier):
    plain = classifier(TEXTS)
    limit = sorted(result["score"] for result in plain)[5]
    assert classifier(TEXTS, abstain_below=limit) == [
        result if result["score"] >= limit else {**result, "label": None} for result in plain]


def test_temperature_of_the_configuration(tokenizer):
    model = small_model(num_labels=3)
    logits = TextClassifier(model, tokenizer).logits(TEXTS)[0].astype(np.float64)
    model.config.temperature = 2.5
    scores = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum(axis=1, keepdims=True)
    _, ours = pickle.loads(pickle.dumps(TextClassifier(model, tokenizer))).predict_array(TEXTS)
    np.testing.assert_allclose(ours, scores, rtol=1e-5)
    _, raw = TextClassifier(model, tokenizer).predict_array(TEXTS, function_to_apply="none")
    np.testing.assert_allclose(raw, logits, rtol=1e-6)
    model.config.temperature = -1.0
    with pytest.raises(ValueError, match=r"^temperature is -1\.0, expected a positive number"):
        TextClassifier(model, tokenizer)


@pytest.mark.parametrize("config", [
    {"num_labels": 1}, {"num_labels": 3}, {"num_labels": 3, "problem_type": "regression"},
    {"num_labels": 2, "dsn": False}], ids=str)
def test_arrays(tokenizer, config):
    """Labels and scores are those of the calls; for any number of threads they are the same to the bit."""
    classifier = TextClassifier(small_model(**config), tokenizer)
    texts = [*TEXTS, "fox " * 100]
    before = classifier.num_truncated
    labels, scores = classifier.predict_array(texts, threads=1)
    assert classifier.num_truncated == before + 1
    assert (labels.dtype, scores.dtype) == (np.int32, np.float32)
    assert (labels.shape, scores.shape) == ((len(texts),), (len(texts), config["num_labels"]))
    every = classifier(texts, top_k=None, threads=1)
    assert [dict(zip(classifier.labels, row)) for row in scores.tolist()] == [
        {answer["label"]: answer["score"] for answer in row} for row in every]
    assert [classifier.labels[label] for label in labels] == [row[0]["label"] for row in every]
    for threads in (2, 5):
        same_labels, same_scores = classifier.predict_array(texts, threads=threads)
        assert (same_labels.tobytes(), same_scores.tobytes()) == (labels.tobytes(), scores.tobytes())
    small = [classifier.predict_array(texts, batch_size=4, threads=threads)[1].tobytes() for threads in (1, 2, 5)]
    assert len(set(small)) == 1


def test_arrays_of_pairs(classifier):
    seconds = [*reversed(TEXTS)]
    labels, scores = classifier.predict_array(np.array(TEXTS), np.array(seconds), batch_size=4)
    results = classifier([{"text": text, "text_pair": second} for text, second in zip(TEXTS, seconds)])
    assert [classifier.labels[label] for label in labels] == [result["label"] for result in results]
    np.testing.assert_allclose(scores.max(axis=1), [result["score"] for result in results], rtol=1e-5)
    assert classifier.predict_array([])[1].shape == (0, 3)
    with pytest.raises(ValueError, match=r"^text_pairs has 1 texts and texts 2: pass one for each\.$"):
        classifier.predict_array(["a", "b"], ["c"])
    with pytest.raises(TypeError, match=r"^text_pairs\[0\] is 3 of type int"):
        classifier.predict_array(["a"], [3])


def test_other_texts_than_those_of_the_training(tokenizer):
    """Single texts for a model of pairs, and the reverse; answers are the same as without the warning."""
    model, expected = small_model(seed=1), TextClassifier(small_model(seed=1), tokenizer)
    model.config.training_columns = {"text_column": "question", "text_pair_column": "answer", "label_column": "label"}
    of_pairs = TextClassifier(model, tokenizer)
    for classify in (of_pairs, of_pairs.predict_array):
        with pytest.warns(UserWarning, match="^the model was trained on pairs, of the columns 'question' and 'answer', "
                                             "but single texts are classified: pass the second texts as te") as seen:
            classify(TEXTS)
        assert seen[0].filename == __file__
    assert_same_answers = partial(np.testing.assert_array_equal, expected.predict_array(TEXTS)[1])
    with pytest.warns(UserWarning, match="trained on pairs"):
        assert_same_answers(pickle.loads(pickle.dumps(of_pairs)).predict_array(TEXTS)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_pairs(PAIR) == expected(PAIR)
        of_pairs.predict_array(TEXTS, TEXTS)
    model.config.training_columns = {"text_column": "question", "label_column": "label"}
    of_texts = TextClassifier(model, tokenizer)
    assert of_texts(TEXTS) == expected(TEXTS)
    for classify in (lambda: of_texts(PAIR), lambda: of_texts.predict_array(TEXTS, TEXTS)):
        with pytest.warns(UserWarning, match="on single texts, of the column 'question', but pairs are classified: le"):
            classify()


@pytest.mark.parametrize("dsn", [True, False])
def test_pairs_of_a_model_without_their_types(tokenizer, dsn):
    classifier = TextClassifier(small_model(type_vocab_size=1, dsn=dsn), tokenizer)
    assert len(classifier(TEXTS)) == len(TEXTS)
    with pytest.raises(ValueError, match="a pair token types up to 1, the model embeds 1: classify pairs"):
        classifier(PAIR)


def test_order_and_batches(classifier):
    expected = [classifier(text)[0] for text in TEXTS]
    for batch_size in (1, 3, len(TEXTS), 1000):
        for threads in (1, 2, 5):
            assert_same(classifier(TEXTS, batch_size=batch_size, threads=threads), expected)


def test_no_text(classifier):
    assert classifier([]) == []
    assert len(classifier("")) == 1


def test_long_texts_are_cut_and_counted(tokenizer):
    model = small_model()
    classifier = TextClassifier(model, tokenizer)
    texts = ["fox " * 100, "fox", "!" * (MAX_LENGTH - 2), "!" * (MAX_LENGTH - 1)]  # [CLS] and [SEP] take two
    results = classifier(texts, batch_size=2)
    cut = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([row])).logits.softmax(-1).max().item() for row in cut]
    np.testing.assert_allclose([result["score"] for result in results], expected, rtol=1e-5)
    assert classifier.num_truncated == 2
    classifier(texts[0])
    assert classifier.num_truncated == 3


@pytest.mark.parametrize("name", ["batch_size", "threads"])
def test_numbers_below_one(classifier, name):
    with pytest.raises(ValueError, match=f"{name} is 0, it must be at least 1"):
        classifier(TEXTS, **{name: 0})


def test_tokenizer_of_another_model(tokenizer):
    with pytest.raises(ValueError, match="the tokenizer has 600 ids, the model embeds 500"):
        TextClassifier(small_model(vocab_size=500), tokenizer)


def test_from_pretrained(classifier, tokenizer, tmp_path, monkeypatch):
    classifier.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = classifier(TEXTS)
    assert TextClassifier.from_pretrained(tmp_path)(TEXTS) == expected
    assert TextClassifier.from_pretrained(str(tmp_path))(TEXTS) == expected
    monkeypatch.setattr(TextClassifier, "embedded", str(tmp_path))
    assert TextClassifier.from_pretrained()(TEXTS) == expected
    moved = shutil.copytree(tmp_path, tmp_path / "moved")
    assert TextClassifier.from_pretrained(moved).fingerprint() == TextClassifier.from_pretrained().fingerprint()
    fingerprint = classifier.fingerprint()
    monkeypatch.setattr(classifier.model.config, "training_columns", {"text_column": "review"})  # a run names its own
    assert classifier.fingerprint() == fingerprint


def test_a_revision_of_the_hub(tokenizer, tmp_path, monkeypatch):
    """Of the model and of its tokenizer, as the hub's client keeps what it has fetched."""
    models = {"main": small_model(seed=1), "v2": small_model(seed=2)}
    tokenizers = {"main": tokenizer, "v2": hugging_face_tokenizer(lowercase=False)}
    cached = tmp_path / "models--someone--model"
    (cached / "refs").mkdir(parents=True)
    for number, (revision, model) in enumerate(models.items()):
        (cached / "refs" / revision).write_text(f"{number}" * 40)
        model.save_pretrained(cached / "snapshots" / (f"{number}" * 40))
        tokenizers[revision].save_pretrained(cached / "snapshots" / (f"{number}" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    expected = {name: TextClassifier(models[name], tokenizers[name])(TEXTS) for name in models}
    assert expected["main"] != expected["v2"]
    assert TextClassifier.from_pretrained("someone/model")(TEXTS) == expected["main"]
    for revision in ("v2", "1" * 40):
        assert TextClassifier.from_pretrained("someone/model", revision=revision)(TEXTS) == expected["v2"]
    with pytest.raises(OSError, match="in the cached files"):
        TextClassifier.from_pretrained("someone/model", revision="v3")


@pytest.mark.parametrize("config", [
    {"head_hidden": 8},
    {"dsn": False},
    {"max_position_embeddings": 0, "pooling": "gated_mean"},
    {"pooling": "gated_mean"},
], ids=str)
def test_a_form_without_tables_of_the_dtype(tokenizer, tmp_path, config):
    """``table_dtype`` may come from the model that another was made of, as that of the package has it: without tables
    of that dtype the classifier computes as without the field."""
    model = small_model(**config)
    expected = TextClassifier(model, tokenizer)
    model.config.table_dtype = "int8"
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = TextClassifier.from_pretrained(tmp_path)
    for classifier in (loaded, TextClassifier(loaded.model, tokenizer)):
        assert classifier(TEXTS) == expected(TEXTS)
        assert "float32" in repr(classifier)


def test_a_device():
    expected = TextClassifier.from_pretrained()(TEXTS)
    assert TextClassifier.from_pretrained(device=torch.device("cpu"))(TEXTS) == expected
    if torch.cuda.is_available():
        classifier = TextClassifier.from_pretrained(device="cuda")
        assert classifier.model.device.type == "cuda"
        assert classifier(TEXTS) == rounded(expected)
    else:
        with pytest.raises(ValueError, match=r"^device is 'cuda', on which torch cannot compute here") as error:
            TextClassifier.from_pretrained(device="cuda")
        assert "\n" not in str(error.value)


def test_fingerprint_follows_what_decides_a_label(tokenizer):
    fingerprint = TextClassifier(small_model(), tokenizer).fingerprint()
    assert TextClassifier(small_model(), tokenizer).fingerprint() == fingerprint
    other_weight = small_model()
    with torch.no_grad():
        other_weight.classifier.bias[0] += 1e-3
    others = [
        (other_weight, tokenizer),
        (small_model(id2label={0: "a", 1: "b"}), tokenizer),
        (small_model(problem_type="multi_label_classification"), tokenizer),
        (small_model(pooling="sum_all"), tokenizer),
        (small_model(dendrite_activation="tanh"), tokenizer),
        (small_model(), train_tokenizer(lowercase=False)),
    ]
    assert fingerprint not in {TextClassifier(*other).fingerprint() for other in others}
    assert len({TextClassifier(*other).fingerprint() for other in others}) == len(others)
