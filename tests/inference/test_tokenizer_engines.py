"""The engines against Hugging Face's tokenizer: ids and offsets for settings, code points, added tokens and long texts;
pairs; caches and threads."""

import itertools
import os
import random
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_classifier import SPECIAL_TOKENS, train_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from dendritic_bert._engine import Tokenizer as NativeTokenizer
from dendritic_bert.inference.tokenizer_engines import (
    A_TEXT,
    ENGINES,
    NativeEngine,
    Template,
    build_engine,
    native_refusal,
    native_settings,
)
from dendritic_bert.inference.tokenizer_test_strings import TEST_STRINGS

SETTINGS = [{"lowercase": lowercase, "strip_accents": strip, "clean_text": clean, "handle_chinese_chars": chinese}
            for lowercase, strip, clean, chinese in itertools.product((True, False), (None, True, False), (True, False),
                                                                      (True, False))]


def trained(**settings) -> Tokenizer:
    tokenizer = train_tokenizer()
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)
    return tokenizer


def tokenizer_of(characters: str, **settings) -> Tokenizer:
    """Every character is a token, and so is every one that it may become: [UNK] hides no difference."""
    closure = {form for character in characters for changed in (character, character.lower())
               for form in (*changed, *unicodedata.normalize("NFD", changed))}
    vocabulary = {token: number for number, token in enumerate(
        [*SPECIAL_TOKENS, *sorted(closure), *(f"##{character}" for character in sorted(closure))])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


BARE, FRAMED = Template((A_TEXT,), (0,)), Template((4, A_TEXT, 3), (0, 0, 0))  # [CLS] is 4, [SEP] is 3
PAIR = Template((4, A_TEXT, 3, A_TEXT, 3), (0, 0, 0, 1, 1))


def native(tokenizer: Tokenizer) -> NativeEngine:
    reason, engine = build_engine("native", tokenizer, BARE if tokenizer.post_processor is None else FRAMED, PAIR)
    assert reason == ""
    assert isinstance(engine, NativeEngine)
    return engine


def assert_same(tokenizer: Tokenizer, texts: list[str]) -> None:
    """The ids of the rows; and of each text without special tokens around it ids, numbers of words, and offsets."""
    engine = native(tokenizer)
    ids, cu_seqlens, types, num_truncated = engine.encode(texts, None, False)
    expected = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
    wrong = [text for text, row, want in zip(texts, np.split(ids, cu_seqlens[1:-1]), expected) if row.tolist() != want]
    assert [ascii(text) for text in wrong[:5]] == []
    assert (len(cu_seqlens), types, num_truncated) == (len(texts) + 1, None, 0)
    wrong = []
    for text, want in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False)):
        spans = np.stack(engine.spans(text), axis=1)
        places = zip(want.ids, want.word_ids, want.offsets)
        if spans.tolist() != [[number, word, *place] for number, word, place in places]:
            wrong.append(text)
    assert [ascii(text) for text in wrong[:5]] == []


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(map(str, settings.values())))
def test_every_setting(settings):
    random.seed(str(settings))
    pieces = [*TEST_STRINGS, *SPECIAL_TOKENS, *" \t\n\r\0\x0b\x1f\x7f\x85'#[]aZ9\u0345\u302e\u4e16", "\u0334\u0301"]
    texts = ["".join(random.choices(pieces, k=random.randrange(9))) for _ in range(300)]
    assert_same(trained(**settings), texts)
    assert_same(tokenizer_of("".join(TEST_STRINGS), **settings), texts)


@pytest.mark.parametrize("settings", [
    {"lowercase": True}, {"lowercase": False, "strip_accents": True, "clean_text": False},
    {"lowercase": True, "strip_accents": False, "handle_chinese_chars": False}], ids=str)
def test_code_points(settings):
    """A tenth of them, with every one below U+0800 and every one that decomposes, but for Hangul: alone, inside a word,
    and between marks that NFD moves."""
    scalars = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    decomposing = [character for character in scalars if unicodedata.normalize("NFD", character) != character
                   and not "\uac00" <= character <= "\ud7a3"]
    characters = [*scalars[:0x800], *decomposing, *random.Random(5).sample(scalars[0x800:0x3400], 3000),
                  *random.Random(6).sample(scalars[0x3400:], 3000)]
    texts = [form for character in characters
             for form in (character, f"a{character}B", f"a\u0345{character}\u0334\u0301")]
    assert_same(tokenizer_of("".join(characters), **settings), texts)


# ---- added tokens ----------------------------------------------------------------------------------------------------

AROUND = ["", " ", " \u3000\t", "\x85", "x", "[", "]", "the ", "\u0301", "\n[SEP", "\u4e16"]


