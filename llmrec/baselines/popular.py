"""Popularity: everyone gets the items with the most training interactions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Popular:
    """Scores are shares of the training interactions; without any, all items tie."""

    def __init__(self, interactions: np.ndarray) -> None:
        """`interactions`: (items,) training interactions of each item."""
        self.items = len(interactions)
        self.p = shares(interactions)

    def scores(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        """(queries, items) float32, every row the same."""
        return np.broadcast_to(self.p.astype(np.float32), (len(histories), self.items))


def shares(interactions: np.ndarray) -> np.ndarray:
    """(items,) float64 that sum to 1; uniform where there are no interactions."""
    counts = np.asarray(interactions, np.float64)
    total = counts.sum()
    return counts / total if total else np.full(len(counts), 1 / max(1, len(counts)))
