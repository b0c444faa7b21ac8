"""What each part of the engine gains: it is built without one of them at a time, and all classify the same texts.

    python bench/analysis/engine_ablation.py [--texts FILE] [--output bench/results]

A variant is the sources of csrc/engine with some of their lines replaced, in a temporary folder; all that have the
same kernels give the same logits to the bit. Time is that of the fastest pass, as a ratio to that of the whole engine
in the same round. Instructions are those of a pass, counted by callgrind. The kernels are those that setup.py has
built.
"""

import argparse
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from peers import save_dsn_of_bert_tiny
from report import quantiles, write
from workload import shared_path

from dendritic_bert.embedded_model import EMBEDDED_MODEL
from dendritic_bert.export import export
from dendritic_bert.training.markdown import markdown_table

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE, OBJECTS = REPOSITORY / "csrc" / "engine", REPOSITORY / "build" / "temp"
TEXTS = "data/sst2_distill/imdb_rest.txt.xz"
FLAGS = ["-O3", "-std=c++17", "-pthread", "-ffp-contract=fast", "-fno-math-errno"]  # as setup.py


class Variant(NamedTuple):
    """The engine without a part. replacements: a file, what stands there once, and what stands there instead.
    environment: variables of the process. threads: those of each call."""

    name: str
    replacements: tuple[tuple[str, str, str], ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012
    threads: int = 1


WHOLE = Variant("the whole engine")
VARIANTS = [
    WHOLE,
    Variant("ASCII a byte at a time", (("ascii.h", "#ifdef __SSE2__\n// Reads", "#if 0\n// Reads"),)),
    Variant("kernels in the baseline of x86-64", environment={"DENDRITIC_BERT_CPU": "baseline"}),
    Variant("no cache of words", (
        ("tokenizer.cpp", "WordCache::Entry* entry = lines[i]->find(keys[i])", "WordCache::Entry* entry = nullptr"),
        ("tokenizer.cpp", "if (num_ids <= WordCache::most_ids) lines[i]->insert", "if (false) lines[i]->insert"),
        ("tokenizer.cpp", "      __builtin_prefetch(lines[i]);\n", ""))),
    Variant("words of the cache across cache lines, 48 bytes each", (
        ("word_cache.h", "    int32_t ids[most_ids];\n", "    int32_t ids[most_ids];\n    int32_t more[4];\n"),
        ("word_cache.h", "entries[0] = {key.low, key.high | uint64_t(num_ids) << 60, {}};",
         "entries[0] = {key.low, key.high | uint64_t(num_ids) << 60, {}, {}};"),
        ("word_cache.h", "struct alignas(64) Line", "struct Line"),
        ("word_cache.h", "  static_assert(sizeof(Line) == 64);\n", ""))),
    Variant("no lines of the cache fetched ahead", (("tokenizer.cpp", "      __builtin_prefetch(lines[i]);\n", ""),)),
    Variant("no text fetched ahead", (
        ("tokenizer.cpp", "    if (i + texts_ahead < texts.size) prefetch(texts[i + texts_ahead]);\n", ""),)),
    Variant("the cache in pages of 4 kB", (("huge_pages.h", "MADV_HUGEPAGE", "MADV_NOHUGEPAGE"),)),
    Variant("no bits for beginnings that are no token", (
        ("vocabulary.h", "if (!(may_be_there_[filter_bit(hash) / 32] >> filter_bit(hash) % 32 & 1)) continue;", ""),)),
    Variant("blocks of 512 texts", (("model.cpp", "block_texts = 64;", "block_texts = 512;"),)),
    Variant("two threads", threads=2),
]


def write_sources(variant: Variant, folder: Path) -> list[Path]:
    """Write the sources of a variant below ``folder``, and return those to be compiled. Raises ValueError if what is to
    be replaced does not stand there exactly once."""
    shutil.copytree(REPOSITORY / "csrc", folder / "csrc")
    for name, old, new in variant.replacements:
        path = folder / "csrc" / "engine" / name
        source = path.read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise ValueError(f"{name} has {old!r} {source.count(old)} times, and {variant.name!r} replaces it once.")
        path.write_text(source.replace(old, new), encoding="utf-8")
    return [path for path in sorted((folder / "csrc" / "engine").glob("*.cpp")) if not path.name.startswith("python_")]


def build(variant: Variant, folder: Path) -> Path:
    """The driver, linked with a variant."""
    kernels = [*OBJECTS.glob("csrc/cpu/*dispatch.o"), *OBJECTS.glob("*/csrc/cpu/*kernel.o"),
               *OBJECTS.glob("*/csrc/cpu/window_int8.o")]
    if not kernels:
        raise FileNotFoundError(f"{OBJECTS} has no kernels: build them with `python setup.py build_ext --inplace`.")
    sources = write_sources(variant, folder)
    subprocess.run(["c++", *FLAGS, "-I", folder / "csrc" / "engine", Path(__file__).with_name("engine_driver.cpp"),
                    *sources, *kernels, "-o", folder / "driver"], check=True)
    return folder / "driver"


class Driver(NamedTuple):
    """A variant that was built."""

    variant: Variant
    program: Path

    def run(self, model: Path, texts: Path, seconds: float) -> tuple[float, float, str]:
        """The fewest microseconds a text of a pass, by the clock and of the processor; a number of all logits."""
        command = [self.program, model, texts, self.variant.threads, seconds]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True,
                              env=os.environ | self.variant.environment)
        clock, processor, logits = done.stdout.split()
        return float(clock), float(processor), logits

    def instructions(self, model: Path, texts: Path) -> int:
        """Those of a pass with a cache that knows no word, on all threads. Callgrind has no AVX-512."""
        with tempfile.TemporaryDirectory() as folder:
            command = ["valgrind", "--tool=callgrind", "--toggle-collect=dendritic_bert_classify",
                       f"--callgrind-out-file={folder}/out", self.program, model, texts, 1, 0]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True,
                                  env=os.environ | {"DENDRITIC_BERT_CPU": "avx2"} | self.variant.environment)
        return int(re.findall(r"Collected : (\d+)", done.stderr)[-1])


