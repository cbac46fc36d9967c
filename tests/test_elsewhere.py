"""scripts/rank_elsewhere.py: what it does itself; the libraries' own training is minutes, in another environment."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "rank_elsewhere.py"))


def test_the_best_items_without_those_of_the_history():
    items = np.array(["a", "b", "c"])
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    assert SCRIPT["best_of"](scores, items, [["a"], ["x"], ["a", "b", "c"]]) == [["b", "c"], ["b", "c", "a"], []]
    assert scores[0, 0] == 3  # as it was


def test_ndcg_at_ten():
    long = [str(i) for i in range(20)]
    found = SCRIPT["ndcg"]([long, long, long, []], ["0", "2", "10", "0"])
    assert found == pytest.approx((1 + 1 / 2) / 4)


def test_the_lists_are_those_of_the_best_epoch():
    best = pd.DataFrame({"query": [0], "user_id": ["u"], "history": [["b"]]})
    data = {"valid": best.assign(target=["a"]), "questions": best}
    reached = iter([["x"], ["x", "a"], ["x", "y", "a"], ["x", "y", "z", "a"], ["a"]])
    now: list[list[str]] = []
    found = SCRIPT["early_stopped"](lambda: now.append(next(reached)), lambda asked: [now[-1]], data, patience=2)
    assert found == [["x", "a"]] and len(now) == 4  # the fifth would have been better, and is never reached
