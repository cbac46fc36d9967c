"""Exact search against scoring every choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.choices.bonus import Except, without
from llmrec.choices.identifiers import identifiers
from llmrec.choices.search import Bonus, Choices, _bounded, log_p_all, merged, rank, score
from llmrec.choices.trie import ChoiceTrie
from llmrec.engine import Node, Prompt
from llmrec.engine.fake import FakeEngine
from llmrec.errors import ChoiceError, ScoreError

titles = st.lists(
    st.text(max_size=4) | st.sampled_from(["Heat", "Heat 2", "Hea", "", "七人", "Amélie", "Ame\u0301lie"]),
    min_size=1, max_size=30,
)  # fmt: skip
bonuses = st.floats(-20, 20, width=32) | st.just(-math.inf)


def encode(texts: list[str]) -> list[list[int]]:
    """One token per code point, then a terminator."""
    return [[*map(ord, text), 10] for text in texts]


def choices_of(names: list[str]) -> Choices:
    return Choices(ChoiceTrie.build(identifiers(names, [None] * len(names), encode, max_tokens=12)[1]))


def brute_force(log_p: np.ndarray, bonus: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    total = log_p.astype(np.float64) + bonus
    order = np.lexsort((np.arange(len(total)), -total))
    order = order[np.isfinite(total[order])][:n]
    return order, total[order]


@given(titles, st.data(), st.integers(1, 12))
def test_search_equals_brute_force(names: list[str], data: st.DataObject, n: int) -> None:
    choices, engine, prompts = choices_of(names), FakeEngine(), [Prompt((1,)), Prompt((2, 3))]
    drawn = st.lists(bonuses, min_size=len(choices), max_size=len(choices))
    bonus = [np.array(data.draw(drawn), np.float32) for _ in prompts]
    whole = log_p_all(engine, prompts, choices)
    np.testing.assert_allclose(np.exp(whole.astype(np.float64)).sum(1), 1, atol=1e-5)
    for i, found in enumerate(rank(engine, prompts, choices, lambda i: bonus[i], n)):
        items, total = brute_force(whole[i], bonus[i], n)
        assert len(found.items) == len(items) and found.exact
        np.testing.assert_allclose(found.score, total, atol=1e-4)
        np.testing.assert_allclose(found.log_p, whole[i][found.items], atol=1e-4)
        clear = np.diff(total, append=-np.inf, prepend=np.inf)
        for k in np.flatnonzero((clear[:-1] < -1e-3) & (clear[1:] < -1e-3)):  # rounding may swap what is closer
            assert found.items[k] == items[k]


def test_bonuses_of_ones_own_are_held_for_some_prompts_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog's worth of numbers for each; what is shared is held once, however many prompts share it."""
    choices, engine = choices_of([f"Film {i}" for i in range(40)]), FakeEngine(group=16)
    prompts = [Prompt((i,)) for i in range(30)]
    bonus = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    asked: list[int] = []
    branch = engine.branch
    monkeypatch.setattr(
        engine, "branch", lambda nodes: (asked.append(len({n.prompt for n in nodes})), branch(nodes))[1]
    )

    def found(of: Bonus) -> tuple[list[tuple[list[int], list[float]]], int]:
        asked.clear()
        lists = [(one.items.tolist(), one.score.tolist()) for one in rank(engine, prompts, choices, of, 5)]
        return lists, max(asked)

    whole, together = found(lambda i: bonus[i])
    assert together == 16
    monkeypatch.setattr("llmrec.choices.search.HELD", 4 * len(choices))
    assert found(lambda i: bonus[i]) == (whole, 4)
    assert found(lambda i: without(len(choices), [i], bonus[0]))[1] == found(bonus[0])[1] == 16
    monkeypatch.setattr("llmrec.choices.search.HELD", 1)
    assert found(lambda i: bonus[i]) == (whole, 1)


