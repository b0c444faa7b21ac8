"""Builds the extensions: ``dendritic_bert._cpu`` where a C++ compiler is there, ``dendritic_bert._cuda`` where nvcc and
a torch with CUDA are; metadata stands in pyproject.toml. No GPU is needed. SKIP_CUDA_BUILD=1 leaves the second out,
FORCE_CUDA=1 makes it an error where it cannot be built. CXX is the compiler, with a launcher and options where it has
them ("ccache g++ -m64"); TORCH_CUDA_ARCH_LIST the GPU architectures, as torch reads it ("8.0;9.0+PTX", "Hopper").

Both use LibTorch's stable ABI and Python's limited API: one abi3 build serves Python >= 3.10 and torch >= 2.10. The CPU
kernel source is compiled once for each instruction set and chosen when it is loaded, the CUDA kernels for each GPU
architecture, so that a wheel built here runs on any machine of the architecture.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from hashlib import sha256
from itertools import takewhile
from pathlib import Path

import torch
from setuptools import find_packages, setup


def cuda_home():
    """Where the toolkit lies that ``nvcc`` belongs to, or None. The ``nvcc`` on the PATH may be a script or a link that
    calls the real one elsewhere, which knows its own place."""
    if "CUDA_HOME" in os.environ:
        return os.environ["CUDA_HOME"]
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-E", os.devnull], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*)$", plan, re.MULTILINE)
    return str(Path(top[1]).resolve()) if top else str(Path(nvcc).resolve().parent.parent)


CUDA_HOME = cuda_home()
if CUDA_HOME is not None:
    os.environ["CUDA_HOME"] = CUDA_HOME  # read by torch when the next line runs

from torch.utils.cpp_extension import (  # noqa: E402
    BuildExtension,
    CppExtension,
    CUDAExtension,
    _get_cuda_arch_flags,
    include_paths,
)

# -O3 with -ffp-contract=fast lets one source use fused multiply-adds where the instruction set has them.
CXX_FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wall"]
# The kernels include no header of torch's, whose own would drown the warnings; GCC 12 reports a false
# -Wmaybe-uninitialized inside its AVX-512 intrinsics.
KERNEL_FLAGS = ["-Wextra", "-Wno-maybe-uninitialized"]
INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"]
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10
# Shipped as machine code for these, each made from the PTX named beside it, and as the last PTX for what comes later.
# The sources use nothing newer than sm_90's additions of 16 bytes, and ptxas makes as much of it, within 4 % of the
# gather loop: with a PTX for each architecture the build takes 45 % longer.
CUDA_ARCHITECTURES = {"80": "80", "90": "90", "100": "90", "120": "90"}
OLDEST_ARCHITECTURE = 80  # the first with bfloat16
SANITIZE = os.environ.get("DENDRITIC_BERT_SANITIZE") == "1"
if SANITIZE:
    CXX_FLAGS = [flag for flag in CXX_FLAGS if flag != "-O3"] + [
        "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


class BuildKernels(BuildExtension):
    """Compiles csrc/cpu/kernel.cpp once for each instruction set, all at a time, then everything else as usual."""

    def finalize_options(self):
        """Objects lie in one place whoever builds: pip would compile an editable install in a folder it deletes."""
        super().finalize_options()
        self.build_temp = "build/sanitize/temp" if SANITIZE else "build/temp"
        if len(shlex.split(os.environ.get("CXX", ""))) > 1:
            os.environ["CXX"] = as_one_word(os.environ["CXX"])
        # Nothing of ours includes what lies there, and it is another folder in every isolated environment.
        elsewhere = os.path.join(sys.exec_prefix, "include")
        self.include_dirs: list[str] = [path for path in self.include_dirs if path != elsewhere]

    def build_extensions(self):
        """The commands are the same in every build, or ninja would compile all anew: a wheel's build comes here twice,
        and torch adds its flags each time; an isolated one has a torch of its own, in another folder each time."""
        link = torch_by_link()
        for ext in self.extensions:
            own = ext.__dict__.setdefault("own_compile_args", deepcopy(ext.extra_compile_args))
            ext.extra_compile_args = {tool: [*flags, *link] for tool, flags in own.items()}
            ext.include_dirs = [path for path in ext.include_dirs if path not in include_paths()]
        super().build_extensions()

    def build_extension(self, ext):
        def compiled(name):
            return self.compiler.compile(
                ["csrc/cpu/kernel.cpp"], output_dir=str(Path(self.build_temp) / name), depends=ext.depends,
                extra_postargs=CXX_FLAGS + KERNEL_FLAGS + INSTRUCTION_SETS[name] + [f"-DINSTRUCTION_SET={name}"])

        if ext.name == "dendritic_bert._cpu":  # set and not added to: a wheel's build comes here twice
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                ext.extra_objects = [path for paths in pool.map(compiled, INSTRUCTION_SETS) for path in paths]
        super().build_extension(ext)


def torch_by_link():
    """Flags that find torch's headers by way of a link. As headers of the system, their dates do not count: what is
    compiled for the stable ABI from those of one torch serves every other."""
    home, link = Path(torch.__file__).parent, Path("build/torch").absolute()
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(home, target_is_directory=True)
    folders = [str(link / Path(path).relative_to(home)) for path in include_paths()]
    return [word for folder in folders for word in ("-isystem", folder)]  # nvcc knows them as two words alone


def as_one_word(command):
    """A script that runs ``command``: torch quotes CXX as a whole for ninja, and asks its first word for a version."""
    script = Path("build", f"cxx_{sha256(command.encode()).hexdigest()[:8]}").absolute()
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
    return str(script)


def compiler_of(variable):
    """``g++`` where CXX or CC is ``ccache g++ -m64``: the last word before the options; ``c++`` where it is not set."""
    words = shlex.split(os.environ.get(variable, "")) or ["c++"]
    return ([*takewhile(lambda word: not word.startswith("-"), words)] or words)[-1]


def sources_of(backend):
    return [str(path) for path in (*Path("csrc/common").iterdir(), *sorted(Path("csrc", backend).iterdir()))]


def cpu_extension():
    return CppExtension(
        "dendritic_bert._cpu",
        ["csrc/cpu/binding.cpp", "csrc/cpu/dispatch.cpp"],
        depends=sources_of("cpu"),
        extra_compile_args={"cxx": CXX_FLAGS + [f"-DHAVE_{name.upper()}" for name in INSTRUCTION_SETS] + [STABLE_ABI]},
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
        py_limited_api=True,
    )


def architecture_flags():
    """nvcc's flags for TORCH_CUDA_ARCH_LIST, which torch reads, or for CUDA_ARCHITECTURES as far as nvcc knows them."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        flags = _get_cuda_arch_flags()
        return [flag for flag in flags if architecture_of(flag) >= OLDEST_ARCHITECTURE]
    known = nvcc_says("--list-gpu-code", r"sm_(\d+)\b")
    architectures = [number for number in CUDA_ARCHITECTURES if number in known]
    newest = CUDA_ARCHITECTURES[architectures[-1]]
    return [*(f"-gencode=arch=compute_{CUDA_ARCHITECTURES[number]},code=sm_{number}" for number in architectures),
            f"-gencode=arch=compute_{newest},code=compute_{newest}"]


