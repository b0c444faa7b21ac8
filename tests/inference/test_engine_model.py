"""The engine's model: the logits of the ops to the bit, when it serves, and files that a stranger has made."""

import random
import struct

import numpy as np
import pyarrow as pa
import pytest
import torch
from runtime_models import Counted
from small_classifier import WORDS, hugging_face_tokenizer, small_model
from windowed_models import KINDS, windowed_model

from dendritic_bert import TextClassifier
from dendritic_bert._engine import Model, Tokenizer, checksum
from dendritic_bert.inference import engine_model
from dendritic_bert.inference.engine_model import ENTRY, HEADER, model_file, pack
from dendritic_bert.inference.scores import NonFiniteScores
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.model import inference_tables

TEXTS = ["", "a", "the quick brown fox", "fox brown quick the", "caf\u00e9 \u4e2d\u56fd [SEP] x", *WORDS,
         " ".join(WORDS * 3), "\U0001f600 " * 700, *["It's a charming journey: ..."] * 150]
FOLDED = {"hidden_size": 64, "num_attention_heads": 2}
MODELS = {
    "full-width": lambda: small_model(),
    "folded": lambda: small_model(**FOLDED, max_position_embeddings=300),
    "folded, many labels": lambda: small_model(**FOLDED, hidden_act="relu", num_labels=9, num_dendrites=0),
    "bfloat16": lambda: small_model().prepare(torch.bfloat16),
    "float16": lambda: small_model(num_labels=5).prepare(torch.float16),
    "int8": lambda: small_model(dendrite_activation="gelu").prepare(torch.int8),
    "sum": lambda: small_model(pooling="sum_all"),
    "one token type": lambda: small_model(type_vocab_size=1),
    **{f"windows, {name}": lambda fields=fields: windowed_model(**fields) for name, fields in KINDS.items()},
    "windows in bfloat16": lambda: windowed_model(**KINDS["recipe"]).prepare(torch.bfloat16),
    "windows in int8": lambda: windowed_model(**KINDS["recipe"]).prepare(torch.int8),
    "wide windows in int8": lambda: windowed_model(**KINDS["wide"]).prepare(torch.int8),
}


def make(model) -> TextClassifier:
    return TextClassifier(model, hugging_face_tokenizer())


def of_the_ops(classifier, texts) -> tuple[np.ndarray, int]:
    """The logits by the ops on the packed ids, and how many texts were cut."""
    batch = classifier.tokenizer(texts, classifier.max_length)
    with torch.no_grad():
        return classifier._logits(batch).numpy(), batch.num_truncated


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_logits_of_the_ops_to_the_bit(build):
    classifier = make(build())
    assert classifier._engine.current(classifier) is not None
    expected, num_truncated = of_the_ops(classifier, TEXTS)
    for texts in (TEXTS, pa.array(TEXTS), pa.array(TEXTS, pa.large_string()), pa.array(["x", *TEXTS, None])[1:-1]):
        for threads in (1, 2, 5):
            logits, found = classifier.logits(texts, threads=threads)
            assert np.array_equal(logits, expected)
            assert found == num_truncated


SECOND = [*TEXTS[7:], *TEXTS[:7]]


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_pairs_have_the_logits_of_the_ops_to_the_bit(build):
    model = build()
    classifier = make(model)
    if model.config.type_vocab_size == 1:
        assert classifier._engine.current(classifier, pairs=True) is None
        with pytest.raises(ValueError, match="token types up to 1, the model embeds 1"):
            classifier.logits(TEXTS, SECOND)
        return
    batch = classifier.tokenizer.pairs(TEXTS, SECOND, classifier.max_length)
    assert batch.token_type_ids.any()
    with torch.no_grad():
        expected = classifier._logits(batch).numpy()
    assert classifier._engine.current(classifier, pairs=True).has_pairs
    second = pa.array(SECOND)
    for threads in (1, 2, 5):
        for texts, text_pairs in ((TEXTS, SECOND), (pa.array(TEXTS), second), (TEXTS, second), (tuple(TEXTS), second)):
            logits, num_truncated = classifier.logits(texts, text_pairs, threads=threads)
            assert np.array_equal(logits, expected)
            assert num_truncated == batch.num_truncated
    assert np.array_equal(classifier.predict_array(TEXTS, second)[1], classifier.answers().scores(expected))
    assert classifier.num_truncated == batch.num_truncated
    of_dicts = classifier([{"text": text, "text_pair": pair} for text, pair in zip(TEXTS, SECOND)])
    assert [answer["score"] for answer in of_dicts] == classifier.answers().scores(expected).max(axis=1).tolist()
    assert np.array_equal(classifier.logits(TEXTS)[0], of_the_ops(classifier, TEXTS)[0])


