"""Rankers without text: order, ties, empty histories, and that each can learn what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from llmrec import config
from llmrec.baselines import ScoreRanker, top
from llmrec.baselines.popular import Popular, shares
from llmrec.baselines.sasrec import SASRec, _windows
from llmrec.baselines.transitions import Transitions, transitions
from llmrec.data.split import History, Query
from llmrec.errors import RecipeError

COUNTS = np.array([5, 0, 2, 2, 1])


def history(*items: int, times: tuple[int, ...] | None = None) -> History:
    return History("u", np.array(items, np.int32), np.array(times if times else range(len(items)), np.int64))


def fitted(*histories: History, items: int = 5, **settings: float) -> Transitions:
    prior = config.Prior.model_validate(settings)
    counts = np.bincount(np.concatenate([h.items for h in histories]), minlength=items)
    return Transitions(transitions(histories, items, prior.window), counts, prior)


def test_top_breaks_ties_by_position_and_fills_up():
    scores = np.array([[1, 3, 3, 2, 3], [0, 0, 0, 0, -np.inf]], np.float32)
    assert top(scores, [(), (0,)], 2).tolist() == [[1, 2], [1, 2]]
    assert top(scores, [(1, 2), (0, 1, 2, 3)], 4).tolist() == [[4, 3, 0, -1], [-1] * 4]
    assert top(scores, [(), ()], 0).shape == (2, 0)
    assert scores[0].tolist() == [1, 3, 3, 2, 3]  # left as it was


@given(
    arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 8)), elements=st.sampled_from([0, 1, 2, -np.inf])),
    st.data(),
)
def test_top_equals_a_sort(scores, data):
    items = scores.shape[1]
    exclude = [data.draw(st.lists(st.integers(0, items - 1))) for _ in scores]
    n = data.draw(st.integers(0, items + 2))
    for row, hidden, found in zip(scores, exclude, top(scores, exclude, n), strict=True):
        left = [i for i in range(items) if i not in hidden and row[i] > -np.inf]
        wanted = sorted(left, key=lambda i: (-row[i], i))[:n]
        assert found.tolist() == wanted + [-1] * (n - len(wanted))


def test_popular_gives_everyone_the_same_but_what_they_had():
    asked = [Query("u", (), 0), Query("v", (0, 3), 1)]
    assert ScoreRanker(Popular(COUNTS)).rank(asked, 5).tolist() == [[0, 2, 3, 4, 1], [2, 4, 1, -1, -1]]
    assert ScoreRanker(Popular(COUNTS), repeats="allow").rank(asked, 2).tolist() == [[0, 2], [0, 2]]


def test_popular_without_interactions_ties():
    assert shares(np.zeros(4)).tolist() == [1 / 4] * 4
    assert ScoreRanker(Popular(np.zeros(3))).rank([Query("u", (1,), 0)], 3).tolist() == [[0, 2, -1]]


def test_blocks_of_queries_change_nothing(monkeypatch):
    asked = [Query("u", (i,), 0) for i in range(5)]
    whole = ScoreRanker(Popular(COUNTS)).rank(asked, 3)
    monkeypatch.setattr("llmrec.baselines._BLOCK", 11)
    assert (ScoreRanker(Popular(COUNTS)).rank(asked, 3) == whole).all()


def test_transitions_count_both_directions_by_distance_within_one_user():
    counts = transitions([history(0, 1, 2), history(3)], 5, window=2).toarray()
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = expected[1, 2] = expected[2, 1] = 1
    expected[0, 2] = expected[2, 0] = 1 / 2
    assert (counts == expected).all()
    assert transitions([history(0, 1, 2)], 5, window=1).toarray()[0, 2] == 0
    assert transitions([], 5, window=3).nnz == 0


def test_next_to_each_other_in_either_order_is_the_same():
    assert (
        transitions([history(0, 1, times=(7, 7))], 2, 1) != transitions([history(1, 0, times=(7, 7))], 2, 1)
    ).nnz == 0


def test_p_is_transitions_and_smoothing_drawn_from_popularity():
    model = fitted(history(0, 1), history(0, 2), history(0, 1), smoothing=1, last=1)
    popularity = np.array([3, 2, 1, 0, 0]) / 6
    assert model.p((0,)).tolist() == pytest.approx((np.array([0, 2, 1, 0, 0]) + popularity) / 4)
    floor = model.settings.floor
    assert model.scores([(0,)])[0] == pytest.approx((1 - floor) * model.p((0,)) + floor * popularity)


def test_the_latest_items_vote_loudest():
    pairs = [history(0, 1), history(2, 3)]
    p = fitted(*pairs, smoothing=0, decay=0.5).p((0, 2))
    assert p.tolist() == pytest.approx([0, 1 / 3, 0, 2 / 3, 0])
    assert fitted(*pairs, smoothing=0, last=1).p((0, 2)).tolist() == [0, 0, 0, 1, 0]


def test_what_says_nothing_leaves_it_to_popularity():
    model = fitted(history(0, 1), history(1, 0), history(1, 2), smoothing=0)
    assert model.p(()).tolist() == pytest.approx(model.popularity)
    assert model.p((4,)).tolist() == pytest.approx(model.popularity)  # never seen in training
    nothing = Transitions(sparse.csr_array((3, 3)), np.zeros(3), config.Prior())
    assert nothing.p((1,)).tolist() == pytest.approx([1 / 3] * 3)


@given(st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=4), st.lists(st.integers(0, 6), max_size=20))
def test_p_is_a_distribution(past, asked):
    histories = [history(*items) for items in past]
    settings = config.Prior(window=3)
    counts = np.bincount(np.array([i for items in past for i in items], int), minlength=7)
    model = Transitions(transitions(histories, 7, 3), counts, settings)
    p = model.p(asked)
    assert p.min() >= 0 and p.sum() == pytest.approx(1)
    assert model.scores([asked, (), asked]).shape == (3, 7) and model.scores([]).shape == (0, 7)


TINY = config.SASRec(dimension=16, blocks=1, dropout=0.1, length=6, learning_rate=0.02, batch=8, epochs=30)


def cycle(length: int, start: int) -> list[int]:
    """Items 0 … 5 in a circle: what comes next is known from the latest item, and all are equally popular."""
    return [(start + i) % 6 for i in range(length)]


def learned(seed: int = 0, valid: tuple[Query, ...] = (), **settings: int) -> SASRec:
    histories = [history(*cycle(4 + start, start)) for start in range(6)]
    return SASRec.fit(histories, 6, valid, TINY.model_copy(update=settings), repeats="allow", seed=seed)


def test_sasrec_learns_what_comes_next():
    scores = learned().scores([(5,), (1, 2), cycle(40, 3)])
    assert scores.shape == (3, 6) and scores.argmax(1).tolist() == [0, 3, (3 + 40) % 6]


def test_sasrec_repeats_with_its_seed_and_leaves_the_global_one_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b, other = learned(epochs=3), learned(epochs=3), learned(1, epochs=3)
    assert torch.equal(torch.rand(1), expected)
    assert (a.scores([(1,)]) == b.scores([(1,)])).all()
    assert (a.scores([(1,)]) != other.scores([(1,)])).any()


def test_sasrec_learns_of_a_wide_catalog_in_parts_as_in_one(monkeypatch):
    windows = [np.arange(i, i + 5) for i in range(6)]
    found = []
    for most in (1 << 26, 100):
        monkeypatch.setattr("llmrec.baselines.sasrec.LOGITS", most)
        torch.manual_seed(0)
        model = SASRec(12, config.SASRec(dropout=0)).train()
        loss = model.loss(windows)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 5
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_sasrec_answers_alone_as_together_and_nothing_too():
    model = learned(epochs=2)
    asked = [(), (1,), tuple(cycle(9, 1)), (3, 4)]
    together = model.scores(asked)
    for alone, row in zip(asked, together, strict=True):
        assert model.scores([alone])[0] == pytest.approx(row, abs=1e-5)
    assert model.scores([]).shape == (0, 6)


def test_sasrec_is_asked_after_its_last_epoch():
    """Whatever `valid_every` says, what comes back has learned."""
    asked = (Query("u", (0, 1), 2),)
    scores = learned(valid=asked, epochs=3, valid_every=5).scores([(5,)])
    assert (scores == learned(epochs=3).scores([(5,)])).all()


def test_sasrec_stops_early_and_keeps_the_best(monkeypatch):
    heard, metrics = [], iter([0.1, 0.5, 0.3, 0.4, 0.9])
    monkeypatch.setattr(SASRec, "ndcg", lambda *_: next(metrics))
    settings = TINY.model_copy(update={"valid_every": 1, "patience": 2, "epochs": 20})
    histories = [history(0, 1, 2)]
    stopped = SASRec.fit(histories, 3, [Query("u", (0,), 1)], settings, tick=lambda done, total: heard.append(done))
    assert heard == [0, 1, 2, 3]  # the second was best and two more were no better
    best = SASRec.fit(histories, 3, [], settings.model_copy(update={"epochs": 2}), seed=0)
    assert stopped.scores([(0,)]) == pytest.approx(best.scores([(0,)]), abs=1e-6)


def test_heads_share_the_dimension_evenly():
    with pytest.raises(RecipeError, match="sasrec.dimension=16 is not a multiple of sasrec.heads=3"):
        learned(heads=3)


@pytest.mark.parametrize("events", [1, 2, 5, 6, 7, 30])
def test_every_event_is_a_target_once_an_epoch(events):
    rng = np.random.default_rng(0)
    for _ in range(5):
        windows = _windows([history(*range(events))], 99, 5, rng, True)
        assert [item for window in windows for item in window[1:]] == list(range(events))
        assert windows[0][0] == 99 and all(2 <= len(window) <= 6 for window in windows)


def test_equal_times_are_reshuffled_only_under_the_basket_rule():
    tied = history(*range(20), times=(3,) * 10 + (4,) * 10)
    rng = np.random.default_rng(0)
    assert _windows([tied], 99, 50, rng, False)[0].tolist() == [99, *range(20)]
    shuffled = _windows([tied], 99, 50, rng, True)[0][1:]
    assert shuffled.tolist() != list(range(20)) and sorted(shuffled[:10]) == list(range(10))
