"""Every item of a domain, in the order that numbers the choices."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from llmrec.data.dataset import Dataset
from llmrec.errors import DataError


@dataclass(frozen=True, eq=False)  # a key by identity: what is derived from one is kept with it
class Catalog:
    """Items by position 0 … n-1; all lists have one entry per item."""

    item_id: list[str]
    title: list[str]
    year: list[int | None]
    categories: list[tuple[str, ...]]

    @classmethod
    def of(cls, dataset: Dataset) -> Catalog:
        items = dataset.items
        return cls(
            item_id=items["item_id"].tolist(),
            title=items["title"].tolist(),
            year=[None if year is pd.NA else int(year) for year in items["year"]],
            categories=[tuple(names) for names in items["categories"]],
        )

    def __len__(self) -> int:
        return len(self.item_id)

    @cached_property
    def position(self) -> dict[str, int]:
        """Item id → position."""
        return {item_id: i for i, item_id in enumerate(self.item_id)}

    @cached_property
    def category_names(self) -> list[str]:
        """All categories of its items, in the order of the alphabet."""
        return sorted({name for own in self.categories for name in own})

    @cached_property
    def categories_by_name(self) -> dict[str, str]:
        """Every category, by its name in small letters."""
        return {name.casefold(): name for name in self.category_names}

    @cached_property
    def digest(self) -> str:
        """First 12 hex digits of SHA-256 over ids, titles, years and categories, in order."""
        rows = [self.item_id, self.title, self.year, self.categories]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]

    def positions(self, item_ids: pd.Series) -> np.ndarray:
        """Positions of many ids, int32.  Raises: DataError naming the first id that the catalog lacks."""
        found = pd.Index(self.item_id).get_indexer(item_ids)
        if (found < 0).any():
            unknown = item_ids.iloc[int(np.argmin(found >= 0))]
            raise DataError(f"item {unknown!r} is not in the catalog of {len(self):,} items")
        return found.astype(np.int32)

    def popularity(self, interactions: pd.DataFrame) -> np.ndarray:
        """Number of training interactions of every item, (items,) int64; all interactions where none are split."""
        if "split" in interactions:
            interactions = interactions[interactions["split"] == "train"]
        return np.bincount(self.positions(interactions["item_id"]), minlength=len(self))
