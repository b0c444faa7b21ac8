"""The benches run, their implementations compute the same thing, and the arithmetic of the report is right."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import harness
import pytest
import torch
from helpers import REPOSITORY, shared_path


def run(*command: str) -> str:
    # pytest-benchmark times nothing in a process that it takes for a worker of xdist.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    process = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True,
                             env=environment | {"DENDRITIC_BERT_BENCH_SMALL": "1"})
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def largest_allowed_error(implementation: str) -> float:
    """fp32 rounds to 2^-24 and the logits are about 0.2; the other tables keep 8 bits (bf16, int8) or 11 (fp16).

    The embedded model computes in int8, five layers one after the other, whose error is that of a score near 0.5.
    """
    if "embedded model" in implementation:
        return 0.15
    return 1e-2 if any(name in implementation for name in ("bf16", "fp16", "int8")) else 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("bench", ["forward", "windows", "backward", "end_to_end", "encoder", "startup"])
def test_bench_runs_and_its_implementations_agree(bench: str, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    if bench in ("end_to_end", "encoder"):
        shared_path("data/glue/SST-2")
    if bench == "end_to_end":
        shared_path("models/bert-tiny")
    run("-m", "pytest", f"bench/bench_{bench}.py", "-q", "-p", "no:cacheprovider",
        f"--benchmark-json={tmp_path / 'results.json'}")
    run("bench/report.py", str(tmp_path / "results.json"), "--output", str(tmp_path))
    with (tmp_path / f"{bench}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = {row["implementation"]: row["max_error"] for row in rows
             if row["max_error"] and float(row["max_error"]) > largest_allowed_error(row["implementation"])}
    assert not wrong
    assert sum(row["max_error"] != "" for row in rows) >= {"startup": 0, "encoder": 1}.get(bench, 2)
    assert "Sizes were shrunk" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_report_takes_ratios_within_rounds(tmp_path: Path) -> None:
    """Ratios 2, 4, 5 within rounds, median 4; the ratio of the medians would be 30 / 5 = 6."""
    comparison = {
        "title": "a comparison", "unit": "token", "conditions": "none", "baseline": "slow",
        "targets": [{"implementation": "fast", "baseline": "slow", "at_least": 3.9, "at_most": None},
                    {"implementation": "fast", "baseline": "slow", "at_least": 4.1, "at_most": None},
                    {"implementation": "slow", "baseline": "fast", "at_least": None, "at_most": 4.1},
                    {"implementation": "absent", "baseline": "slow", "at_least": 1.0, "at_most": None},
                    {"implementation": "fast", "baseline": "slow", "at_least": None, "at_most": None}],
        "implementations": {"slow": {"samples": [20e-9, 30e-9, 40e-9], "error": 1.5e-7, "accuracy": None},
                            "fast": {"samples": [10e-9, 7.5e-9, 8e-9], "error": None, "accuracy": 0.8125,
                                     "bound": 5e8}},
    }
    machine = {"cpu": {"brand_raw": "A CPU", "count": 2, "flags": ["avx2", "nonsense"]}, "instruction_set": "avx2",
               "torch_cpu_capability": "AVX2", "system": "Linux", "machine": "x86_64", "python_version": "3.11.0",
               "versions": {"torch": "2.14.1"}, "command": "python -m pytest bench", "seed": 0, "small": False,
               "node": "the-host-name"}
    result = {"machine_info": machine, "commit_info": {"id": "0123456789abcdef", "dirty": True},
              "datetime": "2026-01-02T03:04:05.6", "benchmarks": [
                  {"fullname": "bench/bench_things.py::test_speed", "extra_info": comparison}]}
    (tmp_path / "results.json").write_text(json.dumps(result), encoding="utf-8")
    printed = run("bench/report.py", str(tmp_path / "results.json"), "--output", str(tmp_path / "new" / "folder"))

    with (tmp_path / "new" / "folder" / "things.csv").open(encoding="utf-8", newline="") as file:
        slow, fast = csv.DictReader(file)
    assert (slow["speed_p50"], fast["speed_p50"]) == ("1", "4")
    assert (fast["seconds_p50"], fast["units_per_second_p50"]) == ("8e-09", "1.25e+08")
    assert float(fast["speed_p20"]) == pytest.approx(2.8)  # 40 % of the way from 2 to 4
    assert (slow["max_error"], fast["max_error"], fast["accuracy"]) == ("1.5e-07", "", "0.8125")
    assert (fast["flags"], fast["commit"], fast["date"]) == ("avx2", "0123456789ab+changes", "2026-01-02T03:04:05")

    assert [line.rsplit("|", 2)[1].strip() for line in printed.splitlines()[2:7]] == ["yes", "**no**", "yes", "-", "-"]
    assert "| fast / slow | a comparison | - | **4.00x** (2.80 - 4.60) | - |" in printed
    readme = (tmp_path / "new" / "folder" / "README.md").read_text(encoding="utf-8")
    assert printed.strip() in readme
    assert "| fast | 8.00 ns | 7.70 ns - 9.20 ns | 125 M | 4.00 | - | 81.2 % | 25.0 % |" in readme
    assert "the-host-name" not in readme


def test_the_gpu_bench_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part that needs no GPU: its data, its implementations but for the kernels, and its clock."""
    import bench_gpu as bench

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            self.time = time.perf_counter()

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, end: "Event") -> float:
            return 1000 * (end.time - self.time)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(bench, "compiled", lambda function: function)
    monkeypatch.setattr(bench.backends, "refusal", lambda *_: "there is no GPU")
    comparisons = []

    def compare(implementations, **description) -> None:
        comparisons.append((implementations, description))

    bench.test_logits(compare, 16, 3, "hot")
    bench.test_forward_and_backward(compare, 16, 3)
    for implementations, description in comparisons:
        assert len(implementations) >= 2
        assert description["baseline"] in implementations
        for implementation in implementations.values():
            assert implementation.work == 3 * 32
            assert implementation.error < 1e-4
            assert 0 < harness.sample(implementation) < 10


def test_implementations_run_in_turn_and_preparing_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(harness.time, "perf_counter", lambda: clock[0])

    def spend(seconds: float, name: str) -> None:
        clock[0] += seconds
        calls.append(name)

    class Benchmark:
        extra_info: dict = {}  # noqa: RUF012

        def pedantic(self, function, rounds, iterations):
            for _ in range(rounds * iterations):
                function()

    implementations = {
        "a": harness.Implementation(lambda seconds: spend(seconds, "a"), lambda: spend(100, "prepare a") or (3.0,),
                                    work=4, calls=2),
        "b": harness.Implementation(lambda: spend(5, "b")),
    }
    harness.compare(Benchmark(), implementations, title="", unit="token", conditions="", baseline="a", targets=[],
                    rounds=2)
    assert calls == ["prepare a", "a", "a", "b"] * 3  # the first round warms up
    samples = {name: entry["samples"] for name, entry in Benchmark.extra_info["implementations"].items()}
    assert samples == {"a": [0.75, 0.75], "b": [5.0, 5.0]}
