"""The engine for other machines: `make cross` and `make wasm` run this file on what zig has compiled.

Each target's build of conformance.c is held to what the package computes here: int8 windows to the bit, other forms
within 1e-5. Programs for another processor run under qemu-user, those for WebAssembly in wasmtime.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from engine_cases import MODELS, write_case
from helpers import REPOSITORY

from dendritic_bert import TextClassifier
from dendritic_bert.kernels.backends import cpu

sys.path.insert(0, str(REPOSITORY / "runtime"))
from zig import BUILD, TARGETS, compile_engine, link_program

# The C library of a target whose programs need one, and Debian's package of it; QEMU_LD_PREFIX names another.
SYSROOTS = {"aarch64-linux-gnu": ("/usr/aarch64-linux-gnu", "libc6-arm64-cross")}
WHEELS = [name for name, target in TARGETS.items() if target.wheel]
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}


@cache
def conformance(target: str) -> Path:
    """The path of the program for a target."""
    program = BUILD / target / "conformance"
    link_program(target, REPOSITORY / "tests" / "portability" / "conformance.c", compile_engine(target), program)
    return program


def run_on(target: str, program: Path, *arguments: object, folder: Path, instruction_set: str | None = None,
           qemu_options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program of a target in a folder, where the processor of this machine is another in an emulator."""
    machine = TARGETS[target].machine
    command: list[object] = [program]
    if machine == "wasm32":
        return run_in_wasmtime(program, *arguments, folder=folder)
    if machine != platform.machine():
        qemu = shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")
        if qemu is None:
            pytest.skip(f"qemu-{machine} is missing: apt-get install qemu-user")
        command = [qemu, *qemu_options, program]
        if target in SYSROOTS:
            default, package = SYSROOTS[target]
            sysroot = os.environ.get("QEMU_LD_PREFIX", default)
            if not os.path.exists(sysroot):
                pytest.skip(f"{sysroot} is missing: apt-get install {package}")
            command = [qemu, *qemu_options, "-L", sysroot, program]
    environment = {"DENDRITIC_BERT_CPU": instruction_set} if instruction_set else {}
    return subprocess.run([*map(str, command), *map(str, arguments)], cwd=folder, env=environment, capture_output=True,
                          text=True)


