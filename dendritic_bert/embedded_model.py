"""The folders of the trained models that come with the package."""

import os
from pathlib import Path

EMBEDDED_MODEL = str(Path(__file__).resolve().parent / "assets")
SHIPPED_MODELS = {"tiny": str(Path(EMBEDDED_MODEL) / "tiny")}  # by the name under which each is loaded


def find_model(name_or_path: str | os.PathLike[str] | None) -> str:
    """The folder of a model that comes with the package, None being the embedded one; any other name as it is.

    A folder here of the same name is another model, and comes first.
    """
    if name_or_path is None:
        return EMBEDDED_MODEL
    name = os.fspath(name_or_path)
    return name if os.path.exists(name) else SHIPPED_MODELS.get(name, name)
