"""Implementations timed in turn within one benchmark, so that a ratio compares runs that are a moment apart.

pytest-benchmark times one function at a time. On a machine whose speed drifts by a third within a minute, the ratio of
two such medians says little. Here every round calls each implementation once (A B C, A B C, ...), a ratio is taken
within a round, and the report gives the median of the ratios.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def wall_clock(run: Callable[[], Any]) -> float:
    """Seconds that ``run`` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Implementation:
    """What is timed: ``calls`` calls of ``run(*arguments)``, whose arguments ``prepare()`` makes untimed.

    work: units (tokens, texts, calls) that one call of ``run`` does.
    error: its largest error against the float64 reference.
    accuracy: its accuracy on SST-2 dev, if its head is trained.
    clock: takes the time of a function.
    bound: units per second that the hardware allows (bench/analysis/roofline.py).
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
class Target:
    """What an implementation should reach beside a baseline: ``at_least`` so many times its speed, or ``at_most`` so
    many times its time. With neither, its speed beside the baseline is reported and not judged."""

    implementation: str
    baseline: str
    at_least: float | None = None
    at_most: float | None = None


def hot(run: Callable[[], Any]) -> Callable[[], tuple[Any, ...]]:
    """A ``prepare`` that calls ``run`` once untimed, as the other implementations of the round have used the caches."""

    def prepare() -> tuple[Any, ...]:
        run()
        return ()

    return prepare


def sample(implementation: Implementation) -> float:
    """Seconds for one unit of work."""
    arguments = implementation.prepare()

    def run() -> None:
        for _ in range(implementation.calls):
            implementation.run(*arguments)

    return implementation.clock(run) / (implementation.calls * implementation.work)


def compare(benchmark: Any, implementations: dict[str, Implementation], *, title: str, unit: str, conditions: str,
            baseline: str, targets: list[Target], rounds: int) -> None:
    """Time the implementations in turn and leave the samples in ``benchmark.extra_info`` for report.py.

    unit: what ``Implementation.work`` counts, in the singular. baseline: the implementation to which the speeds of the
    others are relative.
    """
    samples: dict[str, list[float]] = {name: [] for name in implementations}

    def one_round() -> None:
        for name, implementation in implementations.items():
            samples[name].append(sample(implementation))

    one_round()
    for values in samples.values():
        values.clear()
    benchmark.pedantic(one_round, rounds=rounds, iterations=1)
    benchmark.extra_info.update(
        title=title, unit=unit, conditions=conditions, baseline=baseline,
        targets=[asdict(target) for target in targets],
        implementations={name: {"samples": samples[name], "error": implementation.error,
                                "accuracy": implementation.accuracy, "bound": implementation.bound}
                         for name, implementation in implementations.items()})


def largest_error(result: Any, truth: Any) -> float:
    """``max |result - truth|`` in float64."""
    found, expected = (np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
                       for values in (result, truth))
    return float(np.abs(found - expected).max())


def relative_error(measured: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> float:
    """The largest error of any gradient, relative to the largest entry of that gradient."""
    return max(float((got.to_dense().double() - expected).abs().max() / expected.abs().max())
               for got, expected in zip(measured, truth))


def gradients(embed: Callable[..., Tensor], embeddings: tuple[Tensor, ...], grad_pooled: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward: the gradients of ``embeddings`` for the gradient ``grad_pooled`` of ``embed``'s result."""
    return torch.autograd.grad(embed(*embeddings), embeddings, grad_pooled)
