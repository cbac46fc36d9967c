"""What people wrote of items, as examples: what is known of a person and an item, and the text that came of it.

No text that is asked for, no pair of person and item with one, and nothing that was written later is known to any
other example, or to the example itself.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llmrec import config
from llmrec.data import sources
from llmrec.data.names import meant_id, plain_ids
from llmrec.data.reviews import alike, split_digest
from llmrec.data.sample import at_most
from llmrec.data.sentences import Features, reason
from llmrec.data.split import SPLITS
from llmrec.errors import DataError, did_you_mean

EARLIER = 6  # items of a history that an example knows, the latest
NOW = 2**62  # after all that is known
SAID = 2  # sentences of other people that stand for a text on the item, the latest


@dataclass(frozen=True)
class Item:
    """What is known of an item; `about` may be empty."""

    title: str
    about: str


@dataclass(frozen=True)
class Example:
    """What is known, and the text that is right."""

    user_id: str
    item_id: str
    """Empty where the text is on the person alone."""
    split: str
    person: str
    """A text on the person; empty where there is none."""
    earlier: tuple[Item, ...]
    """What else the person chose, before where times are known; oldest first, the last six."""
    item: Item
    text: str

    @property
    def told(self) -> str:
        """All that is known, as one text."""
        items = [one for one in (*self.earlier, self.item) if one.title or one.about]
        return "\n".join(filter(None, [self.person, *(f"{one.title}: {one.about}" for one in items)]))


@dataclass(frozen=True)
class Pairs:
    """Texts of people on items, and which split each belongs to."""

    table: pd.DataFrame
    """Columns of `sources.read_pairs` and split, by time within a person, rows without a text left out."""
    timed: bool
    history: dict[str, list[str]]
    """Person → more items that were chosen, of unknown time; those that texts are on."""
    features: Features
    """What the training texts speak of."""
    sides: dict[str, str]
    """Person → split of a text on them; empty where there are none."""

    @classmethod
    def read(cls, source: config.ReviewSource, resolve: Callable[[str], Path]) -> Pairs:
        """The source's texts, split.

        With times a person's last text is for testing and the one before for validation, where there are three.
        Without, whole people are drawn.  A text (but for case and white space) or a pair that stands in test is left
        out of validation and training, one in validation out of training.

        Raises: DataError.
        """
        table, timed = sources.read_pairs(source, resolve)
        if source.history and timed:
            raise DataError(
                f"{source.history.path}: choices without times beside texts with them: which came first? "
                "Leave out data.history, or map no column of times (one called timestamp: rename it)"
            )
        table = table[table["review"].notna()].sort_values("timestamp", kind="stable").reset_index(drop=True)
        sides = {}
        if not timed or table["person"].notna().any():
            sides = dict(zip(table["user_id"], _by_person(table["user_id"], source), strict=True))
        table["split"] = _by_time(table) if timed else table["user_id"].map(sides)
        table = table[sources.without(table["user_id"], source, resolve)].reset_index(drop=True)
        seen = table["split"] == "train"
        features = Features.of(table.loc[seen, "review"], table.loc[seen, "item_id"])
        if source.sentence:
            found = [reason(text, features) for text in table["review"]]
            table["review"] = [one.sentence if one else None for one in found]
            table = table[table["review"].notna()].reset_index(drop=True)
        table = _apart(table)
        for name in SPLITS:
            if not (table["split"] == name).any():
                raise DataError(f"{source.path}: no text is left for the split '{name}'; give more, or other shares")
        history: dict[str, list[str]] = defaultdict(list)
        if source.history:
            more = sources.read_chosen(source.history, resolve)
            known = more["user_id"].isin(table["user_id"]) & more["item_id"].isin(table["item_id"])
            for user, item in more[known].itertuples(index=False):
                history[user].append(item)
        return cls(table, timed, dict(history), features, sides)

    @property
    def digest(self) -> str:
        """First 12 hex digits of SHA-256 over texts, splits and histories."""
        rows = pd.util.hash_pandas_object(self.table, index=False).to_numpy()
        sha256 = hashlib.sha256(rows.tobytes())
        sha256.update(json.dumps(self.history, sort_keys=True).encode())
        if self.timed and self.sides:  # which are not those of the texts
            sha256.update(json.dumps([2, self.sides], sort_keys=True).encode())  # 2: texts on these are told apart
        return sha256.hexdigest()[:12]

    @property
    def split_digest(self) -> str:
        """Of who lies on which side; empty where texts alone have sides, by their times: what was learned from is never
        asked later."""
        people = pd.Series(self.sides, dtype="str")
        return split_digest(people.index.to_series(), people) if len(people) else ""

    @property
    def items(self) -> dict[str, Item]:
        """What the source says of each item that it gives a title, or a text."""
        known = self.table.drop_duplicates("item_id")
        return {
            row.item_id: Item(_str(row.title), _str(row.about))
            for row in known.itertuples()
            if _str(row.title) or _str(row.about)
        }

    def of_items(self) -> list[Example]:
        """An example per text: it is what the person says of the item.  An item without a text on it has what others
        wrote before, in training texts.  A text on a person that is asked for elsewhere is in no training example."""
        items, chosen, said = self.items, self._chosen(), self._said()
        return [
            Example(
                row.user_id, row.item_id, row.split,
                "" if row.split == "train" != self.sides.get(row.user_id, "train") else _str(row.person),
                self._before(chosen[row.user_id], row.item_id, row.timestamp, items),
                _known(items.get(row.item_id), self._others(said[row.item_id], row.user_id, row.timestamp, row.review)),
                row.review,
            )
            for row in self.table.itertuples()
        ]  # fmt: skip

    def of_people(self) -> list[Example]:
        """An example per person with a text on them, and items to tell it from.  Whole people are split.

        Raises: DataError where there are none.
        """
        items, chosen = self.items, self._chosen()
        people = self.table[self.table["person"].notna()].drop_duplicates("user_id")
        if people.empty:
            raise DataError("no text on a person; map columns.person")
        rows = people.assign(review=people["person"], split=people["user_id"].map(self.sides), item_id="")
        examples = []
        for row in _apart(rows).itertuples():
            before = self._before(chosen[row.user_id], "", NOW, items)
            examples.append(Example(row.user_id, "", row.split, "", before, Item("", ""), row.person))
        if not (told := [example for example in examples if example.earlier]):
            raise DataError(
                f"none of the {len(people):,} people with a text has chosen an item whose title or description is "
                "known; map columns.title or columns.about, or name a file of items"
            )
        return told

    def about(self, user: str, item: str = "") -> Example:
        """What is known by now of a person, and of an item by its id or title.

        Raises: DataError for somebody or something that no text is on, or a title of several items.
        """
        mine = self.table[self.table["user_id"] == user]
        if mine.empty:
            near = meant_id(user, plain_ids(self.table["user_id"])) or "; name one of them"
            raise DataError(f"no user '{user}' among those whose texts are known{near}")
        found = self._named(item) if item else ""
        person = mine["person"].dropna().tolist()
        known = _known(self.items.get(found), self._others(self._said()[found], user, NOW, ""))
        before = self._before(self._chosen()[user], found, NOW, self.items)
        return Example(user, found, "", person[0] if person else "", before, known, "")

    def _named(self, item: str) -> str:
        """The id of an item that is given by id or title."""
        items = self.items
        if item in items:
            return item
        found = [one for one, known in items.items() if known.title.casefold() == item.strip().casefold()]
        if not found:
            raise DataError(f"no item '{item}'{did_you_mean(item, [known.title for known in items.values()])}")
        if len(found) > 1:
            raise DataError(f"{len(found)} items are called '{item}'; name one by its id: {', '.join(found[:5])}")
        return found[0]

    def _chosen(self) -> dict[str, list[tuple[int, str]]]:
        """Person → (time, item), oldest first; what has no time first."""
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for user, more in self.history.items():
            found[user] += [(0, item) for item in more]
        for row in self.table.itertuples():
            found[row.user_id].append((row.timestamp, row.item_id))
        return found

    def _before(
        self, chosen: list[tuple[int, str]], item: str, time: int, items: dict[str, Item]
    ) -> tuple[Item, ...]:  # fmt: skip
        """Other items than `item` that somebody chose; strictly before `time`, where there are times."""
        others = dict.fromkeys(
            one for when, one in chosen if one != item and one in items and (when < time or not self.timed)
        )
        return tuple(items[one] for one in others)[-EARLIER:]

    def _said(self) -> dict[str, list[tuple[int, str, str]]]:
        """Item → (time, person, text) of training texts, oldest first."""
        found: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        for row in self.table[self.table["split"] == "train"].itertuples():
            found[row.item_id].append((row.timestamp, row.user_id, row.review))
        return found

    def _others(self, said: list[tuple[int, str, str]], user: str, time: int, text: str) -> str:
        """The latest that other people wrote, in other words than `text`; strictly before `time`, where there are
        times."""
        texts = [
            one
            for when, who, one in said
            if who != user and one.casefold() != text.casefold() and (when < time or not self.timed)
        ]
        return " ".join(texts[-SAID:])


def _by_time(table: pd.DataFrame) -> np.ndarray:
    """(texts,) of a table by time: the last of a person is test, the one before valid."""
    groups = table.groupby("user_id", sort=False)
    left = groups.cumcount(ascending=False).to_numpy()
    enough = groups["user_id"].transform("size").to_numpy() >= 3
    return np.where(enough & (left == 0), "test", np.where(enough & (left == 1), "valid", "train")).astype(object)


def _by_person(users: pd.Series, source: config.ReviewSource) -> np.ndarray:
    """(texts,) where a random order of the different people is cut.  Raises: DataError where a side stays empty."""
    user, found = pd.factorize(users, sort=True)
    place = np.empty(len(found), np.int64)
    place[np.random.default_rng(source.seed).permutation(len(found))] = np.arange(len(found))
    test, valid = round(len(found) * source.test), round(len(found) * source.valid)
    if min(test, valid) < 1 or test + valid >= len(found):
        raise DataError(f"{len(found):,} people are too few to split; give more, or other shares")
    side = np.where(place < test, 2, np.where(place < test + valid, 1, 0))
    return np.array(SPLITS, dtype=object)[side[user]]


def _apart(table: pd.DataFrame) -> pd.DataFrame:
    """Without texts and pairs that stand in a split that is asked later."""
    text = alike(table["review"])
    pair = pd.Series(list(zip(table["user_id"], table["item_id"], strict=True)), table.index)
    kept = pd.Series(True, table.index)
    for i, name in enumerate(SPLITS):
        later = table["split"].isin(SPLITS[i + 1 :])
        kept &= ~((table["split"] == name) & (text.isin(set(text[later])) | pair.isin(set(pair[later]))))
    return table[kept].reset_index(drop=True)


def _known(item: Item | None, said: str) -> Item:
    """What the source says of an item; else what others wrote."""
    return Item(item.title if item else "", (item.about if item else "") or said)


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""


def of_split(examples: Sequence[Example], split: str, most: int, seed: int) -> list[Example]:
    """A fixed random sample of a split, in order; 0 keeps all."""
    return at_most([example for example in examples if example.split == split], most, seed)
