"""Embeddings of texts, beside torch's own convolutions in float64 and beside the model called by hand."""

import csv
import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_classifier import hugging_face_tokenizer, train_tokenizer
from small_encoder import BAG, DIMENSION, WINDOWS, save_encoder, small_encoder
from windowed_models import ROUNDING, expected_logits, windowed_model

from dendritic_bert import EMBEDDED_ENCODER, EMBEDDED_MODEL, TextEncoder
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.model.dsn_checkpoint import DsnCheckpoint
from dendritic_bert.model.packed_encoder import WORDS, pack_encoder

TEXTS = ["The quick brown fox", "", "unflinchingly bleak!", "a", "It's a charming and often affecting journey: 世界",
         " ".join(["over the lazy dog,"] * 30), "the quick brown fox"]


@pytest.fixture(scope="module", params=[WINDOWS, BAG], ids=["windows", "bag"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    pack_encoder(save_encoder(path / "plain", small_encoder(**request.param)), path / "packed")
    return path / "packed"


@pytest.fixture(scope="module")
def encoder(folder):
    return TextEncoder.from_pretrained(folder)


def padded_rows(encoder, texts):
    """What the ids of Hugging Face's own tokenizer are as ``expected_logits`` takes them."""
    rows = encoder.tokenizer.backend.encode_batch(texts)
    ids = torch.zeros(len(texts), max(len(row.ids) for row in rows), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, :len(row.ids)], mask[number, :len(row.ids)] = torch.tensor(row.ids), 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def test_embeddings_are_the_projection_of_the_pooled_row(encoder):
    expected = expected_logits(DsnCheckpoint.to_model(encoder._source), padded_rows(encoder, TEXTS)).detach().numpy()
    embeddings = encoder.encode(TEXTS, normalize=False)
    assert (embeddings.dtype, embeddings.shape, encoder.dimension) == (np.float32, (len(TEXTS), DIMENSION), DIMENSION)
    np.testing.assert_allclose(embeddings, expected, rtol=ROUNDING, atol=ROUNDING)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected / lengths, atol=ROUNDING)


def test_the_same_bits_in_every_batch_and_with_any_number_of_threads(encoder):
    expected = encoder.encode(TEXTS)
    for options in ({"batch_size": 1}, {"batch_size": 3, "threads": 2}, {"threads": 4}):
        assert np.array_equal(encoder.encode(TEXTS, **options), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).encode(TEXTS), expected)
    assert np.array_equal(TextEncoder(encoder.model, hugging_face_tokenizer_of(encoder)).encode(TEXTS), expected)


def hugging_face_tokenizer_of(encoder):
    return PackedTokenizer(encoder.tokenizer.backend, engine="tokenizers")


@pytest.mark.parametrize("kind", [tuple, np.array, pd.Series, pa.array, iter], ids=["tuple", "numpy", "pandas", "arrow",
                                                                                   "iterator"])
def test_kinds_of_texts(encoder, kind):
    assert np.array_equal(encoder.encode(kind(TEXTS)), encoder.encode(TEXTS))


def test_the_two_forms_of_a_folder(tmp_path):
    windowed, bag = small_encoder(**WINDOWS), small_encoder(**BAG, seed=3)
    bag.load_state_dict({WORDS: windowed.state_dict()[WORDS]}, strict=False)
    sources = [save_encoder(tmp_path / name, model) for name, model in (("windows", windowed), ("bag", bag))]
    pack_encoder(sources[0], tmp_path / "both", without_windows=sources[1])
    for source, windows in zip(sources, (True, False)):
        pack_encoder(source, tmp_path / "one")
        alone = TextEncoder.from_pretrained(tmp_path / "one", windows=not windows)  # there is no other
        encoder = TextEncoder.from_pretrained(tmp_path / "both", windows=windows)
        assert bool(encoder.config.window_layers) == windows
        assert np.array_equal(encoder.encode(TEXTS), alone.encode(TEXTS))
        assert isinstance(encoder._source, DsnCheckpoint)


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "arrow"])
def test_a_file(encoder, tmp_path, format):
    texts = [text for text in TEXTS if text]
    (tmp_path / "in.jsonl").write_text("".join(
        json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)))
    report = encoder.encode_file(tmp_path / "in.jsonl", tmp_path / f"out.{format}", keep_columns="id", batch_size=2)
    assert report.num_records == len(texts)
    if format in ("parquet", "arrow"):
        table = pq.read_table(tmp_path / "out.parquet") if format == "parquet" else pa.ipc.open_file(
            tmp_path / "out.arrow").read_all()
        assert table.schema.field("embedding").type == pa.list_(pa.float32(), DIMENSION)
        rows = table.to_pylist()
    elif format == "csv":
        with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
            rows = [row | {"embedding": json.loads(row["embedding"])} for row in csv.DictReader(file)]
    else:
        rows = list(map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines()))
    assert [(int(row["id"]), row["text"]) for row in rows] == list(enumerate(texts))
    found = np.array([row["embedding"] for row in rows])
    np.testing.assert_allclose(found, encoder.encode(texts), atol=6e-7)  # half of the sixth decimal, and float32's own


