"""A lock is held by one process at a time, and its file is gone afterwards."""

import re
import subprocess
import sys

import pytest

from dendritic_bert.file_lock import locked


def test_one_at_a_time(tmp_path):
    path, message = tmp_path / "x.lock", "folder x is in use by another training: wait for it or name another folder."
    with locked(path, "folder x"):
        with pytest.raises(BlockingIOError, match=f"^{re.escape(message)}$"), locked(path, "folder x"):
            pytest.fail("held twice")
        program = ("import sys; from pathlib import Path; from dendritic_bert.file_lock import locked\n"
                   "with locked(Path(sys.argv[1]), 'folder x'): pass")
        other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
        assert other.stderr.endswith(f"BlockingIOError: {message}\n")
        assert path.exists()
    assert not path.exists()
    with locked(path, "folder x"):  # whoever comes afterwards finds it free
        pass


def test_an_error_frees_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "x.lock", "folder x"):
        raise KeyboardInterrupt
    with locked(tmp_path / "x.lock", "folder x"):
        pass
    assert not list(tmp_path.iterdir())