@given(titles, st.data(), st.integers(1, 12), st.booleans())
def test_exceptions_to_a_shared_bonus_are_the_same_bonus_written_out(
    names: list[str], data: st.DataObject, n: int, with_base: bool
) -> None:
    old, new = choices_of(names).trie, choices_of(["Newcomer", "News", "Fargo"]).trie
    choices, engine, prompts = Choices(old, new, 0.3), FakeEngine(), [Prompt((1,)), Prompt((2, 3))]
    drawn = st.lists(bonuses, min_size=len(choices), max_size=len(choices))
    base = np.array(data.draw(drawn), np.float32) if with_base else None
    few = [data.draw(st.dictionaries(st.integers(0, len(choices) - 1), bonuses, max_size=6)) for _ in prompts]
    terms = [
        Except(len(choices), np.array(list(some), np.int64), np.array(list(some.values()), np.float32), base)
        for some in few
    ]
    short = rank(engine, prompts, choices, lambda i: terms[i], n)
    long = rank(engine, prompts, choices, lambda i: terms[i].dense(), n)
    for a, b in zip(short, long, strict=True):
        assert a.items.tolist() == b.items.tolist()
        np.testing.assert_array_equal(a.score, b.score)


@given(titles, st.integers(1, 8), st.floats(0.01, 0.99))
def test_newcomers_never_reorder_the_trained(names: list[str], n: int, share: float) -> None:
    old, new = choices_of(names).trie, choices_of(["Newcomer", "News", "Fargo"]).trie
    engine, prompts = FakeEngine(), [Prompt((4,))]
    before = rank(engine, prompts, Choices(old), None, len(old))[0].items.tolist()
    both = Choices(old, new, share)
    after = rank(engine, prompts, both, None, len(both))[0]
    assert [item for item in after.items.tolist() if item < len(old)] == before
    np.testing.assert_allclose(np.exp(after.log_p.astype(np.float64)).sum(), 1, atol=1e-5)


@given(titles, st.data(), st.integers(1, 12), st.floats(0.01, 0.99))
def test_two_searches_of_the_parts_are_one_of_the_whole(
    names: list[str], data: st.DataObject, n: int, share: float
) -> None:
    old, new = choices_of(names).trie, choices_of(["Newcomer", "News", "Fargo"]).trie
    choices, engine = Choices(old, new, share), FakeEngine(group=1, groups=data.draw(st.integers(1, 2)))
    prompts = [Prompt((1,)), Prompt((2, 3)), Prompt((4,))]  # a group each: one search does not touch the next
    bonus = np.array(data.draw(st.lists(bonuses, min_size=len(choices), max_size=len(choices))), np.float32)
    whole = rank(engine, prompts, choices, bonus, n)
    known = rank(engine, prompts, choices, bonus, n, part=0)
    assert all((one.items < len(old)).all() for one in known)
    least = [float(one.score[-1]) if len(one.score) == n else -np.inf for one in known]
    newcomers = rank(engine, prompts, choices, bonus, n, part=1, least=least)
    for one, *parts in zip(whole, known, newcomers, strict=True):
        both = merged(*parts, n)
        assert both.items.tolist() == one.items.tolist() and both.exact == one.exact
        np.testing.assert_array_equal(both.log_p, one.log_p)
        np.testing.assert_array_equal(both.score, one.score)


@given(titles, st.floats(0, 1))
def test_newcomers_are_trusted_as_far_as_asked(names: list[str], trust: float) -> None:
    old, new = choices_of(["Old", "Older"]).trie, choices_of([*names, "Fargo"]).trie
    engine, prompts = FakeEngine(), [Prompt((4,))]
    choices = Choices(old, new, 0.3, trust)
    [log_p] = log_p_all(engine, prompts, choices)
    assert np.exp(log_p[2:].astype(np.float64)).sum() == pytest.approx(0.3, abs=1e-5)
    np.testing.assert_allclose(log_p[:2], log_p_all(engine, prompts, Choices(old, new, 0.3))[0][:2])
    if trust == 0:
        np.testing.assert_allclose(log_p[2:], np.log(0.3 / len(new)), atol=1e-5)
    ranking = rank(engine, prompts, choices, None, len(choices))[0]
    assert [log_p[i] for i in ranking.items] == pytest.approx(ranking.log_p.tolist(), abs=1e-5)
    [some] = score(engine, prompts, choices, [[0, 2]])
    assert some.tolist() == pytest.approx([log_p[0], log_p[2]], abs=1e-5)


class Scripted(FakeEngine):
    """p of every token, whatever the prompt."""

    def __init__(self, p: dict[tuple[int, ...], list[float]]):
        super().__init__()
        self.p = p

    def _log_p(self, node: Node) -> np.ndarray:
        return np.log(np.array(self.p[node.path], np.float32))


