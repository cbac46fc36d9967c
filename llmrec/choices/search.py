"""Exact ranking of a closed set: best-first search over the choice trie, in waves over all prompts.

log p only falls along a path, so the best bonus below a node bounds every score below it, and the first n leaves that
no open bound exceeds are the true top n of the whole set.  No beam width, no invalid reply, no length bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from llmrec.choices.bonus import Except
from llmrec.choices.trie import ChoiceTrie
from llmrec.engine import Engine, Node, Prompt
from llmrec.errors import ChoiceError, ScoreError

HELD = 1 << 25  # values of bonuses of prompts' own in flight at a time, and as many again of the next: 800 MB
OPENED = 1 << 26  # decisions of a prompt, squared, times prompts: what an attention mask of all of them grows with
WIDER = 1.25  # how many of the best bounds a wave opens, as a multiple of n
LOOKED_AT = 4  # children of a wide node that are looked at, as a multiple of how many a wave opens

LOWEST = np.finfo(np.float64).min  # the least bound that is one

OneBonus = np.ndarray | Except | None
Bonus = OneBonus | Callable[[int], OneBonus]


@dataclass(frozen=True)
class Choices:
    """A closed set: the trained choices 0 … n-1 and, in a trie of their own, newcomers n … n+m-1.

    p = (1 - new_share) · p of the trained trie, new_share · p of the newcomers': adding newcomers never reorders the
    others among themselves.  At each of the newcomers' decisions p is that of the model to the power of `trust`, times
    the share of the newcomers that lie behind a child to the power of 1 - trust: with 0 all are as probable.
    """

    trie: ChoiceTrie
    new: ChoiceTrie | None = None
    new_share: float = 0.0
    trust: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.trust <= 1:
            raise ChoiceError(f"trust={self.trust}: between 0 and 1")
        if self.new is not None and not 0 < self.new_share < 1:
            raise ChoiceError(f"new_share={self.new_share}: newcomers need a share between 0 and 1, both excluded")

    def __len__(self) -> int:
        return len(self.trie) + (len(self.new) if self.new else 0)

    def parts(self) -> list[tuple[ChoiceTrie, int, float]]:
        """(trie, its first choice, log of its share)."""
        if self.new is None:
            return [(self.trie, 0, 0.0)]
        shares = np.log([1 - self.new_share, self.new_share])
        return [(self.trie, 0, float(shares[0])), (self.new, len(self.trie), float(shares[1]))]

    def trusted(self, part: int, node: int, log_p: np.ndarray) -> np.ndarray:
        """(children,) log p of a node's children in this set, from what the model says."""
        if part == 0 or self.new is None or self.trust == 1:
            return log_p
        here = slice(self.new.child_offsets[node], self.new.child_offsets[node + 1])
        behind = np.log(self.new.child_hi[here] - self.new.child_lo[here])
        mixed = self.trust * log_p.astype(np.float64) + (1 - self.trust) * behind
        return mixed - np.logaddexp.reduce(mixed)


@dataclass(frozen=True)
class Ranking:
    """The top of one prompt, best first; choices of equal score by position."""

    items: np.ndarray  # (≤ n,) int64 choices; fewer than n where the bonus leaves fewer
    log_p: np.ndarray  # (≤ n,) float32 nats under the whole set, whatever is masked
    score: np.ndarray  # (≤ n,) float32 nats, log p + bonus
    exact: bool  # proven, on an engine that computes in float32
    expansions: int  # nodes opened
    waves: int  # rounds of requests


