"""Turns pytest-benchmark's JSON into ``<bench>.csv`` and a README.md with the bars and a table for each race.

    python bench/report.py .benchmarks/*.json --output bench/results [--plot]
"""

import argparse
import csv
import json
import os
from collections import defaultdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

# What decides which kernel runs and how fast; the full list of flags says little to a reader.
FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_vnni",
         "avx512_fp16", "amx_tile", "asimd", "sve")
QUANTILES = (20, 50, 80)


def quantiles(values: Any) -> tuple[float, float, float]:
    low, middle, high = np.percentile(np.asarray(values, dtype=np.float64), QUANTILES)
    return float(low), float(middle), float(high)


def ratios(race: dict[str, Any], numerator: str, denominator: str) -> tuple[float, float, float]:
    """p20, p50, p80 of time(numerator) / time(denominator), each ratio taken within one round."""
    samples = {name: np.asarray(race["contenders"][name]["samples"]) for name in (numerator, denominator)}
    return quantiles(samples[numerator] / samples[denominator])


def scaled(value: float, unit: str) -> str:
    """Three digits and a prefix: ``scaled(2.5e-9, "s") == "2.50 ns"``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if abs(value) >= 0.9995 * factor:
            return f"{_digits(value / factor)} {prefix}{unit}".rstrip()
    return f"{_digits(value * 1e12)} p{unit}"


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def machine(result: dict[str, Any]) -> dict[str, Any]:
    """The machine, versions, command and date of one JSON file, each a string; no host name."""
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


def rows_of(race: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict for each contender: seconds for a unit, units a second, speed beside the baseline, error, accuracy,
    and the share of what the hardware allows."""
    rows = []
    for name, contender in race["contenders"].items():
        seconds = quantiles(contender["samples"])
        speeds = ratios(race, race["baseline"], name)
        rows.append({
            "race": race["title"], "contender": name, "unit": race["unit"], "rounds": len(contender["samples"]),
            **{f"seconds_p{q}": f"{value:.4g}" for q, value in zip(QUANTILES, seconds)},
            "units_per_second_p50": f"{1 / seconds[1]:.4g}", "baseline": race["baseline"],
            **{f"speed_p{q}": f"{value:.4g}" for q, value in zip(QUANTILES, speeds)},
            "max_error": "" if contender["error"] is None else f"{contender['error']:.3g}",
            "accuracy": "" if contender["accuracy"] is None else f"{contender['accuracy']:.4f}",
            "share_of_bound": "" if not contender.get("bound") else f"{1 / seconds[1] / contender['bound']:.4f}",
        })
    return rows


def table(header: list[str], lines: list[list[str]], text_columns: int = 1) -> str:
    marks = ["---" if column < text_columns else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, marks, *lines]) + "\n"


def race_table(race: dict[str, Any]) -> str:
    rows, lines = rows_of(race), []
    shares = {name: title for name, title in (("accuracy", "dev accuracy"), ("share_of_bound", "of the bound"))
              if any(row[name] for row in rows)}
    for row in rows:
        seconds = [float(row[f"seconds_p{q}"]) for q in QUANTILES]
        cells = [row["contender"], scaled(seconds[1], "s"), f"{scaled(seconds[0], 's')} - {scaled(seconds[2], 's')}",
                 scaled(1 / seconds[1], ""), _digits(float(row["speed_p50"])), row["max_error"] or "-"]
        lines.append([*cells, *(f"{100 * float(row[name]):.1f} %" if row[name] else "-" for name in shares)])
    unit = race["unit"]
    header = ["contender", f"time / {unit}, p50", "p20 - p80", f"{unit}s / s", f"speed, {race['baseline']} = 1",
              "max error"]
    return table([*header, *shares.values()], lines)


