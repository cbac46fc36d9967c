"""interest: which categories a person chooses next, as probabilities; the reply is one of the domain's categories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.tasks.follow_up import shares

HORIZON = 10  # how many of the next items say what somebody wanted


def expected(categories: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """(names,) float32: shares of what was chosen next; zeros where none of it has a category."""
    found = shares(categories)
    return np.array([found.get(name, 0.0) for name in names], np.float32)
