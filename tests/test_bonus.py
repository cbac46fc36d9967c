from __future__ import annotations

import numpy as np
import pytest

from llmrec.choices.bonus import combine, mask, mix, only


def test_terms_add_up() -> None:
    total = combine(mask(4, [1]), only(4, [0, 1, 2]), np.array([1, 1, 2, 2], np.float32))
    assert total.dtype == np.float32 and total.tolist() == [1, -np.inf, 2, -np.inf]
    assert mask(2, []).tolist() == [0, 0] and only(2, []).tolist() == [-np.inf, -np.inf]


def test_a_prior_takes_no_probability_from_newcomers() -> None:
    p, popularity = np.array([0.7, 0.2, 0.1, 0, 0]), np.array([0.5, 0.3, 0.2, 0, 0])
    log_p = np.log(np.array([*(0.9 * p[:3]), 0.05, 0.05]))  # of a model that expects what the prior does
    for weight in (0.5, 3.0, 8.0):
        bonus = mix(p, popularity, weight, floor=0.0, known=3)
        with_it = np.exp(log_p + bonus)
        assert with_it[3:].sum() / with_it.sum() == pytest.approx(0.1, abs=1e-6)
        assert bonus[:3].tolist() == mix(p, popularity, weight, floor=0.0)[:3].tolist()
    popularity[3] = 0.9  # chosen since, and more than any other
    assert mix(p, popularity, 1.0, floor=0.5, known=3)[3] == pytest.approx(np.log(0.45))


def test_a_prior_is_weighted_log_of_a_mixture() -> None:
    found = mix(np.array([0.5, 0.5, 0]), np.array([0.8, 0, 0.2]), weight=2.0, floor=0.1)
    np.testing.assert_allclose(found, 2 * np.log([0.53, 0.45, 0.02]), rtol=1e-6)


def test_an_item_that_nobody_chose_gets_the_least_and_not_minus_infinity() -> None:
    found = mix(np.array([1.0, 0, 0]), np.array([0.5, 0.5, 0]), weight=1.0, floor=0.1)
    assert np.isfinite(found).all() and found[2] == found[1]
