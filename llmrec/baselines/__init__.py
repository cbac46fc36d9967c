"""What stands beside the language model in every evaluation: rankers that need no text.

A scorer answers `scores`, a ranker answers `rank`; `ScoreRanker` makes the one from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from llmrec.data.split import Query

_BLOCK = 20_000_000  # scores held at once


class Ranker(Protocol):
    """Orders a catalog for many queries."""

    def rank(self, queries: Sequence[Query], n: int) -> np.ndarray:
        """(queries, n) int32 catalog positions, best first, -1 where a list ends early."""


class Scorer(Protocol):
    """Gives every item of a catalog a number for many histories."""

    items: int

    def scores(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        """(queries, items) float32, higher is better; histories are catalog positions, oldest first, maybe empty."""


class Prior(Protocol):
    """Says how likely each item of a catalog comes next, without text: the collaborative bonus of a score."""

    popularity: np.ndarray
    """(items,) float64 shares of the training interactions."""

    def p(self, history: Sequence[int]) -> np.ndarray:
        """(items,) float64 probabilities, 0 where nothing is known of an item."""


@dataclass(frozen=True)
class ScoreRanker:
    """A scorer as a ranker: the items of a history are left out unless `repeats` is `allow`."""

    scorer: Scorer
    repeats: str = "exclude"

    def rank(self, queries: Sequence[Query], n: int) -> np.ndarray:
        lists = np.full((len(queries), n), -1, np.int32)
        block = max(1, _BLOCK // max(1, self.scorer.items))
        for start in range(0, len(queries), block):
            histories = [query.history for query in queries[start : start + block]]
            exclude = histories if self.repeats == "exclude" else [()] * len(histories)
            lists[start : start + block] = top(self.scorer.scores(histories), exclude, n)
        return lists


def top(scores: np.ndarray, exclude: Sequence[Sequence[int]], n: int) -> np.ndarray:
    """(queries, n) int32 positions of the highest `scores` (queries, items), best first; ties: lower position first.

    Left out are the positions in `exclude` (one sequence per query) and items that score -inf; -1 fills up.
    """
    assert len(scores) == len(exclude), f"{len(scores)} rows of scores, {len(exclude)} of exclude"
    lists = np.full((len(scores), n), -1, np.int32)
    for row, hidden, best in zip(scores, exclude, lists, strict=True):
        row = row.copy()
        row[list(hidden)] = -np.inf
        floor = np.partition(row, -n)[-n] if 0 < n < len(row) else -np.inf
        candidates = np.flatnonzero((row >= floor) & (row > -np.inf))  # more than n where the last place is tied
        ordered = candidates[np.argsort(-row[candidates], kind="stable")][:n]
        best[: len(ordered)] = ordered
    return lists
