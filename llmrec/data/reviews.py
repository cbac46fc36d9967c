"""Reviews, split by row.  Nobody is named: a review is a text, a rating and what it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llmrec import config
from llmrec.data.records import LEVELS
from llmrec.data.sources import read_reviews, without
from llmrec.data.split import SPLITS
from llmrec.errors import DataError


@dataclass(frozen=True)
class Reviews:
    """Reviews and which split each belongs to."""

    table: pd.DataFrame
    """Columns review, rating, headline, item_id, category, split; in the source's order."""
    split_digest: str
    """Of which texts lie on which side, those of people who are left out, too."""

    @classmethod
    def read(cls, source: config.ReviewSource, resolve: Callable[[str], Path]) -> Reviews:
        """The source's reviews, split.  Raises: DataError."""
        table = read_reviews(source, resolve)
        table = table.assign(split=split(table["review"], source))
        digest = split_digest(table["review"], table["split"])
        if source.leave_out is not None:
            user_id = table.pop("user_id")
            table = table[without(user_id, source, resolve)].reset_index(drop=True)
        return cls(table, digest)

    def part(self, name: str) -> pd.DataFrame:
        """The reviews of one split, in order."""
        return self.table[self.table["split"] == name].reset_index(drop=True)

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories of the source, whatever the split, in order."""
        return tuple(sorted(self.table["category"].dropna().unique()))

    @property
    def digest(self) -> str:
        """First 12 hex digits of SHA-256 over texts, ratings and splits."""
        rows = pd.util.hash_pandas_object(self.table, index=False).to_numpy()
        return hashlib.sha256(rows.tobytes()).hexdigest()[:12]


def alike(texts: pd.Series) -> pd.Series:
    """The texts but for case and white space."""
    return texts.str.casefold().str.split().str.join(" ")


def split_digest(texts: pd.Series, splits: pd.Series) -> str:
    """First 12 hex digits of SHA-256 over which texts (but for case and white space) lie on which side, in any order:
    the same whatever else is read of them."""
    lines = sorted({*(splits + " " + alike(texts))})
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def split(texts: pd.Series, source: config.ReviewSource) -> np.ndarray:
    """(reviews,) train, valid or test.  A random order of the different texts is cut, so that equal texts (but for
    case and white space) never lie on two sides.  Raises: DataError where a side stays empty."""
    text, found = pd.factorize(alike(texts))
    place = np.empty(len(found), np.int64)
    place[np.random.default_rng(source.seed).permutation(len(found))] = np.arange(len(found))
    held_out = round(len(found) * source.test), round(len(found) * source.valid)
    if min(held_out) < 1 or sum(held_out) >= len(found):
        raise DataError(f"{len(found):,} different reviews are too few to split; give more, or other shares")
    side = np.where(place < held_out[0], 2, np.where(place < sum(held_out), 1, 0))
    return np.array(SPLITS, dtype=object)[side[text]]


def broader(labels: Sequence[str], level: int) -> tuple[tuple[str, ...], np.ndarray]:
    """The labels cut to their first `level` levels (0: whole), and which of these each label is, (labels,)."""
    cut = [LEVELS.join(label.split(LEVELS)[: level or None]) for label in labels]
    groups = tuple(dict.fromkeys(cut))
    return groups, np.array([groups.index(one) for one in cut])
