"""Text classification with a BERT vocabulary and no encoder, one fused kernel from token ids to logits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout that is not installed, `kernels/` lies beside this folder rather than inside it; an installed package
# has it inside. The folder cannot be a top-level package of its own: transformers would import it as Hugging Face's.
if (Path(__file__).resolve().parent.parent / "kernels" / "ops.py").exists():
    __path__.append(str(Path(__file__).resolve().parent.parent))

from transformers import AutoConfig

from .configuration import DendriticBertConfig
from .dendrites import DendriticLinear

if TYPE_CHECKING:
    from .modeling import DendriticBertForSequenceClassification

__version__ = "0.1.0"
__all__ = [
    "EMBEDDED_MODEL",
    "DendriticBertConfig",
    "DendriticBertForSequenceClassification",
    "DendriticLinear",
    "__version__",
]

EMBEDDED_MODEL = str(Path(__file__).resolve().parent / "assets")

AutoConfig.register("dendritic_bert", DendriticBertConfig)


def __getattr__(name: str) -> Any:
    # The modeling code doubles the time of `import dendritic_bert`, so it waits until it is asked for.
    if name == "DendriticBertForSequenceClassification":
        from .modeling import DendriticBertForSequenceClassification

        return DendriticBertForSequenceClassification
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
