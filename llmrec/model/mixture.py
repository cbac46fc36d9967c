"""Which rows of which tasks an epoch takes, and which of them make a step together.

A share counts choices, not rows: a list of fifty films is fifty choices, a review is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llmrec.config import Mixture, Task
from llmrec.data.sample import sampled
from llmrec.model.rows import Row


def by_task(rows: Sequence[Row], part: Sequence[int]) -> dict[str, list[int]]:
    """The rows of `part` under their task's name, in order."""
    found: dict[str, list[int]] = {}
    for row in part:
        found.setdefault(rows[row].task, []).append(row)
    return found


def taken(
    rows: Sequence[Row], tasks: Mapping[str, Task], mixture: Mixture, rng: np.random.Generator
) -> dict[str, list[int]]:
    """The rows of one epoch by task; a row of a small task may stand there several times.

    The epoch keeps its number of choices whatever the temperature, but for what `Task.tokens` cuts.
    """
    everything = by_task(rows, range(len(rows)))
    choices = {name: sum(len(rows[row].starts) for row in mine) for name, mine in everything.items()}
    total = sum(choices.values())
    tempered = {name: count ** (1 / mixture.temperature) for name, count in choices.items()}
    scale = total / sum(tempered.values())
    found = {}
    for name, mine in everything.items():
        passes = scale * tempered[name] / choices[name] if mixture.temperature != 1 else 1.0
        count = max(1, round(len(mine) * passes))
        whole, rest = divmod(count, len(mine))
        chosen = mine * whole + (sampled(mine, rest, rng) if rest else [])
        budget = tasks[name].tokens if name in tasks else 0
        if budget:
            order = rng.permutation(len(chosen))
            spent = np.cumsum([len(rows[chosen[i]].tokens) for i in order])
            chosen = [chosen[i] for i in np.sort(order[: max(1, int(np.searchsorted(spent, budget, "right")))])]
        found[name] = chosen
    return found


def steps(
    rows: Sequence[Row],
    batch_tokens: int,
    rng: np.random.Generator,
    tasks: Mapping[str, Task] | None = None,
    mixture: Mixture | None = None,
) -> list[list[int]]:
    """One epoch's optimiser steps: rows of near lengths together; every group of tasks spread evenly over all steps,
    and every task over those of its group.  The padded size is within `batch_tokens` for one task alone; of several in
    a step each is within its share, or one row."""
    tasks, mixture = tasks or {}, mixture or Mixture()
    ordered = {}
    for name, mine in taken(rows, tasks, mixture, rng).items():
        lengths = np.array([len(rows[row].tokens) for row in mine])
        by_length = np.argsort(lengths + rng.random(len(lengths)) * 16, kind="stable")
        ordered[name] = [mine[i] for i in by_length]
    found = []
    for number, group in enumerate(mixture.groups(ordered, tasks)):
        made = _together({name: ordered[name] for name in group}, rows, batch_tokens, rng)
        found += [((place + 0.5) / len(made), number, step) for place, step in enumerate(made)]
    return [step for *_, step in sorted(found)]


def _together(
    ordered: Mapping[str, list[int]], rows: Sequence[Row], batch_tokens: int, rng: np.random.Generator
) -> list[list[int]]:
    tokens = {name: sum(len(rows[row].tokens) for row in mine) for name, mine in ordered.items()}
    total = sum(tokens.values())
    batches = {name: [*micro(mine, rows, round(batch_tokens * tokens[name] / total))] for name, mine in ordered.items()}
    count = max(map(len, batches.values()))
    for name, mine in ordered.items():
        if len(batches[name]) < count:  # smaller parts, so that every step has one as long as there are rows
            cuts = np.linspace(0, len(mine), min(count, len(mine)) + 1).astype(int)
            batches[name] = [mine[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
        batches[name] = [batches[name][i] for i in rng.permutation(len(batches[name]))]
    found: list[list[int]] = [[] for _ in range(count)]
    for made in batches.values():
        for i, batch in enumerate(made):
            found[i * count // len(made)] += batch
    return found


def micro(order: Sequence[int], rows: Sequence[Row], tokens: int) -> Iterator[list[int]]:
    """Runs of `order`, one task each, whose padded size stays within `tokens`; a longer row goes alone."""
    for mine in by_task(rows, order).values():
        part: list[int] = []
        longest = 0
        for row in mine:
            length = len(rows[row].tokens)
            if part and max(longest, length) * (len(part) + 1) > tokens:
                yield part
                part, longest = [], 0
            part.append(row)
            longest = max(longest, length)
        if part:
            yield part
