"""New texts are made of the phrases of the training rows, and none comes close to a dev sentence."""

import re

from helpers import shared_path

from dendritic_bert.datasets.augmentation import augment
from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.near_duplicates import NGRAM

PHRASES = ["the cast is charming", "the cast", "is charming", "charming", "a warm film", "warm", "film",
           "a long and tedious film about nothing much at all", "long and tedious", "tedious", "about nothing"]
DEV = ["the film is warm", "such a long and tedious film about a cast"]


def test_new_text_is_made_of_the_phrases():
    made = augment(PHRASES, DEV, 200, seed=1)
    assert made == augment(PHRASES, DEV, 200, seed=1)
    assert made != augment(PHRASES, DEV, 200, seed=2)
    assert len(set(made)) == len(made) == 200
    assert not set(made) & set(PHRASES)
    known = {word for phrase in PHRASES for word in phrase.split()} | {",", ".", "and", "but"}
    assert {word for text in made for word in text.split()} <= known
    # The sentence with a constituent replaced: its frame stays, around another phrase of about that length.
    assert any(re.fullmatch(r"a long and tedious film (?!about nothing)\w+ \w+ much at all", text) for text in made)


def test_no_text_comes_near_a_dev_sentence():
    """Neither by all words nor by six in a row, in upper or lower case; without the dev set such texts are made."""
    sentence = "a long and tedious film about"
    near = [text for text in augment(PHRASES, [], 300) if sentence in text]
    assert near
    made = augment(PHRASES, [*DEV, "THE CAST is warm"], 300)
    assert not any(sentence in text for text in made)
    assert "the cast is warm" in augment(PHRASES, DEV, 300)
    assert "the cast is warm" not in made


def test_real_text_keeps_away_from_the_dev_set():
    folder = str(shared_path("data/glue"))
    dev = read_rows("sst2", "dev", folder).columns[0]
    made = augment(read_rows("sst2", "train", folder).columns[0][:20000], dev, 3000)
    assert len(made) == 3000
    runs = {tuple(words[i:i + NGRAM]) for words in map(str.split, dev) for i in range(len(words) - NGRAM + 1)}
    assert not any(tuple(words[i:i + NGRAM]) in runs for words in map(str.split, made) for i in range(len(words)))
    assert not {" ".join(text.split()) for text in dev} & set(made)
