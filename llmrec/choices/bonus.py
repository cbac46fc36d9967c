"""Bonus terms: nats added to an item's log p.  A mask, a prior, a boost and exploration are terms of one sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Except:
    """A bonus that is `base` for most items and something else for a few: what costs a search is the few.

    Attributes:
        items: how many there are in all.
        positions: (few,) those that differ, each once.
        values: (few,) float32 nats, their bonus.
        base: (items,) float32 nats of the others, the same array for every prompt; None is 0.
    """

    items: int
    positions: np.ndarray
    values: np.ndarray
    base: np.ndarray | None = None

    def dense(self) -> np.ndarray:
        """(items,) float32: the same bonus, written out."""
        bonus = np.zeros(self.items, np.float32) if self.base is None else self.base.astype(np.float32)
        bonus[self.positions] = self.values
        return bonus


def without(items: int, excluded: Sequence[int] | np.ndarray, base: np.ndarray | None = None) -> Except:
    """`base` with -inf for the excluded positions."""
    positions = np.unique(np.asarray(excluded, np.int64))
    return Except(items, positions, np.full(len(positions), -np.inf, np.float32), base)


def mask(items: int, excluded: Sequence[int] | np.ndarray) -> np.ndarray:
    """(items,) float32: -inf for the excluded positions, 0 elsewhere."""
    bonus = np.zeros(items, np.float32)
    bonus[np.asarray(excluded, np.int64)] = -np.inf
    return bonus


def only(items: int, allowed: Sequence[int] | np.ndarray) -> np.ndarray:
    """(items,) float32: 0 for the allowed positions, -inf elsewhere."""
    bonus = np.full(items, -np.inf, np.float32)
    bonus[np.asarray(allowed, np.int64)] = 0
    return bonus


def mix(p: np.ndarray, popularity: np.ndarray, weight: float, floor: float, *, known: int | None = None) -> np.ndarray:
    """(items,) float32: weight · log((1 - floor) · p + floor · popularity), a collaborative prior that is never -inf
    where popularity is positive; items without either get the smallest value that anything else has.

    Args:
        known: how many items, the first, the prior was fitted for.  Newcomers behind them have no past for it to judge:
            each gets at least what a known item gets on average, chosen as the prior expects, so that they keep about
            the share of the probability that they have without it.
    """
    mixed = (1 - floor) * p + floor * popularity
    least = mixed[mixed > 0].min(initial=1.0)
    bonus = weight * np.log(np.maximum(mixed, least))
    if known is not None and known < len(bonus):
        expected = mixed[:known] / max(mixed[:known].sum(), least)
        usual = np.log(np.maximum(expected @ np.exp(bonus[:known]), np.finfo(np.float64).tiny))
        bonus[known:] = np.maximum(bonus[known:], usual)
    return bonus.astype(np.float32)


def combine(*terms: np.ndarray) -> np.ndarray:
    """The sum of bonus terms, float32."""
    return np.stack(terms).sum(axis=0, dtype=np.float32)