def test_pairs_that_are_none():
    classifier = make(small_model())
    for call in (classifier.logits, classifier.predict_array):
        with pytest.raises(ValueError, match=r"^text_pairs has 1 texts and texts 2: pass one for each\.$"):
            call(["a", "b"], ["c"])
        with pytest.raises(TypeError, match=r"^text_pairs\[1\] is 3 of type int, every text must be a str"):
            call(["a", "b"], ["c", 3])
        assert np.array_equal(call(["fox \ud800"], pa.array(["a"]))[-1], call(["fox \ufffd"], ["a"])[-1])
    single = opened(file_of(MODELS["folded"]()))
    assert not single.has_pairs, "its tables have one token type"
    with pytest.raises(ValueError, match=r"^the model is not for pairs of texts\.$"):
        single.logits(["a"], 1, ["b"])
    with pytest.raises(ValueError, match=r"^first has 2 texts and second 1: pass one of each for every pair\.$"):
        classifier._engine.current(classifier, pairs=True).logits(["a", "b"], 1, ["c"])


def test_folded_tables_grow_with_the_rows():
    classifier = make(small_model(**FOLDED, max_position_embeddings=300))
    for text, positions in (("a", 64), ("a " * 60, 64), ("a " * 100, 128), ("a", 128), ("a " * 500, 300)):
        assert np.array_equal(classifier.logits([text])[0], of_the_ops(classifier, [text])[0])
        assert classifier._engine.current(classifier).num_positions == positions
    assert classifier(["a " * 500, "b"], threads=2) == [classifier("a " * 500)[0], classifier("b")[0]]


@pytest.mark.parametrize("pairs", [None, ["b", "b"]])
def test_rows_that_no_table_serves(monkeypatch, pairs):
    """The ops answer for them: tables such as those of int8 windows end at a number of rows, whatever is asked for."""
    make_model = engine_model._make_model
    monkeypatch.setattr(engine_model, "_make_model",
                        lambda owner, source, longest, pairs: make_model(owner, source, 1, pairs))
    classifier = make(small_model(**FOLDED, max_position_embeddings=300))
    texts = ["a", "a " * 100]
    batch = classifier.tokenizer(texts, 300) if pairs is None else classifier.tokenizer.pairs(texts, pairs, 300)
    assert classifier._engine.logits(classifier, texts, pairs, 1) is None
    with torch.no_grad():
        expected = classifier._logits(batch).numpy()
    assert np.array_equal(classifier.logits(texts, pairs)[0], expected)
    assert classifier.predict_array(texts, pairs)[0].tolist() == expected.argmax(axis=1).tolist()
    assert classifier._engine.current(classifier).num_positions == 64


def test_best_is_the_best_of_the_scores():
    classifier = make(small_model(num_labels=5))
    labels, scores = classifier.predict_array(TEXTS)
    assert [answer["label"] for answer in classifier(TEXTS)] == [classifier.labels[label] for label in labels]
    assert [answer["score"] for answer in classifier(TEXTS)] == scores.max(axis=1).tolist()
    assert [[classifier(text)[0]] for text in TEXTS] == classifier(TEXTS, top_k=1)


def test_a_model_that_changes():
    classifier = make(small_model())
    before, _ = classifier.logits(TEXTS)
    with torch.no_grad():
        classifier.model.classifier.bias += 1
    after, _ = classifier.logits(TEXTS)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, of_the_ops(classifier, TEXTS)[0])


def test_settings_that_change():
    classifier = make(small_model())
    text = " ".join(WORDS)
    for name, value in (("max_length", 9), ("max_length", 14), ("truncation_side", "left")):
        setattr(classifier.tokenizer if name == "truncation_side" else classifier, name, value)
        assert np.array_equal(classifier.logits([text])[0], of_the_ops(classifier, [text])[0])


def test_what_it_does_not_serve():
    hooked = small_model()
    hooked.register_forward_hook(lambda module, inputs, output: None)
    for classifier in (make(small_model(dsn=False)), make(hooked),
                       make(small_model(max_position_embeddings=0, pooling="sum_all")),
                       TextClassifier(small_model(), PackedTokenizer(hugging_face_tokenizer(), "tokenizers"))):
        assert classifier._engine.current(classifier) is None
        assert len(classifier(TEXTS[:5])) == 5