@pytest.mark.parametrize("splits_special", [True, False])
@pytest.mark.parametrize("added", [
    [], ["[SEP][SEP]", "[CLS"], ["P][CLS]x", "\u4e16[", "[PAD][PAD][PAD]"],
    [AddedToken("<m>", lstrip=True, rstrip=True, normalized=False, special=True),
     AddedToken("<l", lstrip=True, normalized=False), AddedToken("r>", rstrip=True, normalized=False)]], ids=str)
def test_added_tokens(added, splits_special):
    """Tokens that begin, contain or overlap one another: the first counts, and of those the longest."""
    tokenizer = train_tokenizer()
    tokenizer.add_tokens([AddedToken(token, normalized=False) if isinstance(token, str) else token for token in added])
    tokenizer.encode_special_tokens = splits_special
    tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    drawn = random.Random(str(tokens))
    texts = ["".join(drawn.choice(choices) for choices in (tokens, AROUND) * drawn.randrange(6)) for _ in range(400)]
    assert_same(tokenizer, texts)


def test_a_long_text_of_added_tokens():
    tokenizer = train_tokenizer()
    tokenizer.add_tokens([AddedToken(f"{chr(code)}<", normalized=False) for code in range(0x61, 0x71)])
    assert_same(tokenizer, ["[SEP]" * 20000, "a<" * 20000, "[SEP" * 20000])


# ---- long words and texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "prefix"), [(1, "##"), (7, "@@"), (100, "##"), (100, ""), (300, "#")])
def test_long_words(most, prefix):
    """Words around ``max_input_chars_per_word``, counted in characters, and around the 15 bytes that a cache holds."""
    pieces = ["a", "b", "ab", "a" * 12, "\u00df", "\u4e16", "\U0001f600", "[UNK]"]
    tokens = dict.fromkeys([*pieces, *(prefix + piece for piece in pieces)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=most,
                                           continuing_subword_prefix=prefix))
    tokenizer.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    lengths = [*range(1, 20), 62, 63, 64, 65, most - 1, most, most + 1]
    words = [piece * length for piece in ("a", "ab", "\u00df", "\u4e16", "\U0001f600") for length in lengths]
    texts = [f"{word} {word}c a{word}" for word in words]
    assert_same(tokenizer, texts)


LONG_TEXTS = ["the quick brown fox " * 1500, "fox" * 10000, "\u4e16" * 10000, "x " * 10000, " " * 10000 + "fox",
              *("a" * 4090 + " " * count + "fox jumps " * 3 for count in range(10))]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [2, 3, 6, 500, 100000])
def test_long_texts_are_cut(max_length, side):
    """A text is read in parts of 4,096 bytes."""
    tokenizer = train_tokenizer()
    engine = native(tokenizer)
    whole = [encoding.ids for encoding in tokenizer.encode_batch(LONG_TEXTS)]
    tokenizer.enable_truncation(max_length, direction=side)
    ids, cu_seqlens, _, num_truncated = engine.encode(LONG_TEXTS, max_length, side == "left")
    assert [row.tolist() for row in np.split(ids, cu_seqlens[1:-1])] == [
        encoding.ids for encoding in tokenizer.encode_batch(LONG_TEXTS)]
    assert num_truncated == sum(len(row) > max_length for row in whole)


@pytest.mark.parametrize("settings", SETTINGS[::5], ids=lambda settings: " ".join(map(str, settings.values())))
def test_long_texts_without_spaces(settings):
    """A part of them ends within a word, between marks that NFD moves, or before what is deleted."""
    random.seed(str(settings))
    pieces = [*"a!\t\0\x7f\u00e9\u4e16\uac01\U0001f600", "fox", "\u0345\u0334", "\u0301" * 9]
    texts = ["a" * (4080 + number % 20) + "".join(random.choices(pieces, k=random.choice([9, 40, 3000])))
             for number in range(60)]
    alike = ["\u0301\u0345" * 3000 + "fox", "\0" * 9000 + "fox" + "\0" * 9000 + "es", "x" + "\0" * 4095 + "\u0301y"]
    words = [f"{'!' * (4090 + shift)}{'b' * size}{end}" for shift in range(8) for size in (99, 100, 101, 5000)
             for end in ("", "!")]
    assert_same(trained(**settings), texts + alike + words)
    assert_same(tokenizer_of("".join(texts), **settings), texts + alike + words)


def test_a_text_of_a_megabyte():
    assert_same(trained(), ["The lazy dog, d\u00e9j\u00e0 vu! \u4e16\u754c" * 40000])


# ---- pairs -----------------------------------------------------------------------------------------------------------