def bar_line(race: dict[str, Any], bar: dict[str, Any]) -> list[str]:
    """Cells: what, where, target, measured p50 (p20 - p80), met."""
    speed = bar["at_least"] is not None
    target = f">= {bar['at_least']:g}x speed" if speed else f"<= {bar['at_most']:g}x time"
    cells = [f"{bar['contender']} / {bar['baseline']}", race["title"], target]
    absent = [name for name in (bar["contender"], bar["baseline"]) if name not in race["contenders"]]
    if absent:
        return [*cells, f"not measured: no {' and no '.join(absent)}", "-"]
    pair = (bar["baseline"], bar["contender"]) if speed else (bar["contender"], bar["baseline"])
    low, middle, high = ratios(race, *pair)
    met = middle >= bar["at_least"] if speed else middle <= bar["at_most"]
    return [*cells, f"**{_digits(middle)}x** ({_digits(low)} - {_digits(high)})", "yes" if met else "**no**"]


def bars_table(races: list[dict[str, Any]]) -> str:
    return table(["bar", "where", "target", "measured, p50 (p20 - p80)", "met"],
                 [bar_line(race, bar) for race in races for bar in race["bars"]], text_columns=3)


def readme(results: list[dict[str, Any]], races: dict[str, list[dict[str, Any]]], plots: list[str]) -> str:
    parts = ["# Benchmark results\n",
             "Written by `make bench`. In every race the contenders run in turn, round after round; a speed is the "
             "median of the ratios taken within a round. Ratios hold from machine to machine better than times do.\n"]
    if any(result["machine_info"]["small"] for result in results):
        parts.append("**Sizes were shrunk (DENDRITIC_BERT_BENCH_SMALL=1): these figures mean nothing.**\n")
    parts += ["## Bars\n", bars_table([race for group in races.values() for race in group])]
    parts += [f"![{Path(name).stem}]({name})\n" for name in plots]
    for bench, group in races.items():
        parts.append(f"## {bench.replace('_', ' ').capitalize()}\n")
        for race in group:
            parts += [f"### {race['title']}\n", race_table(race), f"{race['conditions']}; {rounds_of(race)} rounds.\n"]
    parts.append("## Machine\n")
    for description in dict.fromkeys(tuple(machine(result).items()) for result in results):
        parts.append("\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in description) + "\n")
    return "\n".join(parts)


def rounds_of(race: dict[str, Any]) -> int:
    return len(next(iter(race["contenders"].values()))["samples"])


def plot(race: dict[str, Any], path: Path) -> None:
    """A bar for each contender: units a second at the median, logarithmic."""
    from matplotlib.figure import Figure

    names = list(race["contenders"])
    rates = [1 / quantiles(race["contenders"][name]["samples"])[1] for name in names]
    figure = Figure(figsize=(8, 0.4 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.barh(names, rates), labels=[scaled(rate, "") for rate in rates], padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set_xlabel(f"{race['unit']}s per second")
    axes.set_title(race["title"])
    drawing = StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    write(path, drawing.getvalue())


def write(path: Path, text: str) -> None:
    """Through a temporary name, so that an interrupted run leaves the old file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def csv_text(rows: list[dict[str, Any]]) -> str:
    buffer = StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="+", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    parser.add_argument("--plot", action="store_true", help="draw the first race of each bench (needs matplotlib)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    results = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.json]
    races: dict[str, list[dict[str, Any]]] = defaultdict(list)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        for benchmark in result["benchmarks"]:
            bench = Path(benchmark["fullname"].partition("::")[0]).stem.removeprefix("bench_")
            race = benchmark["extra_info"]
            races[bench].append(race)
            rows[bench] += [{"bench": bench, **row, **machine(result)} for row in rows_of(race)]
    plots = []
    for bench, group in races.items():
        write(arguments.output / f"{bench}.csv", csv_text(rows[bench]))
        if arguments.plot:
            plots.append(f"{bench}.svg")
            plot(group[0], arguments.output / plots[-1])
    write(arguments.output / "README.md", readme(results, races, plots))
    print(bars_table([race for group in races.values() for race in group]))


if __name__ == "__main__":
    main()