def rank(
    engine: Engine,
    prompts: Sequence[Prompt],
    choices: Choices,
    bonus: Bonus,
    n: int,
    *,
    part: int | None = None,
    least: Sequence[float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Ranking]:
    """The true top `n` by log p + bonus, for each prompt.

    Args:
        bonus: (choices,) nats for all prompts, or a function from a prompt's index to such an array; -inf removes a
            choice and prunes what leads to nothing else, while every softmax stays over the node's full children.
            An `Except` costs by what it lists, where an array of its own per prompt costs by the catalog.
        part: 0 looks among the trained choices alone, 1 among the newcomers; log p stays that under the whole set.
        least: a score for each prompt that choices need to be of interest; of those below it any may be missing.
        progress: told how many prompts were finished since the last call.

    Raises: ChoiceError for a bonus that is NaN, +inf or of another length.
    """
    if n < 1:
        raise ChoiceError(f"n={n}: ask for at least one")
    prompts = engine.pinned(prompts)
    result: list[Ranking | None] = [None] * len(prompts)
    bases: dict[int, _Bounds] = {}
    shared = None if callable(bonus) else _bounds(choices, bonus, bases)

    def bounds_of(i: int) -> _Bounds | _Exceptions:
        return shared or _bounds(choices, bonus(i), bases)  # type: ignore[misc, operator]

    most = len(prompts) if shared else HELD // (engine.groups * len(choices))
    waiting = (
        bounds for group in engine.batches(prompts) for run in _bounded(dict.fromkeys(group, _in_a_wave(n)))
        for bounds in _held(run, bounds_of, most)
    )  # fmt: skip
    groups: list[dict[int, _Search]] = []

    def asked(searches: dict[int, _Search]) -> dict[int, list[tuple[int, int]]]:
        """What the searches of a group want to know; those that want nothing have ended, and leave it."""
        wanted = {i: search.wanted() for i, search in searches.items()}
        for i in [i for i, nodes in wanted.items() if not nodes]:
            result[i] = searches.pop(i).ranking(engine.exact)
            if progress:
                progress(1)
        return {i: wanted[i] for i in searches}

    while True:
        wave = [asked(searches) for searches in groups]
        groups, wave = [one for one in groups if one], [one for one in wave if one]
        while len(groups) < engine.groups and (group := next(waiting, None)) is not None:
            searches = {i: _Search(choices, one, n, part, least[i] if least else -np.inf) for i, one in group.items()}
            if wanted := asked(searches):
                groups.append(searches)
                wave.append(wanted)
        if not groups:
            return result  # type: ignore[return-value]
        open_now = {i: search for searches in groups for i, search in searches.items()}
        places = [(i, *node) for wanted in wave for i, nodes in wanted.items() for node in nodes]
        for (i, trie, node), log_p in zip(places, _asked(engine, prompts, choices, places), strict=True):
            open_now[i].open(trie, node, log_p)


def merged(a: Ranking, b: Ranking, n: int) -> Ranking:
    """The top `n` of two rankings that have no choice in common, each the top `n` of its own."""
    items, log_p, score = (
        np.concatenate(pair) for pair in ((a.items, b.items), (a.log_p, b.log_p), (a.score, b.score))
    )
    top = np.lexsort((items, -score))[:n]
    exact, expansions, waves = a.exact and b.exact, a.expansions + b.expansions, a.waves + b.waves
    return Ranking(items[top], log_p[top], score[top], exact, expansions, waves)


def branched(engine: Engine, nodes: Sequence[Node]) -> list[np.ndarray]:
    """`engine.branch`.  Raises: ScoreError where a log p is no number, which would lose what lies behind it unseen."""
    answers = engine.branch(nodes) if nodes else []
    if any(np.isnan(log_p).any() for log_p in answers):
        raise ScoreError(
            "the model's scores are no numbers (NaN): its weights have diverged, or its precision overflows "
            "(fit.precision=float32 does not)"
        )
    return answers


def _asked(
    engine: Engine, prompts: Sequence[Prompt], choices: Choices, places: Iterable[tuple[int, int, int]]
) -> list[np.ndarray]:
    """(children,) log p in `choices` at each of some places: prompt, part, and node of the part's trie."""
    places, tries = list(places), [trie for trie, _, _ in choices.parts()]
    nodes = [
        Node(prompts[i], tuple(tries[part].path(node).tolist()), tries[part].children(node)) for i, part, node in places
    ]
    found = zip(places, branched(engine, nodes), strict=True)
    return [choices.trusted(part, node, log_p) for (_, part, node), log_p in found]


def _in_calls(engine: Engine, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Indexes of prompts that are asked about once, in one call: as many groups as the engine takes."""
    waiting = iter(engine.batches(prompts))
    while some := [*islice(waiting, engine.groups)]:
        yield [i for group in some for i in group]


def _bounded(group: Mapping[int, int]) -> Iterator[list[int]]:
    """Runs within `OPENED` of a group, prompt → how many nodes it opens; one prompt alone may be beyond it."""
    run: list[int] = []
    widest = 0
    for i, nodes in group.items():
        if run and max(widest, nodes) ** 2 * (len(run) + 1) > OPENED:
            yield run
            run, widest = [], 0
        run.append(i)
        widest = max(widest, nodes)
    if run:
        yield run


def _held(
    run: Sequence[int], of: Callable[[int], _Bounds | _Exceptions], most: int
) -> Iterator[dict[int, _Bounds | _Exceptions]]:
    """The bounds of a run's prompts, where at most `most` (at least one) have an array of their own at a time."""
    bounds: dict[int, _Bounds | _Exceptions] = {}
    own = 0
    for i in run:
        bounds[i] = of(i)
        own += isinstance(bounds[i], _Bounds)
        if own >= max(most, 1):
            yield bounds
            bounds, own = {}, 0
    if bounds:
        yield bounds


def listed(rankings: Sequence[Ranking], n: int) -> np.ndarray:
    """(rankings, n) int32 choices, -1 where a list ends early."""
    lists = np.full((len(rankings), n), -1, np.int32)
    for line, ranking in zip(lists, rankings, strict=True):
        line[: len(ranking.items)] = ranking.items
    return lists


def log_p_all(engine: Engine, prompts: Sequence[Prompt], choices: Choices) -> np.ndarray:
    """(prompts, choices) float32: the whole distribution of each prompt; every decision is opened."""
    prompts = engine.pinned(prompts)
    result = np.empty((len(prompts), len(choices)), np.float32)
    nodes = max(len(trie.node_lo) for trie, _, _ in choices.parts())
    for group in (run for some in _in_calls(engine, prompts) for run in _bounded(dict.fromkeys(some, nodes))):
        for part, (trie, first, share) in enumerate(choices.parts()):
            places = ((i, part, node) for i in group for node in range(len(trie.node_lo)))
            below = _asked(engine, prompts, choices, places)
            width = len(trie.child_token)
            for k, i in enumerate(group):
                answers = below[k * len(trie.node_lo) : (k + 1) * len(trie.node_lo)]
                children = np.concatenate([np.empty(0), *answers]) if width else np.empty(0)
                steps = np.zeros(len(trie.decision_child) + 1)
                np.cumsum(children[trie.decision_child], out=steps[1:])
                ways = steps[trie.decision_offsets]
                result[i, first : first + len(trie)] = share + ways[1:] - ways[:-1]
    return result


def score(
    engine: Engine, prompts: Sequence[Prompt], choices: Choices, candidates: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """log p of given candidates, (candidates,) float32 nats for each prompt; nodes that they share are opened once."""
    prompts = engine.pinned(prompts)
    result: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
    parts = choices.parts()
    for some in _in_calls(engine, prompts):
        paths = {i: [_path(parts, choice) for choice in candidates[i]] for i in some}
        opened = {i: dict.fromkeys(node for _, path in paths[i] for node, _ in path) for i in some}
        for group in _bounded({i: len(opened[i]) for i in some}):
            place = {at: k for k, at in enumerate((i, *node) for i in group for node in opened[i])}
            answers = _asked(engine, prompts, choices, place)
            for i in group:
                found = []
                for total, path in paths[i]:
                    for node, child in path:
                        total += float(answers[place[(i, *node)]][child])
                    found.append(total)
                result[i] = np.array(found, np.float32)
    return result


def _path(parts: list[tuple[ChoiceTrie, int, float]], choice: int) -> tuple[float, list[tuple[tuple[int, int], int]]]:
    """log p of the part that a choice lies in, and its decisions: (part, node), and which of the node's children."""
    part = len(parts) - 1 if choice >= parts[-1][1] else 0
    trie, first, share = parts[part]
    own = choice - first
    children = trie.decision_child[trie.decision_offsets[own] : trie.decision_offsets[own + 1]]
    nodes = trie.child_parent[children]
    return share, [
        ((part, node), child)
        for node, child in zip(nodes.tolist(), (children - trie.child_offsets[nodes]).tolist(), strict=True)
    ]


class _Bounds:
    """A bonus in leaf order, and its maximum below children, computed for the nodes that a search opens."""

    def __init__(self, choices: Choices, bonus: np.ndarray | None):
        if bonus is not None:
            if bonus.shape != (len(choices),):
                raise ChoiceError(
                    f"bonus has shape {bonus.shape}; one value for each of {len(choices)} choices is needed"
                )
            _check(bonus)
        self.bonus = bonus  # held, so that its identity stays its own
        # For each part (leaves,) nats, or None where all are 0.
        self.leaves = [
            None if bonus is None else bonus[first + trie.order.astype(np.int64)].astype(np.float64)
            for trie, first, _ in choices.parts()
        ]
        self._below: dict[tuple[int, int], np.ndarray | float] = {}

    def below(self, part: int, trie: ChoiceTrie, node: int) -> np.ndarray | float:
        """(children,) the best bonus below each child."""
        leaves = self.leaves[part]
        if leaves is None:
            return 0.0
        if (part, node) not in self._below:
            lo, hi = trie.node_lo[node], trie.node_hi[node]
            starts = trie.child_lo[trie.child_offsets[node] : trie.child_offsets[node + 1]] - lo
            self._below[part, node] = np.maximum.reduceat(leaves[lo:hi], starts)
        return self._below[part, node]

    def whole(self, part: int, trie: ChoiceTrie) -> float:
        leaves = self.leaves[part]
        return 0.0 if leaves is None else float(leaves.max())


class _Exceptions:
    """A base's bounds with a few choices that differ.  A bound may be above the best bonus below a node (where an
    exception took the base's best away): the search opens a node more then, and stays exact."""

    def __init__(self, choices: Choices, base: _Bounds, bonus: Except):
        _check(bonus.values)
        self.base = base
        self.at: list[tuple[np.ndarray, np.ndarray]] = []  # per trie: ascending leaves, their bonus
        for trie, first, _ in choices.parts():
            here = (bonus.positions >= first) & (bonus.positions < first + len(trie))
            leaves = trie.leaf[bonus.positions[here] - first]
            order = np.argsort(leaves)
            self.at.append((leaves[order], bonus.values[here][order].astype(np.float64)))

    def below(self, part: int, trie: ChoiceTrie, node: int) -> np.ndarray:
        """(children,) the best bonus below each child, or somewhat more."""
        here = slice(trie.child_offsets[node], trie.child_offsets[node + 1])
        return self._best(part, self.base.below(part, trie, node), trie.child_lo[here], trie.child_hi[here])

    def whole(self, part: int, trie: ChoiceTrie) -> float:
        return float(self._best(part, self.base.whole(part, trie), np.array([0]), np.array([len(trie)]))[0])

    def _best(self, part: int, base: np.ndarray | float, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        leaves, values = self.at[part]
        first, last = np.searchsorted(leaves, lo), np.searchsorted(leaves, hi)
        best = np.where(last - first == hi - lo, -np.inf, base)  # nothing of the base is left
        some = np.flatnonzero(last > first)
        if len(some):  # children follow one another, so what lies between two starts is the first one's
            best[some] = np.maximum(best[some], np.maximum.reduceat(values[: last[some[-1]]], first[some]))
        return best


def _bounds(choices: Choices, bonus: OneBonus, bases: dict[int, _Bounds]) -> _Bounds | _Exceptions:
    """The bounds of one prompt's bonus; `bases` keeps those that prompts share."""
    if not isinstance(bonus, Except):
        return _Bounds(choices, bonus)
    if bonus.items != len(choices):
        raise ChoiceError(f"bonus is for {bonus.items} choices, not for {len(choices)}")
    if id(bonus.base) not in bases:
        bases[id(bonus.base)] = _Bounds(choices, bonus.base)
    return _Exceptions(choices, bases[id(bonus.base)], bonus)


def _check(bonus: np.ndarray) -> None:
    if np.isnan(bonus).any() or np.isposinf(bonus).any():
        raise ChoiceError("bonus holds NaN or +inf; any finite value or -inf can be used")


class _Nodes(NamedTuple):
    """Nodes that may be opened, as columns of (nodes,)."""

    part: np.ndarray
    node: np.ndarray
    log_p: np.ndarray
    bound: np.ndarray

    def at(self, which: np.ndarray) -> _Nodes:
        return _Nodes(*(column[which] for column in self))


@dataclass
class _Wide:
    """The children of a node that has very many: a few of the best are looked through, the others rest here."""

    nodes: _Nodes  # a bound of -inf where one has left
    best: float

    def take(self, many: int) -> _Nodes:
        """The best `many` of them, which leave; more where bounds are equal."""
        bound = self.nodes.bound
        top = np.flatnonzero(bound >= max(_nth_best(bound, many), LOWEST))
        taken = self.nodes.at(top)
        bound[top] = -np.inf
        self.best = float(bound.max())
        return taken


@dataclass
class _Search:
    """One prompt's open nodes, and the best leaves found so far."""

    choices: Choices
    bounds: _Bounds | _Exceptions
    n: int
    part: int | None = None
    least: float = -np.inf
    parts: list[tuple[ChoiceTrie, int, float]] = field(init=False)
    expansions: int = 0
    waves: int = 0

    def __post_init__(self) -> None:
        self.parts = self.choices.parts()
        self.many = _in_a_wave(self.n)
        none = np.empty(0, np.int32)
        self.opened = [_Nodes(none, none, np.empty(0), np.empty(0))]
        self.wide: list[_Wide] = []
        self.found_item = np.empty(0, np.int64)  # (found,) each: choices, log p, scores
        self.found_log_p = np.empty(0)
        self.found_score = np.empty(0)
        for part, (trie, first, share) in enumerate(self.parts):
            if self.part not in (None, part):
                continue
            best = self.bounds.whole(part, trie)
            if best == -np.inf:
                continue
            log_p, score = np.array([share]), np.array([share + best])
            if len(trie) == 1:
                self._found(np.array([first]), log_p, score)
            else:
                self.opened.append(_Nodes(np.array([part]), np.array([0]), log_p, score))

    def wanted(self) -> list[tuple[int, int]]:
        """The (part, node) to open next; empty when the top is proven.

        Opened together: every node whose bound is among the best bounds of nodes and leaves, a few more than n, because
        some of the n best turn out worse below and the next ones would be opened one by one.
        """
        nodes = _joined(self.opened)
        least = self._least(nodes.bound)
        if taken := [one.take(LOOKED_AT * self.many) for one in self.wide if one.best >= least]:
            nodes = _joined([nodes, *taken])
            least = self._least(nodes.bound)
        opening = nodes.at(chosen := nodes.bound >= least)
        self.opened = [nodes.at(~chosen)]
        wanted = list(zip(opening.part.tolist(), opening.node.tolist(), strict=True))
        self._closing = dict(zip(wanted, opening.log_p.tolist(), strict=True))
        self.waves += bool(wanted)
        self.expansions += len(wanted)
        return wanted

    def open(self, part: int, node: int, log_p: np.ndarray) -> None:
        """Take the answer for a wanted node: (children,) log p."""
        trie, first, _ = self.parts[part]
        here = slice(trie.child_offsets[node], trie.child_offsets[node + 1])
        total = self._closing[part, node] + log_p.astype(np.float64)
        bound = total + self.bounds.below(part, trie, node)
        leaf = trie.child_node[here] < 0
        ended = np.flatnonzero(leaf & (bound > -np.inf))
        ended = ended[bound[ended] >= _nth_best(bound[ended], self.n)]
        items = first + trie.order[trie.child_lo[here][ended]].astype(np.int64)
        self._found(items, total[ended], bound[ended])
        going = ~leaf & (bound > -np.inf) & (bound >= self._nth_score())
        nodes = trie.child_node[here][going]
        below = _Nodes(np.full(len(nodes), part, np.int32), nodes, total[going], bound[going])
        if len(nodes) <= 2 * LOOKED_AT * self.many:
            self.opened.append(below)
        else:
            self.wide.append(_Wide(below, float(below.bound.max())))

    def ranking(self, exact: bool) -> Ranking:
        """What was found, best first."""
        top = np.lexsort((self.found_item, -self.found_score))[: self.n]
        return Ranking(
            self.found_item[top], self.found_log_p[top].astype(np.float32), self.found_score[top].astype(np.float32),
            exact, self.expansions, self.waves,
        )  # fmt: skip

    def _least(self, bounds: np.ndarray) -> float:
        """What a node needs to be opened now, where nodes of these bounds are looked through."""
        last = _nth_best(np.concatenate([self.found_score, bounds]), self.many)
        # A tie with the n-th leaf may hide a choice of a lower position, so equal bounds are opened too.
        return max(self._nth_score(), min(last, bounds.max(initial=-np.inf)))

    def _nth_score(self) -> float:
        """Score of the n-th best leaf so far, or what is of no interest below."""
        return max(self.least, _nth_best(self.found_score, self.n))

    def _found(self, items: np.ndarray, log_p: np.ndarray, score: np.ndarray) -> None:
        self.found_item = np.concatenate([self.found_item, items])
        self.found_log_p = np.concatenate([self.found_log_p, log_p])
        self.found_score = np.concatenate([self.found_score, score])


def _joined(nodes: list[_Nodes]) -> _Nodes:
    return nodes[0] if len(nodes) == 1 else _Nodes(*map(np.concatenate, zip(*nodes, strict=True)))


def _in_a_wave(n: int) -> int:
    """How many of the best bounds a wave opens."""
    return math.ceil(WIDER * n)


def _nth_best(values: np.ndarray, n: int) -> float:
    """The n-th greatest value; -inf where there are fewer."""
    return float(np.partition(values, len(values) - n)[len(values) - n]) if len(values) >= n else -np.inf
