"""Text classification with a Dendritic Semantic Network (DSN): BERT's embeddings without its encoder, one fused kernel
from token ids to logits.

Importing the package imports neither torch nor transformers: each public name is looked up when it is first used. The
models are registered with the Auto classes of transformers whenever those are imported, before or after this package.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .auto_classes import register_with_transformers
from .embedded_model import EMBEDDED_ENCODER, EMBEDDED_MODEL

if TYPE_CHECKING:
    from .estimator import DendriticBertClassifier as DendriticBertClassifier
    from .inference.classifier import TextClassifier
    from .inference.text_encoder import TextEncoder
    from .model.configuration import DendriticBertConfig
    from .model.dendritic_linear import DendriticLinear
    from .model.modeling import (
        DendriticBertForQuestionAnswering,
        DendriticBertForSequenceClassification,
        DendriticBertModel,
    )
    from .pretraining.options import PretrainingOptions as PretrainingOptions
    from .pretraining.pretraining import pretrain as pretrain

__version__ = "0.1.0"
__all__ = [
    "EMBEDDED_ENCODER",
    "EMBEDDED_MODEL",
    "DendriticBertConfig",
    "DendriticBertForQuestionAnswering",
    "DendriticBertForSequenceClassification",
    "DendriticBertModel",
    "DendriticLinear",
    "TextClassifier",
    "TextEncoder",
    "__version__",
]

# In a checkout that is not installed, `kernels/` lies beside this folder rather than inside it; an installed package
# has it inside. The folder cannot be a top-level package of its own, because transformers would import it in the place
# of Hugging Face's `kernels`.
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "kernels" / "ops.py").exists() and str(_CHECKOUT) not in __path__:
    __path__.append(str(_CHECKOUT))

_SUBPACKAGES = ("inference", "kernels", "model")
_MODULE_OF = {
    "DendriticBertClassifier": "estimator",  # not in __all__: `import *` must not need scikit-learn
    "DendriticBertConfig": "model.configuration",
    "DendriticBertForQuestionAnswering": "model.modeling",
    "DendriticBertForSequenceClassification": "model.modeling",
    "DendriticBertModel": "model.modeling",
    "DendriticLinear": "model.dendritic_linear",
    "PretrainingOptions": "pretraining.options",  # nor must it need what a training does
    "TextClassifier": "inference.classifier",
    "TextEncoder": "inference.text_encoder",
    "pretrain": "pretraining.pretraining",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        return value
    if name in _SUBPACKAGES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_SUBPACKAGES})


register_with_transformers(__name__)
