"""Positions number the choices; the digest tells catalogs apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.errors import DataError


@pytest.fixture
def dataset() -> Dataset:
    items = pd.DataFrame({"item_id": ["x", "y", "z"], "title": ["X", "Y", "Z"], "year": [2000, None, 2001],
                          "categories": [["A", "B"], [], None]})  # fmt: skip
    events = pd.DataFrame({"user_id": ["u"] * 4, "item_id": ["z", "x", "z", "x"], "timestamp": [1, 2, 3, 4]})
    return Dataset.of(events.assign(split=["train", "train", "train", "test"]), items)


def test_lists_follow_the_items(dataset):
    catalog = Catalog.of(dataset)
    assert len(catalog) == 3
    assert catalog.title == ["X", "Y", "Z"]
    assert catalog.year == [2000, None, 2001] and type(catalog.year[0]) is int
    assert catalog.categories == [("A", "B"), (), ()]
    assert catalog.position == {"x": 0, "y": 1, "z": 2}


def test_popularity_counts_training_interactions_only(dataset):
    catalog = Catalog.of(dataset)
    assert catalog.popularity(dataset.interactions).tolist() == [1, 0, 2]
    assert catalog.popularity(dataset.interactions.drop(columns="split")).tolist() == [2, 0, 2]
    assert catalog.popularity(dataset.interactions[:0]).tolist() == [0, 0, 0]


def test_positions_of_many_ids(dataset):
    catalog = Catalog.of(dataset)
    found = catalog.positions(pd.Series(["z", "x", "z"]))
    assert found.tolist() == [2, 0, 2] and found.dtype == np.int32
    with pytest.raises(DataError, match="item 'nope' is not in the catalog of 3 items"):
        catalog.positions(pd.Series(["z", "nope", "other"]))


def test_the_digest_sees_every_list_and_the_order(dataset):
    catalog = Catalog.of(dataset)
    others = [
        replace(catalog, item_id=["x", "y", "w"]),
        replace(catalog, title=["X", "Y", "W"]),
        replace(catalog, year=[2000, None, None]),
        replace(catalog, categories=[("A",), (), ()]),
        Catalog(*(list(reversed(rows)) for rows in (catalog.item_id, catalog.title, catalog.year, catalog.categories))),
    ]
    digests = {catalog.digest, *(other.digest for other in others)}
    assert len(digests) == 6
    assert Catalog.of(dataset).digest == catalog.digest and len(catalog.digest) == 12
