"""Builds the C++ extension ``dendritic_bert._cpu`` where a compiler is there; metadata stands in pyproject.toml.

The extension uses LibTorch's stable ABI and Python's limited API: one abi3 build serves Python >= 3.10 and
torch >= 2.10. The kernel source is compiled once for each instruction set and chosen when it is loaded, so that a
wheel built here runs on any machine of the architecture.
"""

import os
import platform
import shutil
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

# -O3 with -ffp-contract=fast lets one source use fused multiply-adds where the instruction set has them.
CXX_FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wall"]
# The kernels include no header of torch's, whose own would drown the warnings; GCC 12 reports a false
# -Wmaybe-uninitialized inside its AVX-512 intrinsics.
KERNEL_FLAGS = ["-Wextra", "-Wno-maybe-uninitialized"]
INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"]
SANITIZE = os.environ.get("DENDRITIC_BERT_SANITIZE") == "1"
if SANITIZE:
    CXX_FLAGS = [flag for flag in CXX_FLAGS if flag != "-O3"] + [
        "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


class BuildKernels(BuildExtension):
    """Compiles csrc/cpu/kernel.cpp once for each instruction set, then everything else as usual."""

    def build_extension(self, ext):
        for name, flags in INSTRUCTION_SETS.items():
            ext.extra_objects += self.compiler.compile(
                ["csrc/cpu/kernel.cpp"], output_dir=str(Path(self.build_temp) / name), depends=ext.depends,
                extra_postargs=CXX_FLAGS + KERNEL_FLAGS + flags + [f"-DINSTRUCTION_SET={name}"])
        super().build_extension(ext)


def cpu_extension():
    return CppExtension(
        "dendritic_bert._cpu",
        ["csrc/cpu/binding.cpp", "csrc/cpu/dispatch.cpp"],
        depends=[str(path) for path in Path("csrc/cpu").iterdir()],
        extra_compile_args={"cxx": CXX_FLAGS + [f"-DHAVE_{name.upper()}" for name in INSTRUCTION_SETS] + [
            "-DTORCH_TARGET_VERSION=0x020a000000000000"]},
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
        py_limited_api=True,
    )


def compiler_found():
    return shutil.which(os.environ.get("CXX", "c++")) is not None


if not compiler_found():
    print("CPU kernels not built: no C++ compiler found (set CXX or install one); the PyTorch reference serves.")

setup(
    packages=["dendritic_bert", "dendritic_bert.kernels"],
    package_dir={"dendritic_bert.kernels": "kernels"},
    package_data={"dendritic_bert": ["assets/*", "py.typed"]},
    ext_modules=[cpu_extension()] if compiler_found() else [],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
