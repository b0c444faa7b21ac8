"""Fixtures of several test files."""

import pytest
from perforated_networks import PerforatedAI


@pytest.fixture
def perforatedai(tmp_path, monkeypatch) -> PerforatedAI:
    """The library as a fresh process has it, in an empty folder: its settings are global, and it writes where it is."""
    globals_pai = pytest.importorskip("perforatedai.globals_perforatedai", reason="perforatedai is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(globals_pai, "pc", globals_pai.PAIConfig())
    monkeypatch.setattr(globals_pai, "pai_tracker", [])
    return PerforatedAI()
