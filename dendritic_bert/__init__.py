"""Text classification with a BERT vocabulary and no encoder, one fused kernel from token ids to logits."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout that is not installed, `kernels/` lies beside this folder rather than inside it; an installed package
# has it inside. The folder cannot be a top-level package of its own: transformers would import it as Hugging Face's.
if (Path(__file__).resolve().parent.parent / "kernels" / "ops.py").exists():
    __path__.append(str(Path(__file__).resolve().parent.parent))

from transformers import AutoConfig

from .model.configuration import DendriticBertConfig
from .model.dendritic_linear import DendriticLinear

if TYPE_CHECKING:
    from .inference.classifier import TextClassifier
    from .model.modeling import (
        DendriticBertForQuestionAnswering,
        DendriticBertForSequenceClassification,
        DendriticBertModel,
    )

__version__ = "0.1.0"
__all__ = [
    "EMBEDDED_MODEL",
    "DendriticBertConfig",
    "DendriticBertForQuestionAnswering",
    "DendriticBertForSequenceClassification",
    "DendriticBertModel",
    "DendriticLinear",
    "TextClassifier",
    "__version__",
]

EMBEDDED_MODEL = str(Path(__file__).resolve().parent / "assets")

AutoConfig.register("dendritic_bert", DendriticBertConfig)


# Their modules double the time of `import dendritic_bert`, so they wait until they are asked for.
_LAZY = {"DendriticBertForQuestionAnswering": "model.modeling", "DendriticBertForSequenceClassification": "model.modeling",
         "DendriticBertModel": "model.modeling", "TextClassifier": "inference.classifier"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
