"""A domain's interactions, items and users; prepared, they are a folder of Parquet files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec.data.records import MAX_INTERACTIONS, MAX_ITEMS, one_line
from llmrec.errors import DataError
from llmrec.files import digest, whole

FORMAT = 1
MANIFEST = "manifest.json"
FILES = ("catalog.parquet", "interactions.parquet", "users.parquet")


@dataclass(frozen=True)
class Dataset:
    """Every item and user of the interactions has a row; what has no interaction may have one, too."""

    interactions: pd.DataFrame
    """user_id, item_id (str), timestamp (int64, UTC seconds), rating (float32, NaN where unknown), review (str or
    missing) and, once split, split (`train`, `valid`, `test`).  Users in order of first appearance; within a user
    oldest first, equal times in the source's order."""
    items: pd.DataFrame
    """item_id, title (str), year (Int64), categories (list of str).  Row = position in the catalog."""
    users: pd.DataFrame
    """user_id."""
    timed: bool = True
    """False where the source knows only the order of a user's events: timestamps are then positions."""

    @classmethod
    def of(
        cls,
        interactions: pd.DataFrame,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        timed: bool = True,
    ) -> Dataset:
        """Sorts the interactions and gives unknown items (titled by their id) and users a row at the end."""
        if len(interactions) > MAX_INTERACTIONS:
            raise DataError(f"{len(interactions):,} interactions; the limit is {MAX_INTERACTIONS:,}")
        events = interactions.assign(
            user_id=interactions["user_id"].astype("str"), item_id=interactions["item_id"].astype("str"),
            timestamp=interactions["timestamp"].astype("int64"),
        )  # fmt: skip
        events["rating"] = events["rating"].astype("float32") if "rating" in events else np.float32("nan")
        events["review"] = pd.Series(events.get("review"), events.index, dtype="str")
        user = pd.factorize(events["user_id"])[0]
        order = np.lexsort((events["timestamp"].to_numpy(), user))  # stable: equal times keep the source's order
        columns = ["user_id", "item_id", "timestamp", "rating", "review", *(["split"] if "split" in events else [])]
        events = events[columns].iloc[order].reset_index(drop=True)

        items = _with_all(items, "item_id", events)
        if len(items) > MAX_ITEMS:
            raise DataError(f"{len(items):,} items; the limit is {MAX_ITEMS:,}")
        title = items["title"] if "title" in items else pd.Series(None, items.index, dtype="str")
        year = items["year"] if "year" in items else pd.Series(pd.NA, items.index, dtype="Int64")
        categories = items["categories"] if "categories" in items else [()] * len(items)
        items = items.assign(
            title=_named(title.astype("str"), items["item_id"]), year=year.astype("Int64"),
            categories=pd.Series([list(c) if isinstance(c, (list, tuple, np.ndarray)) else [] for c in categories],
                                 items.index, dtype=object),
        )  # fmt: skip
        items = items[["item_id", "title", "year", "categories"]]
        return cls(events, items, _with_all(users, "user_id", events), timed)

    def only(self, keep: np.ndarray) -> Dataset:
        """The same items and users with the interactions where `keep` (interactions,) is true."""
        return replace(self, interactions=self.interactions[keep].reset_index(drop=True))

    def only_of(self, keep: np.ndarray) -> Dataset:
        """The same items with the users where `keep` (users,) is true, and what they chose."""
        users = self.users[keep].reset_index(drop=True)
        found = self.only(self.interactions["user_id"].isin(users["user_id"]).to_numpy())
        return replace(found, users=users)

    def counts(self) -> dict[str, int]:
        """Users, items, distinct categories, interactions, and interactions per split once split."""
        counts = {
            "users": len(self.users), "items": len(self.items),
            "categories": len({name for names in self.items["categories"] for name in names}),
            "interactions": len(self.interactions),
        }  # fmt: skip
        if "split" in self.interactions:
            per_split = self.interactions["split"].value_counts()
            counts |= {name: int(per_split.get(name, 0)) for name in ("train", "valid", "test")}
        return counts

    @cached_property
    def held_out(self) -> str:
        """First 12 hex digits of SHA-256 over what is kept from training, in whatever order."""
        rows = self.interactions[self.interactions["split"] != "train"]
        lines = sorted(zip(rows["user_id"], rows["item_id"], rows["split"], strict=True))
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:12]

    def ties(self) -> float:
        """Share of interactions with the same user and time as the one before; 0 without interactions."""
        return float(1 - new_basket(self.interactions).mean()) if len(self.interactions) else 0.0

    def save(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Writes the Parquet files and, last, the manifest (`manifest` plus format, counts and digests of the files).

        Until the manifest is there the folder counts as incomplete.  Raises: DataError where the disk refuses.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MANIFEST).unlink(missing_ok=True)
            for name, frame in zip(FILES, (self.items, self.interactions, self.users), strict=True):
                frame.to_parquet(folder / name, index=False)
            manifest = {
                "format": FORMAT, **manifest, "timed": self.timed, "ties": round(self.ties(), 4),
                "counts": self.counts(), "files": {name: digest(folder / name) for name in FILES},
            }  # fmt: skip
            with whole(folder / MANIFEST) as partial:
                partial.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be written: {error.strerror or error}; free space, or set LLMREC_HOME to a folder "
                "that can be written"
            ) from None

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Raises: DataError where the folder is missing, incomplete, of another format, or changed since."""
        manifest = read_manifest(folder)
        if manifest is None:
            raise DataError(f"{folder}: no prepared data (no {MANIFEST}); run `llmrec prepare` again")
        again = "delete the folder; it is prepared again when it is needed"
        if manifest.get("format") != FORMAT:
            raise DataError(f"{folder}: format {manifest.get('format')}, this version reads {FORMAT}; {again}")
        try:
            for name in FILES:
                if digest(folder / name) != manifest["files"][name]:
                    raise DataError(f"{folder / name}: changed since it was prepared; {again}")
            items, events, users = (pd.read_parquet(folder / name) for name in FILES)
        except (OSError, KeyError, TypeError, pa.ArrowException) as error:
            raise DataError(f"{folder}: cannot be read: {error}; {again}") from None
        items["categories"] = pd.Series([list(c) for c in items["categories"]], items.index, dtype=object)
        return cls(events, items, users, bool(manifest["timed"]))


def new_basket(interactions: pd.DataFrame) -> np.ndarray:
    """(interactions,) bool: the event has another user or time than the one before it."""
    new = np.ones(len(interactions), dtype=bool)
    user, time = pd.factorize(interactions["user_id"])[0], interactions["timestamp"].to_numpy()
    new[1:] = (user[1:] != user[:-1]) | (time[1:] != time[:-1])
    return new


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a prepared folder; None where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _named(title: pd.Series, item_id: pd.Series) -> pd.Series:
    """Titles; an item without one is called what its id looks like on one line."""
    nameless = title.isna()
    return title.mask(nameless, item_id[nameless].map(lambda one: one_line(one) or one))


def _with_all(rows: pd.DataFrame | None, key: str, events: pd.DataFrame) -> pd.DataFrame:
    known = pd.DataFrame({key: []}) if rows is None else rows
    known = known.assign(**{key: known[key].astype("str")})
    seen = pd.Series(events[key].unique(), dtype="str")
    missing = seen[~seen.isin(known[key])]
    return pd.concat([known, pd.DataFrame({key: missing})], ignore_index=True)
