"""How the sources in this folder are compiled: once for each instruction set of a machine, of which one is chosen when
the program runs. setup.py compiles them for this machine, runtime/zig.py for others."""

# -O3 with -ffp-contract=fast lets one source use fused multiply-adds where the instruction set has them. -g0 takes back
# the -g that Python was built with: debugging information is nine tenths of an extension.
CXX_FLAGS = ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wall"]
_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"]
DISPATCH_SOURCES = ["csrc/cpu/dispatch.cpp", "csrc/cpu/window_int8_dispatch.cpp"]


def instruction_sets(machine: str) -> dict[str, list[str]]:
    """The instruction sets of a ``platform.machine()`` that the kernels are compiled for, with the compiler's flags."""
    is_x86 = machine in ("x86_64", "AMD64")
    return {"baseline": [], **({"avx2": _AVX2, "avx512": _AVX512} if is_x86 else {})}


def int8_instruction_sets(machine: str) -> dict[str, list[str]]:
    """Those of the int8 windows, which are compiled for processors that multiply int8 besides."""
    sets = instruction_sets(machine)
    vnni = {"avx2_vnni": [*_AVX2, "-mavxvnni"], "avx512_vnni": [*_AVX512, "-mavx512vnni"]}
    dot = {"neon_dot": ["-march=armv8.2-a+dotprod"]} if machine in ("aarch64", "arm64") else {}
    return {**sets, **(vnni if "avx512" in sets else {}), **dot}


def kernel_sources(machine: str) -> dict[str, dict[str, list[str]]]:
    """Each source that is compiled for several instruction sets, and for which."""
    def only(name: str) -> dict[str, list[str]]:
        return {of: flags for of, flags in int8_instruction_sets(machine).items() if of == name}

    return {"csrc/cpu/kernel.cpp": instruction_sets(machine),
            "csrc/cpu/window_amx.cpp": only("avx512"),
            "csrc/cpu/window_int8.cpp": int8_instruction_sets(machine),
            "csrc/cpu/window_int8_amx.cpp": only("avx512_vnni")}


def engine_kernels(machine: str) -> list[tuple[str, str, list[str]]]:
    """How the kernels are compiled where only the engine is built: each source with an instruction set and all of the
    compiler's flags, and those that choose among them with "any". The kernels of training are left out."""
    of_sets = [(source, name, [*flags, f"-DINSTRUCTION_SET={name}", "-DDENDRITIC_BERT_NO_TRAINING"])
               for source, sets in kernel_sources(machine).items() for name, flags in sets.items()]
    return [*of_sets, *((source, "any", []) for source in DISPATCH_SOURCES)]
