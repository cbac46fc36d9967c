"""Queries by what makes them easy or hard: how often a target was chosen in training, how much is known of a user.

A mean over all queries hides both ends of a catalog and newcomers; here each has a number of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHORT = 10  # interactions; who has fewer is hardly known


def head(interactions: np.ndarray) -> np.ndarray:
    """(items,) bool: the fewest items that hold half of all training `interactions` (items,), most chosen first; of
    items that tie the earlier one.  Nothing where there are none."""
    order = np.argsort(-interactions, kind="stable")
    before = np.cumsum(interactions[order]) - interactions[order]
    chosen = np.zeros(len(interactions), bool)
    chosen[order] = before < interactions.sum() / 2
    return chosen


def slices(
    targets: Sequence[int] | np.ndarray, known: Sequence[int] | np.ndarray, interactions: np.ndarray
) -> dict[str, np.ndarray]:
    """Name → (queries,) bool; those without a query are left out.

    `head`, `tail` and `new`: targets among the items that hold half of the training interactions, among the others,
    and among those that training never saw; each query is in one of them.  `short` and `long`: fewer than ten
    interactions known, or more; each query is in one.

    Args:
        targets: (queries,) positions of items.
        known: (queries,) lengths of histories.
        interactions: (items,) how often each was chosen in training.
    """
    targets, known = np.asarray(targets, np.int64), np.asarray(known, np.int64)
    seen, popular = interactions[targets] > 0, head(interactions)[targets]
    found = {
        "head": popular, "tail": seen & ~popular, "new": ~seen, "short": known < SHORT, "long": known >= SHORT,
    }  # fmt: skip
    return {name: mask for name, mask in found.items() if mask.any()}
