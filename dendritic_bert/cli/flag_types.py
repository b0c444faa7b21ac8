"""Types of the values of flags."""

import argparse


def positive_number(text: str) -> int:
    """The type of a flag that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def number_or_all(text: str) -> int | str:
    """The type of a flag that is a whole number of at least 1, or "all"."""
    return text if text == "all" else positive_number(text)
