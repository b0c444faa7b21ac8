"""The folders of the small trained models that come with the package: two classifiers, and an encoder of texts."""

import os
from pathlib import Path

EMBEDDED_MODEL = str(Path(__file__).resolve().parent / "assets")
EMBEDDED_ENCODER = str(Path(EMBEDDED_MODEL, "encoder"))
# By the names under which they are loaded; the model at the top has none.
SHIPPED_MODELS = {"tiny": str(Path(EMBEDDED_MODEL, "tiny")), "encoder": EMBEDDED_ENCODER}


def find_model(name_or_path: str | os.PathLike[str] | None, default: str | None = None) -> str:
    """The folder of a model that comes with the package, None being ``default`` or the classifier; any other name as it
    is.

    A folder here of the same name is another model, and comes first.
    """
    if name_or_path is None:
        return default or EMBEDDED_MODEL
    name = os.fspath(name_or_path)
    return name if os.path.exists(name) else SHIPPED_MODELS.get(name, name)


def expect_model_name(name: str) -> None:
    """Raise FileNotFoundError for what is neither a file or folder nor can be an id of the Hugging Face hub."""
    if os.path.exists(name):
        return
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise FileNotFoundError(f"model {name or repr(name)} does not exist: pass a folder or a hub id.") from None
