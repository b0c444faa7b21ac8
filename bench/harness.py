"""Contenders timed in turn inside one benchmark, so that a ratio compares runs a moment apart.

pytest-benchmark times one function at a time; on a machine whose speed drifts by a third within a minute the ratio of
two such medians says little. Here one round calls every contender once (A B C, A B C, ...), a ratio is taken within
a round, and the report gives the median of those.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch


def wall_clock(run: Callable[[], Any]) -> float:
    """Seconds that ``run`` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Contender:
    """What is timed: ``calls`` times ``run(*arguments)``, where the untimed ``prepare()`` makes the arguments.

    work: units (tokens, texts, calls) that one call of ``run`` does. error: its largest error against the float64
    reference. accuracy: on SST-2 dev, where its head is trained. clock: what takes the time. bound: units a second that
    the hardware allows (bench/analysis/roofline.py).
    """

    run: Callable[..., Any]
    prepare: Callable[[], tuple[Any, ...]] = tuple
    work: float = 1
    calls: int = 1
    error: float | None = None
    accuracy: float | None = None
    clock: Callable[[Callable[[], Any]], float] = wall_clock
    bound: float | None = None


@dataclass(frozen=True)
class Bar:
    """What is promised of ``contender`` beside ``baseline``.

    With ``at_least``, its speed is at least that many times the baseline's; with ``at_most``, its time is at most
    that many times the baseline's.
    """

    contender: str
    baseline: str
    at_least: float | None = None
    at_most: float | None = None


def hot(run: Callable[[], Any]) -> Callable[[], tuple[Any, ...]]:
    """A ``prepare`` that runs the contender once untimed: the others of the round have emptied its caches."""

    def prepare() -> tuple[Any, ...]:
        run()
        return ()

    return prepare


def sample(contender: Contender) -> float:
    """Seconds for one unit of work."""
    arguments = contender.prepare()

    def run() -> None:
        for _ in range(contender.calls):
            contender.run(*arguments)

    return contender.clock(run) / (contender.calls * contender.work)


def run_race(benchmark: Any, contenders: dict[str, Contender], *, title: str, unit: str, conditions: str,
             baseline: str, bars: list[Bar], rounds: int) -> None:
    """Time the contenders in turn and leave the samples in ``benchmark.extra_info`` for report.py.

    unit: what ``Contender.work`` counts, singular. baseline: the contender that the others' speeds are given against.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}

    def one_round() -> None:
        for name, contender in contenders.items():
            samples[name].append(sample(contender))

    one_round()
    for values in samples.values():
        values.clear()
    benchmark.pedantic(one_round, rounds=rounds, iterations=1)
    benchmark.extra_info.update(
        title=title, unit=unit, conditions=conditions, baseline=baseline,
        bars=[asdict(bar) for bar in bars],
        contenders={name: {"samples": samples[name], "error": contender.error, "accuracy": contender.accuracy,
                           "bound": contender.bound} for name, contender in contenders.items()})


def largest_error(result: Any, truth: Any) -> float:
    """``max |result - truth|`` in float64."""
    found, expected = (np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64)
                       for values in (result, truth))
    return float(np.abs(found - expected).max())
