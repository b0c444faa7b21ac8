"""Which columns of a table hold the texts and which the labels, where nobody has said so."""

from __future__ import annotations

from typing import Any, NamedTuple

# In lower case. A column with such a name is taken for what it says.
TEXT_NAMES = frozenset((
    "text", "texts", "sentence", "sentences", "review", "reviews", "tweet", "title", "headline", "content", "contents",
    "description", "comment", "comments", "message", "body", "abstract", "summary", "document", "paragraph", "post",
    "utterance", "query", "question", "answer", "premise", "hypothesis", "sentence1", "sentence2", "question1",
    "question2", "text1", "text2", "text_a", "text_b", "text_pair", "subject", "reply", "lyrics", "plot"))
LABEL_NAMES = frozenset((
    "label", "labels", "intent", "topic", "topics", "class", "classes", "category", "categories", "target", "targets",
    "sentiment", "emotion", "emotions", "rating", "ratings", "score", "scores", "stars", "polarity", "tag", "tags",
    "genre", "genres", "language", "lang", "gold_label", "y"))
LONG_CHARACTERS, LONG_WORDS = 20, 3  # a column whose values have so many on average looks like text


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
                   text_pair: str | None = None, label: str | None = None) -> Columns:
    """The columns of a table to train on.

    A column that is named is taken. Else texts are the columns with a name of ``TEXT_NAMES``, or, if there is none,
    those whose values are long; where there are two, they are a pair. The label is the column with a name of
    ``LABEL_NAMES``, else the one column that is left.

    Args:
        names: the names of all columns.
        sample: the values of each column in the first rows.
        source: the file, for errors.
        text, text_pair, label: columns that are given by the user.

    Raises ValueError, which lists the columns and the options that name them, if a column is not there or the choice is
    open.
    """
    flags = {"text_column": text, "text_pair_column": text_pair, "label_column": label}
    for flag, name in flags.items():
        if name is not None and names.count(name) != 1:
            what = "has several times" if name in names else "does not have"
            raise ValueError(f"{flag} is {name!r}, which {source} {what}: the columns are {_listed(names)}.")
    given = [name for name in flags.values() if name is not None]
    if len(set(given)) < len(given):
        raise ValueError(f"text_column, text_pair_column and label_column are {_listed(given)}: name each column once.")
    if len(names) < 2:
        raise ValueError(f"{source} has one column only, {_listed(names)}: a table to train on has texts and labels"
                         f"{_likely_delimiter(names)}.")
    free = [name for name in names if name not in given]
    if label is None:
        by_name = [name for name in free if name.strip().lower() in LABEL_NAMES]
        if len(by_name) > 1:
            raise ValueError(f"{source} has several columns that may hold the labels, {_listed(by_name)}: name one "
                             "with label_column.")
        label = by_name[0] if by_name else None
        free = [name for name in free if name != label]
    if text is None:
        text, text_pair = _choose_texts(free, sample, source, text_pair, label is None)
        free = [name for name in free if name not in (text, text_pair)]
    if label is None:
        label = _choose_label(free, sample, source, names)
    columns = Columns(text, text_pair, label)
    if not given and not {name.strip().lower() for name in columns.all} & (TEXT_NAMES | LABEL_NAMES):
        _expect_header(columns, sample, source)
    return columns


def _expect_header(columns: Columns, sample: dict[str, list[Any]], source: str) -> None:
    """Raise ValueError if the names are those of a row, as in a file without a line of names."""
    if columns.label in sample[str(columns.label)]:
        raise ValueError(f"{source} has no names of columns: its first line holds {columns.label!r}, a label of later "
                         "rows. Put a line such as text,label before it.")


def _choose_label(free: list[str], sample: dict[str, list[Any]], source: str, names: list[str]) -> str:
    """The one column of ``free`` that can hold labels: numbers of rows and the like differ in every row."""
    found = [name for name in free if len(sample[name]) < 10 or len(set(map(str, sample[name]))) < len(sample[name])]
    if len(free) > 1 and len(found) == 1:
        return found[0]
    if len(free) != 1:
        what = "several columns that may hold the labels" if free else "no column beside the texts"
        raise ValueError(f"{source} has {what}, {_listed(found or names)}: name one with label_column.")
    return free[0]


def _choose_texts(names: list[str], sample: dict[str, list[Any]], source: str, text_pair: str | None,
                  needs_label: bool) -> tuple[str, str | None]:
    """The text column among ``names``, and the second one, which is ``text_pair`` if that is given."""
    found = ([name for name in names if name.strip().lower() in TEXT_NAMES]
             or [name for name in names if looks_like_text(sample[name])]
             or (names if len(names) == 1 + needs_label else [])[:1])
    if len(found) == 1:
        return found[0], text_pair
    if len(found) == 2 and text_pair is None and len(names) > 1 + needs_label:
        return found[0], found[1]
    several = f"has {len(found)} columns that may hold the texts" if found else "has no column that looks like text"
    raise ValueError(f"{source} {several}, the columns are {_listed(found or names)}: name one with text_column, and a "
                     "second one with text_pair_column.")


def looks_like_text(values: list[Any]) -> bool:
    """Whether values are mostly different strings of several words."""
    texts = [value for value in values if isinstance(value, str)]
    if not texts or len(set(texts)) <= len(texts) / 2:
        return False
    words, characters = (sum(map(size, texts)) / len(texts) for size in (lambda text: text.count(" ") + 1, len))
    return words >= LONG_WORDS and characters >= LONG_CHARACTERS


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _likely_delimiter(names: list[str]) -> str:
    """What to say about the one column of a table whose fields stand between other characters than it was read with."""
    found = [delimiter for delimiter in (";", "\t", "|", ",") if names and delimiter in names[0]]
    if not found:
        return ""
    likely = max(found, key=names[0].count)
    return f". {likely!r} seems to stand between its fields: pass delimiter {likely!r}"
