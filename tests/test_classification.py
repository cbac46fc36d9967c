from __future__ import annotations

import numpy as np
import pytest

from llmrec.metrics.classification import (
    accuracy,
    auc,
    ece,
    f1,
    fit_temperature,
    log_loss,
    macro_f1,
    metrics,
    tempered,
    top_3,
)

P = np.array([[0.8, 0.2, 0.0], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.3, 0.4, 0.3]])
TRUE = np.array([0, 1, 1, 0])


def test_by_hand() -> None:
    assert accuracy(P, TRUE) == 2 / 4
    assert f1(P, TRUE)[:2].tolist() == [0.5, 0.5] and np.isnan(f1(P, TRUE)[2])
    assert macro_f1(P, TRUE) == 0.5
    assert macro_f1(P, np.array([0, 0, 1, 2])) == pytest.approx((1.0 + 2 / 3 + 0.0) / 3)
    # Label 0: examples .8 and .3 against .6 and .1; label 1: .3 and .7 against .2 and .4; label 2 has none.
    assert auc(P, TRUE) == pytest.approx((3 / 4 + 3 / 4) / 2)
    # How sure: .8 right, .6 wrong, .7 right, .4 wrong, each in a bin of its own.
    assert ece(P, TRUE) == pytest.approx((0.2 + 0.6 + 0.3 + 0.4) / 4)


def test_among_the_three_most_probable() -> None:
    p = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    assert top_3(p, np.array([2, 0, 2])) == 2 / 3 and top_3(p, np.array([3, 3, 3])) == 1 / 3
    assert "top_3" in metrics(4) and "top_3" not in metrics(3)


def test_ties_are_half_right() -> None:
    assert auc(np.full((6, 2), 0.5), np.array([0, 1, 0, 1, 1, 1])) == 0.5


def test_the_temperature_that_was_hidden_is_found() -> None:
    rng = np.random.default_rng(0)
    log_p = np.log(rng.dirichlet(np.ones(3), 20_000))
    true = np.array([rng.choice(3, p=row) for row in np.exp(log_p)])
    sharpened = 2.5 * log_p
    found = fit_temperature(sharpened, true)
    assert found == pytest.approx(2.5, rel=0.05)
    assert ece(tempered(sharpened, found), true) < 0.02 < ece(tempered(sharpened, 1.0), true)
    assert (tempered(sharpened, found).argmax(1) == sharpened.argmax(1)).all()
    assert log_loss(np.log(tempered(sharpened, found)), true) < log_loss(np.log(tempered(sharpened, 1.0)), true)


def test_nothing_asked_is_no_number() -> None:
    nothing = np.empty((0, 3)), np.empty(0, int)
    assert all(np.isnan(metric(*nothing)) for metric in (accuracy, macro_f1, auc, ece))
    assert fit_temperature(*nothing) == 1.0
