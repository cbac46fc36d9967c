"""How near a predicted interest comes to what people then chose: two distributions over categories per user.

`predicted` is (users, categories), each row summing to 1; `true` likewise, or counts, which are divided by their sum.
Values come as (users,) float64, NaN for users without anything true, so that intervals can be taken over users.
"""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr, xlogy

FLOOR = 1e-6  # probabilities below count as this much in the cross-entropy


def ndcg(predicted: np.ndarray, true: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted gain at `k` of the categories in order of predicted probability: true shares are the
    gains, ranks are discounted by log2(rank + 1).  Categories that tie share their places: the value is the mean over
    all orders of them, so that their numbering counts for nothing."""
    p, q = _distributions(predicted, true)
    discount = np.zeros(p.shape[1])
    discount[:k] = 1 / np.log2(np.arange(2, min(k, p.shape[1]) + 2))
    ideal = (-np.sort(-q, axis=1)) @ discount
    gained = np.full(len(p), np.nan)
    for user in np.flatnonzero(~np.isnan(ideal)):
        _, group, size = np.unique(-p[user], return_inverse=True, return_counts=True)
        gains, places = np.bincount(group, q[user]), np.bincount(np.repeat(np.arange(len(size)), size), discount)
        gained[user] = (gains * places / size).sum()
    return gained / ideal


def js_distance(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance: the square root of the divergence in nats, 0 for equal distributions, at most
    sqrt(ln 2) = .8326 where nothing is shared."""
    p, q = _distributions(predicted, true)
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(1) / 2
    return np.sqrt(np.maximum(divergence, 0))  # rounding may put equal distributions just below 0


def cross_entropy(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Nats of what was chosen under what was predicted: -sum(true log predicted), predictions below 1e-6 counting as
    1e-6."""
    p, q = _distributions(predicted, true)
    return -xlogy(q, np.maximum(p, FLOOR)).sum(1)


def _distributions(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, q = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    assert p.ndim == 2 and p.shape == q.shape, f"two tables of (users, categories) are needed, got {p.shape}, {q.shape}"
    assert (p >= 0).all() and (q >= 0).all(), "shares are not negative"
    assert np.allclose(p.sum(1), 1, atol=1e-3), "a row of `predicted` does not sum to 1"
    total = q.sum(1, keepdims=True)
    return p, np.divide(q, total, out=np.full_like(q, np.nan), where=total > 0)


METRICS = {
    "ndcg@1": lambda predicted, true: ndcg(predicted, true, 1),
    "ndcg@3": lambda predicted, true: ndcg(predicted, true, 3),
    "ndcg@5": lambda predicted, true: ndcg(predicted, true, 5),
    "js_distance": js_distance,
    "cross_entropy": cross_entropy,
}
"""Per user: the first three are better when higher, the other two when lower."""
