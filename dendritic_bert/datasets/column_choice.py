"""Which columns of a table hold the texts and which the labels, where nobody has said so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from .column_values import (
    are_compound,
    are_dates,
    are_few,
    are_ids,
    are_words,
    is_empty,
    is_mostly_empty,
    is_number,
    looks_like_text,
    mean_length,
    num_different,
)

# As ``plain_name`` writes them. A column with such a name is taken for what it says, if its values can be that.
TEXT_NAMES = frozenset((
    "text", "texts", "full_text", "selftext", "self_text", "body_text", "comment_text", "review_text", "tweet_text",
    "email_text", "sentence", "sentences", "review", "reviews", "tweet", "sms", "title", "headline", "article",
    "content", "contents", "description", "comment", "comments", "message", "body", "abstract", "summary", "document",
    "paragraph", "post", "feedback", "utterance", "query", "prompt", "response", "question", "answer", "premise",
    "hypothesis", "sentence1", "sentence2", "question1", "question2", "text1", "text2", "text_a", "text_b", "text_pair",
    "subject", "reply", "lyrics", "plot"))
LABEL_NAMES = frozenset((
    "label", "labels", "gold_label", "class", "classes", "category", "categories", "intent", "intents", "target",
    "targets", "sentiment", "emotion", "emotions", "polarity"))
# Columns with these names may hold labels, or say something else of the texts.
OTHER_LABEL_NAMES = frozenset((
    "topic", "topics", "rating", "ratings", "score", "scores", "stars", "tag", "tags", "genre", "genres", "language",
    "lang", "y"))
NO_LABEL_NAMES = frozenset((
    "id", "ids", "idx", "index", "index_level_0", "unnamed_0", "guid", "uuid", "key", "row", "line", "split", "fold",
    "date", "time", "datetime", "timestamp", "created_at", "updated_at", "url", "link"))
SENTENCE_WORDS, SENTENCE_CHARACTERS = 3, 20  # a name with so many is a text


class Columns(NamedTuple):
    """Names of the columns that are read; ``text_pair`` is None for single texts, ``label`` if there are no labels."""

    text: str
    text_pair: str | None
    label: str | None

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    @property
    def all(self) -> tuple[str, ...]:
        return self.texts if self.label is None else (*self.texts, self.label)

    def __str__(self) -> str:
        pair = "" if self.text_pair is None else f", second text {self.text_pair!r}"
        return f"text {self.text!r}{pair}, label {self.label!r}"


def choose_columns(names: list[str], sample: dict[str, list[Any]], source: str, text: str | None = None,
                   text_pair: str | None = None, label: str | None = None, *, is_whole: bool = True) -> Columns:
    """The columns of a table to train on.

    A column that is given is taken. Else the texts are the columns with a name of ``TEXT_NAMES`` whose values can be
    texts, or, if there is none, the column whose values are long; where there are two with such names, they are a
    pair. The label is the column with a name of ``LABEL_NAMES``, else the one column that is left and can hold labels;
    of several the one that has more than one value, and neither objects nor bytes.

    Args:
        names: the names of all columns.
        sample: the values of each column in some rows, as far as they can be read by their names.
        source: the file, for errors.
        text, text_pair, label: columns that are given by the user.
        is_whole: whether a column with one value in the sample has no other in the table. Where that is not known, as
            where the rows are sorted by class, a column with the name of a label may have more.

    Raises ValueError, which lists the columns and the options that name them, if a column is not there or the choice is
    open, and if the names are those of a row.
    """
    given = _given_columns({"text_column": text, "text_pair_column": text_pair, "label_column": label}, names, source)
    if len(names) < 2:
        raise ValueError(f"{source} has one column only, {_listed(names)}: a table to train on has texts and labels"
                         f"{_likely_delimiter(names)}.")
    sample = {name: sample.get(name, []) for name in names}
    if not given:
        expect_header(names, sample, source)
    free = [name for name in names if name not in given and not _is_blank(name, names, sample)]
    varied = {name for name in free if not are_compound(sample[name]) and (
        num_different(sample[name]) > 1 or (not is_whole and plain_name(name) in LABEL_NAMES | OTHER_LABEL_NAMES))}
    if label is None:
        label = _only_label([name for name in free if plain_name(name) in LABEL_NAMES], varied, source)
        free = [name for name in free if name != label]
    if text is None:
        text, text_pair = _choose_texts(free, sample, source, text_pair, label is None)
        free = [name for name in free if name not in (text, text_pair)]
    if label is None:
        label = _choose_label(free, sample, varied, source, names)
    return Columns(text, text_pair, label)


def _given_columns(flags: dict[str, str | None], names: list[str], source: str) -> list[str]:
    """The columns that the flags give. Raises ValueError unless the table has each once, and each is given once."""
    given = {flag: name for flag, name in flags.items() if name is not None}
    for flag, name in given.items():
        if names.count(name) > 1:
            raise ValueError(f"{flag} is {name!r}, which {source} has several times: give each of these columns a name "
                             "of its own.")
        if name not in names:
            raise ValueError(f"{flag} is {name!r}, which {source} does not have: the columns are {_listed(names)}.")
    found = list(given.values())
    if len(set(found)) < len(found):
        raise ValueError(f"{', '.join(flags)} are {_listed(found)}: name each column once.")
    return found


def plain_name(name: str) -> str:
    """A name in lower case, with "_" between its words: review_text for reviewText and Review Text."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)).strip("_").lower()


