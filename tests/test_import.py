"""Importing the package, above all beside Hugging Face's `kernels`, whose name the folder of the ops shares."""

import importlib.metadata
import os
import shutil
import subprocess
import sys

import pytest
from helpers import REPOSITORY
from transformers.utils.import_utils import KERNELS_MIN_VERSION

# transformers imports some twenty names from `kernels` and uses them as classes, decorators and enumerations.
FAKE_KERNELS = """
class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls
class Stub(metaclass=Anything):
    def __init__(self, *args, **kwargs): pass
    def __call__(self, target, *args, **kwargs): return target
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Stub
"""


def run(code: str, *path, cwd=REPOSITORY, arguments=()) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def hugging_face_kernels(tmp_path):
    package, metadata = tmp_path / "kernels", tmp_path / f"kernels-{KERNELS_MIN_VERSION}.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").write_text(FAKE_KERNELS)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n")
    return tmp_path


USE_BOTH = """
import transformers, dendritic_bert, kernels
from transformers.integrations import hub_kernels
from transformers.utils import is_kernels_available
assert is_kernels_available(), "the fake is not what transformers takes for `kernels`"
assert hub_kernels.LayerRepository is kernels.Stub
from dendritic_bert.kernels import ops
print(kernels.__file__, ops.__file__, dendritic_bert.DendriticBertForSequenceClassification.__name__)
"""


def test_beside_hugging_face_kernels_in_the_repository_root(hugging_face_kernels):
    theirs, ours, model = run(USE_BOTH, hugging_face_kernels).split()
    assert theirs == str(hugging_face_kernels / "kernels" / "__init__.py")
    assert ours.endswith(os.path.join("kernels", "ops.py"))
    assert not ours.startswith(str(hugging_face_kernels))
    assert model == "DendriticBertForSequenceClassification"


def test_the_ops_folder_is_no_package():
    """With an __init__.py, `import transformers` in the repository root would run it in the place of Hugging Face's."""
    assert (REPOSITORY / "kernels" / "ops.py").exists()
    assert not (REPOSITORY / "kernels" / "__init__.py").exists()


def test_import_is_light():
    """numpy alone takes longer."""
    code = """
import sys, dendritic_bert
assert not {"torch", "transformers", "numpy", "tokenizers"} & set(sys.modules)
print(set(dendritic_bert.__all__) <= set(dir(dendritic_bert)))
"""
    assert run(code, REPOSITORY) == "True"


CLASSIFY = """
import sys
from dendritic_bert import TextClassifier
classifier = TextClassifier.from_pretrained(sys.argv[1] if sys.argv[1:] else None)
print(classifier("a charming and often affecting journey")[0]["label"], *sorted({%s} & set(sys.modules)))
"""
# What transformers' modeling code imports. torch itself imports torch.distributed.
MODELING = {"accelerate", "mpmath", "pandas", "pyarrow", "scipy", "sklearn", "sympy", "torch._dynamo",
            "torch._inductor", "torch.onnx", "transformers.modeling_utils", "transformers.models.bert.modeling_bert"}


@pytest.mark.parametrize("is_on_hub", [False, True], ids=["folder", "hub id"])
def test_a_classification_imports_no_modeling_code(tmp_path, monkeypatch, is_on_hub):
    from dendritic_bert import EMBEDDED_MODEL

    arguments = ["someone/model"] if is_on_hub else []
    if is_on_hub:  # as the hub's client keeps what it has fetched
        cached = tmp_path / "hub" / "models--someone--model"
        shutil.copytree(EMBEDDED_MODEL, cached / "snapshots" / "0123")
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0123")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(CLASSIFY % ", ".join(map(repr, MODELING)), REPOSITORY, arguments=arguments) == "positive"


def test_attributes():
    import dendritic_bert

    assert dendritic_bert.__version__ == importlib.metadata.version("dendritic-bert")
    assert os.path.isdir(dendritic_bert.EMBEDDED_MODEL)
    assert all(hasattr(dendritic_bert, name) for name in dendritic_bert.__all__)
    with pytest.raises(AttributeError, match="module 'dendritic_bert' has no attribute 'Dendritic'"):
        dendritic_bert.Dendritic  # noqa: B018
