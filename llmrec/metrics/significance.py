"""How sure a mean over users is: percentile bootstrap, users drawn with replacement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

SAMPLES = 2000
BOUNDS = 0.025, 0.975  # quantiles that 95% lie between
FEWEST = 6  # users that can show anything: even five of five on one side are chance once in sixteen times
_BLOCK = 10_000_000  # draws held at once: memory stays bounded for a million users


@dataclass(frozen=True)
class Interval:
    """A mean over users, and the bounds that hold 95% of bootstrap means."""

    mean: float
    low: float
    high: float
    count: int
    """Users, or reviews or texts."""

    @property
    def excludes_zero(self) -> bool:
        return self.count >= FEWEST and (self.low > 0 or self.high < 0)


def bootstrap(values: np.ndarray, *, seed: int = 0, samples: int = SAMPLES) -> Interval:
    """Interval of the mean of `values` (users,), NaN left out.  Without values all is NaN; one value is its own
    interval.  The same seed and number of users draw the same users."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(values))
    means = np.concatenate([
        values[rng.integers(len(values), size=(min(block, samples - start), len(values)))].mean(1)
        for start in range(0, samples, block)
    ])  # fmt: skip
    low, high = np.quantile(means, BOUNDS)
    return Interval(float(values.mean()), float(low), float(high), len(values))


def paired(a: np.ndarray, b: np.ndarray, *, seed: int = 0, samples: int = SAMPLES) -> Interval:
    """Interval of the mean of `a` - `b`, both (users,) with the same users in the same order.  Users that either
    lacks (NaN) are left out."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, f"paired values need the same users, got {a.shape} and {b.shape}"
    return bootstrap(a - b, seed=seed, samples=samples)


Statistic = Callable[[np.ndarray], float]
"""Positions of users, some of them drawn several times → a number over them, NaN where there is none."""


def resampled(
    statistics: Mapping[str, Statistic],
    pairs: Iterable[tuple[str, str]],
    count: int,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    biased: bool = False,
) -> tuple[dict[str, Interval], dict[tuple[str, str], Interval]]:
    """Intervals of numbers that are no means, such as a macro-F1, over `count` users (or reviews), and of their paired
    differences: every sample draws the same users for all of them.

    Args:
        biased: they are never below 0, and drawing users with replacement raises them, as it does a calibration error:
            samples are moved by as much as their mean differs from the number, else an interval may lie beside it.
    """
    rng = np.random.default_rng(seed)
    value = {name: statistic(np.arange(count)) for name, statistic in statistics.items()}
    drawn = {name: np.empty(samples) for name in statistics}
    for sample in range(samples):  # one at a time: all of them would take gigabytes where many are asked
        draw = rng.integers(count, size=count)
        for name, statistic in statistics.items():
            drawn[name][sample] = statistic(draw)

    def interval(mean: float, found: np.ndarray) -> Interval:
        if np.isnan(mean) or np.isnan(found).all():
            return Interval(np.nan, np.nan, np.nan, count)
        if biased:
            found = found + mean - np.nanmean(found)
        low, high = np.nanquantile(found, BOUNDS)
        return Interval(float(mean), float(low), float(high), count)

    def floored(found: Interval) -> Interval:
        return replace(found, low=max(found.low, 0.0)) if biased else found

    return (
        {name: floored(interval(value[name], drawn[name])) for name in statistics},
        {(a, b): interval(value[a] - value[b], drawn[a] - drawn[b]) for a, b in pairs},
    )


def compared(
    values: Mapping[str, Mapping[str, np.ndarray]],
    pairs: Iterable[tuple[str, str]],
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Intervals of every metric, and of the paired differences, ready for JSON.

    Args:
        values: name → metric → (users,) values, the same users in the same order everywhere.
        pairs: names (a, b) whose difference a - b is wanted.
    Returns: name → metric → mean, low, high (None where no user has a value); and a list of a, b, metric, mean, low,
        high, excludes_zero for every metric that both have.
    """
    metrics = {
        name: {metric: plain(bootstrap(found, seed=seed, samples=samples)) for metric, found in measured.items()}
        for name, measured in values.items()
    }
    differences = []
    for a, b in pairs:
        for metric in values[a]:
            if metric in values[b]:
                gap = paired(values[a][metric], values[b][metric], seed=seed, samples=samples)
                differences.append(difference(a, b, metric, gap))
    return metrics, differences


def difference(a: str, b: str, metric: str, gap: Interval) -> dict[str, Any]:
    """How far `a` is ahead of `b` in one metric, ready for JSON."""
    return {"a": a, "b": b, "metric": metric, **plain(gap), "excludes_zero": gap.excludes_zero}


def plain(interval: Interval) -> dict[str, float | None]:
    """Ready for JSON."""
    if np.isnan(interval.mean):
        return {"mean": None, "low": None, "high": None}
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
