"""The folder of the small trained model that comes with the package."""

from pathlib import Path

EMBEDDED_MODEL = str(Path(__file__).resolve().parent / "assets")
