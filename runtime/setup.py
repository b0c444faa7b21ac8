"""Builds the wheel dendritic-bert-runtime from this tree: the engine that is built in dendritic_bert/, the embedded
model as a file for it, and the module beside this file. ``make runtime`` calls it; ENGINE_EXTENSION is the path of an
extension for another machine, which cross.py sets."""

import os
import re
import shutil
from pathlib import Path

from setuptools import Distribution, setup

HERE = Path(__file__).resolve().parent
TREE, STAGE = HERE.parent, HERE.parent / "build" / "runtime"
PACKAGE = STAGE / "dendritic_bert_runtime"


class BinaryDistribution(Distribution):
    """One whose wheel is for this platform."""

    def has_ext_modules(self):
        return True


def stage():
    """Puts the package together in build/runtime."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(HERE / "dendritic_bert_runtime", PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    built = os.environ.get("ENGINE_EXTENSION") or next((TREE / "dendritic_bert").glob("_engine*.so"))
    shutil.copy(built, PACKAGE)
    shutil.copy(TREE / "dendritic_bert" / "_engine.pyi", PACKAGE)
    from dendritic_bert import EMBEDDED_MODEL
    from dendritic_bert.export import export

    export(EMBEDDED_MODEL, PACKAGE / "model.dsn", "engine")


stage()
os.chdir(STAGE)
setup(
    name="dendritic-bert-runtime",
    version=re.search(r'__version__ = "(.*)"', (TREE / "dendritic_bert" / "__init__.py").read_text())[1],
    description="Text classification by the engine of dendritic-bert, without PyTorch",
    license="Apache-2.0",
    python_requires=">=3.10",
    install_requires=["numpy>=1.26,<3"],
    extras_require={"files": ["pyarrow>=17,<27"]},
    packages=["dendritic_bert_runtime"],
    package_data={"dendritic_bert_runtime": ["*.so", "*.pyi", "*.dsn"]},
    entry_points={"console_scripts": ["dendritic-bert-classify = dendritic_bert_runtime.__main__:main"]},
    distclass=BinaryDistribution,
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
