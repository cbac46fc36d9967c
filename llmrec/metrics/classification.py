"""How good labels and their probabilities are.  `p` is (examples, labels), `true` (examples,) label numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

BINS = 15  # of the calibration error


def accuracy(p: np.ndarray, true: np.ndarray) -> float:
    """Share of examples whose most probable label is right; NaN without examples."""
    return float((p.argmax(1) == true).mean()) if len(true) else np.nan


def top_3(p: np.ndarray, true: np.ndarray) -> float:
    """Share of examples whose true label is among the three most probable (ties: before those that come later)."""
    best = np.argsort(-p, axis=1, kind="stable")[:, :3]
    return float((best == true[:, None]).any(1).mean()) if len(true) else np.nan


def f1(p: np.ndarray, true: np.ndarray) -> np.ndarray:
    """F1 of each label, (labels,): harmonic mean of precision and recall; 0 for a label never found, NaN for one that
    is neither there nor said."""
    said, labels = p.argmax(1), p.shape[1]
    hits = np.bincount(true[said == true], minlength=labels)
    involved = np.bincount(said, minlength=labels) + np.bincount(true, minlength=labels)
    return np.divide(2.0 * hits, involved, out=np.full(labels, np.nan), where=involved > 0)


def macro_f1(p: np.ndarray, true: np.ndarray) -> float:
    """Mean F1 over labels; a label that is neither there nor said is left out."""
    each = f1(p, true)
    return float(np.nanmean(each)) if not np.isnan(each).all() else np.nan


def auc(p: np.ndarray, true: np.ndarray) -> float:
    """Mean over labels of the probability that an example of the label gets more of it than one of another (ties
    half); labels that all or none have are left out."""
    found = []
    for label in range(p.shape[1]):
        positive = true == label
        n, m = int(positive.sum()), int((~positive).sum())
        if n and m:
            found.append((rankdata(p[:, label])[positive].sum() - n * (n + 1) / 2) / (n * m))
    return float(np.mean(found)) if found else np.nan


def ece(p: np.ndarray, true: np.ndarray) -> float:
    """Expected calibration error: mean distance between how sure and how right the most probable label is, over 15
    bins of equal width."""
    if not len(true):
        return np.nan
    sure, right = p.max(1), p.argmax(1) == true
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.abs(np.bincount(place, sure, BINS) - np.bincount(place, right.astype(float), BINS))
    return float(gaps.sum() / len(true))


def log_loss(log_p: np.ndarray, true: np.ndarray) -> float:
    """Mean nats of the true label."""
    return float(-log_p[np.arange(len(true)), true].mean())


def tempered(log_p: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at a temperature: above 1 less sure, the order is the same."""
    scaled = np.asarray(log_p, np.float64) / temperature
    p = np.exp(scaled - scaled.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def fit_temperature(log_p: np.ndarray, true: np.ndarray) -> float:
    """The temperature between 0.1 and 10 with the least log loss (Guo et al. 2017); 1 without examples."""
    from scipy.optimize import minimize_scalar

    if not len(true):
        return 1.0

    def loss(log_temperature: float) -> float:
        return log_loss(np.log(np.maximum(tempered(log_p, float(np.exp(log_temperature))), 1e-12)), true)

    bound = float(np.log(10))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "auc": auc,
    "ece": ece,
}


def metrics(labels: int) -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    """What is measured where there are so many labels: among three, the three most probable are all."""
    return METRICS | ({"top_3": top_3} if labels > 3 else {})
