"""Checks of the texts that a caller passes, before they are tokenized."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any


def without_surrogates(text: str) -> str:
    """Join surrogate pairs, and replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_texts(texts: Iterable[str], name: str = "texts") -> list[str]:
    """Return ``texts`` as a list of plain str; ``name`` is what an error calls them.

    ``texts`` may be a list, a tuple, a generator, a Series, or a one-dimensional array of strings of numpy, pandas or
    Arrow. Raises TypeError for a single str; for what looks like texts but holds something else (the columns of a
    table, the keys of a mapping, a set, which has no order, the lines of a file with their ends); and for an element
    that is not a str, naming it.
    """
    texts = texts if isinstance(texts, list) else _as_list(texts, name)
    if set(map(type, texts)) <= {str}:  # 25 ns per text, a sixth of what isinstance takes in a loop
        return texts
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            shown = " ".join(repr(text).split())
            raise TypeError(f"{name}[{row}] is {shown:.60} of type {type(text).__name__}, every text must be a str: "
                            "convert it or leave it out.")
    return list(map(str.__str__, texts))  # str() would ask a subclass, such as an Enum's member, for another name


def split_pairs(texts: Any) -> tuple[list[str], list[str] | None]:
    """Texts and their second texts, from what transformers' pipeline takes: texts, or pairs of them.

    A pair is ``{"text": str, "text_pair": str}``. ``texts`` is one text, one pair, many texts (what ``check_texts``
    takes) or many pairs; for texts, and for dicts without "text_pair", the second texts are None. Raises TypeError for
    anything else, naming the element.
    """
    if isinstance(texts, str) or (isinstance(texts, Mapping) and isinstance(texts.get("text"), str)):
        texts = [texts]
    texts = texts if isinstance(texts, list) else _as_list(texts, "texts")
    if set(map(type, texts)) <= {str}:
        return texts, None
    if not any(isinstance(text, Mapping) for text in texts):
        return check_texts(texts), None
    has_pairs = isinstance(texts[0], Mapping) and "text_pair" in texts[0]
    keys = {"text", "text_pair"} if has_pairs else {"text"}
    pairs = [{"text": text} if isinstance(text, str) else text for text in texts]
    for row, pair in enumerate(pairs):
        if not isinstance(pair, Mapping) or pair.keys() != keys or not all(isinstance(pair[key], str) for key in keys):
            shown, kind = " ".join(repr(texts[row]).split()), type(texts[row]).__name__
            wanted = '{"text": str, "text_pair": str}' if has_pairs else 'a str or {"text": str}'
            raise TypeError(f"texts[{row}] is {shown:.60} of type {kind}, every element must be {wanted}: convert it "
                            "or leave it out.")
    first = check_texts([pair["text"] for pair in pairs])
    return first, check_texts([pair["text_pair"] for pair in pairs]) if has_pairs else None


def _as_list(texts: Any, name: str) -> list[Any]:
    shape = getattr(texts, "shape", None)
    if isinstance(texts, Mapping) or (isinstance(shape, tuple) and len(shape) > 1):
        remedy = "pass one column of it"
    elif isinstance(texts, io.IOBase):
        remedy = "pass a list of its lines without their ends, or its name to classify_file"
    elif isinstance(texts, (set, frozenset)):
        remedy = "which has no order: pass a list of str"
    elif isinstance(texts, (str, bytes, bytearray, memoryview)) or not isinstance(texts, Iterable) or shape == ():
        remedy = "pass a list of str"
    elif hasattr(texts, "casefold"):  # a UserString, or a text that is translated when it is displayed
        remedy = "pass str() of it"
    else:  # pandas' and Arrow's arrays of strings iterate in 0.8 us a text, and make a list in 0.1 us
        for to_list in ("tolist", "to_pylist"):
            if hasattr(texts, to_list):
                return getattr(texts, to_list)()
        return list(texts)
    raise TypeError(f"{name} is a {type(texts).__name__}, {remedy}.")
