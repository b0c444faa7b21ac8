"""Which texts share all words, or six in a row, with a dev sentence."""

import pytest

from dendritic_bert.datasets.near_duplicates import DevSentences

DEV = DevSentences(["It 's a long and tedious film .", "warm"])


@pytest.mark.parametrize(("text", "is_close"), [
    ("It's a LONG and tedious film.", True),  # the same words
    ("i say it's a long and well", True),  # six in a row: it ' s a long and
    ("a long and tedious show .", False),  # four
    ("Warm", True), ("warm film", False), ("", False),
])
def test_words_are_compared_whatever_stands_between_them(text, is_close):
    assert DEV.are_close_to(text) == is_close
