"""The entry point: runs one command line, and turns what goes wrong into one line and an exit status.

Results go to standard output, everything else to standard error. The exit status is 0 for success; 1 for an error, with
one line that says what is wrong and what to do; 2 for a wrong command line; 130 for an interruption.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from .messages import one_line, say
from .parser import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, by default ``sys.argv[1:]``, and return the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # GNU OpenMP, which reads this when torch is loaded, has a waiting thread spin 300,000 times before it sleeps. Three
    # trainings side by side on two cores take 187 s with that and 67 s with 10,000; one alone takes 19 and 20 s.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    _reserve_standard_descriptors()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The program that reads our output, such as `head`, has stopped. Python will flush once more: to nowhere.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as interrupt:
        say(" ".join(["interrupted", *map(str, interrupt.args)]))
        return 130
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        say(f"error: {one_line(error)}")
        return 1


def _reserve_standard_descriptors() -> None:
    """Open the null device in the place of each standard stream that is closed.

    Otherwise the next file to be opened would get the number of the stream, and what is meant for the stream would be
    written into the file.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def _run(argv: list[str]) -> int:
    try:
        args = build_parser(argv).parse_args(argv)
        args.run(args)
    except SystemExit as end:  # argparse raises it after --help, --version and a wrong command line
        return int(end.code or 0)
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")
