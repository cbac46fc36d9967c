"""Nothing that is asked for is known before it is asked, and baskets never change what is asked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec import config
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import Query, histories, k_core, one_of_each, queries, split
from llmrec.errors import DataError

TIME, LAST = config.Split(valid=0.2, test=0.2), config.Split(method="leave_one_out")


def dataset(*rows: tuple[str, str, int], timed: bool = True) -> Dataset:
    return Dataset.of(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), timed=timed)


def labels(data: Dataset) -> list[str]:
    return data.interactions["split"].tolist()


def asked(data: Dataset, name: str, *, baskets: bool, max_targets: int = 20) -> list[tuple[str, str, str]]:
    """(user, items of the history, target item) of every query, items joined by their one-letter ids."""
    catalog = Catalog.of(data)
    found = queries(data, catalog, name, baskets=baskets, max_targets=max_targets)
    ids = catalog.item_id
    return [(q.user_id, "".join(ids[i] for i in q.history), ids[q.target]) for q in found]


# u:  a1 b2 c2 d7 e9 f9      v:  c3 a4 b8 g9
WORLD = dataset(
    ("u", "a", 1), ("u", "b", 2), ("v", "c", 3), ("u", "c", 2), ("v", "a", 4), ("u", "d", 7), ("v", "b", 8),
    ("u", "e", 9), ("u", "f", 9), ("v", "g", 9),
)  # fmt: skip


def test_time_cuts_everybody_at_once():
    # times 1 2 2 3 4 7 8 9 9 9: the last two begin at 9 (all three go to test), the two before that at 7
    assert labels(split(WORLD, TIME)) == ["train"] * 3 + ["valid", "test", "test"] + ["train", "train", "valid", "test"]


def test_leave_one_out_takes_the_last_two():
    assert labels(split(WORLD, LAST)) == ["train"] * 4 + ["valid", "test"] + ["train", "train", "valid", "test"]


def test_leave_one_out_keeps_short_users_for_training():
    short = split(
        dataset(("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("w", "a", 1), ("w", "b", 2), ("w", "c", 3)), LAST
    )
    assert labels(short) == ["train"] * 3 + ["train", "valid", "test"]


def test_histories_roll_forward():
    data = split(WORLD, TIME)
    assert asked(data, "valid", baskets=True) == [("u", "abc", "d"), ("v", "ca", "b")]
    assert asked(data, "test", baskets=False) == [("u", "abcd", "e"), ("u", "abcde", "f"), ("v", "cab", "g")]


def test_a_basket_is_no_context_for_itself():
    data = split(WORLD, TIME)
    assert asked(data, "test", baskets=True) == [("u", "abcd", "e"), ("u", "abcd", "f"), ("v", "cab", "g")]
    assert asked(split(WORLD, LAST), "test", baskets=True) == [("u", "abcd", "f"), ("v", "cab", "g")]
    assert asked(split(WORLD, LAST), "test", baskets=False) == [("u", "abcde", "f"), ("v", "cab", "g")]


def test_a_newcomer_is_asked_with_an_empty_history():
    rows = [("u", item, time) for time, item in enumerate("abcdefgh")]
    data = split(dataset(*rows, ("new", "a", 8), ("new", "b", 8)), TIME)
    assert asked(data, "test", baskets=True) == [("new", "", "a"), ("new", "", "b")]
    assert asked(data, "test", baskets=False) == [("new", "", "a"), ("new", "a", "b")]


def test_max_targets_are_each_users_first():
    data = split(WORLD, TIME)
    assert asked(data, "test", baskets=False, max_targets=1) == [("u", "abcd", "e"), ("v", "cab", "g")]


def test_validation_asks_each_user_once_anywhere():
    asked = [Query(user, tuple(range(before)), before) for user in "uvw" for before in range(20)]
    drawn = [one_of_each(asked, 2, seed) for seed in range(200)]
    assert all(len({query.user_id for query in found}) == len(found) == 2 for found in drawn)
    assert {query.user_id for found in drawn for query in found} == {*"uvw"}
    places = [query.target for found in drawn for query in found]
    assert {*places} == {*range(20)}  # the first of all has no history
    assert np.bincount(places).max() < 40
    assert drawn[0] == one_of_each(asked, 2, 0)
    assert one_of_each(asked, 5, 0) == sorted(one_of_each(asked, 5, 0), key=lambda query: query.user_id)
    assert one_of_each(asked, 0, 0) == [] == one_of_each([], 3, 0)


def test_a_query_holds_positions():
    data = split(WORLD, TIME)  # catalog in order of the sorted interactions: a b c d e f g
    found = queries(data, Catalog.of(data), "valid", baskets=True, max_targets=20)
    assert found == [Query("u", (0, 1, 2), 3), Query("v", (2, 0), 1)]


def test_training_histories_stop_at_the_cut():
    data = split(WORLD, TIME)
    catalog = Catalog.of(data)
    train = histories(data, catalog)
    assert [(h.user_id, h.items.tolist(), h.timestamps.tolist()) for h in train] == [
        ("u", [0, 1, 2], [1, 2, 2]),
        ("v", [2, 0], [3, 4]),
    ]
    assert train[0].items.dtype == np.int32
    assert [(h.user_id, h.items.tolist()) for h in histories(data, catalog, "valid")] == [("u", [3]), ("v", [1])]
    assert [h.items.tolist() for h in histories(data, catalog, None)] == [[0, 1, 2, 3, 4, 5], [2, 0, 1, 6]]


def test_nothing_asked_is_no_query():
    data = split(dataset(("u", "a", 1)), LAST)
    assert queries(data, Catalog.of(data), "test", baskets=True, max_targets=20) == []
    assert histories(data, Catalog.of(data), "test") == []


@pytest.mark.parametrize(
    "data, problem",
    [
        (dataset(("u", "a", 1), ("u", "b", 1), ("v", "a", 1)), "leaves no train events among 3 .* 1 different times"),
        (dataset(("u", "a", 1), ("u", "b", 2), ("v", "a", 2)), "leaves no train events among 3 .* 2 different times"),
        (dataset(("u", "a", 0), ("u", "b", 1), ("v", "a", 0), timed=False), "needs timestamps.*leave_one_out"),
        (dataset(), "there are no interactions"),
    ],
)
def test_an_impossible_time_cut_says_so(data, problem):
    with pytest.raises(DataError, match=problem):
        split(data, TIME)


def test_k_core_is_repeated_until_nothing_falls_out():
    # c has one user; without c, w has one item; without w, b has one user; u and v then hold a (and d) twice
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "d", 3), ("v", "a", 1), ("v", "d", 2), ("w", "c", 1), ("w", "b", 2)]
    data = dataset(*rows)
    data = Dataset.of(data.interactions.assign(split="train"), data.items, data.users)
    core = k_core(data, 2)
    assert core.interactions["item_id"].tolist() == ["a", "d", "a", "d"]
    assert core.items["item_id"].tolist() == ["a", "d"] and core.users["user_id"].tolist() == ["u", "v"]
    assert k_core(data, 0) is data
    with pytest.raises(DataError, match="k_core=3 leaves no interactions"):
        k_core(data, 3)


def test_k_core_counts_training_only():
    rows = dataset(("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 2)).interactions
    data = Dataset.of(rows.assign(split=["train", "test", "train", "train"]))
    core = k_core(data, 1)
    assert core.counts() == {
        "users": 2,
        "items": 2,
        "categories": 0,
        "interactions": 4,
        "train": 3,
        "valid": 0,
        "test": 1,
    }
    assert Catalog.of(k_core(data, 1)).popularity(core.interactions).tolist() == [2, 1]
    with pytest.raises(DataError):  # b has two interactions, one of them in training; without b, v falls, then a
        k_core(data, 2)


EVENTS = st.lists(st.tuples(st.sampled_from("uvwx"), st.integers(0, 12)), min_size=1, max_size=40)
SETTINGS = st.sampled_from([config.Split(valid=0.2, test=0.3), LAST])


def distinct(rows: list[tuple[str, int]]) -> Dataset:
    """Every event has its own item, so that an item says which event it is."""
    return dataset(*((user, f"{i}", time) for i, (user, time) in enumerate(rows)))


def try_split(rows: list[tuple[str, int]], settings: config.Split) -> Dataset | None:
    try:
        return split(distinct(rows), settings)
    except DataError:
        return None


@given(EVENTS, SETTINGS, st.sampled_from(["valid", "test"]), st.booleans(), st.integers(1, 5))
def test_a_history_is_exactly_what_came_before(rows, settings, name, baskets, max_targets):
    if (data := try_split(rows, settings)) is None:
        return
    events = data.interactions
    time, split_of = (events.set_index("item_id")[c].to_dict() for c in ("timestamp", "split"))
    own = {user: frame["item_id"].tolist() for user, frame in events.groupby("user_id")}
    ids = Catalog.of(data).item_id
    for query in queries(data, Catalog.of(data), name, baskets=baskets, max_targets=max_targets):
        target, history = ids[query.target], [ids[i] for i in query.history]
        place = own[query.user_id].index(target)
        earlier = own[query.user_id][:place]
        assert split_of[target] == name
        assert target not in history
        assert history == [item for item in earlier if not baskets or time[item] < time[target]]


@given(EVENTS, SETTINGS, st.integers(1, 5))
def test_baskets_never_change_what_is_asked(rows, settings, max_targets):
    if (data := try_split(rows, settings)) is None:
        return
    with_baskets = split(data, settings.model_copy(update={"baskets": True}))
    without = split(data, settings.model_copy(update={"baskets": False}))
    assert labels(with_baskets) == labels(without)
    for name in ("valid", "test"):
        pairs = [
            [(q.user_id, q.target) for q in queries(data, Catalog.of(data), name, baskets=b, max_targets=max_targets)]
            for b in (True, False)
        ]
        assert pairs[0] == pairs[1]


@given(EVENTS)
def test_time_never_runs_backwards_over_a_cut(rows):
    if (data := try_split(rows, config.Split(valid=0.2, test=0.3))) is None:
        return
    time = data.interactions.groupby("split")["timestamp"]
    assert time.max()["train"] < time.min()["valid"] and time.max()["valid"] < time.min()["test"]
    n = len(rows)
    assert (data.interactions["split"] == "test").sum() >= round(0.3 * n)
    assert (data.interactions["split"] == "valid").sum() >= round(0.2 * n)


@given(EVENTS)
def test_leave_one_out_holds_out_one_event_of_each_long_user(rows):
    data = split(distinct(rows), LAST)
    for _, frame in data.interactions.groupby("user_id"):
        own = frame["split"].tolist()
        assert own == (["train"] * (len(own) - 2) + ["valid", "test"] if len(own) >= 3 else ["train"] * len(own))