def random_pairs(count: int) -> list[tuple[str, str]]:
    """Of all lengths, so that none, one or both of the texts are cut."""
    drawn = random.Random(count)
    pieces = [*TEST_STRINGS[:40], *SPECIAL_TOKENS, "fox", " ", "jumps over"]
    return [tuple("".join(drawn.choices(pieces, k=drawn.choice((0, 1, 2, 5, 30)))) for _ in range(2))
            for _ in range(count)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [3, 4, 5, 10, 11, 40, 500, None])
def test_pairs(max_length, side):
    tokenizer = train_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 4), ("[SEP]", 3)])
    engines = [build_engine(name, Tokenizer.from_str(tokenizer.to_str()), FRAMED, PAIR)[1] for name in ENGINES]
    pairs = random_pairs(300)
    whole = tokenizer.encode_batch_fast(pairs)
    if max_length is not None:
        tokenizer.enable_truncation(max_length, direction=side)
    expected = tokenizer.encode_batch_fast(pairs)
    first, second = map(list, zip(*pairs))
    for engine in engines:
        ids, cu_seqlens, types, num_truncated = engine.encode_pairs(first, second, max_length, side == "left")
        assert [row.tolist() for row in np.split(ids, cu_seqlens[1:-1])] == [row.ids for row in expected]
        assert [row.tolist() for row in np.split(types, cu_seqlens[1:-1])] == [row.type_ids for row in expected]
        assert num_truncated == sum(len(row.ids) > max_length for row in whole if max_length is not None)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [3, 4, 5, 500, 40000])
def test_long_pairs(max_length, side):
    """Of which both engines keep the same; with truncation, `tokenizers` makes all pairs of the parts of two texts."""
    first, second = map(list, zip(*itertools.product(LONG_TEXTS[:5], LONG_TEXTS[3:])))
    tokenizer = train_tokenizer()
    ours, theirs = (build_engine(name, tokenizer, FRAMED, PAIR)[1].encode_pairs(
        first, second, max_length, side == "left") for name in ENGINES)
    for found, expected in zip(ours, theirs):
        assert np.array_equal(found, expected)


# ---- cache, threads and the extension --------------------------------------------------------------------------------


def engine_of(tokenizer: Tokenizer, monkeypatch, **options) -> NativeTokenizer:
    """The extension's tokenizer with other options than build_engine gives it."""
    made = []

    def make(**arguments):
        made.append(NativeTokenizer(**(arguments | options)))
        return made[0]

    monkeypatch.setattr("dendritic_bert._engine.Tokenizer", make)
    native(tokenizer)
    monkeypatch.undo()
    return made[0]


BATCHES = [[f"fox{number} dog{number % 7} {'long' * 20} {text}" for text in TEST_STRINGS[:40]] for number in range(30)]


def test_a_cache_of_four_words(monkeypatch):
    """Words push one another out all the time."""
    tokenizer = train_tokenizer()
    small, engine = engine_of(tokenizer, monkeypatch, log2_cache_lines=1), native(tokenizer)
    for batch in BATCHES:
        ids, cu_seqlens, _ = small.encode(batch, sys.maxsize, False)
        expected = engine.encode(batch, None, False)
        assert ids == expected.input_ids.tobytes()
        assert cu_seqlens == expected.cu_seqlens.tobytes()


