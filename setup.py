"""Builds the extensions: ``dendritic_bert._cpu``, ``_engine`` and ``_files`` if there is a C++ compiler,
``dendritic_bert._cuda`` if there are nvcc and a torch with CUDA. No GPU is needed. The package's metadata is in
pyproject.toml.

Environment variables: SKIP_CUDA_BUILD=1 leaves out the CUDA extension; FORCE_CUDA=1 makes it an error if that extension
cannot be built. CXX is the compiler, with a launcher before it and options behind it if need be ("ccache g++ -m64").
TORCH_CUDA_ARCH_LIST names the GPU architectures in torch's format ("8.0;9.0+PTX", "Hopper").

The extensions use Python's limited API and, those of the kernels, LibTorch's stable ABI: one abi3 build serves Python
>= 3.10 and torch >= 2.10. The CPU kernels are compiled once for each instruction set, of which one
is chosen at run time, and the CUDA kernels for each GPU architecture, so that a wheel built on one machine runs on
others.
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
from setuptools import Extension, find_packages, setup


def find_cuda_home():
    """The folder of the CUDA toolkit, or None. The ``nvcc`` on the PATH may be a script or a link that calls the real
    one elsewhere; a dry run says where that is."""
    if "CUDA_HOME" in os.environ:
        return os.environ["CUDA_HOME"]
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-E", os.devnull], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*)$", plan, re.MULTILINE)
    return str(Path(top[1]).resolve()) if top else str(Path(nvcc).resolve().parent.parent)


sys.path.insert(0, str(Path(__file__).resolve().parent / "csrc" / "cpu"))
from instruction_sets import (  # noqa: E402
    CXX_FLAGS,
    DISPATCH_SOURCES,
    int8_instruction_sets,
    kernel_sources,
)

CUDA_HOME = find_cuda_home()
if CUDA_HOME is not None:
    os.environ["CUDA_HOME"] = CUDA_HOME  # which torch reads when it is imported below

from torch.utils.cpp_extension import (  # noqa: E402
    BuildExtension,
    CppExtension,
    CUDAExtension,
    _get_cuda_arch_flags,
    include_paths,
)

# -Wextra is for the kernels alone: they include no header of torch, whose warnings would drown the others. GCC 12
# reports a false -Wmaybe-uninitialized inside its AVX-512 intrinsics. Python's own flags have -fwrapv, with which it
# knows less about loops: the int8 windows took 1.07 of the time.
KERNEL_FLAGS = ["-Wextra", "-Wno-maybe-uninitialized", "-Wno-uninitialized", "-fno-wrapv"]
INT8_INSTRUCTION_SETS = int8_instruction_sets(platform.machine())
WITH_KERNELS = ("dendritic_bert._cpu", "dendritic_bert._engine")
KERNEL_SOURCES = kernel_sources(platform.machine())
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10
# The architectures that a wheel has machine code for, each with the PTX that it is made from. The last PTX is shipped
# too, for architectures to come. The sources use nothing newer than sm_90's 16-byte atomic additions, and the gather
# loop that ptxas makes of sm_90's PTX is within 4 % of the one that it makes of a PTX for the architecture itself. With
# a PTX for each architecture the build takes 45 % longer.
CUDA_ARCHITECTURES = {"80": "80", "90": "90", "100": "90", "120": "90"}
OLDEST_ARCHITECTURE = 80  # the first that has bfloat16
SANITIZE = os.environ.get("DENDRITIC_BERT_SANITIZE") == "1"
if SANITIZE:
    CXX_FLAGS = [flag for flag in CXX_FLAGS if flag not in ("-O3", "-g0")] + [
        "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


class BuildKernels(BuildExtension):
    """Compiles the kernels in csrc/cpu for each instruction set, in parallel, and then everything else as usual."""

    kernels: tuple[str, ...] | list[str] = ()  # their object files, which both of WITH_KERNELS are linked with

    def finalize_options(self):
        """Puts object files into build/temp whatever starts the build: for an editable installation pip would use a
        folder that it deletes."""
        super().finalize_options()
        self.build_temp = "build/sanitize/temp" if SANITIZE else "build/temp"
        if len(shlex.split(os.environ.get("CXX", ""))) > 1:
            os.environ["CXX"] = wrap_command(os.environ["CXX"])
        # The sources need nothing from this folder, and its path, which is another in every isolated environment, would
        # make ninja compile everything anew.
        environment_include = os.path.join(sys.exec_prefix, "include")
        self.include_dirs: list[str] = [path for path in self.include_dirs if path != environment_include]

    def build_extensions(self):
        """Keeps the commands the same in every build, or ninja would compile everything anew. The build of a wheel
        calls this twice, and torch adds its flags each time; an isolated build has its own torch, in another folder
        each time."""
        torch_flags = link_torch_headers()
        for ext in self.extensions:
            own = ext.__dict__.setdefault("own_compile_args", deepcopy(ext.extra_compile_args))
            ext.extra_compile_args = {tool: [*flags, *torch_flags] for tool, flags in own.items()}
            ext.include_dirs = [path for path in ext.include_dirs if path not in include_paths()]
        super().build_extensions()

    def build_extension(self, ext):
        def compile_kernels(name):
            return self.compiler.compile(
                [source for source, names in KERNEL_SOURCES.items() if name in names],
                output_dir=str(Path(self.build_temp) / name), depends=ext.depends,
                extra_postargs=CXX_FLAGS + KERNEL_FLAGS + INT8_INSTRUCTION_SETS[name] + [f"-DINSTRUCTION_SET={name}"])

        if ext.name in WITH_KERNELS:
            if not self.kernels:
                dispatch = self.compiler.compile(DISPATCH_SOURCES, output_dir=self.build_temp, depends=ext.depends,
                                                 extra_postargs=[*CXX_FLAGS, *KERNEL_FLAGS])
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    self.kernels = [path for paths in (dispatch, *pool.map(compile_kernels, INT8_INSTRUCTION_SETS))
                                    for path in paths]
            ext.extra_objects = self.kernels  # set, not appended to: the build of a wheel calls this twice
        super().build_extension(ext)


def link_torch_headers():
    """The flags by which compilers find torch's headers, through a link in build/. They are passed as system headers,
    whose dates ninja ignores: what is compiled for the stable ABI with the headers of one torch serves every other."""
    home, link = Path(torch.__file__).parent, Path("build/torch").absolute()
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(home, target_is_directory=True)
    folders = [str(link / Path(path).relative_to(home)) for path in include_paths()]
    return [word for folder in folders for word in ("-isystem", folder)]  # nvcc accepts them only as two words


def wrap_command(command):
    """The path of a script that runs ``command``. torch takes the whole of CXX for the name of a program."""
    script = Path("build", f"cxx_{sha256(command.encode()).hexdigest()[:8]}").absolute()
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
    return str(script)


def compiler_in(variable):
    """The compiler that CXX or CC names: the last word before the options, ``g++`` in ``ccache g++ -m64``. ``c++`` if
    the variable is not set."""
    words = shlex.split(os.environ.get(variable, "")) or ["c++"]
    return ([*takewhile(lambda word: not word.startswith("-"), words)] or words)[-1]


def list_sources(backend):
    """The files that an extension depends on, headers included."""
    return [str(path) for path in sorted((*Path("csrc/common").iterdir(), *Path("csrc", backend).iterdir()))]


def make_cpu_extension():
    return CppExtension(
        "dendritic_bert._cpu",
        ["csrc/cpu/binding.cpp", "csrc/cpu/window_int8_binding.cpp", "csrc/cpu/window_pool_binding.cpp"],
        depends=list_sources("cpu"),
        extra_compile_args={"cxx": [*CXX_FLAGS, STABLE_ABI]},
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
        py_limited_api=True,
    )


def make_plain_extension(name):
    """The extension of a folder of csrc that knows no torch."""
    return Extension(
        f"dendritic_bert._{name}",
        sorted(str(path) for path in Path("csrc", name).glob("*.cpp")),
        depends=[*list_sources(name), *(list_sources("cpu") if name == "engine" else ())],
        extra_compile_args={"cxx": [*CXX_FLAGS, "-Wextra"]},
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
        language="c++",
        py_limited_api=True,
    )


def architecture_flags():
    """nvcc's flags for the architectures of TORCH_CUDA_ARCH_LIST or, if it is not set, for those of CUDA_ARCHITECTURES
    that this nvcc knows."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        flags = _get_cuda_arch_flags()
        return [flag for flag in flags if architecture_of(flag) >= OLDEST_ARCHITECTURE]
    known = ask_nvcc("--list-gpu-code", r"sm_(\d+)\b")
    architectures = [number for number in CUDA_ARCHITECTURES if number in known]
    newest = CUDA_ARCHITECTURES[architectures[-1]]
    return [*(f"-gencode=arch=compute_{CUDA_ARCHITECTURES[number]},code=sm_{number}" for number in architectures),
            f"-gencode=arch=compute_{newest},code=compute_{newest}"]


