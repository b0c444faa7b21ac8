"""Settings saved with the tokenizer: labels are those of transformers' pipeline(..., truncation=True) on the folder."""

import json
import random

import numpy as np
import pytest
from small_classifier import MAX_LENGTH, WORDS, hugging_face_tokenizer, small_model
from transformers import AutoTokenizer, pipeline

from dendritic_bert import cli
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.inference.tokenizer_engines import ENGINES
from dendritic_bert.training.trainer import evaluate

NO_LIMIT = 10**30  # what transformers saves where there is none
DIRECTIONS = {"left": "Left", "right": "Right"}


def words(count: int, seed: int = 0) -> str:
    return " ".join(random.Random(1000 * seed + count).choices(WORDS, k=count))


TEXTS = ["", *map(words, (1, 2, 5, 9, 10, 11, 12, 13, 20, 21, 22, 23, 24, 40, 300)), "!" * 400,
         "THE Été  naïve 世界 [SEP] [MASK]ed the", "[CLS] " * 50, "世" * 60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    small_model(seed=8, id2label={0: "negative", 1: "positive", 2: "neither"}).save_pretrained(path)
    hugging_face_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def edited(folder, tmp_path):
    """The folder with other settings: those of tokenizer_config.json, and keys of tokenizer.json."""
    def edit(settings, **whole):
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        for name, changes in (("tokenizer_config.json", settings), ("tokenizer.json", whole)):
            values = json.loads((folder / name).read_text()) | changes
            (tmp_path / name).write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))
        return tmp_path
    return edit


def assert_as_the_pipeline(path, limit=MAX_LENGTH, texts=TEXTS, **options):
    """``options``: what the pipeline must be told beside ``truncation`` to cut a text at all."""
    theirs = pipeline("text-classification", model=str(path), device="cpu")
    expected = [theirs(text, truncation=True, **options)[0] for text in texts]
    assert len({result["score"] for result in expected}) > (5 if limit > 4 else limit - 2)
    classifier = TextClassifier.from_pretrained(path)
    actual = classifier(texts)
    assert [result["label"] for result in actual] == [result["label"] for result in expected]
    np.testing.assert_allclose([result["score"] for result in actual], [result["score"] for result in expected],
                               rtol=1e-5, atol=1e-6)
    whole = AutoTokenizer.from_pretrained(path)(texts)["input_ids"]
    assert classifier.max_length == limit
    assert classifier.num_truncated == sum(len(ids) > limit for ids in whole) > 0
    return [result["score"] for result in actual]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [2, 3, 4, 12, 13, MAX_LENGTH - 1, MAX_LENGTH])
def test_truncation(edited, side, limit):
    assert_as_the_pipeline(edited({"truncation_side": side, "model_max_length": limit}), limit)


def test_the_sides_differ(edited):
    left, right = (assert_as_the_pipeline(edited({"truncation_side": side, "model_max_length": 12}), 12)
                   for side in ("left", "right"))
    assert sum(a != b for a, b in zip(left, right)) > len(TEXTS) / 2


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [MAX_LENGTH + 1, 512, NO_LIMIT, "absent", None])
def test_the_position_table_is_the_limit_where_the_tokenizer_has_none(edited, side, limit):
    """BERT fails on a text that is longer than its table; told its length, the pipeline cuts as ours does."""
    assert_as_the_pipeline(edited({"truncation_side": side, "model_max_length": limit}), max_length=MAX_LENGTH)


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_without_room_for_the_special_tokens_is_none(edited, limit):
    path = edited({"model_max_length": limit})
    short = [text for text in TEXTS if len(AutoTokenizer.from_pretrained(path)(text)["input_ids"]) <= MAX_LENGTH]
    theirs, ours = pipeline("text-classification", model=str(path), device="cpu"), TextClassifier.from_pretrained(path)
    np.testing.assert_allclose([result["score"] for result in ours(short)],
                               [theirs(text, truncation=True)[0]["score"] for text in short], rtol=1e-5)
    assert ours.max_length == MAX_LENGTH


def test_a_limit_that_is_no_number(edited):
    with pytest.raises(ValueError, match="model_max_length is 'long', expected a number of tokens"):
        TextClassifier.from_pretrained(edited({"model_max_length": "long"}))


