"""Training, distillation and searches over hyperparameters.

    from dendritic_bert.training import TrainingOptions, evaluate, train
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .options import TrainingOptions
    from .trainer import evaluate, train

__all__ = ["TrainingOptions", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    """The trainer's module imports torch and transformers: it waits until it is asked for."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.{'options' if name == 'TrainingOptions' else 'trainer'}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