def architecture_of(flag):
    return int(re.findall(r"compute_(\d+)", flag)[0])


def no_architecture_because():
    """Why TORCH_CUDA_ARCH_LIST names nothing to build for, or None; says which of it is left out."""
    asked = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not asked:
        return None
    try:
        flags = _get_cuda_arch_flags()
    except (ValueError, IndexError) as error:  # the second where it is "native" and there is no GPU
        return f"TORCH_CUDA_ARCH_LIST is {asked!r}, expected architectures such as 8.0;9.0+PTX ({error})"
    old = sorted({architecture_of(flag) for flag in flags if architecture_of(flag) < OLDEST_ARCHITECTURE})
    names = ", ".join(f"sm_{number}" for number in old)
    if len(old) == len({architecture_of(flag) for flag in flags}):
        return f"TORCH_CUDA_ARCH_LIST is {asked!r}, and the kernels need sm_{OLDEST_ARCHITECTURE} or later (add 8.0)"
    if old:
        print(f"{names} of TORCH_CUDA_ARCH_LIST is left out: the CUDA kernels need sm_{OLDEST_ARCHITECTURE} or later.")
    return None


def host_compiler_flags():
    """nvcc's own compiler is the one that CXX or, as torch has it, CC names."""
    variable = next((name for name in ("CXX", "CC") if os.environ.get(name)), None)
    return [] if variable is None else [f"-ccbin={compiler_of(variable)}"]


def cuda_extension():
    return CUDAExtension(
        "dendritic_bert._cuda",
        ["csrc/cuda/binding.cpp", *sorted(str(path) for path in Path("csrc/cuda").glob("*.cu"))],
        depends=sources_of("cuda"),
        extra_compile_args={
            "cxx": ["-O2", "-std=c++17", "-fvisibility=hidden", "-Wall", "-DUSE_CUDA", STABLE_ABI],
            "nvcc": ["-O3", "-std=c++17", "-Xcompiler=-fvisibility=hidden", *host_compiler_flags(),
                     *architecture_flags()]},
        extra_link_args=["-Wl,--as-needed"],
        py_limited_api=True,
    )


def compiler_found():
    return shutil.which(compiler_of("CXX")) is not None


def no_cuda_because():
    """Why the CUDA kernels cannot be built here, or None."""
    if os.environ.get("SKIP_CUDA_BUILD") == "1":
        return "SKIP_CUDA_BUILD is 1"
    if SANITIZE:
        return "the sanitizers look at the CPU kernels"
    if not compiler_found():
        return "no C++ compiler found (set CXX or install one)"
    if torch.version.cuda is None:
        return "this torch has no CUDA (install one that has)"
    if CUDA_HOME is None or not Path(CUDA_HOME, "bin", "nvcc").exists():
        return "nvcc not found (install the CUDA toolkit or set CUDA_HOME)"
    if nvcc_says("--version", r"release (\d+)")[0] != torch.version.cuda.split(".")[0]:
        return f"nvcc of {CUDA_HOME} has another major version than torch's CUDA {torch.version.cuda}"
    return no_architecture_because()


def nvcc_says(flag, pattern):
    done = subprocess.run([str(Path(CUDA_HOME, "bin", "nvcc")), flag], capture_output=True, text=True, check=True)
    return re.findall(pattern, done.stdout)


extensions = []
if compiler_found():
    extensions.append(cpu_extension())
else:
    print("CPU kernels not built: no C++ compiler found (set CXX or install one); the PyTorch reference serves.")
no_cuda = no_cuda_because()
if no_cuda is None:
    extensions.append(cuda_extension())
elif os.environ.get("FORCE_CUDA") == "1":
    sys.exit(f"FORCE_CUDA is 1, but the CUDA kernels cannot be built: {no_cuda}.")
else:
    print(f"CUDA kernels not built: {no_cuda}.")

setup(
    packages=[*find_packages(include=["dendritic_bert*"]), "dendritic_bert.kernels",
              *(f"dendritic_bert.kernels.{name}" for name in find_packages("kernels"))],
    package_dir={"dendritic_bert.kernels": "kernels"},
    package_data={"dendritic_bert": ["assets/*", "py.typed"], "dendritic_bert.training": ["sweep.yaml"]},
    ext_modules=extensions,
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