def test_a_file_with_a_malformed_record(encoder, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "bleak"}\n{"text": 5}\n')
    report = encoder.encode_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", on_error="null", normalize=False)
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (report.num_malformed, second) == (1, {"text": None, "embedding": None})
    np.testing.assert_allclose(first["embedding"], encoder.encode(["bleak"], normalize=False)[0], rtol=1e-6, atol=6e-7)


def test_no_texts_and_wrong_ones(encoder):
    assert encoder.encode([]).shape == (0, DIMENSION)
    with pytest.raises(TypeError, match="texts is a str, pass a list of str"):
        encoder.encode("a text")
    with pytest.raises(TypeError, match=r"texts\[1\] is None of type NoneType"):
        encoder.encode(["a", None])
    with pytest.raises(ValueError, match="threads is 0, it must be at least 1"):
        encoder.encode(["a"], threads=0)


def test_an_empty_row():
    """Without special tokens the embedding of no words is the bias of the projection, or 0 if that is 0."""
    model, tokenizer = small_encoder(**WINDOWS), train_tokenizer()
    tokenizer.post_processor = None
    empty = TextEncoder(model, tokenizer).encode([""], normalize=False)
    assert np.array_equal(empty[0], model.classifier.bias.detach().numpy())
    torch.nn.init.zeros_(model.classifier.bias)
    assert not TextEncoder(model, tokenizer).encode([""]).any()


def test_a_classifier_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="the model classifies \\(2 labels, problem_type 'single_label_class"):
        TextEncoder.from_pretrained(EMBEDDED_MODEL)
    with pytest.raises(ValueError, match="the model classifies"):
        TextEncoder(windowed_model(), hugging_face_tokenizer())
    with pytest.raises(OSError, match="nowhere"):
        TextEncoder.from_pretrained(str(tmp_path / "nowhere"))


def test_an_embedding_that_is_not_finite(folder):
    encoder = TextEncoder.from_pretrained(folder)
    ids = encoder.tokenizer(["bleak"]).input_ids
    with torch.no_grad():
        encoder.model.bert.embeddings.word_embeddings.weight[int(ids[1])] = torch.nan
    with pytest.raises(ValueError, match=r"texts\[2\] numbers that are NaN or infinite, because its "
                       r"bert\.embeddings\.word_embeddings\.weight holds NaN"):
        encoder.encode(["a", "the", "bleak"])


def test_int8_windows():
    """The tables with which a classifier may compute, whose products are in int8, serve an encoder too."""
    model, tokenizer = small_encoder(**WINDOWS), PackedTokenizer(hugging_face_tokenizer())
    expected = TextEncoder(model, tokenizer).encode(TEXTS)
    model.config.table_dtype = "int8"
    quantised = TextEncoder(DsnCheckpoint(model.config, model.state_dict()), tokenizer).encode(TEXTS)
    assert not np.array_equal(quantised, expected)
    assert (quantised * expected).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("windows", [False, True])
def test_the_encoder_of_the_package(windows):
    encoder = TextEncoder.from_pretrained(windows=windows)
    assert (encoder.dimension, bool(encoder.config.window_layers)) == (384, windows)
    cosines = encoder.encode(["a dog runs across the beach", "my card was declined"]) @ encoder.encode(
        ["two dogs are playing in the sand", "the bank does not accept my credit card"]).T
    assert cosines.argmax(axis=1).tolist() == [0, 1]
    assert cosines.diagonal().min() > cosines[[0, 1], [1, 0]].max() + 0.2
    assert repr(TextEncoder.from_pretrained("encoder", windows=windows)) == repr(encoder)


def test_its_size_in_a_wheel():
    """Compressed as in a wheel, of which it may be 2 MB."""
    sizes = [len(zlib.compress(path.read_bytes())) for path in Path(EMBEDDED_ENCODER).iterdir()]
    assert len(sizes) == 7
    assert sum(sizes) <= 2_000_000


def test_repr(encoder):
    assert f"{DIMENSION} numbers a text" in repr(encoder)
    assert ("windows" in repr(encoder)) == bool(encoder.config.window_layers)
