"""A vocabulary of one's own: any script, cased or not, the same at every call, never too large."""

from itertools import chain

import pytest
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dendritic_bert.datasets import vocabulary
from dendritic_bert.datasets.vocabulary import add_words, train_vocabulary

ENGLISH = ["The crème of the Films", "the film was fine", "a fine film, the finest"] * 4
RUSSIAN = ["Привет мир, как дела", "Мир прекрасен сегодня", "как прекрасен этот мир"] * 3
CHINESE = ["这部电影很好看", "这部电影不好看", "电影的音乐很好"] * 3
KOREAN = ["영화가 정말 좋았다", "영화가 별로였다", "음악이 좋았다"] * 3


@pytest.mark.parametrize(("texts", "cased", "text", "pieces"), [
    (ENGLISH, False, "The FILM fine", ["the", "film", "fine"]),
    (ENGLISH, False, "Crème", ["creme"]),
    (ENGLISH, True, "crème", ["crème"]),
    (ENGLISH, True, "The the", ["The", "the"]),
    (RUSSIAN, False, "Мир прекрасен", ["мир", "прекрасен"]),
    (CHINESE, False, "电影好", ["电", "影", "好"]),
    (KOREAN, True, "영화가 좋았다", ["영화가", "좋았다"]),
])
def test_words_of_the_texts_are_pieces(texts, cased, text, pieces):
    tokenizer = train_vocabulary(texts, 600, cased)
    if cased is False and texts is ENGLISH and "r" in text:
        assert "".join(tokenizer.tokenize(text)).replace("##", "") == pieces[0]  # occurs too seldom to be a piece
    else:
        assert tokenizer.tokenize(text) == pieces


@pytest.mark.parametrize("texts", [ENGLISH, RUSSIAN, CHINESE, KOREAN, [*ENGLISH, *RUSSIAN, *CHINESE, *KOREAN]])
@pytest.mark.parametrize("cased", [False, True])
@pytest.mark.parametrize("vocab_size", [220, 400])
def test_no_text_is_unknown_and_the_size_is_kept(texts, cased, vocab_size):
    tokenizer = train_vocabulary(texts, vocab_size, cased)
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= vocab_size
    assert [vocabulary[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    if vocab_size == 400 and len(texts) < 30:
        ids = chain.from_iterable(tokenizer(texts)["input_ids"])
        assert tokenizer.unk_token_id not in set(ids)
    assert tokenizer.unk_token_id not in tokenizer("zq 9 \"#~^\"").input_ids  # ASCII that no text holds


def test_the_same_at_every_call():
    texts = [*ENGLISH, *CHINESE, *RUSSIAN]
    first = train_vocabulary(texts, 400).get_vocab()
    assert train_vocabulary(iter(texts), 400).get_vocab() == first
    assert train_vocabulary(texts[::-1], 400).get_vocab() == first


def test_the_most_frequent_characters_stay(monkeypatch):
    """Of 3000 different characters a vocabulary of 800 keeps a quarter of it, the most frequent ones."""
    monkeypatch.setattr(vocabulary, "BATCH_TEXTS", 7)
    characters = [chr(0x4e00 + number) for number in range(3000)]
    texts = ["".join(characters[:number]) for number in (50, 150, 200, 3000)]
    tokenizer = train_vocabulary(texts, 800)
    kept = [character for character in characters if character in tokenizer.get_vocab()]
    assert kept == characters[:200]
    assert not any(f"##{character}" in tokenizer.get_vocab() for character in characters)


def test_of_many_texts_some_are_learnt_from(monkeypatch):
    texts = ["alpha beta", "gamma delta", "epsilon zeta"] * 4  # 132 characters
    monkeypatch.setattr(vocabulary, "MOST_CHARACTERS", 44)
    tokenizer = train_vocabulary(texts, 400)
    assert tokenizer.tokenize("alpha beta") == ["alpha", "beta"]
    assert len(tokenizer.tokenize("gamma delta")) > 2
    assert train_vocabulary(texts, 400).get_vocab() == train_vocabulary(texts[::3], 400).get_vocab()


def test_saved_and_loaded(tmp_path):
    tokenizer = train_vocabulary(ENGLISH, 300, cased=True)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("The crème of the").input_ids == tokenizer("The crème of the").input_ids
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_too_small():
    with pytest.raises(ValueError, match=r"^vocab_size is 100, the characters of the texts alone take \d+: raise it"):
        train_vocabulary(ENGLISH, 100)


def test_words_of_other_texts_are_added_by_their_frequency(tmp_path, monkeypatch):
    tokenizer = train_vocabulary(ENGLISH, 220)
    before, texts = tokenizer.get_vocab(), ["Zulu zulu the kiwi", "ZULU kiwi mango", "Mango kiwi mango", "pear pear"]
    assert tokenizer.tokenize("kiwi")[1].startswith("##")
    add_words(tokenizer, texts, 3)
    after = tokenizer.get_vocab()
    # Three occurrences each, in alphabetical order.
    assert {word: number for word, number in after.items() if word not in before} == {
        "kiwi": len(before), "mango": len(before) + 1, "zulu": len(before) + 2}
    assert before.items() <= after.items()
    tokenizer.save_pretrained(tmp_path)
    for read in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert read.tokenize("Kiwi mangos") == ["kiwi", "mango", "##s"]
    monkeypatch.setattr(vocabulary, "MOST_ADDED", 1)
    add_words(tokenizer, [*texts, "pear fig fig fig fig"], 2)
    assert tokenizer.get_vocab().keys() - after.keys() == {"fig"}


def test_a_tokenizer_that_knows_no_word_pieces_gets_no_words():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(Unigram([("a", -1.0), ("b", -2.0)], unk_id=0)))
    add_words(tokenizer, ["zulu"] * 3, 3)
    assert len(tokenizer) == 2
