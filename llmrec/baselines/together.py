"""Which items people choose together: how many chose both, against how many chose either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import histories

FEWEST = 3  # people; what fewer chose together says nothing


class Together:
    """Cosine similarity of items over the people of the training interactions."""

    def __init__(self, chosen: sparse.csc_array) -> None:
        """`chosen`: (users, items), 1 where a person chose an item."""
        self.chosen = chosen
        self.people = np.asarray(chosen.sum(0)).reshape(-1)

    @classmethod
    def fit(cls, dataset: Dataset, catalog: Catalog) -> Together:
        """Counts the training interactions of `dataset`."""
        found = [np.unique(history.items) for history in histories(dataset, catalog)]
        items = np.concatenate([*found, np.empty(0, np.int32)])
        ends = np.cumsum([0, *map(len, found)])
        matrix = sparse.csr_array((np.ones(len(items)), items, ends), shape=(len(found), len(catalog)))
        return cls(sparse.csc_array(matrix))

    def similar(self, item: int, others: Sequence[int], own: int = 0) -> np.ndarray:
        """(others,) float64 similarity to `item`; 0 where fewer than three people chose both.

        Args:
            own: people to leave out of every count: 1 where the person asked for chose all of them in training.
        """
        others = np.asarray(others, np.int64)
        both = (self.chosen[:, others].T @ self.chosen[:, [item]].toarray()).reshape(-1) - own
        either = np.sqrt(np.maximum(self.people[item] - own, 1) * np.maximum(self.people[others] - own, 1))
        return np.where(both >= FEWEST, both / either, 0.0)

    def nearest(self, item: int, others: Sequence[int], own: int = 0) -> int | None:
        """Place in `others`, the last where it stands there several times, of what most people chose together with
        `item`, itself left out; None where nobody did."""
        others = np.asarray(others)
        similar = np.where(others == item, 0.0, self.similar(item, others, own))
        return int(np.flatnonzero(others == others[similar.argmax()])[-1]) if similar.any() else None
