"""Registration with the Auto classes of transformers, which needs no import of transformers.

``AutoConfig``, ``AutoModel...`` and ``AutoTokenizer`` live in three modules of transformers. A module that is imported
already is completed at once. For the others a finder waits in ``sys.meta_path``: it lets the usual finders find the
module, and completes it when it has run. After the last of the three the finder removes itself.

The models are entered as transformers enters its own, as names that are looked up when a class is first needed. That
keeps torch's compiler and several other libraries, which transformers' modeling code imports, out of programs that only
tokenize; and nothing is imported while transformers itself is half imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODEL_TYPE = "dendritic_bert"
CONFIG_CLASS = "DendriticBertConfig"
# transformers' mapping of an Auto class -> our class for it
MODEL_CLASSES = {
    "MODEL_MAPPING": "DendriticBertModel",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING": "DendriticBertForSequenceClassification",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING": "DendriticBertForQuestionAnswering",
}


def register_with_transformers(package: str) -> None:
    """Make the Auto classes know the models, whose classes are attributes of the module ``package``."""
    waiting = {}
    for name, complete in COMPLETIONS.items():
        if name in sys.modules:
            complete(import_module(name), package)  # which waits where another thread is just importing it
        else:
            waiting[name] = complete
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    if waiting:
        sys.meta_path.insert(0, _Finder(waiting, package))


def _complete_configuration(module: Any, package: str) -> None:
    module.CONFIG_MAPPING_NAMES[MODEL_TYPE] = CONFIG_CLASS
    module.CONFIG_MAPPING._modules[MODEL_TYPE] = sys.modules[package]


def _complete_modeling(module: Any, package: str) -> None:
    for name, model_class in MODEL_CLASSES.items():
        mapping = getattr(module, name)
        mapping._model_mapping[MODEL_TYPE] = model_class
        mapping._reverse_config_mapping[CONFIG_CLASS] = MODEL_TYPE
        mapping._modules[MODEL_TYPE] = sys.modules[package]


def _complete_tokenization(module: Any, package: str) -> None:
    from .inference.tokenizer_files import BertFolderTokenizer
    from .model.configuration import DendriticBertConfig

    module.AutoTokenizer.register(DendriticBertConfig, tokenizer_class=BertFolderTokenizer, exist_ok=True)


Completion = Callable[[Any, str], None]
COMPLETIONS: dict[str, Completion] = {
    "transformers.models.auto.configuration_auto": _complete_configuration,
    "transformers.models.auto.modeling_auto": _complete_modeling,
    "transformers.models.auto.tokenization_auto": _complete_tokenization,
}


class _Finder(MetaPathFinder):
    """Finds the ``waiting`` modules by way of the other finders, and has each of them completed when it is loaded."""

    def __init__(self, waiting: dict[str, Completion], package: str) -> None:
        self.waiting, self.package = waiting, package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.waiting:
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def complete(self, module: ModuleType) -> None:
        """Complete a module that has just run, and leave ``sys.meta_path`` if it was the last one."""
        complete = self.waiting.pop(module.__name__, None)
        if complete is not None:
            complete(module, self.package)
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader(Loader):
    """Runs a module with its own loader, gives it that loader back, and then has it completed."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None, "the import system sets it"
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.finder.complete(module)
