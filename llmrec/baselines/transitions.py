"""Item-item transitions: what others chose close in time to what this person chose last.

Two events of one training history at distance d (up to `window`) count 1/d, in both directions.  Both directions
together gave a better ndcg@10 than forward alone on every MovieLens 100K split, and they make the order that a source
invents for equal times all but irrelevant.  The counts of an item become probabilities after `smoothing` transitions
drawn from popularity are added, so that an item seen twice says little.  The last items of a history vote, the latest
loudest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from llmrec import config
from llmrec.baselines.popular import shares
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import History, histories


class Transitions:
    """p(next item | history) over a catalog, and a scorer that adds the popularity floor."""

    def __init__(self, counts: sparse.csr_array, interactions: np.ndarray, settings: config.Prior) -> None:
        """`counts`: (items, items) weighted transitions; `interactions`: (items,) training interactions."""
        self.settings = settings
        self.popularity = shares(interactions)  # (items,) float64
        self.items = len(self.popularity)
        room = np.asarray(counts.sum(1)).reshape(-1) + settings.smoothing
        self._p = sparse.csr_array(sparse.diags_array(_inverse(room)) @ counts)  # (items, items), rows sum to ≤ 1

    @classmethod
    def fit(cls, dataset: Dataset, catalog: Catalog, settings: config.Prior | None = None) -> Transitions:
        """Counts the training interactions of `dataset`."""
        settings = settings or config.Prior()
        counts = transitions(histories(dataset, catalog), len(catalog), settings.window)
        return cls(counts, catalog.popularity(dataset.interactions), settings)

    def p(self, history: Sequence[int]) -> np.ndarray:
        """(items,) float64 probabilities that sum to 1; those of popularity where the history says nothing."""
        return self._mixed([history])[0]

    def scores(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        """(queries, items) float32: (1 - floor) · p + floor · popularity."""
        floor = self.settings.floor
        return ((1 - floor) * self._mixed(histories) + floor * self.popularity).astype(np.float32)

    def _mixed(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        p = (self._votes(histories) @ self._p).toarray()
        rest = np.maximum(1 - p.sum(1, keepdims=True), 0)  # what the votes leave to popularity
        return p + rest * self.popularity

    def _votes(self, histories: Sequence[Sequence[int]]) -> sparse.csr_array:
        """(queries, items) weights of the last items; a row sums to 1, or to 0 for an empty history."""
        settings = self.settings
        latest = [np.asarray(history, np.int64)[-settings.last :][::-1] for history in histories]
        lengths = [len(items) for items in latest]
        weights = [settings.decay ** np.arange(length) for length in lengths]
        shares_of_votes = np.concatenate([[], *(w / w.sum() for w in weights if len(w))])
        items, ends = np.concatenate([np.empty(0, np.int64), *latest]), np.cumsum([0, *lengths])
        return sparse.csr_array((shares_of_votes, items, ends), shape=(len(latest), self.items))


def transitions(histories: Sequence[History], items: int, window: int) -> sparse.csr_array:
    """(items, items) float64, symmetric: for each pair of events of one history at distance d ≤ `window` 1/d in both
    directions, be they of one item or two."""
    sequence = np.concatenate([*(history.items for history in histories), np.empty(0, np.int32)])
    user = np.repeat(np.arange(len(histories)), [len(history.items) for history in histories])
    forward = sparse.csr_array((items, items), dtype=np.float64)
    for distance in range(1, window + 1):
        earlier, later = sequence[:-distance], sequence[distance:]
        together = user[:-distance] == user[distance:]
        weights = np.full(int(together.sum()), 1 / distance)
        forward = forward + sparse.coo_array(
            (weights, (earlier[together], later[together])), shape=(items, items)
        ).tocsr()  # fmt: skip
    return sparse.csr_array(forward + forward.T)


def _inverse(values: np.ndarray) -> np.ndarray:
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)