@pytest.mark.parametrize("settings", [
    {"model_max_length": "absent", "max_len": 12},
    {"model_max_length": 12.0},
], ids=str)
def test_other_spellings_of_the_limit(edited, settings):
    assert_as_the_pipeline(edited(settings), 12, **({"max_length": 12} if 12.0 in settings.values() else {}))


@pytest.mark.parametrize("settings", [
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"split_special_tokens": True},
    {"padding_side": "left"},
    {"truncation_strategy": "only_second", "stride": 3, "max_length": 5},
    {"truncation_side": "left", "split_special_tokens": True, "do_lower_case": False},
    {"cls_token": "[SEP]"},
    {"model_input_names": ["input_ids", "attention_mask"]},
    {"tokenizer_class": "PreTrainedTokenizerFast"},
    {"tokenizer_class": "absent"},
    {"tokenizer_class": "DistilBertTokenizerFast"},
], ids=str)
@pytest.mark.parametrize("side", ["right", "left"])
def test_other_settings(edited, settings, side):
    assert_as_the_pipeline(edited({"model_max_length": 12, "truncation_side": side} | settings), 12)


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "PreTrainedTokenizerFast", "absent"])
@pytest.mark.parametrize("settings", [{}, {"truncation_side": "right"}, {"padding_side": "right"}], ids=str)
@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_and_padding_of_tokenizer_json(edited, tokenizer_class, settings, side):
    path = edited(
        {"model_max_length": 12, "tokenizer_class": tokenizer_class} | settings,
        truncation={"direction": DIRECTIONS[side], "max_length": 6, "strategy": "LongestFirst", "stride": 1},
        padding={"strategy": {"Fixed": 16}, "direction": DIRECTIONS[side], "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "[PAD]"})
    assert_as_the_pipeline(path, 12)


@pytest.mark.parametrize("types", [(0, 1, 0), (1, 1, 1), (1, 0, 0), (0, 0, 1)], ids=str)
@pytest.mark.parametrize("single", ["BAS", "AS", "BA", "A"])
@pytest.mark.parametrize("dsn", [True, False])
def test_token_types_and_special_tokens_of_tokenizer_json(edited, types, single, dsn):
    ids = {"B": ["[CLS]", 4], "S": ["[SEP]", 3]}
    parts = [({"Sequence": {"id": "A", "type_id": types[1]}} if part == "A" else
              {"SpecialToken": {"id": ids[part][0], "type_id": types["BAS".index(part)]}}) for part in single]
    settings = {"model_max_length": 12, "truncation_side": "left", "tokenizer_class": "PreTrainedTokenizerFast"}
    if types == (1, 1, 1):  # these reach no model
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    path = edited(settings, post_processor={
        "type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.values()}})
    if not dsn:
        small_model(seed=8, num_labels=3, dsn=False).save_pretrained(path)
    # A row of no tokens has no logits in BERT.
    assert_as_the_pipeline(path, 12, TEXTS[1:] if single == "A" else TEXTS)


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "PreTrainedTokenizerFast"])
def test_a_tokenizer_that_is_changed_after_it_was_loaded(edited, tokenizer_class):
    path = edited({"tokenizer_class": tokenizer_class})
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.truncation_side, tokenizer.model_max_length, tokenizer.split_special_tokens = "left", 12, True
    packed = PackedTokenizer(tokenizer)
    ids, cu_seqlens, *_ = packed(TEXTS, int(packed.model_max_length))
    assert [row.tolist() for row in np.split(ids, cu_seqlens[1:-1])] == tokenizer(TEXTS, truncation=True)["input_ids"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [2, 3, 7, 20])
def test_every_engine(engine, side, limit):
    tokenizer = hugging_face_tokenizer()
    tokenizer.truncation_side = side
    ids, cu_seqlens, _, num_truncated = PackedTokenizer(tokenizer, engine)(TEXTS, limit)
    expected = tokenizer(TEXTS, truncation=True, max_length=limit)["input_ids"]
    assert [row.tolist() for row in np.split(ids, cu_seqlens[1:-1])] == expected
    assert num_truncated == sum(len(row) > limit for row in tokenizer(TEXTS)["input_ids"])


@pytest.mark.parametrize("settings", [
    {}, {"model_max_length": 12}, {"model_max_length": 12, "truncation_side": "left"}], ids=str)
def test_evaluation(edited, tmp_path, settings):
    """A model is scored as it will be used."""
    path = edited(settings)
    small_model(seed=8).save_pretrained(path)
    texts = [text for text in TEXTS if text]
    theirs = pipeline("text-classification", model=str(path), device="cpu")
    limit = settings.get("model_max_length", MAX_LENGTH)
    scored = [theirs(text, truncation=True, max_length=limit)[0] for text in texts]
    labels = [int(result["label"] == "LABEL_1") if row % 3 else 0 for row, result in enumerate(scored)]
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "dev.tsv").write_text(
        "".join(f"{text}\t{label}\n" for text, label in [("sentence", "label"), *zip(texts, labels)]), "utf-8")
    results = evaluate(str(path), "sst2", str(tmp_path))
    expected = sum(result["label"] == f"LABEL_{label}" for result, label in zip(scored, labels)) / len(texts)
    assert results["accuracy"] == pytest.approx(expected)
    whole = AutoTokenizer.from_pretrained(path)(texts)["input_ids"]
    assert results["num_truncated"] == sum(len(ids) > limit for ids in whole)


def test_fingerprint_follows_the_settings(edited):
    """A run that was interrupted must not go on with another cut."""
    settings = [{}, {"truncation_side": "left"}, {"model_max_length": 12}, {"split_special_tokens": True}]
    prints = [TextClassifier.from_pretrained(edited(changes)).fingerprint() for changes in (*settings, settings[0])]
    assert len(set(prints)) == len(settings)
    assert prints[0] == prints[-1]


# ---- a folder with vocab.txt alone -----------------------------------------------------------------------------------


@pytest.fixture
def vocabulary_folder(folder, tmp_path):
    def make(model_type, settings):
        (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        config = json.loads((folder / "config.json").read_text()) | {"model_type": model_type}
        (tmp_path / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value}))
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)),
                                            "utf-8")
        if settings is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return tmp_path
    return make


