from __future__ import annotations

import numpy as np

from llmrec.choices.bonus import combine, mask, mix, only


def test_terms_add_up() -> None:
    total = combine(mask(4, [1]), only(4, [0, 1, 2]), np.array([1, 1, 2, 2], np.float32))
    assert total.dtype == np.float32 and total.tolist() == [1, -np.inf, 2, -np.inf]
    assert mask(2, []).tolist() == [0, 0] and only(2, []).tolist() == [-np.inf, -np.inf]


def test_a_prior_is_weighted_log_of_a_mixture() -> None:
    found = mix(np.array([0.5, 0.5, 0]), np.array([0.8, 0, 0.2]), weight=2.0, floor=0.1)
    np.testing.assert_allclose(found, 2 * np.log([0.53, 0.45, 0.02]), rtol=1e-6)


def test_an_item_that_nobody_chose_gets_the_least_and_not_minus_infinity() -> None:
    found = mix(np.array([1.0, 0, 0]), np.array([0.5, 0.5, 0]), weight=1.0, floor=0.1)
    assert np.isfinite(found).all() and found[2] == found[1]