def run_in_wasmtime(program: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program for WebAssembly, to which the files of a folder are open, in this process."""
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is missing: pip install 'dendritic-bert[cross]'")
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    wasi = wasmtime.WasiConfig()
    wasi.argv = [program.name, *map(str, arguments)]
    wasi.preopen_dir(str(folder), ".")
    wasi.stdout_file, wasi.stderr_file = str(folder / "stdout"), str(folder / "stderr")
    store = wasmtime.Store(engine)
    store.set_wasi(wasi)
    start = linker.instantiate(store, wasmtime.Module.from_file(engine, str(program))).exports(store)["_start"]
    status = 0
    try:
        start(store)
    except wasmtime.ExitTrap as exit:
        status = exit.code
    return subprocess.CompletedProcess([program], status, (folder / "stdout").read_text(),
                                       (folder / "stderr").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cases")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_logits_are_the_packages(target, model, folder):
    case = write_case(model, folder)
    has_baseline_alone = TARGETS[target].machine == "wasm32"
    for instruction_set in (None,) if has_baseline_alone else (None, "baseline"):
        done = run_on(target, conformance(target), case.model.name, case.cases.name, case.tolerance, folder=folder,
                      instruction_set=instruction_set)
        assert done.returncode == 0, done.stderr
        assert re.match(r"\d{3} texts, largest difference ", done.stdout)


@pytest.mark.parametrize("target", [name for name in TARGETS if TARGETS[name].machine == platform.machine()])
def test_the_best_instruction_set_is_found(target, folder):
    """The sums of the baseline are taken in another order, so that their last bits show which kernels have run."""
    if cpu.instruction_set() == "baseline":
        pytest.skip("this processor has the baseline alone")
    case = write_case("full_width", folder)
    best, baseline = (run_on(target, conformance(target), case.model.name, case.cases.name, 1e-5, folder=folder,
                             instruction_set=name).stdout for name in (None, "baseline"))
    assert best != baseline


@pytest.mark.parametrize(("processor", "has_dot_products"), [("cortex-a72", False), ("cortex-a76", True)])
@pytest.mark.parametrize("target", [name for name in TARGETS if TARGETS[name].machine == "aarch64"])
def test_dot_products_run_where_a_processor_has_them(target, processor, has_dot_products, folder, tmp_path):
    """qemu writes down the machine code that it comes to: SDOT by element is 4F80E000 but for its registers."""
    if platform.machine() == "aarch64":
        pytest.skip("this processor runs the program without an emulator")
    case, log = write_case("windows_int8", folder), tmp_path / "code"
    done = run_on(target, conformance(target), case.model.name, case.cases.name, case.tolerance, folder=folder,
                  qemu_options=("-cpu", processor, "-d", "in_asm", "-D", str(log)))
    assert done.returncode == 0, done.stderr
    words = {int(word, 16) for word in re.findall(r"^0x[0-9a-f]+: +([0-9a-f]{8}) ", log.read_text(), re.MULTILINE)}
    assert len(words) > 1000
    assert any(word & 0xFFC0F400 == 0x4F80E000 for word in words) == has_dot_products


@pytest.mark.parametrize("target", [name for name in TARGETS if TARGETS[name].machine in ELF_MACHINES])
def test_kernel_objects_export_no_shared_code(target):
    """What the linker keeps once must not be code for a processor that has more than this one."""
    compile_engine(target)
    objects = [path for pattern in ("avx*/*.o", "neon*/*.o") for path in (BUILD / target).glob(pattern)]
    assert objects
    for object in objects:
        symbols = subprocess.run(["nm", "--defined-only", object], capture_output=True, text=True, check=True).stdout
        exported = {line.split()[-1] for line in symbols.splitlines() if line.split()[-2] not in "tTrdbBn"}
        assert len(exported) > 0
        assert {name for name in exported if "kernel" not in name and not name.startswith("DW.ref.")} == set()


@pytest.mark.parametrize("target", WHEELS)
def test_the_wheel(target, tmp_path):
    """Its extension is for the machine and asks for no later glibc than 2.28; on this machine it is run."""
    (wheel,) = (REPOSITORY / "dist" / "runtime").glob(f"*-cp310-abi3-{TARGETS[target].wheel}.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    extension = (tmp_path / "dendritic_bert_runtime" / "_engine.abi3.so").read_bytes()
    machine = TARGETS[target].machine
    assert int.from_bytes(extension[18:20], "little") == ELF_MACHINES[machine]
    assert max(tuple(map(int, found)) for found in re.findall(rb"GLIBC_(\d+)\.(\d+)", extension)) <= (2, 28)
    assert b"libstdc++" not in extension
    if machine == platform.machine():
        code = "import dendritic_bert_runtime as r; print(r.TextClassifier()(['a charming journey', 'dull']))"
        done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True,
                              text=True, check=True)
        assert done.stdout.strip() == str(TextClassifier.from_pretrained()(["a charming journey", "dull"]))


def test_the_library_serves_a_program_in_c(tmp_path):
    """That for the C library of this machine, and any compiler."""
    library = REPOSITORY / "dist" / "engine" / f"{platform.machine()}-linux-gnu"
    if platform.libc_ver()[0] != "glibc" or not library.exists() or shutil.which("cc") is None:
        pytest.skip("no library for this machine, or no C compiler")
    program = tmp_path / "conformance"
    subprocess.run(["cc", REPOSITORY / "tests" / "portability" / "conformance.c", f"-I{library}", f"-L{library}",
                    "-ldendritic_bert", "-lm", f"-Wl,-rpath,{library}", "-o", program], check=True)
    case = write_case("folded", tmp_path)
    done = subprocess.run([program, case.model, case.cases, str(case.tolerance)], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
