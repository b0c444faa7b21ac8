"""Turns pytest-benchmark's JSON into ``<bench>.csv`` and a README.md with the targets and a table per comparison.

    python bench/report.py .benchmarks/*.json --output bench/results [--plot]
"""

import argparse
import csv
import json
from collections import defaultdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from dendritic_bert.atomic_write import atomic_path
from dendritic_bert.training.markdown import markdown_table

# The flags that decide which kernel runs and how fast; the full list would tell a reader little.
FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_vnni",
         "avx512_fp16", "amx_tile", "asimd", "sve")
QUANTILES = (20, 50, 80)


def quantiles(values: Any) -> tuple[float, float, float]:
    low, middle, high = np.percentile(np.asarray(values, dtype=np.float64), QUANTILES)
    return float(low), float(middle), float(high)


def ratios(comparison: dict[str, Any], numerator: str, denominator: str) -> tuple[float, float, float]:
    """p20, p50, p80 of time(numerator) / time(denominator), each ratio taken within one round."""
    samples = {name: np.asarray(comparison["implementations"][name]["samples"]) for name in (numerator, denominator)}
    return quantiles(samples[numerator] / samples[denominator])


def scaled(value: float, unit: str) -> str:
    """``value`` with three digits and a prefix: ``scaled(2.5e-9, "s") == "2.50 ns"``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if abs(value) >= 0.9995 * factor:
            return f"{_digits(value / factor)} {prefix}{unit}".rstrip()
    return f"{_digits(value * 1e12)} p{unit}"


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def machine(result: dict[str, Any]) -> dict[str, Any]:
    """Machine, versions, command and date of one JSON file, without the name of the host."""
    info = result["machine_info"]
    cpu = info["cpu"]
    return {
        "cpu": cpu.get("brand_raw", cpu.get("arch_string_raw", "unknown")),
        "cores": cpu.get("count", ""),
        "flags": " ".join(flag for flag in FLAGS if flag in cpu.get("flags", [])),
        "instruction_set": info["instruction_set"],
        "torch_cpu_capability": info["torch_cpu_capability"],
        "system": f"{info['system']} {info['machine']}, Python {info['python_version']}",
        "versions": ", ".join(f"{name} {version}" for name, version in info["versions"].items()),
        "command": info["command"],
        "date": result["datetime"][:19],
        "commit": f"{result['commit_info']['id'][:12]}{'+changes' if result['commit_info'].get('dirty') else ''}",
        "seed": info["seed"],
    }


def rows_of(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict per implementation: seconds per unit, units per second, speed relative to the baseline, error, accuracy,
    and the share of what the hardware allows."""
    rows = []
    for name, implementation in comparison["implementations"].items():
        seconds = quantiles(implementation["samples"])
        speeds = ratios(comparison, comparison["baseline"], name)
        rows.append({
            "comparison": comparison["title"], "implementation": name, "unit": comparison["unit"],
            "rounds": len(implementation["samples"]),
            **{f"seconds_p{q}": f"{value:.4g}" for q, value in zip(QUANTILES, seconds)},
            "units_per_second_p50": f"{1 / seconds[1]:.4g}", "baseline": comparison["baseline"],
            **{f"speed_p{q}": f"{value:.4g}" for q, value in zip(QUANTILES, speeds)},
            "max_error": "" if implementation["error"] is None else f"{implementation['error']:.3g}",
            "accuracy": "" if implementation["accuracy"] is None else f"{implementation['accuracy']:.4f}",
            "share_of_bound": ("" if not implementation.get("bound")
                               else f"{1 / seconds[1] / implementation['bound']:.4f}"),
        })
    return rows


def comparison_table(comparison: dict[str, Any]) -> str:
    rows, lines = rows_of(comparison), []
    shares = {name: title for name, title in (("accuracy", "dev accuracy"), ("share_of_bound", "of the bound"))
              if any(row[name] for row in rows)}
    for row in rows:
        low, middle, high = (scaled(float(row[f"seconds_p{q}"]), "s") for q in QUANTILES)
        cells = [row["implementation"], middle, f"{low} - {high}", scaled(1 / float(row["seconds_p50"]), ""),
                 _digits(float(row["speed_p50"])), row["max_error"] or "-"]
        lines.append([*cells, *(f"{100 * float(row[name]):.1f} %" if row[name] else "-" for name in shares)])
    unit = comparison["unit"]
    header = ["implementation", f"time / {unit}, p50", "p20 - p80", f"{unit}s / s",
              f"speed, {comparison['baseline']} = 1", "max error"]
    return markdown_table([*header, *shares.values()], lines)