def architecture_of(flag):
    """80 in ``-gencode=arch=compute_80,code=sm_80``."""
    return int(re.findall(r"compute_(\d+)", flag)[0])


def architecture_refusal():
    """Why TORCH_CUDA_ARCH_LIST leaves nothing to build for, or None. Prints which architectures are left out."""
    requested = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not requested:
        return None
    try:
        flags = _get_cuda_arch_flags()
    except (ValueError, IndexError) as error:  # IndexError if it is "native" and there is no GPU
        return f"TORCH_CUDA_ARCH_LIST is {requested!r}, expected architectures such as 8.0;9.0+PTX ({error})"
    old = sorted({architecture_of(flag) for flag in flags if architecture_of(flag) < OLDEST_ARCHITECTURE})
    names = ", ".join(f"sm_{number}" for number in old)
    if len(old) == len({architecture_of(flag) for flag in flags}):
        return (f"TORCH_CUDA_ARCH_LIST is {requested!r}, and the kernels need sm_{OLDEST_ARCHITECTURE} or later "
                "(add 8.0)")
    if old:
        print(f"{names} of TORCH_CUDA_ARCH_LIST is left out: the CUDA kernels need sm_{OLDEST_ARCHITECTURE} or later.")
    return None


def host_compiler_flags():
    """Makes nvcc use the compiler that CXX names or, if CXX is not set, CC, as torch does."""
    variable = next((name for name in ("CXX", "CC") if os.environ.get(name)), None)
    return [] if variable is None else [f"-ccbin={compiler_in(variable)}"]