def test_a_mask_prunes_and_renormalises_nothing() -> None:
    """A → {a1 .63 masked, a2 .07}, B → {b .3}: the right order is b, a2; a masked softmax says a2."""
    choices = Choices(ChoiceTrie.build([[1, 1], [1, 2], [2, 9]]))
    engine = Scripted({(): [0.7, 0.3], (1,): [0.9, 0.1]})
    found = rank(engine, [Prompt((0,))], choices, np.array([-np.inf, 0, 0], np.float32), 3)[0]
    assert found.items.tolist() == [2, 1]
    np.testing.assert_allclose(np.exp(found.log_p), [0.3, 0.07], atol=1e-6)


def test_equal_scores_keep_the_catalogs_order() -> None:
    choices = Choices(ChoiceTrie.build([[3, 1], [1, 1], [2, 1], [1, 2]]))
    engine = Scripted({(): [0.5, 0.25, 0.25], (1,): [0.5, 0.5]})
    assert rank(engine, [Prompt((0,))], choices, None, 2)[0].items.tolist() == [0, 1]


@pytest.mark.parametrize("n", [1, 10])
def test_every_child_of_a_wide_node_that_might_lead_to_the_top_is_opened(n: int) -> None:
    """Behind each of 500 beginnings the bonus promises what the model then calls improbable."""
    choices = Choices(ChoiceTrie.build([[i, j] for i in range(500) for j in (1000, 1001)]))
    rng = np.random.default_rng(0)
    bonus = np.tile(np.float32([5, -5]), 500) + np.round(rng.normal(size=1000), 1).astype(np.float32)  # some are equal
    bonus[rng.random(1000) < 0.1] = -np.inf
    engine = Scripted({(): [1 / 500] * 500} | {(i,): [0.001, 0.999] for i in range(500)})
    whole = log_p_all(engine, [Prompt((0,))], choices)[0]
    found = rank(engine, [Prompt((0,))], choices, bonus, n)[0]
    assert found.items.tolist() == brute_force(whole, bonus, n)[0].tolist()
    open_at_all = np.isfinite(bonus).reshape(-1, 2).any(1).sum()
    assert open_at_all / 2 < found.expansions <= 1 + open_at_all


def test_corner_cases_are_answered() -> None:
    engine, prompts = FakeEngine(), [Prompt((1,)), Prompt((2,))]
    one = Choices(ChoiceTrie.build([[5, 6]]))
    alone = rank(engine, prompts, one, None, 10)
    assert [found.items.tolist() for found in alone] == [[0], [0]] and alone[0].log_p[0] == 0
    assert engine.branched == []  # nothing to decide, nothing asked
    three = Choices(ChoiceTrie.build([[1], [2], [3]]))
    nothing = rank(engine, prompts, three, np.full(3, -np.inf, np.float32), 10)
    assert [len(found.items) for found in nothing] == [0, 0]
    assert rank(engine, [], three, None, 3) == []


def test_all_prompts_of_a_group_share_each_wave() -> None:
    engine = FakeEngine(group=8)
    rng = np.random.default_rng(0)
    choices = Choices(ChoiceTrie.build(np.unique(rng.integers(0, 30, (2000, 3)), axis=0)))
    found = rank(engine, [Prompt((i,)) for i in range(16)], choices, None, 10)
    assert len(engine.branched) == sum(max(f.waves for f in found[g : g + 8]) for g in (0, 8))
    assert sum(engine.branched) == sum(f.expansions for f in found)
    assert max(f.expansions for f in found) < len(choices.trie.node_lo) / 4


def test_a_group_that_ends_leaves_its_place_to_the_next() -> None:
    """Three groups at once: as many waves as a queue would take, fuller ones, and the same lists."""
    rng = np.random.default_rng(0)
    choices = Choices(ChoiceTrie.build(np.unique(rng.integers(0, 30, (2000, 3)), axis=0)))
    prompts = [Prompt((i,)) for i in range(24)]
    alone, three = FakeEngine(group=2), FakeEngine(group=2, groups=3)
    done: list[int] = []
    one, other = rank(alone, prompts, choices, None, 10), rank(three, prompts, choices, None, 10, progress=done.append)
    assert [(a.items.tolist(), a.waves) for a in one] == [(b.items.tolist(), b.waves) for b in other]
    assert sum(done) == 24 and sum(three.branched) == sum(alone.branched)
    waves = [max(found.waves for found in one[at : at + 2]) for at in range(0, 24, 2)]
    free = [0, 0, 0]
    for length in waves:  # each group goes where a place is free first
        free[free.index(min(free))] += length
    assert len(three.branched) == max(free) < len(alone.branched)


