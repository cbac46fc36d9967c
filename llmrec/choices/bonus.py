"""Bonus terms: nats added to an item's log p.  A mask, a prior, a boost and exploration are terms of one sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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


def mix(p: np.ndarray, popularity: np.ndarray, weight: float, floor: float) -> np.ndarray:
    """(items,) float32: weight · log((1 - floor) · p + floor · popularity), a collaborative prior that is never -inf
    where popularity is positive; items without either get the smallest value that anything else has."""
    mixed = (1 - floor) * p + floor * popularity
    least = mixed[mixed > 0].min(initial=1.0)
    return (weight * np.log(np.maximum(mixed, least))).astype(np.float32)


def combine(*terms: np.ndarray) -> np.ndarray:
    """The sum of bonus terms, float32."""
    return np.stack(terms).sum(axis=0, dtype=np.float32)
