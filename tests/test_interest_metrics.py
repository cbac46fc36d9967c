from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from llmrec.metrics.interest import METRICS, cross_entropy, js_distance, ndcg
from llmrec.metrics.significance import paired

PREDICTED = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
COUNTS = np.array([[1, 3, 0], [0, 0, 0]])


def test_by_hand() -> None:
    gained = 0.25 + 0.75 / np.log2(3)
    ideal = 0.75 + 0.25 / np.log2(3)
    assert ndcg(PREDICTED, COUNTS, 2)[0] == pytest.approx(gained / ideal)
    assert ndcg(PREDICTED, COUNTS, 1)[0] == pytest.approx(0.25 / 0.75)
    assert cross_entropy(PREDICTED, COUNTS)[0] == pytest.approx(-(0.25 * np.log(0.5) + 0.75 * np.log(0.3)))
    assert js_distance(PREDICTED, COUNTS)[0] == pytest.approx(jensenshannon(PREDICTED[0], COUNTS[0] / 4))


def test_a_user_who_chose_nothing_more_has_no_value_and_falls_out_of_pairs() -> None:
    for metric in METRICS.values():
        values = metric(PREDICTED, COUNTS)
        assert np.isnan(values[1]) and not np.isnan(values[0])
        assert paired(values, values).mean == 0


def test_extremes() -> None:
    same, other = np.eye(2), np.eye(2)[::-1]
    assert js_distance(same, same).tolist() == [0, 0]
    assert js_distance(same, other) == pytest.approx([np.sqrt(np.log(2))] * 2)
    assert cross_entropy(same, other) == pytest.approx([-np.log(1e-6)] * 2)
    assert ndcg(same, same, 5).tolist() == [1, 1]


def test_ties_are_the_mean_over_their_orders() -> None:
    true = np.array([[0.1, 0.6, 0.2, 0.1]])
    orders = list(permutations(range(3)))
    broken = [ndcg(np.array([[0.3, 0.3, 0.3, 0.1]]) + _nudge(order), true, 2)[0] for order in orders]
    assert ndcg(np.array([[0.3, 0.3, 0.3, 0.1]]), true, 2)[0] == pytest.approx(np.mean(broken))


def _nudge(order: tuple[int, ...]) -> np.ndarray:
    return np.array([[*(1e-6 * (1 - np.array(order))), 0.0]])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_bounds_and_renumbering(categories: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, (4, categories))
    p, q = counts / counts.sum(1, keepdims=True), rng.integers(0, 3, (4, categories))
    order = rng.permutation(categories)
    for metric in (lambda a, b: ndcg(a, b, k), js_distance, cross_entropy):
        values = metric(p, q)
        there = ~np.isnan(values)
        assert there.tolist() == (q.sum(1) > 0).tolist()
        assert metric(p[:, order], q[:, order])[there] == pytest.approx(values[there])
        assert (values[there] >= 0).all()
    assert (ndcg(p, q, k)[q.sum(1) > 0] <= 1 + 1e-12).all()
    assert ndcg(p, counts, k) == pytest.approx(np.ones(4))


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(AssertionError, match="sum to 1"):
        ndcg(np.array([[0.0, 0.0]]), np.array([[1, 0]]), 1)
    with pytest.raises(AssertionError, match="not negative"):
        js_distance(np.array([[1.5, -0.5]]), np.array([[1, 0]]))
    with pytest.raises(AssertionError, match="users, categories"):
        cross_entropy(np.eye(2), np.eye(3))
