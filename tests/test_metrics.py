"""Metrics that a person can recompute: fractions, empty lists, ties, users with unequal numbers of queries."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec.metrics import ranking, report
from llmrec.metrics.classification import ece, tempered
from llmrec.metrics.significance import bootstrap, paired, resampled
from llmrec.metrics.slices import head, slices

RANKS = np.array([1, 3, 0, 11])
LISTS = np.array([[2, 0, 1], [0, 3, -1], [-1, -1, -1]], np.int32)


def test_ranks_count_from_one_and_zero_means_absent():
    assert ranking.ranks(LISTS, [0, 2, 2]).tolist() == [2, 0, 0]


def test_the_filler_is_never_a_target():
    assert ranking.ranks(np.full((2, 0), -1, np.int32), [0, 1]).tolist() == [0, 0]
    assert ranking.ranks(np.empty((0, 5), np.int32), []).tolist() == []


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (ranking.hr, 1, [1, 0, 0, 0]),
        (ranking.hr, 3, [1, 1, 0, 0]),
        (ranking.hr, 20, [1, 1, 0, 1]),
        (ranking.ndcg, 2, [1, 0, 0, 0]),
        (ranking.ndcg, 20, [1, 1 / 2, 0, 1 / log2(12)]),
        (ranking.mrr, 10, [1, 1 / 3, 0, 0]),
        (ranking.mrr, 20, [1, 1 / 3, 0, 1 / 11]),
    ],
)
def test_metric(metric, k, expected):
    assert metric(RANKS, k).tolist() == pytest.approx(expected)


@given(arrays(np.int32, st.integers(0, 20), elements=st.integers(0, 50)), st.integers(1, 30))
def test_metrics_are_ordered(ranks, k):
    hr, ndcg, mrr = (metric(ranks, k) for metric in (ranking.hr, ranking.ndcg, ranking.mrr))
    assert (mrr <= ndcg).all() and (ndcg <= hr).all() and (hr <= ranking.hr(ranks, k + 1)).all()


def test_users_count_alike_however_often_they_are_asked():
    values = ranking.by_user(np.array([1.0, 0, 0, 1, 1]), ["v", "u", "v", "v", "u"])
    assert values.tolist() == pytest.approx([2 / 3, 1 / 2])  # v stands first
    assert ranking.by_user(np.empty(0), []).tolist() == []


def test_coverage():
    assert ranking.coverage(LISTS, 1, 4) == 2 / 4
    assert ranking.coverage(LISTS, 3, 4) == 4 / 4
    assert ranking.coverage(LISTS, 3, 0) == 0


def test_popularity_is_a_percentile_with_ties_in_the_middle():
    interactions = np.array([7, 1, 1, 9])  # percentiles 5/8, 2/8, 2/8, 7/8
    assert ranking.popularity(LISTS, 1, interactions)[:2].tolist() == [2 / 8, 5 / 8]
    assert ranking.popularity(LISTS, 3, interactions)[:2].tolist() == pytest.approx([9 / 24, 12 / 16])
    assert np.isnan(ranking.popularity(LISTS, 3, interactions)[2])
    everything = np.arange(4)[None]
    assert ranking.popularity(everything, 4, interactions).tolist() == [1 / 2]


def test_interval_holds_the_mean_and_repeats_with_its_seed():
    values = np.random.default_rng(1).normal(0.3, 1, 400)
    a, b, other = bootstrap(values, seed=3), bootstrap(values, seed=3), bootstrap(values, seed=4)
    assert a == b and a != other
    assert a.low < a.mean < a.high and a.mean == pytest.approx(values.mean())
    error = values.std() / 400**0.5
    assert a.high - a.low == pytest.approx(2 * 1.96 * error, rel=0.1)  # the normal interval, nearly


def test_interval_of_little():
    assert np.isnan(bootstrap(np.array([])).mean)
    assert np.isnan(bootstrap(np.array([np.nan])).low)
    one = bootstrap(np.array([0.25, np.nan]))
    assert (one.mean, one.low, one.high) == (0.25, 0.25, 0.25)
    few, enough = (paired(np.full(count, 0.25), np.zeros(count)) for count in (5, 6))
    assert few.low > 0 and not few.excludes_zero and enough.excludes_zero  # five of five on one side are no proof


def test_blocks_of_draws_change_nothing(monkeypatch):
    values = np.random.default_rng(0).random(30)
    whole = bootstrap(values, samples=100)
    monkeypatch.setattr("llmrec.metrics.significance._BLOCK", 70)
    assert bootstrap(values, samples=100) == whole


def test_pairs_see_what_means_do_not():
    rng = np.random.default_rng(0)
    a = rng.random(200)
    b = a - 0.02 + rng.normal(0, 0.01, 200)  # a little worse for nearly everyone
    alone = bootstrap(a), bootstrap(b)
    assert alone[0].low < alone[1].high  # the intervals overlap …
    assert paired(a, b).low > 0 and paired(a, b).excludes_zero  # … and yet the difference is sure
    assert paired(b, a).high < 0
    assert not paired(a, a).excludes_zero


def test_tables_show_intervals_and_differences():
    interval = {"mean": 0.25, "low": 0.2, "high": 0.3}
    metrics = {f"{name}@{k}": interval for name in ("hr", "ndcg", "mrr", "popularity") for k in (1, 5)}
    measured = {
        "seconds": {"fit": 1, "rank": 2},
        "metrics": metrics,
        "coverage": {"coverage@1": 0.1, "coverage@5": 0.5},
    }
    results = {
        "suite": "small", "settings": {"cutoffs": [1, 5], "rankers": ["popular"]},
        "splits": {"test-time": {
            "users": 1000, "queries": 2000, "data": {"items": 30}, "rankers": {"popular": measured},
            "differences": [{"a": "x", "b": "y", "metric": "ndcg@5", **interval, "excludes_zero": True}],
        }},
    }  # fmt: skip
    text = report.markdown(results)
    assert "## test-time\n\n1,000 users, 2,000 queries, 30 items" in text
    assert "| popular | 0.2500 [0.2000, 0.3000] |" in text and "1.0 + 2.0" in text
    assert "| x - y | ndcg@5 | +0.2500 [+0.2000, +0.3000] | yes |" in text
    assert "No winner" not in text
    level = {"a": "x", "b": "z", "metric": "ndcg@5", "mean": 0.1, "low": -0.1, "high": 0.2, "excludes_zero": False}
    results["splits"]["test-time"]["differences"] += [level, {**level, "metric": "hr@5"}]
    assert "**No winner** between x and z: with 1,000 users the interval" in report.markdown(results)
    assert "ask more" not in report.markdown(results)  # all have been asked
    results["settings"]["users"] = 1000
    assert "which ranks better; ask more of them." in report.markdown(results)


def test_numbers_that_are_no_means_get_paired_intervals_too():
    rng = np.random.default_rng(0)
    a = rng.random(100)
    values = {"a": a, "b": a - 0.1, "none": np.full(100, np.nan)}
    statistics = {name: lambda draw, one=one: float(np.median(one[draw])) for name, one in values.items()}
    found, gaps = resampled(statistics, [("a", "b"), ("a", "a"), ("a", "none")], 100, samples=200)
    assert found["a"].mean == np.median(a) and found["a"].low < np.median(a) < found["a"].high
    gap = gaps["a", "b"]  # the same users are drawn for both, so it is .1 in every draw
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1)) and gap.excludes_zero
    assert gaps["a", "a"].low == gaps["a", "a"].high == 0
    assert np.isnan(found["none"].mean) and np.isnan(gaps["a", "none"].low)
    means, _ = resampled({"a": lambda draw: float(a[draw].mean())}, [], 100, samples=2000)
    assert means["a"].low == pytest.approx(bootstrap(a).low, abs=0.01)


def test_queries_by_what_makes_them_hard() -> None:
    interactions = np.array([6, 0, 3, 3, 0, 1])  # 13 in all: the first and one of those that tie hold half
    assert head(interactions).tolist() == [True, False, True, False, False, False]
    found = slices([0, 3, 1, 5, 2], [0, 9, 10, 200, 3], interactions)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in found.items()} == {
        "head": [0, 4], "tail": [1, 3], "new": [2], "short": [0, 1, 4], "long": [2, 3],
    }  # fmt: skip
    assert [*slices([0, 2], [20, 30], interactions)] == ["head", "long"]  # what nobody asks is left out
    assert not head(np.zeros(3, int)).any()


def test_an_interval_of_what_drawing_raises_holds_the_number() -> None:
    """A calibration error of 400 is noise and a little more; drawn again, the noise doubles."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.4, 1, 400)
    log_p, true = np.log(np.stack([p, 1 - p], 1)), (rng.random(400) > p).astype(int)
    error = {"a": lambda draw: ece(tempered(log_p[draw], 1.0), true[draw])}
    inside, _ = resampled(error, [("a", "a")], 400, samples=400, biased=True)
    beside, _ = resampled(error, [], 400, samples=400)
    assert 0 <= inside["a"].low < inside["a"].mean < inside["a"].high
    assert inside["a"].mean == beside["a"].mean and inside["a"].high < beside["a"].high