@pytest.mark.parametrize("bad", [["a", 3], ["a", None], ["a", b"b"], pa.array(["a", None])])
def test_what_is_no_text(bad, monkeypatch):
    monkeypatch.setattr(engine_model, "ENGINE_TEXTS", 1)
    classifier = make(small_model())
    for call in (classifier, classifier.predict_array, classifier.logits):
        with pytest.raises(TypeError, match=r"texts\[1\] is .*, every text must be a str"):
            call(bad)
        with pytest.raises(TypeError, match=r"texts\[1\] is .*, every text must be a str"):
            call(iter(bad if type(bad) is list else bad.to_pylist()))


def test_lone_surrogates_are_read_as_the_replacement_character():
    classifier = make(small_model())
    assert classifier(["fox \ud800", "fox"]) == classifier(["fox \ufffd", "fox"])


@pytest.mark.parametrize("pairs", [False, True])
def test_many_texts_are_given_to_the_engine_in_slices(monkeypatch, pairs):
    """Between which Python sees an interrupt from the keyboard; nothing else depends on them."""
    classifier = make(small_model(num_labels=5))
    second = [SECOND, pa.array(SECOND)] if pairs else [None, None]
    calls = [call for call in (classifier.predict_array, classifier.logits) for _ in range(2)]
    inputs = [(TEXTS, second[0]), (pa.array(TEXTS), second[1])] * 2
    expected = [call(*input) for call, input in zip(calls, inputs)]
    best, num_truncated = classifier(TEXTS), classifier.num_truncated
    key, model = classifier._engine._made[pairs]
    counted = Counted(model)
    classifier._engine._made[pairs] = key, counted
    monkeypatch.setattr(engine_model, "ENGINE_TEXTS", 50)
    for call, input, whole in zip(calls, inputs, expected):
        counted.sizes.clear()
        assert all(np.array_equal(found, value) for found, value in zip(call(*input), whole, strict=True))
        assert counted.sizes == [50] * (len(TEXTS) // 50) + [len(TEXTS) % 50]
    counted.sizes.clear()
    assert classifier(TEXTS) == best
    assert classifier.num_truncated == 2 * num_truncated
    assert pairs or counted.sizes == [50] * (len(TEXTS) // 50) + [len(TEXTS) % 50]


def test_all_slices_are_of_the_same_tables(monkeypatch):
    """Tables of a longer row may be of another form, whose logits have other bits."""
    monkeypatch.setattr(engine_model, "ENGINE_TEXTS", 3)
    monkeypatch.setattr(inference_tables, "LARGEST_RSTD", 4 * 64 * small_model().config.vocab_size)
    classifier = make(small_model(**FOLDED, max_position_embeddings=300))
    texts = [*WORDS, "a " * 100, *WORDS]
    folded = classifier.predict_array(WORDS)[1]
    scores = classifier.predict_array(texts)[1]
    full_width = classifier.predict_array(WORDS)[1]
    assert not np.array_equal(full_width, folded)
    assert np.array_equal(scores[:len(WORDS)], full_width)
    assert np.array_equal(scores[-len(WORDS):], full_width)


def test_nan_names_the_text(monkeypatch):
    monkeypatch.setattr(engine_model, "ENGINE_TEXTS", 100)
    classifier = make(small_model())
    with torch.no_grad():
        classifier.model.bert.embeddings.word_embeddings.weight[classifier.tokenizer(["fox"]).input_ids[1]] = torch.nan
    for texts in (["a", "b", "fox"], ["a"] * 400 + ["fox"]):
        for call in (classifier, classifier.predict_array):
            with pytest.raises(NonFiniteScores, match=rf"gives texts\[{len(texts) - 1}\] numbers that are NaN"):
                call(texts, threads=3)


# ---- files -----------------------------------------------------------------------------------------------------------


def file_of(model) -> np.ndarray:
    classifier = make(model)
    with torch.no_grad():
        tables = model.current_tables()
    return model_file(tables, model.config, classifier.tokenizer, 24, 24, classifier.labels)


def opened(file: np.ndarray) -> Model:
    room = np.zeros(file.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start:start + file.nbytes] = file
    return Model(room.ctypes.data + start, file.nbytes, room)


def signed(file: np.ndarray) -> np.ndarray:
    """With the checksum that belongs to what is in it, so that what lies behind that check is tried."""
    struct.pack_into("<Q", file.data, 24, checksum(file[HEADER.size:].ctypes.data, file.nbytes - HEADER.size))
    return file


def xxh64(data: bytes) -> int:
    """By the steps of doc/xxhash_spec.md."""
    p1, p2, p3, p4, p5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
                          0x27D4EB2F165667C5)
    mask = 2**64 - 1

    def rotl(x, by):
        return (x << by | x >> 64 - by) & mask

    def round_(lane, value):
        return rotl((lane + value * p2) & mask, 31) * p1 & mask

    at, lanes = 0, [(p1 + p2) & mask, p2, 0, -p1 & mask]
    while len(data) - at >= 32:
        lanes = [round_(lane, value) for lane, value in zip(lanes, struct.unpack_from("<4Q", data, at))]
        at += 32
    total = p5
    if at:
        total = sum(rotl(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18))) & mask
        for lane in lanes:
            total = ((total ^ round_(0, lane)) * p1 + p4) & mask
    total = (total + len(data)) & mask
    while len(data) - at >= 8:
        total = (rotl(total ^ round_(0, struct.unpack_from("<Q", data, at)[0]), 27) * p1 + p4) & mask
        at += 8
    while len(data) - at >= 4:
        total = (rotl(total ^ struct.unpack_from("<I", data, at)[0] * p1 & mask, 23) * p2 + p3) & mask
        at += 4
    for byte in data[at:]:
        total = rotl(total ^ byte * p5 & mask, 11) * p1 & mask
    for shift, prime in ((33, p2), (29, p3)):
        total = (total ^ total >> shift) * prime & mask
    return total ^ total >> 32


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 31, 32, 33, 63, 64, 999])
def test_checksum(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert checksum(data.ctypes.data, size) == xxh64(data.tobytes())


def test_the_checksum_of_nothing_is_that_of_the_specification():
    assert xxh64(b"") == 0xEF46DB3751D8E999


@pytest.fixture(scope="module")
def files():
    kinds = ("full-width", "folded, many labels", "windows, recipe", "windows in int8")
    return {kind: file_of(MODELS[kind]()) for kind in kinds}


def test_a_file_of_another_kind(files):
    file = files["full-width"]
    for change, message in ((lambda data: data[:20], "does not begin with DSNMODEL"),
                            (lambda data: b"x" + data[1:], "does not begin with DSNMODEL"),
                            (lambda data: data[:8] + b"\2" + data[9:], "version 2, and this engine reads version 1"),
                            (lambda data: data[:-1], "should have"), (lambda data: data + b"\0", "should have"),
                            (lambda data: data[:-9] + b"\xff" + data[-8:], "checksum differs")):
        with pytest.raises(ValueError, match=message):
            opened(np.frombuffer(bytearray(change(file.tobytes())), np.uint8))


def test_a_list_of_more_arrays_than_a_model_has():
    """Each is looked for among those before it, which took minutes of a file of 16 MB."""
    num_arrays = 100_000
    file = np.zeros(HEADER.size + ENTRY.size * num_arrays, np.uint8)
    HEADER.pack_into(file.data, 0, b"DSNMODEL", 1, num_arrays, file.nbytes, 0)
    with pytest.raises(ValueError, match="its list of arrays does not fit in it"):
        opened(signed(file))


@pytest.mark.parametrize("kind", ["full-width", "folded, many labels", "windows, recipe", "windows in int8"])
def test_hostile_files(files, kind):
    """Each opens and classifies, or is refused; `make sanitize` sees every read out of bounds."""
    generator, file = random.Random(kind), files[kind]
    num_arrays = HEADER.unpack_from(file.data)[2]
    values = (0, 1, 2, 3, 15, 16, 17, 63, 64, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
    refused = 0
    for trial in range(600):
        changed = file.copy()
        if trial % 3 == 0:  # an entry's numbers
            entry = HEADER.size + generator.randrange(num_arrays) * ENTRY.size
            place = entry + 24 + 8 * generator.randrange(7)
            struct.pack_into("<Q", changed.data, place, generator.choice(values))
        elif trial % 3 == 1:  # a bit of the list of arrays
            place = generator.randrange(HEADER.size, HEADER.size + num_arrays * ENTRY.size)
            changed[place] ^= 1 << generator.randrange(8)
        else:  # a number of an array, more often of a small one
            *_, size, offset = _extent(file, generator.randrange(num_arrays))
            if size == 0:
                continue
            place = offset + generator.randrange(size)
            changed[place:place + 8] = np.frombuffer(struct.pack("<Q", generator.choice(values)), np.uint8)[
                :len(changed[place:place + 8])]
        try:
            model = opened(signed(changed))
        except ValueError:
            refused += 1
        else:
            model.logits(TEXTS[:30], 1, TEXTS[5:35] if model.has_pairs else None)
    assert refused > 200


def changed_number(file: np.ndarray, name: bytes, place: int, value: int) -> np.ndarray:
    """The file with another number of 4 bytes at this place of an array."""
    extents = (_extent(file, number) for number in range(HEADER.unpack_from(file.data)[2]))
    offset = next(offset for of_array, _, offset in extents if of_array.rstrip(b"\0") == name)
    changed = file.copy()
    struct.pack_into("<I", changed.data, offset + 4 * place, value & 0xFFFFFFFF)
    return signed(changed)


@pytest.mark.parametrize(("name", "place", "value", "message"), [
    (b"pair", 0, 600, "an id or a type of its pair is out of range"),
    (b"pair", 0, -2, "an id or a type of its pair is out of range"),
    (b"pair_types", 1, -1, "an id or a type of its pair is out of range"),
    (b"pair", 0, -1, "its pair has not two texts"), (b"pair", 1, 5, "its pair has not two texts")])
def test_a_file_whose_pair_is_none(files, name, place, value, message):
    with pytest.raises(ValueError, match=message):
        opened(changed_number(files["full-width"], name, place, value))


def test_a_file_with_a_small_temperature(files):
    """By which every logit becomes infinite: the scores are still numbers."""
    number = np.float64(1e-40).view("<u8").item()
    file = changed_number(changed_number(files["full-width"], b"temperature", 0, number & 0xFFFFFFFF),
                          b"temperature", 1, number >> 32)
    model = opened(file)
    function, temperature = model.scoring
    answers, _ = model.answers(WORDS, 1, function, temperature, model.labels)
    assert {answer["score"] for answer in answers} == {1.0}


def test_weights_whose_products_overflow(files):
    """Four of an output, whose products the int8 kernels add up in int16."""
    file, channels = files["windows in int8"], KINDS["recipe"]["window_dendrites"]  # a multiple of 16
    fits = changed_number(changed_number(file, b"window_weight", 0, 0x00004040), b"window_weight", channels, 0)
    opened(fits)
    with pytest.raises(ValueError, match="the weights of its windows make sums that are out of range"):
        opened(changed_number(fits, b"window_weight", channels, 0x00000001))
    with pytest.raises(ValueError, match="its array window_weight holds a number that is out of range"):
        opened(changed_number(fits, b"window_weight", channels, 0x00000041))


@pytest.mark.parametrize(("name", "place", "value"), [(b"pair_types", 3, 2), (b"max_length", 0, 2)])
def test_a_file_for_single_texts_alone(files, name, place, value):
    """A type that the tables have not, and no room for the special tokens of a pair."""
    assert opened(files["full-width"]).has_pairs
    model = opened(changed_number(files["full-width"], name, place, value))
    assert not model.has_pairs
    model.logits(TEXTS, 1)


def test_a_shared_tokenizer(files):
    """The logits of the file's own; one with ids beyond the tables is refused."""
    tokenizer = PackedTokenizer(hugging_face_tokenizer())
    model = small_model()
    with torch.no_grad():
        tables = model.current_tables()
    file = model_file(tables, model.config, tokenizer, 24, 24, ["0", "1"])
    shared = Model(file.ctypes.data, file.nbytes, file, tokenizer.native)
    del tokenizer
    assert shared.logits(TEXTS, 1) == opened(file).logits(TEXTS, 1)
    settings = PackedTokenizer(hugging_face_tokenizer()).native_settings() | {"unknown_id": 600}
    with pytest.raises(ValueError, match="its tokenizer has an id that is not in its tables"):
        Model(file.ctypes.data, file.nbytes, file, Tokenizer(**settings))
    with pytest.raises(TypeError, match=r"^tokenizer is no Tokenizer of the engine\.$"):
        Model(file.ctypes.data, file.nbytes, file, object())


def _extent(file: np.ndarray, number: int) -> tuple[bytes, int, int]:
    name, kind, dimensions, *shape, offset = ENTRY.unpack_from(file.data, HEADER.size + number * ENTRY.size)
    return name, int(np.prod(shape[:dimensions])) * (1, 1, 2, 4, 8, 2, 2, 4, 8)[kind], offset


def test_pack_aligns_every_array():
    file = pack({"a": np.arange(3, dtype=np.int32), "b": "text", "c": ["x", "yz"], "d": 1.5, "e": True})
    names = [_extent(file, number) for number in range(HEADER.unpack_from(file.data)[2])]
    assert [name.rstrip(b"\0") for name, _, _ in names] == [b"a", b"b", b"c", b"c_ends", b"d", b"e"]
    assert all(offset % 64 == 0 for _, _, offset in names)
    assert file.ctypes.data % 64 == 0
