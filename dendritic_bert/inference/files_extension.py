"""The C++ extension that reads and writes texts, or None where it is not built and Python does so one by one."""

from __future__ import annotations

from typing import Any

files: Any
try:
    from .. import _files as files
except ImportError:
    files = None