def test_threads_share_a_tokenizer():
    """Batches of more than the 4,096 bytes for which the interpreter's lock is given away."""
    engine = native(train_tokenizer())
    batches = [batch * 5 for batch in BATCHES]
    expected = [engine.encode(batch, None, False).input_ids.tolist() for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            found = pool.map(lambda batch: engine.encode(batch, None, False), batches)
            assert [rows.input_ids.tolist() for rows in found] == expected


def test_what_the_extension_refuses(monkeypatch):
    tokenizer = engine_of(train_tokenizer(), monkeypatch)
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode(["fox", "\ud800"], 8, False)
    for bad in (["fox", b"fox"], ["fox", None]):
        with pytest.raises(TypeError):
            tokenizer.encode(bad, 8, False)
    with pytest.raises(TypeError):
        tokenizer.encode("fox", 8, False)
    with pytest.raises(ValueError, match=r"^max_length is 1, the special tokens alone take 2\.$"):
        tokenizer.encode(["fox"], 1, False)
    with pytest.raises(UnicodeEncodeError):
        tokenizer.spans("\ud800")
    with pytest.raises(TypeError):
        tokenizer.spans(["fox"])
    for first, second in ((["\ud800"], ["fox"]), (["fox"], ["\ud800"])):
        with pytest.raises(UnicodeEncodeError):
            tokenizer.encode_pairs(first, second, 8, False)
    with pytest.raises(ValueError, match=r"^first has 2 texts and second 1: pass one of each for every pair\.$"):
        tokenizer.encode_pairs(["fox", "dog"], ["fox"], 8, False)
    with pytest.raises(ValueError, match=r"^max_length is 2, the special tokens alone take 3\.$"):
        tokenizer.encode_pairs(["fox"], ["fox"], 2, False)
    with pytest.raises(ValueError, match=r"^the tokenizer was made without a pair\.$"):
        engine_of(train_tokenizer(), monkeypatch, pair=()).encode_pairs([], [], 8, False)
    for pair in (((4, 0), (-1, 0)), ((-1, 0), (-1, 0), (-1, 1)), ((4, 0),)):
        with pytest.raises(ValueError, match=r"^pair has not two texts, whose id is -1\.$"):
            engine_of(train_tokenizer(), monkeypatch, pair=pair)
    with pytest.raises(ValueError, match=r"^log2_cache_lines is 25, expected 1 to 24\.$"):
        engine_of(train_tokenizer(), monkeypatch, log2_cache_lines=25)
    with pytest.raises(TypeError):
        engine_of(train_tokenizer(), monkeypatch, vocabulary={"fox": "1"})
    with pytest.raises(OverflowError):
        engine_of(train_tokenizer(), monkeypatch, vocabulary={"fox": 2**31})


# ---- which engine serves ---------------------------------------------------------------------------------------------


def test_an_engine_that_differs_is_not_taken(monkeypatch):
    class Wrong:
        def __init__(self, **arguments):
            self.right = NativeTokenizer(**arguments)

        def encode(self, *arguments):
            ids, cu_seqlens, cut = self.right.encode(*arguments)
            ids[150] ^= 1
            return ids, cu_seqlens, cut

    monkeypatch.setattr("dendritic_bert._engine.Tokenizer", Wrong)
    reason, engine = build_engine("native", train_tokenizer(), FRAMED, PAIR)
    assert engine is None
    assert reason == "The native engine differs from Hugging Face's tokenizer on the test strings."


def run_alone(code: str) -> subprocess.CompletedProcess:
    """Run code with a tokenizer ``engine`` in a process of its own."""
    begin = """
from dendritic_bert._engine import Tokenizer
engine = Tokenizer(**{settings!r})
"""
    settings = native_settings(train_tokenizer(), BARE, PAIR)
    return subprocess.run([sys.executable, "-c", begin.format(settings=settings) + code], capture_output=True,
                          text=True)


def test_a_daemon_thread_in_a_call_lets_the_process_end():
    """Up to Python 3.13 such a thread is ended where it asks for the interpreter's lock, inside the extension."""
    done = run_alone("""
import threading, time
def work():
    while True:
        engine.encode(["the quick fox " * 4000], 8, True)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
""")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps freed memory")
def test_a_long_text_leaves_no_memory_behind():
    done = run_alone("""
import os
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
engine.encode(["the quick fox"], 8, True)
before = resident()
engine.encode(["the quick fox " * 1_000_000], 8, True)
print(resident() - before)
""")
    assert int(done.stdout) < 16e6  # 3 million ids take 12 MB, and the room for them half as much again


def test_an_engine_that_is_not_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "dendritic_bert._engine", None)
    assert native_refusal(train_tokenizer()).startswith("The native engine is not built (")


def changed(**parts) -> Tokenizer:
    tokenizer = train_tokenizer()
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize("tokenizer", [
    changed(pre_tokenizer=pre_tokenizers.Split(",", "removed")), changed(pre_tokenizer=pre_tokenizers.Whitespace()),
    changed(normalizer=normalizers.Lowercase()), changed(model=models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))],
    ids=["split", "white space", "lower case", "words"])
def test_tokenizers_of_another_make(tokenizer):
    assert native_refusal(tokenizer) == (
        "The native engine serves WordPiece behind BertNormalizer and BertPreTokenizer alone.")


def test_a_vocabulary_without_the_unknown_token():
    tokenizer = changed(model=models.WordPiece({"fox": 0}, unk_token="[NONE]"))
    assert native_refusal(tokenizer) == "The native engine needs '[NONE]' in the vocabulary."


@pytest.mark.parametrize("token", ["Brown Fox", "世界", AddedToken("brown fox", normalized=False),
                                   AddedToken("<m>", single_word=True, normalized=False)], ids=str)
def test_added_tokens_that_it_does_not_find(token):
    tokenizer = train_tokenizer()
    tokenizer.add_tokens([token])
    assert native_refusal(tokenizer) == (
        "The native engine finds no added token that is normalized, a single word or has white space in it.")
