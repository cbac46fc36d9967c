"""Metrics of ranked lists; one target per query.

A rank is the target's place in its list: 1 is best, 0 means that the list lacks it.  A list that is shorter than the
cutoff is judged as it is.  Per-query values are averaged over each user's queries first, then over users, so that a
user with twenty targets counts as much as one with a single target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ranks(lists: np.ndarray, targets: Sequence[int] | np.ndarray) -> np.ndarray:
    """(queries,) int32 ranks of `targets` (queries,) in `lists` (queries, n) of positions, -1 where they end early."""
    found = lists == np.asarray(targets, lists.dtype).reshape(-1, 1)
    if not found.size:
        return np.zeros(len(lists), np.int32)
    return np.where(found.any(1), found.argmax(1) + 1, 0).astype(np.int32)


def hr(ranks: np.ndarray, k: int) -> np.ndarray:
    """Hit rate at `k` per query, float64: 1 where the target is among the first `k`, else 0."""
    return _inside(ranks, k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted gain at `k` per query: 1 / log2(rank + 1), or 0 beyond `k`."""
    return np.where(_inside(ranks, k), 1 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def mrr(ranks: np.ndarray, k: int) -> np.ndarray:
    """Reciprocal rank at `k` per query: 1 / rank, or 0 beyond `k`."""
    return np.where(_inside(ranks, k), 1.0 / np.maximum(ranks, 1), 0.0)


METRICS = {"hr": hr, "ndcg": ndcg, "mrr": mrr}


def by_user(values: np.ndarray, user_ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """Mean of `values` (queries,) per user, (users,) float64; users in order of first appearance."""
    codes: dict[str, int] = {}
    user = np.array([codes.setdefault(user_id, len(codes)) for user_id in user_ids], np.int64)
    return np.bincount(user, values, minlength=len(codes)) / np.bincount(user, minlength=len(codes))


def coverage(lists: np.ndarray, k: int, items: int) -> float:
    """Share of a catalog of `items` that stands among the first `k` of at least one list; 0 without items."""
    shown = lists[:, :k]
    return len(np.unique(shown[shown >= 0])) / items if items else 0.0


def popularity(lists: np.ndarray, k: int, interactions: np.ndarray) -> np.ndarray:
    """Popularity percentile of what is recommended per query, float64: the mean over a list's first `k` items.

    An item's percentile is the share of the catalog with fewer training `interactions` (items,), items that tie
    counting half: 0.5 is what random lists have, near 1 what popular items have.  NaN for an empty list.
    """
    ordered = np.sort(interactions)
    below, up_to = (np.searchsorted(ordered, interactions, side) for side in ("left", "right"))
    percentile = (below + up_to) / (2 * max(1, len(ordered)))
    shown = lists[:, :k]
    there = shown >= 0
    total = np.where(there, np.append(percentile, 0.0)[shown], 0.0).sum(1)
    return np.divide(total, there.sum(1), out=np.full(len(lists), np.nan), where=there.any(1))


def _inside(ranks: np.ndarray, k: int) -> np.ndarray:
    ranks = np.asarray(ranks)
    return (ranks >= 1) & (ranks <= k)
