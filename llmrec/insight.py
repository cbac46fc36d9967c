"""What a domain's adapter can say of a person: interests as shares, a summary in sentences, reasons for an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from llmrec.baselines.together import Together
from llmrec.follow_up import FollowUp
from llmrec.recommender import Recommender
from llmrec.tasks import explanation, interest_summary
from llmrec.tasks.claims import Claim
from llmrec.tasks.follow_up import shares
from llmrec.tasks.interest_summary import leading, nameable
from llmrec.tasks.template import Name
from llmrec.writing import plain

NEAR = 3  # items of the history that an explanation may name


@dataclass(frozen=True)
class Interest:
    """One category: how likely it comes next, and its share of the history."""

    category: str
    p: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """Why one item fits one person."""

    domain: str
    adapter: str | None
    user: str | None
    item_id: str
    title: str
    text: str
    """Names categories of the item and items of `near` only; empty where no whole sentence of the model's holds."""
    shared: tuple[str, ...]
    """Categories of the item that the history has, most frequent first."""
    near: tuple[str, ...]
    """Titles of the history that people chose together with the item most, nearest first."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: stable keys."""
        return asdict(self)


class Insight:
    """What one model says of people.  Wordings and counts that it needs are read once, when they are first needed."""

    def __init__(self, model: Recommender) -> None:
        self.model = model
        self._tasks: dict[str, FollowUp] = {}

    def _task(self, name: str) -> FollowUp:
        if name not in self._tasks:
            self._tasks[name] = FollowUp.load(self.model, name)
        return self._tasks[name]

    @cached_property
    def _together(self) -> Together:
        return Together.fit(self.model.dataset, self.model.catalog)

    def open(self) -> None:
        """Reads now what is read once: wordings, as the adapter's folder may hold another version later, and counts.

        Raises: AdapterError where one cannot be read.
        """
        for task in {"interest", "interest_summary", "explanation"} & {*self.model.card}:
            self._task(task)
        if "explanation" in self.model.card:
            self._together  # noqa: B018 - it is counted here

    def summaries(self, histories: Sequence[Sequence[int]]) -> list[tuple[str, tuple[Interest, ...]]]:
        """Sentences and interests for each history (catalog positions, oldest first, none empty).

        Raises: AdapterError where the tasks were not learned.
        """
        interest, summary = self._task("interest"), self._task("interest_summary")
        own = [interest.categories_of(history) for history in histories]
        texts = [plain(reply) for reply in summary_replies(summary, histories)]
        found = []
        for text, log_p, mine in zip(texts, interest.log_p(histories), own, strict=True):
            share = shares(mine)
            rows = [
                Interest(name, round(float(np.exp(value)), 6), round(share.get(name, 0.0), 6))
                for name, value in zip(interest.categories, log_p, strict=True)
            ]
            found.append((text, tuple(sorted(rows, key=lambda row: -row.p))))
        return found

    def explanations(
        self, histories: Sequence[Sequence[int]], items: Sequence[int], users: Sequence[str | None]
    ) -> list[Explanation]:
        """Why each of `items` fits its history (catalog positions, oldest first, none empty).

        Raises: AdapterError where the task was not learned.
        """
        catalog, task = self.model.catalog, self._task("explanation")
        near = [nearest(self._together, history, item) for history, item in zip(histories, items, strict=True)]
        replies = explanation_replies(task, histories, items, near)
        return [
            Explanation(
                domain=self.model.recipe.domain,
                adapter=self.model.adapter,
                user=user,
                item_id=catalog.item_id[item],
                title=catalog.title[item],
                text=plain(reply),
                shared=tuple(name for name in shares(task.categories_of(history)) if name in catalog.categories[item]),
                near=tuple(catalog.title[other] for other in mine),
            )
            for user, history, item, mine, reply in zip(users, histories, items, near, replies, strict=True)
        ]


def nearest(together: Together, history: Sequence[int], item: int) -> list[int]:
    """The items of a history that an explanation of `item` may name: at most three, and at least three people chose
    each together with it; nearest first."""
    others = [other for other in dict.fromkeys(history) if other != item]
    similar = together.similar(item, others)
    return [others[i] for i in np.argsort(-similar, kind="stable")[:NEAR] if similar[i] > 0]


def summary_replies(
    task: FollowUp, histories: Sequence[Sequence[int]], wording: int | None = None
) -> list[list[str | Name]]:  # fmt: skip
    """What is written of each history.  Every name is true of it: the first category is its most frequent, others are
    what it holds most, over all or lately, and items are of a category that was named.  A sentence of the template's
    replies is left out where what it says of them does not hold."""
    own = [task.categories_of(history) for history in histories]

    def allowed(i: int, kind: str, said: Sequence[str | Name]) -> list[int]:
        named = {part.text for part in said if isinstance(part, Name) and part.kind == "category"}
        if kind == "category":
            return [task.categories.index(name) for name in (nameable(own[i]) if named else leading(own[i]))]
        return [item for item, of in zip(histories[i], own[i], strict=True) if not named or named & {*of}]

    def holds(i: int, claim: Claim) -> bool:
        return interest_summary.holds(claim, task.lines_of(histories[i]), own[i])

    return task.write(histories, allowed, holds, wording=wording)


def explanation_replies(
    task: FollowUp,
    histories: Sequence[Sequence[int]],
    items: Sequence[int],
    near: Sequence[Sequence[int]],
    wording: int | None = None,
) -> list[list[str | Name]]:
    """What is written of each item: it names items of its `near`, and its categories, those that the history has where
    there are any; what a sentence takes for granted of them holds."""
    own = task.categories_of(items)
    kinds = [task.categories_of(history) for history in histories]
    held = [{name for of in one for name in of} for one in kinds]

    def allowed(i: int, kind: str, said: Sequence[str | Name]) -> Sequence[int]:
        if kind == "item":
            return near[i]
        return [task.categories.index(name) for name in [name for name in own[i] if name in held[i]] or own[i]]

    def holds(i: int, claim: Claim) -> bool:
        return explanation.holds(claim, task.lines_of(histories[i]), kinds[i], own[i])

    return task.write(histories, allowed, holds, [{"item": task.item_slot(item)} for item in items], wording)
