"""``dendritic-bert env``: what is in use here, and what is missing: versions, processor, backends, tokenizer, model."""

from __future__ import annotations

import os
import platform
import warnings
from importlib import metadata
from pathlib import Path

from .. import __version__, embedded_model

# As pyproject.toml has them. The extras for tests, benches, documents and other machines are for a clone alone.
REQUIRED = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow", "tqdm")
EXTRAS = {
    "train": ("accelerate", "datasets", "scikit-learn", "scipy", "threadpoolctl", "torchmetrics", "filelock",
              "matplotlib", "optuna", "perforatedai", "tensorboard", "wandb"),
    "export": ("onnx", "onnxruntime"),
    "serve": ("fastapi", "uvicorn"),
    "scale": ("ray",),
}
OPTIONAL = {package: extra for extra, packages in EXTRAS.items() for package in packages}


def run() -> None:
    """Print the environment, one name and value per line."""
    lines = describe()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:{width}}  {value}")


def describe() -> list[tuple[str, str]]:
    """Name and value of everything that decides what runs; of what is missing, why and how to get it. Never raises."""

    return [
        ("dendritic-bert", f"{__version__} in {Path(embedded_model.__file__).parent}"),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((package, _version(package)) for package in (*REQUIRED, *OPTIONAL)),
        ("processor", f"{_processor()}, {os.cpu_count()} logical"),
        *_backends(),
        ("files", _files()),
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
    """The name of the processor in /proc/cpuinfo, because ``platform.processor()`` is empty on most Linux systems."""
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _backends() -> list[tuple[str, str]]:
    import torch

    threads = ("threads", f"{torch.get_num_threads()} (torch.set_num_threads or OMP_NUM_THREADS changes it)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the list says whether the extension is missing
            from ..kernels import backends
            from ..kernels.backends import cpu
    except RuntimeError as error:  # the environment variable names a backend that does not exist or cannot be used
        return [threads, ("backend", f"none: {error}")]
    lines = [threads]
    for name, missing in backends.availability().items():
        extra = f", instruction set {cpu.instruction_set()}" if name == "cpu" and missing is None else ""
        lines.append((f"backend {name}", f"available{extra}" if missing is None else f"not available: {missing}"))
    why = f"forced by {backends.ENVIRONMENT_VARIABLE}" if backends.FORCED else "first that is available"
    try:
        chosen = backends.choose(None, "dsn_logits", "cpu", torch.float32)
    except RuntimeError as error:  # the backend that is forced serves only a GPU
        chosen = f"none on a CPU: {error}"
    return [*lines, ("backend in use", f"{chosen} ({why})")]


def _files() -> str:
    from ..inference.files_extension import files

    if files is not None:
        return "read and written in C++"
    return "read and written by Python: the extension is not built (install a C++ compiler, then the package again)"


def _model() -> list[tuple[str, str]]:
    folder = embedded_model.EMBEDDED_MODEL
    weights, tokenizer = (Path(folder) / name for name in ("model.safetensors", "tokenizer.json"))
    missing = [path.name for path in (weights, tokenizer) if not path.exists()]
    if missing:
        return [("embedded model", f"not there: {folder} lacks {' and '.join(missing)} (install the "
                                   "package again, or pass --model)")]
    return [("tokenizer", _tokenizer(tokenizer)),
            ("embedded model", f"{weights.stat().st_size / 1e6:.2f} MB in {folder}")]


def _tokenizer(path: Path) -> str:
    from tokenizers import Tokenizer

    from ..inference.tokenization import PackedTokenizer

    try:
        packed = PackedTokenizer(Tokenizer.from_file(str(path)))
    except Exception as error:  # tokenizers raises bare Exceptions for a file that it cannot read
        return f"none: {path} cannot be read ({error})"
    return f"{packed.engine} ({packed.reason})" if packed.reason else packed.engine