SETTINGS = [None, {}, {"do_lower_case": False}, {"tokenizer_class": "BertTokenizer"},
            {"model_max_length": 12, "truncation_side": "left", "strip_accents": False}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_vocabulary_alone(vocabulary_folder, settings):
    limit = (settings or {}).get("model_max_length", MAX_LENGTH)
    assert_as_the_pipeline(vocabulary_folder("dendritic_bert", settings), limit, max_length=limit)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("model_type", ["bert", None])
def test_vocabulary_beside_a_bert(vocabulary_folder, settings, model_type):
    """The first BERT checkpoints do not name their type; transformers then knows neither model nor tokenizer."""
    path = vocabulary_folder("bert", settings)
    expected = AutoTokenizer.from_pretrained(path)(TEXTS)["input_ids"]
    ids, cu_seqlens, *_ = PackedTokenizer.from_pretrained(str(vocabulary_folder(model_type, settings)))(TEXTS)
    assert [row.tolist() for row in np.split(ids, cu_seqlens[1:-1])] == expected
    assert len(TextClassifier.from_pretrained(path)(TEXTS)) == len(TEXTS)


def test_vocabulary_alone_on_the_command_line(vocabulary_folder, tmp_path, capsys):
    path = vocabulary_folder(None, None)
    assert cli.main(["classify", "--model", str(path), TEXTS[4]]) == 0
    label = TextClassifier.from_pretrained(path)(TEXTS[4])[0]["label"]
    assert label in capsys.readouterr().out
    assert cli.main(["convert", str(path), str(tmp_path / "converted")]) == 0
    assert TextClassifier.from_pretrained(tmp_path / "converted")(TEXTS[4])[0]["label"] == label


def test_tokenizer_json_alone_is_taken_as_it_stands(edited):
    """BERT's class would lower-case whatever tokenizer.json says."""
    path = edited({}, normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                  "strip_accents": False, "lowercase": False})
    (path / "tokenizer_config.json").unlink()
    assert PackedTokenizer.from_pretrained(str(path)).backend.normalizer.lowercase is False
    assert_as_the_pipeline(path, max_length=MAX_LENGTH)
