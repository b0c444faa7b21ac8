"""What the program says beside its results, always on standard error, and how results are printed as JSON."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

PROG = "dendritic-bert"


def say(message: str) -> None:
    """Print one line on standard error, unless that is closed."""
    if sys.stderr is not None:  # print would use standard output instead
        print(f"{PROG}: {message}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """The first line of an error's message, after the error's type if the message was not written to stand alone."""
    if type(error).__name__.startswith("StrictDataclass") and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the sentence of a configuration; the hub's client puts a line of its own before it
    lines = str(error).strip().splitlines()
    if isinstance(error, (ImportError, OSError, RuntimeError, ValueError)) and lines:
        return lines[0]
    return ": ".join([type(error).__name__, *lines[:1]])


def print_json(results: dict[str, Any]) -> None:
    """Print results on standard output; a number that JSON cannot hold, such as NaN, becomes null."""
    print(json.dumps(_with_nulls(results), indent=2, allow_nan=False))


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
