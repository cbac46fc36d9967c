"""explain: why an item fits a person, in a sentence or two, and the facts behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from llmrec import config, prepare
from llmrec.baselines.together import Together
from llmrec.data.catalog import Catalog
from llmrec.data.names import match_titles, readable
from llmrec.errors import DataError
from llmrec.recommend import question
from llmrec.tasks.follow_up import shares
from llmrec.tasks.template import Name

if TYPE_CHECKING:  # they import torch
    from llmrec.follow_up import FollowUp
    from llmrec.recommender import Recommender

NEAR = 3  # items of the history that an explanation may name


@dataclass(frozen=True)
class Explanation:
    """Why one item fits one person."""

    domain: str
    adapter: str | None
    user: str | None
    item_id: str
    title: str
    text: str
    """Names categories of the item and items of `near` only; empty where the model wrote no whole sentence."""
    shared: tuple[str, ...]
    """Categories of the item that the history has, most frequent first."""
    near: tuple[str, ...]
    """Titles of the history that people chose together with the item most, nearest first."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: stable keys."""
        return asdict(self)


def explain(
    domain: str,
    item: str,
    *,
    overrides: tuple[str, ...] = (),
    user: str | None = None,
    history: Sequence[str] = (),
    adapter: str | None = None,
    base: bool = False,
    engine: str = "hf",
) -> Explanation:
    """Why the item of that title fits a user of the domain's data, or a history of titles, or both (titles last).

    Raises: RecipeError, DataError (unknown user or title, nobody named), AdapterError (task not learned).
    """
    recipe = config.load_recipe(domain, overrides)
    dataset = prepare.load(recipe)
    catalog = Catalog.of(dataset)
    asked = question(dataset, catalog, user=user, history=history)
    [wanted] = match_titles([item], catalog)
    if not asked.history:
        raise DataError('nobody to explain it to: name a user with a history, or titles: --history "A Title"')
    from llmrec.recommender import Recommender

    model = Recommender.load(recipe, None if base else adapter or recipe.domain, engine=engine)
    [found] = explanations(model, [asked.history], [wanted], [user])
    return found


def explanations(
    model: Recommender, histories: Sequence[Sequence[int]], items: Sequence[int], users: Sequence[str | None]
) -> list[Explanation]:
    """Why each of `items` fits its history (catalog positions, oldest first, none empty)."""
    from llmrec.follow_up import FollowUp
    from llmrec.writing import plain

    catalog = model.catalog
    task = FollowUp.load(model, "explanation")
    together = Together.fit(model.dataset, catalog)
    near = [nearest(together, history, item) for history, item in zip(histories, items, strict=True)]
    return [
        Explanation(
            domain=model.recipe.domain,
            adapter=model.adapter,
            user=user,
            item_id=catalog.item_id[item],
            title=catalog.title[item],
            text=plain(reply),
            shared=tuple(name for name in shares(task.categories_of(history)) if name in catalog.categories[item]),
            near=tuple(catalog.title[other] for other in mine),
        )
        for user, history, item, mine, reply in zip(
            users, histories, items, near, replies(task, histories, items, near), strict=True
        )
    ]  # fmt: skip


def nearest(together: Together, history: Sequence[int], item: int) -> list[int]:
    """The items of a history that an explanation of `item` may name: at most three, and at least three people chose
    each together with it; nearest first."""
    others = [other for other in dict.fromkeys(history) if other != item]
    similar = together.similar(item, others)
    return [others[i] for i in np.argsort(-similar, kind="stable")[:NEAR] if similar[i] > 0]


def replies(
    task: FollowUp, histories: Sequence[Sequence[int]], items: Sequence[int], near: Sequence[Sequence[int]]
) -> list[list[str | Name]]:
    """What is written of each item: it names categories of the item and items of its `near`."""
    return task.write(histories, near, task.categories_of(items), [{"item": task.item_slot(item)} for item in items])


def print_explanation(found: Explanation, console: Console | None = None) -> None:
    """For people."""
    console = console or Console(highlight=False)
    console.print(Text(readable(found.title), "bold"))
    console.print(Text(readable(found.text) if found.text else "(the model wrote no whole sentence)"))
    shared = ", ".join(map(readable, found.shared)) or "nothing"
    near = "; ".join(map(readable, found.near)) or "nothing in this history"
    console.print(Text(f"shared categories: {shared}. Chosen by the same people: {near}.", style="dim"))