def measure(drivers: list[Driver], model: Path, texts: Path, num_texts: int, rounds: int,
            seconds: float) -> list[list[str]]:
    """A row of the table for each driver; the first one is the whole engine."""
    times = np.empty((2, rounds, len(drivers)))  # by the clock, of the processor
    for number in range(rounds):
        found = [driver.run(model, texts, seconds) for driver in drivers]
        times[:, number] = np.transpose([times for *times, _ in found])
        logits = {logits for driver, (*_, logits) in zip(drivers, found) if not driver.variant.environment}
        if len(logits) != 1:
            raise RuntimeError(f"the logits of {model.name} differ between the variants: {sorted(logits)}.")
    counts = [driver.instructions(model, texts) / num_texts for driver in drivers]
    rows = []
    for number, (driver, count) in enumerate(zip(drivers, counts)):
        of_kind = times[0 if driver.variant.threads > 1 else 1]
        of_driver, whole = of_kind[:, number], of_kind[:, 0]
        low, middle, high = quantiles(of_driver / whole)
        ratio = "1" if driver is drivers[0] else f"{middle:.2f} ({low:.2f} - {high:.2f})"
        instructions = f"{count:,.0f}" if driver.variant.threads == 1 else "-"
        rows.append([driver.variant.name, f"{of_driver.min():.2f}", ratio, instructions,
                     f"{count / counts[0]:.2f}" if driver.variant.threads == 1 else "-"])
    return rows


def read_texts(path: Path, count: int) -> list[str]:
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line in islice(file, count)]


def processor() -> str:
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{names[0] if names else 'an unknown processor'}, {len(names)} cores"


HEADER = ["the engine", "µs a text, least", "time, p50 (p20 - p80)", "instructions a text", "instructions, ratio"]


def report(arguments: argparse.Namespace) -> str:
    texts = read_texts(arguments.texts, arguments.count)
    parts = [
        "# What each part of the engine gains",
        f"Written by `python bench/analysis/engine_ablation.py`. {len(texts):,} sentences of reviews, "
        f"{np.mean([len(text.encode()) for text in texts]):.0f} bytes each in the mean, 4,096 a call, one thread "
        f"unless said, on {processor()}. Time is the processor's, but for two threads the clock's, of the fastest pass "
        f"within {arguments.seconds:g} s; its ratio to that of the whole engine is the median of {arguments.rounds} "
        "rounds, in which the variants run in turn. Other work on the machine shows in p20 and p80. Instructions are "
        "those of the first pass, with AVX2 and no word in the cache. All variants with the same kernels give the same "
        "logits to the bit."]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        drivers = [Driver(variant, build(variant, folder / str(number))) for number, variant in enumerate(VARIANTS)]
        models = {"Bag of words: DSN of BERT-tiny, folded": save_dsn_of_bert_tiny(folder / "dsn"),
                  "Embedded model: windows in int8": EMBEDDED_MODEL}
        for number, (title, model) in enumerate(models.items()):
            export(str(model), folder / f"{number}.dsn", "engine")
            rows = measure(drivers, folder / f"{number}.dsn", folder / "texts", len(texts), arguments.rounds,
                           arguments.seconds)
            parts += [f"## {title}", markdown_table(HEADER, rows).rstrip()]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="a text in each line, .xz or not; the shared data's by default")
    parser.add_argument("--count", type=int, default=15_000, help="texts")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each variant in each round")
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    arguments = parser.parse_args()
    arguments.texts = arguments.texts or shared_path(TEXTS)
    text = report(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(arguments.output / "engine_ablation.md", text)
    print(text)


if __name__ == "__main__":
    main()