def target_line(comparison: dict[str, Any], target: dict[str, Any]) -> list[str]:
    """The cells of one target: what, where, target, measured p50 (p20 - p80), met."""
    implementation, baseline = target["implementation"], target["baseline"]
    is_speed, is_judged = target["at_most"] is None, target["at_least"] is not None or target["at_most"] is not None
    limit = (">= {at_least:g}x speed" if is_speed else "<= {at_most:g}x time").format(**target) if is_judged else "-"
    cells = [f"{implementation} / {baseline}", comparison["title"], limit]
    absent = [name for name in (implementation, baseline) if name not in comparison["implementations"]]
    if absent:
        return [*cells, f"not measured: {' and '.join(absent)} not run", "-"]
    low, middle, high = ratios(comparison, *((baseline, implementation) if is_speed else (implementation, baseline)))
    cells.append(f"**{_digits(middle)}x** ({_digits(low)} - {_digits(high)})")
    if not is_judged:
        return [*cells, "-"]
    is_met = middle >= target["at_least"] if is_speed else middle <= target["at_most"]
    return [*cells, "yes" if is_met else "**no**"]


def targets_table(comparisons: list[dict[str, Any]]) -> str:
    return markdown_table(["implementation / baseline", "where", "target", "measured, p50 (p20 - p80)", "met"],
                          [target_line(comparison, target) for comparison in comparisons
                           for target in comparison["targets"]], num_text_columns=3)


def readme(results: list[dict[str, Any]], comparisons: dict[str, list[dict[str, Any]]], plots: list[str]) -> str:
    parts = ["# Benchmark results\n",
             "Written by `make bench`. The implementations of a table run in turn, round after round, and a speed is "
             "the median of the ratios within a round. Ratios carry over to other machines better than times do.\n"]
    if any(result["machine_info"]["small"] for result in results):
        parts.append("**Sizes were shrunk (DENDRITIC_BERT_BENCH_SMALL=1): these figures mean nothing.**\n")
    parts += ["## Targets\n", targets_table([comparison for group in comparisons.values() for comparison in group])]
    parts += [f"![{Path(name).stem}]({name})\n" for name in plots]
    for bench, group in comparisons.items():
        parts.append(f"## {bench.replace('_', ' ').capitalize()}\n")
        for comparison in group:
            parts += [f"### {comparison['title']}\n", comparison_table(comparison),
                      f"{comparison['conditions']}; {num_rounds(comparison)} rounds.\n"]
    parts.append("## Machine\n")
    for description in dict.fromkeys(tuple(machine(result).items()) for result in results):
        parts.append("\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in description) + "\n")
    return "\n".join(parts)


def num_rounds(comparison: dict[str, Any]) -> int:
    return len(next(iter(comparison["implementations"].values()))["samples"])


def plot(comparison: dict[str, Any], path: Path) -> None:
    """A bar per implementation: its median of units per second, on a logarithmic axis."""
    from matplotlib.figure import Figure

    names = list(comparison["implementations"])
    rates = [1 / quantiles(comparison["implementations"][name]["samples"])[1] for name in names]
    figure = Figure(figsize=(8, 0.4 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.barh(names, rates), labels=[scaled(rate, "") for rate in rates], padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set_xlabel(f"{comparison['unit']}s per second")
    axes.set_title(comparison["title"])
    drawing = StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    write(path, drawing.getvalue())


def write(path: Path, text: str) -> None:
    """Write through a temporary name, so that an interrupted run leaves the old file."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def csv_text(rows: list[dict[str, Any]]) -> str:
    buffer = StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="+", type=Path, help="file that pytest --benchmark-json wrote")
    parser.add_argument("--output", type=Path, default=Path("bench/results"),
                        help="folder for README.md, CSV files and pictures (default: %(default)s)")
    parser.add_argument("--plot", action="store_true", help="draw each bench's first comparison (needs matplotlib)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    results = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.json]
    comparisons: dict[str, list[dict[str, Any]]] = defaultdict(list)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        for benchmark in result["benchmarks"]:
            bench = Path(benchmark["fullname"].partition("::")[0]).stem.removeprefix("bench_")
            comparison = benchmark["extra_info"]
            comparisons[bench].append(comparison)
            rows[bench] += [{"bench": bench, **row, **machine(result)} for row in rows_of(comparison)]
    plots = []
    for bench, group in comparisons.items():
        write(arguments.output / f"{bench}.csv", csv_text(rows[bench]))
        if arguments.plot:
            plots.append(f"{bench}.svg")
            plot(group[0], arguments.output / plots[-1])
    write(arguments.output / "README.md", readme(results, comparisons, plots))
    print(targets_table([comparison for group in comparisons.values() for comparison in group]))


if __name__ == "__main__":
    main()
