"""The Auto classes of transformers know the models, whichever is imported first, and transformers is not needed.

The first part runs transformers itself, in fresh processes; the second a package of that name with a few lines in it,
which shows what the finder does to an import.
"""

import os
import subprocess
import sys

import pytest
from helpers import REPOSITORY


def run(code: str, *path: object) -> str:
    """What a fresh process prints; ``path`` stands before the repository on its path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, REPOSITORY]))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


USE_ALL = """
import pickle, sys
import dendritic_bert
from transformers import (AutoConfig, AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification,
                          AutoTokenizer)
config = AutoConfig.for_model("dendritic_bert", vocab_size=9, hidden_size=8)
assert type(config) is dendritic_bert.DendriticBertConfig
if not is_second:
    assert "transformers.modeling_utils" not in sys.modules, "it takes longer to import than torch"
model = AutoModelForSequenceClassification.from_pretrained(dendritic_bert.EMBEDDED_MODEL)
assert type(model) is dendritic_bert.DendriticBertForSequenceClassification
assert type(AutoModel.from_config(config)) is dendritic_bert.DendriticBertModel
assert type(AutoModelForQuestionAnswering.from_config(config)) is dendritic_bert.DendriticBertForQuestionAnswering
assert AutoTokenizer.from_pretrained(dendritic_bert.EMBEDDED_MODEL).tokenize("good film") == ["good", "film"]
from transformers import pipeline
classify = pipeline("text-classification", dendritic_bert.EMBEDDED_MODEL, device="cpu")
assert classify("a charming journey")[0]["label"] == "positive"
assert not [finder for finder in sys.meta_path if type(finder).__module__ == "dendritic_bert.auto_classes"]
"""


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    """A model that was pickled by a process that had imported the package first."""
    path = tmp_path_factory.mktemp("pickled") / "model.pickle"
    run(f"is_second = False\n{USE_ALL}\nwith open({str(path)!r}, 'wb') as file:\n    pickle.dump(model, file)")
    return path


def test_the_package_first(pickled):
    assert pickled.exists()


def test_transformers_first_and_a_pickled_model(pickled):
    """Unpickling imports the package, in the place of an import statement."""
    assert run(f"""
import pickle, sys
import transformers.models.auto.modeling_auto, transformers.models.auto.tokenization_auto
assert "dendritic_bert" not in sys.modules
with open({str(pickled)!r}, "rb") as file:
    model = pickle.load(file)
assert model(input_ids=__import__("torch").ones(1, 3, dtype=int)).logits.shape == (1, 2)
is_second = True
{USE_ALL}
print("done")
""") == "done"


# ---- the finder ------------------------------------------------------------------------------------------------------


FAKE_AUTO = {
    "configuration_auto": "class Mapping: _modules = {}\nCONFIG_MAPPING_NAMES = {}\nCONFIG_MAPPING = Mapping()\n",
    "modeling_auto": """
class Mapping:
    def __init__(self):
        self._model_mapping, self._reverse_config_mapping, self._modules = {}, {}, {}
MODEL_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_FOR_QUESTION_ANSWERING_MAPPING = (
    Mapping(), Mapping(), Mapping())
""",
}


@pytest.fixture
def transformers(tmp_path):
    """The folder of a package that has two of the modules with the Auto classes, as far as the finder needs them."""
    folder = tmp_path / "transformers" / "models" / "auto"
    folder.mkdir(parents=True)
    for package in (folder, *folder.parents[:2]):
        (package / "__init__.py").touch()
    for name, source in FAKE_AUTO.items():
        (folder / f"{name}.py").write_text(source)
    return tmp_path


FINDERS = "[finder for finder in sys.meta_path if type(finder).__module__ == 'dendritic_bert.auto_classes']"
NAMES = "sorted(modeling_auto.MODEL_MAPPING._model_mapping.items())"
REGISTERED = "[('dendritic_bert', 'DendriticBertModel')]"


@pytest.mark.parametrize("order", ["dendritic_bert, transformers.models.auto.modeling_auto",
                                   "transformers.models.auto.modeling_auto, dendritic_bert",
                                   "dendritic_bert, importlib; importlib.reload(dendritic_bert)",
                                   "importlib, dendritic_bert, transformers.models.auto.modeling_auto; "
                                   "importlib.reload(dendritic_bert)"])
def test_every_order(transformers, order):
    """Reloading the package changes nothing, and leaves one finder, which waits for what was not yet imported."""
    assert run(f"""
import sys
import {order}
from transformers.models.auto import modeling_auto
print({NAMES}, len({FINDERS}))
""", transformers) == f"{REGISTERED} 1"


def test_the_module_keeps_its_own_loader(transformers):
    """So that reloading it, reading its source and finding its data work as ever."""
    assert run("""
import importlib, inspect, sys
import dendritic_bert
from transformers.models.auto import modeling_auto
assert type(modeling_auto.__loader__).__name__ == type(modeling_auto.__spec__.loader).__name__ == "SourceFileLoader"
assert "class Mapping" in inspect.getsource(modeling_auto)
importlib.reload(modeling_auto)
print("same")
""", transformers) == "same"


def test_an_import_that_fails_is_tried_again(transformers):
    path = transformers / "transformers" / "models" / "auto" / "modeling_auto.py"
    assert run(f"""
import sys
import dendritic_bert
source = open({str(path)!r}).read()
open({str(path)!r}, "w").write("raise RuntimeError")
try:
    from transformers.models.auto import modeling_auto
except RuntimeError:
    open({str(path)!r}, "w").write(source + "# mended")
from transformers.models.auto import modeling_auto
print({NAMES})
""", transformers) == REGISTERED


@pytest.mark.parametrize("place", ["0", "1"])
def test_beside_another_hook(transformers, place):
    """One that finds modules by way of the others, too, and wraps their loaders; before ours and after."""
    assert run(f"""
import importlib.util, sys
import dendritic_bert

class Loader:
    def __init__(self, loader): self.loader = loader
    def create_module(self, spec): return self.loader.create_module(spec)
    def exec_module(self, module):
        self.loader.exec_module(module)
        module.is_hooked = True

class Hook:
    busy = set()
    def find_spec(self, name, path=None, target=None):
        if name in self.busy or not name.startswith("transformers.models.auto."):
            return None
        self.busy.add(name)
        spec = importlib.util.find_spec(name)
        self.busy.discard(name)
        spec.loader = Loader(spec.loader)
        return spec

sys.meta_path.insert({place}, Hook())
from transformers.models.auto import modeling_auto
print({NAMES}, modeling_auto.is_hooked)
""", transformers) == f"{REGISTERED} True"


def test_without_transformers():
    """The package imports all the same, and the error is Python's own."""
    assert run("""
import sys
sys.modules["transformers"] = None
import dendritic_bert
try:
    import transformers.models.auto.modeling_auto
except ModuleNotFoundError as error:
    print(error.name, "transformers" in error.msg)
""") == "transformers.models True"
