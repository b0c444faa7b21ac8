"""The command line: ``dendritic-bert classify | train | distill | sweep | evaluate | convert | export | env | demo``.

``entry`` runs a command line, ``parser`` says what one looks like; every command has its flags and its work in the
module of its name, ``train`` also those of distill, sweep and evaluate. A module imports torch and transformers, which
takes seconds, when its command runs, so that ``--help`` needs neither.
"""

from .entry import main

__all__ = ["main"]
