"""The model that a command line names: checks before it is loaded, and loading it for texts."""

from __future__ import annotations

import os
from typing import Any

from ..embedded_model import expect_model_name, find_model
from .messages import one_line, say


def load_model(kind: str, name: str | None, device: str | None = None, revision: str | None = None,
               **options: Any) -> Any:
    """The "TextClassifier" or "TextEncoder", as ``kind`` says, of a folder or a hub id; None is the model that comes
    with the package.

    ``device``, ``revision`` and ``options`` are those of its ``from_pretrained``.

    Raises OSError if it cannot be loaded, with the first line of the reason.
    """
    expect_model(name)
    import dendritic_bert

    try:
        return getattr(dendritic_bert, kind).from_pretrained(name, device, revision, **options)
    except OSError as error:
        raise OSError(f"model {name or 'of the package'} cannot be loaded ({one_line(error).rstrip('.')}): pass a "
                      "folder or a hub id.") from error


def expect_model(name: str | None) -> None:
    """Prepare to load a model: show no progress bars, which would last for milliseconds, and say if the hub is asked.

    Raises FileNotFoundError for what is neither a folder nor a hub id.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if name is None or os.path.exists(find_model(name)):
        return
    expect_model_name(name)
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # instead of one line for each attempt to reach the hub, during half a minute
    say(f"there is no folder {name}, asking the Hugging Face hub")