def make_cuda_extension():
    return CUDAExtension(
        "dendritic_bert._cuda",
        ["csrc/cuda/binding.cpp", *sorted(str(path) for path in Path("csrc/cuda").glob("*.cu"))],
        depends=list_sources("cuda"),
        extra_compile_args={
            "cxx": ["-O2", "-std=c++17", "-fvisibility=hidden", "-Wall", "-DUSE_CUDA", STABLE_ABI],
            "nvcc": ["-O3", "-std=c++17", "-Xcompiler=-fvisibility=hidden", *host_compiler_flags(),
                     *architecture_flags()]},
        extra_link_args=["-Wl,--as-needed"],
        py_limited_api=True,
    )


def has_compiler():
    return shutil.which(compiler_in("CXX")) is not None


def cuda_refusal():
    """Why the CUDA kernels cannot be built here, or None."""
    if os.environ.get("SKIP_CUDA_BUILD") == "1":
        return "SKIP_CUDA_BUILD is 1"
    if SANITIZE:
        return "the sanitizers check the CPU kernels alone"
    if not has_compiler():
        return "no C++ compiler found (set CXX or install one)"
    if torch.version.cuda is None:
        return "this torch has no CUDA (install one that has)"
    if CUDA_HOME is None or not Path(CUDA_HOME, "bin", "nvcc").exists():
        return "nvcc not found (install the CUDA toolkit or set CUDA_HOME)"
    if ask_nvcc("--version", r"release (\d+)")[0] != torch.version.cuda.split(".")[0]:
        return f"nvcc of {CUDA_HOME} has another major version than torch's CUDA {torch.version.cuda}"
    return architecture_refusal()


def ask_nvcc(flag, pattern):
    """What ``pattern`` finds in nvcc's answer to ``flag``."""
    done = subprocess.run([str(Path(CUDA_HOME, "bin", "nvcc")), flag], capture_output=True, text=True, check=True)
    return re.findall(pattern, done.stdout)


extensions = []
if has_compiler():
    extensions += [make_cpu_extension(), make_plain_extension("engine"), make_plain_extension("files")]
else:
    print("CPU kernels and engine not built: no C++ compiler found (set CXX or install one); the PyTorch reference "
          "serves, and tokenizers, and Python reads and writes files record by record.")
refusal = cuda_refusal()
if refusal is None:
    extensions.append(make_cuda_extension())
elif os.environ.get("FORCE_CUDA") == "1":
    sys.exit(f"FORCE_CUDA is 1, but the CUDA kernels cannot be built: {refusal}.")
else:
    print(f"CUDA kernels not built: {refusal}.")

setup(
    packages=[*find_packages(include=["dendritic_bert*"]), "dendritic_bert.kernels",
              *(f"dendritic_bert.kernels.{name}" for name in find_packages("kernels"))],
    package_dir={"dendritic_bert.kernels": "kernels"},
    package_data={"dendritic_bert": ["assets/*", "assets/*/*", "py.typed", "*.pyi"],
                  "dendritic_bert.training": ["*.yaml"]},
    ext_modules=extensions,
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
