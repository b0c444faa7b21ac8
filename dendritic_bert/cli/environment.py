"""What runs here and how fast it can be: versions, processor, backends, tokenizer, embedded model."""

from __future__ import annotations

import os
import platform
import warnings
from importlib import metadata
from pathlib import Path

REQUIRED = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
OPTIONAL = {"nanotoken": "fast", "accelerate": "train", "datasets": "train"}  # package -> extra that brings it


def describe() -> list[tuple[str, str]]:
    """Name and value of all that decides what runs; what is missing says why and how to get it. Raises nothing."""
    from .. import __version__

    return [
        ("dendritic-bert", f"{__version__} in {Path(__file__).parent}"),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((package, _version(package)) for package in (*REQUIRED, *OPTIONAL)),
        ("processor", f"{_processor()}, {os.cpu_count()} logical"),
        *_backends(),
        *_model(),
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if package in OPTIONAL:
            return f"not installed (pip install 'dendritic-bert[{OPTIONAL[package]}]')"
        return f"not installed (pip install {package})"


def _processor() -> str:
    """The name that the processor gives itself; ``platform.processor()`` is empty on most Linux systems."""
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _backends() -> list[tuple[str, str]]:
    import torch

    from ..kernels.backends import cpu

    threads = ("threads", f"{torch.get_num_threads()} (torch.set_num_threads or OMP_NUM_THREADS changes it)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the extension is missing stands in the list
            from ..kernels import backends
    except RuntimeError as error:  # the environment variable asks for a backend that is not there
        return [threads, ("backend", f"none: {error}")]
    lines = [threads]
    for name, missing in backends.availability().items():
        extra = f", instruction set {cpu.instruction_set()}" if name == "cpu" and missing is None else ""
        lines.append((f"backend {name}", f"available{extra}" if missing is None else f"not available: {missing}"))
    why = f"forced by {backends.ENVIRONMENT_VARIABLE}" if backends.FORCED else "first that is available"
    try:
        chosen = backends.choose(None, "dsn_logits", "cpu", torch.float32)
    except RuntimeError as error:  # the one that is forced serves a GPU
        chosen = f"none on a CPU: {error}"
    return [*lines, ("backend in use", f"{chosen} ({why})")]


def _model() -> list[tuple[str, str]]:
    from .. import EMBEDDED_MODEL

    weights, tokenizer = (Path(EMBEDDED_MODEL) / name for name in ("model.safetensors", "tokenizer.json"))
    missing = [path.name for path in (weights, tokenizer) if not path.exists()]
    if missing:
        return [("embedded model", f"not there: {EMBEDDED_MODEL} lacks {' and '.join(missing)} (install the package "
                                   "anew, or pass --model)")]
    return [("tokenizer", _tokenizer(tokenizer)),
            ("embedded model", f"{weights.stat().st_size / 1e6:.2f} MB in {EMBEDDED_MODEL}")]


def _tokenizer(path: Path) -> str:
    from tokenizers import Tokenizer

    from ..inference.tokenization import PackedTokenizer

    try:
        packed = PackedTokenizer(Tokenizer.from_file(str(path)))
    except Exception as error:  # tokenizers raises bare Exceptions for a file that it cannot read
        return f"none: {path} cannot be read ({error})"
    return f"{packed.engine} ({packed.reason})" if packed.reason else packed.engine