def has_known_name(names: Iterable[str]) -> bool:
    """Whether one of the names is that of a text or a label, so that they are no row."""
    return not (TEXT_NAMES | LABEL_NAMES | OTHER_LABEL_NAMES).isdisjoint(map(plain_name, names))


def _is_blank(name: str, names: list[str], sample: dict[str, list[Any]]) -> bool:
    """Whether a column is nothing but delimiters at the ends of the lines."""
    return is_empty(sample[name]) or (not name.strip() and names.count(name) > 1)


def _only_label(found: list[str], varied: set[str], source: str) -> str | None:
    """The one column of ``found``, of several the one whose values are ``varied``; None if there is none."""
    found = [name for name in found if name in varied] or found
    if len(found) > 1:
        remedy = "name one with label_column" if len(set(found)) == len(found) else "give each a name of its own"
        raise ValueError(f"{source} has several columns that may hold the labels, {_listed(found)}: {remedy}.")
    return found[0] if found else None


def _choose_label(free: list[str], sample: dict[str, list[Any]], varied: set[str], source: str,
                  names: list[str]) -> str:
    """The one column of ``free`` that can hold labels."""
    found = [name for name in free if plain_name(name) in OTHER_LABEL_NAMES or _can_be_label(name, sample[name])]
    label = _only_label(found, varied, source)
    if label is None:
        raise ValueError(f"{source} has no column beside the texts that seems to hold labels, the columns are "
                         f"{_listed(names)}: name one with label_column.")
    return label


def _can_be_label(name: str, values: list[Any]) -> bool:
    """Whether a column can hold labels, as dates, texts, objects and what tells each row from the others cannot."""
    plain = plain_name(name)
    is_id = plain.endswith("_id") and plain.removesuffix("_id") not in LABEL_NAMES | OTHER_LABEL_NAMES
    return not (plain in NO_LABEL_NAMES or is_id or is_mostly_empty(values) or are_ids(values) or are_dates(values)
                or are_compound(values) or looks_like_text(values))


def _choose_texts(names: list[str], sample: dict[str, list[Any]], source: str, text_pair: str | None,
                  needs_label: bool) -> tuple[str, str | None]:
    """The text column among ``names``, and the second one, which is ``text_pair`` if that is given."""
    named, found = _text_columns(names, sample)
    if not found and len(names) == 1 + needs_label:
        found = [max(names, key=lambda name: (are_words(sample[name]), num_different(sample[name])))]
    if len(found) == 1:
        return found[0], text_pair
    if found == named and len(found) == 2 and text_pair is None and len(names) > 1 + needs_label:
        return found[0], found[1]
    several = f"has {len(found)} columns that may hold the texts" if found else "has no column that looks like text"
    raise ValueError(f"{source} {several}, the columns are {_listed(found or names)}: name one with text_column, and a "
                     "second one with text_pair_column.")


def _text_columns(names: list[str], sample: dict[str, list[Any]]) -> tuple[list[str], list[str]]:
    """The columns with the name of a text, and with them, unless these are a pair, longer ones that look like text."""
    known = [name for name in names if plain_name(name) in TEXT_NAMES]
    words = [name for name in known if are_words(sample[name])]
    named = [name for name in words if not are_few(sample[name])] or words
    others = [name for name in names if name not in known and plain_name(name) not in OTHER_LABEL_NAMES
              and looks_like_text(sample[name])]
    if not named and not others:
        named = known
    if len(named) > 1:  # as sentence1 and sentence2 are beside their parses
        return named, named
    longest = max((mean_length(sample[name]) for name in named), default=0.0)
    longer = [name for name in others if mean_length(sample[name]) > longest]
    return named, [name for name in names if name in (*named, *longer)]


def expect_header(names: list[str], sample: dict[str, list[Any]], source: str) -> None:
    """Raise ValueError if the names are those of a row, as in a file without a line of names.

    They are if the name of a column of texts is a sentence that ends as one, or if it is one and another name is a
    number or a value of its column. A question of a survey is a name.
    """
    texts = [name for name in names if is_sentence(name) and looks_like_text(sample[name])]
    if not texts or has_known_name(names):
        return
    values = [name for name in names if is_number(name) or (name in sample[name] and not looks_like_text(sample[name]))]
    ended = [name for name in texts if name.rstrip().endswith((".", "!"))]
    for name in [*values, *ended][:1]:
        raise ValueError(f"{source} has no names of columns: its first line holds {name!r:.60}, which looks like a "
                         "value of its column. Put a line such as text,label before it or, if these are names, pass "
                         "label_column.")


def is_sentence(name: str) -> bool:
    """Whether a name is as long as a text, which may be a question of a survey or the first text of all."""
    return name.count(" ") + 1 >= SENTENCE_WORDS and len(name) >= SENTENCE_CHARACTERS


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _likely_delimiter(names: list[str]) -> str:
    """What to say about the one column of a table whose fields stand between other characters than it was read with."""
    found = [delimiter for delimiter in (";", "\t", "|", ",") if names and delimiter in names[0]]
    if not found:
        return ""
    likely = max(found, key=names[0].count)
    return f". {likely!r} seems to stand between its fields: pass delimiter {likely!r}"
