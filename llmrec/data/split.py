"""Which interactions are learned from, which are asked for, and what is known at the moment of asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llmrec import config
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset, new_basket
from llmrec.data.sample import at_most, sampled
from llmrec.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class History:
    """A user's interactions, oldest first."""

    user_id: str
    items: np.ndarray  # (events,) int32 catalog positions
    timestamps: np.ndarray  # (events,) int64 UTC seconds


@dataclass(frozen=True)
class Query:
    """What is known of a user at the moment of asking, and what truly came next; catalog positions."""

    user_id: str
    history: tuple[int, ...]  # oldest first, whole; may be empty
    target: int


@dataclass(frozen=True)
class Person:
    """What is known of a user before the first interaction of a split, and what was chosen in it; catalog positions,
    oldest first."""

    user_id: str
    history: tuple[int, ...]
    after: tuple[int, ...]


def people(asked: Sequence[Query]) -> list[Person]:
    """One of each user, with the history of the first query; users without a history are left out."""
    first: dict[str, Query] = {}
    after: dict[str, list[int]] = {}
    for query in asked:
        first.setdefault(query.user_id, query)
        after.setdefault(query.user_id, []).append(query.target)
    return [Person(user, one.history, tuple(after[user])) for user, one in first.items() if one.history]


def split(dataset: Dataset, settings: config.Split) -> Dataset:
    """Adds the column `split`.  Baskets change what a query may see, never which events are held out.

    `time`: the last share of all interactions is `test`, the share before it `valid`; equal times never straddle a
    cut, so a share can come out larger than asked.  `leave_one_out`: a user's last event is `test`, the one before
    `valid`; users with fewer than three events are all `train`.
    Raises: DataError where a time cut leaves a split empty or the source has no times.
    """
    by_name = _by_time if settings.method == "time" else _leave_one_out
    labels = pd.Series(np.array(SPLITS, dtype=object)[by_name(dataset, settings)], dtype="str")
    return replace(dataset, interactions=dataset.interactions.assign(split=labels))


def k_core(dataset: Dataset, k: int) -> Dataset:
    """Leaves out users and items with fewer than `k` training interactions, again until none is left, with all
    their interactions.  The other splits decide nothing.  Raises: DataError where nothing remains."""
    if k == 0:
        return dataset
    events = dataset.interactions
    user, users = pd.factorize(events["user_id"])
    item, items = pd.factorize(events["item_id"])
    train = (events["split"] == "train").to_numpy()
    user_stays, item_stays = np.ones(len(users), bool), np.ones(len(items), bool)
    while True:
        stays = user_stays[user] & item_stays[item]
        before = user_stays.sum() + item_stays.sum()
        user_stays &= np.bincount(user[stays & train], minlength=len(users)) >= k
        item_stays &= np.bincount(item[stays & train], minlength=len(items)) >= k
        if user_stays.sum() + item_stays.sum() == before:
            break
    if not stays.any():
        raise DataError(f"data.k_core={k} leaves no interactions; lower it")
    return replace(
        dataset.only(stays),
        items=dataset.items[dataset.items["item_id"].isin(items[item_stays])].reset_index(drop=True),
        users=dataset.users[dataset.users["user_id"].isin(users[user_stays])].reset_index(drop=True),
    )


def histories(dataset: Dataset, catalog: Catalog, name: str | None = "train") -> list[History]:
    """Each user's interactions of one split (None: of all), oldest first; users without any are left out."""
    events = dataset.interactions
    if name is not None:
        events = events[events["split"] == name]
    if not len(events):
        return []
    items, times = catalog.positions(events["item_id"]), events["timestamp"].to_numpy()
    starts = _starts(events["user_id"])
    users = events["user_id"].iloc[starts]
    ends = [*starts[1:], len(events)]
    return [
        History(user, items[a:b], times[a:b]) for user, a, b in zip(users, starts.tolist(), ends, strict=True)
    ]  # fmt: skip


def queries(dataset: Dataset, catalog: Catalog, name: str, *, baskets: bool, max_targets: int) -> list[Query]:
    """Each user's first `max_targets` interactions of split `name`, asked one by one as histories roll forward.

    A history holds what came before the target in any split: with `baskets` strictly earlier times only, else all
    that stands before it in order.
    """
    events = dataset.interactions
    asked = np.flatnonzero(events["split"] == name)
    if not len(asked):
        return []
    user = pd.factorize(events["user_id"])[0]  # ascending, as users stand in order of first appearance
    among_own = np.arange(len(asked)) - np.searchsorted(user[asked], user[asked])
    asked = asked[among_own < max_targets]

    place = np.arange(len(events))
    begin = _starts(events["user_id"])[user[asked]]
    end = np.maximum.accumulate(np.where(new_basket(events), place, 0))[asked] if baskets else asked
    items = catalog.positions(events["item_id"]).tolist()
    users = events["user_id"].iloc[asked]
    return [
        Query(user_id, tuple(items[a:b]), items[i])
        for user_id, a, b, i in zip(users, begin.tolist(), end.tolist(), asked.tolist(), strict=True)
    ]


def of_users(asked: Sequence[Query], most: int, seed: int) -> list[Query]:
    """The queries of a fixed random sample of users, in their order; 0 keeps all."""
    kept = {*at_most(list(dict.fromkeys(query.user_id for query in asked)), most, seed)}
    return [query for query in asked if query.user_id in kept]


def one_of_each(asked: Sequence[Query], most: int, seed: int) -> list[Query]:
    """One query of each of `most` users drawn at random, itself drawn from the user's: by time, the first ones have
    short histories or none.  In their order."""
    own: dict[str, list[Query]] = {}
    for query in asked:
        own.setdefault(query.user_id, []).append(query)
    rng = np.random.default_rng((seed, 1))
    return [mine[rng.integers(len(mine))] for mine in sampled([*own.values()], most, seed)]


def _by_time(dataset: Dataset, settings: config.Split) -> np.ndarray:
    if not dataset.timed:
        raise DataError("split.method=time needs timestamps and the source has none; use split.method=leave_one_out")
    times = dataset.interactions["timestamp"].to_numpy()
    n = len(times)
    if not n:
        raise DataError("split by time: there are no interactions")
    test = _cut(times, round(n * settings.test))
    valid = _cut(times[times < test], round(n * settings.valid))
    labels = (times >= valid).astype(int) + (times >= test)
    for i, name in enumerate(SPLITS):
        if not (labels == i).any():
            raise DataError(
                f"split by time leaves no {name} events among {n:,} interactions with {len(np.unique(times)):,} "
                "different times; use split.method=leave_one_out, or other shares split.valid and split.test"
            )
    return labels


def _cut(times: np.ndarray, last: int) -> int:
    """The time at which the `last` (at least one) of `times` begin; without any, before everything."""
    return np.sort(times)[-min(max(last, 1), len(times))] if len(times) else np.iinfo(np.int64).min


def _leave_one_out(dataset: Dataset, settings: config.Split) -> np.ndarray:
    events = dataset.interactions
    labels = np.zeros(len(events), dtype=int)
    if not len(events):
        return labels
    starts = _starts(events["user_id"])
    ends = np.append(starts[1:], len(events))
    ends = ends[ends - starts >= 3]
    labels[ends - 1], labels[ends - 2] = 2, 1
    return labels


def _starts(user_id: pd.Series) -> np.ndarray:
    """First row of each user, in order; rows are grouped by user."""
    user = pd.factorize(user_id)[0]
    return np.flatnonzero(np.diff(user, prepend=-1))