def test_given_candidates_are_scored_as_in_the_whole() -> None:
    engine, prompts = FakeEngine(), [Prompt((1,)), Prompt((2,))]
    choices = Choices(choices_of(["Heat", "Heat 2", "Fargo", "Far"]).trie, choices_of(["New", "Newer"]).trie, 0.2)
    whole = log_p_all(engine, prompts, choices)
    some = score(engine, prompts, choices, [[0, 3, 5], []])
    np.testing.assert_allclose(some[0], whole[0][[0, 3, 5]], atol=1e-5)
    assert len(some[1]) == 0


def test_candidates_are_scored_in_runs_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = choices_of([f"{a} {b} {c}" for a in "xyz" for b in "pqr" for c in "uvw"])
    prompts = [Prompt((i,)) for i in range(7)]
    candidates = [[*range(i * 4)] for i in range(7)]
    whole = score(FakeEngine(), prompts, choices, candidates)
    for opened in (1, 50, 400):
        monkeypatch.setattr("llmrec.choices.search.OPENED", opened)
        engine = FakeEngine()
        for ours, theirs in zip(score(engine, prompts, choices, candidates), whole, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert len(engine.branched) > 1
    assert list(_bounded({3: 20, 1: 1, 2: 1})) == [[3], [1, 2]]


def test_waves_are_asked_in_runs_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = choices_of([f"{a} {b} {c}" for a in "xyz" for b in "pqr" for c in "uvw"])
    prompts = [Prompt((i,)) for i in range(7)]
    whole, engine = rank(FakeEngine(), prompts, choices, None, 10), FakeEngine()
    monkeypatch.setattr("llmrec.choices.search.OPENED", 50)
    for ours, theirs in zip(rank(engine, prompts, choices, None, 10), whole, strict=True):
        assert ours.items.tolist() == theirs.items.tolist() and ours.waves == theirs.waves
    assert len(engine.branched) > max(found.waves for found in whole)


def test_a_list_comes_from_one_version_of_an_adapter() -> None:
    class Changing(FakeEngine):
        """Knows by `pinned` which version answers, and is asked for no other."""

        def pinned(self, prompts: Sequence[Prompt]) -> list[Prompt]:
            return [replace(prompt, adapter="films-1") for prompt in prompts]

        def branch(self, nodes: Sequence[Node]) -> list[np.ndarray]:
            assert {node.prompt.adapter for node in nodes} == {"films-1"}
            return super().branch(nodes)

    choices = choices_of(["Heat", "Heat 2", "Fargo", "Far and Away"])
    [once] = rank(FakeEngine(), [Prompt((1,), "films-1")], choices, None, 3)
    [found] = rank(Changing(), [Prompt((1,), "films")], choices, None, 3)
    assert found.waves > 1 and found.items.tolist() == once.items.tolist()
    log_p_all(Changing(), [Prompt((1,), "films")], choices)


def test_scores_that_are_no_numbers_are_no_short_list() -> None:
    class Broken(FakeEngine):
        def branch(self, nodes: Sequence[Node]) -> list[np.ndarray]:
            return [np.full(len(node.children), np.nan, np.float32) for node in nodes]

    choices = choices_of(["Heat", "Heat 2", "Fargo"])
    for ask in (
        lambda: rank(Broken(), [Prompt((1,))], choices, None, 2),
        lambda: log_p_all(Broken(), [Prompt((1,))], choices),
        lambda: score(Broken(), [Prompt((1,))], choices, [[0]]),
    ):
        with pytest.raises(ScoreError, match="no numbers"):
            ask()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bonus_that_is_no_bonus(value: float) -> None:
    choices = Choices(ChoiceTrie.build([[1], [2]]))
    with pytest.raises(ChoiceError, match="NaN or"):
        rank(FakeEngine(), [Prompt((1,))], choices, np.array([0, value], np.float32), 1)
    with pytest.raises(ChoiceError, match="shape"):
        rank(FakeEngine(), [Prompt((1,))], choices, np.zeros(3, np.float32), 1)
    with pytest.raises(ChoiceError, match="NaN or"):
        rank(FakeEngine(), [Prompt((1,))], choices, Except(2, np.array([1]), np.array([value], np.float32)), 1)
    with pytest.raises(ChoiceError, match="for 3 choices"):
        rank(FakeEngine(), [Prompt((1,))], choices, without(3, [0]), 1)
    with pytest.raises(ChoiceError, match="n=0"):
        rank(FakeEngine(), [Prompt((1,))], choices, None, 0)
