"""explain: why an item fits a person, in a sentence or two, and the facts behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from llmrec import config
from llmrec.data.names import match_titles, readable
from llmrec.recommend import somebody
from llmrec.screen import screen
from llmrec.tasks.grounded import EXPLANATION

if TYPE_CHECKING:  # it imports torch
    from llmrec.grounded import Told
    from llmrec.insight import Explanation


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
) -> Explanation | Told:
    """Why the item of that title fits a user of the domain's data, or a history of titles, or both (titles last).

    A domain that learns from texts instead (`grounded_explanation`, no `explanation`) speaks to people of its texts.

    Raises: RecipeError, DataError (unknown user or title, nobody named), AdapterError (task not learned).
    """
    recipe = config.load_recipe(domain, overrides)
    name = config.adapter_asked(recipe, adapter, base)
    if EXPLANATION in recipe.tasks and "explanation" not in recipe.tasks:
        from llmrec.grounded import told

        return told(recipe, EXPLANATION, user, item, history=history, adapter=name, engine=engine)
    asked, catalog = somebody(recipe, "nobody to explain it to", user=user, history=history)
    [wanted] = match_titles([item], catalog)
    from llmrec.insight import Insight
    from llmrec.recommender import Recommender

    model = Recommender.load(recipe, name, engine=engine)
    [found] = Insight(model).explanations([asked.history], [wanted], [user])
    return found


def print_explanation(found: Explanation | Told, console: Console | None = None) -> None:
    """For people."""
    console = console or screen(highlight=False)
    if found.title:
        console.print(Text(readable(found.title), "bold"))
    console.print(Text(readable(found.text) if found.text else "(the model wrote no whole sentence)"))
    if isinstance(known := getattr(found, "known", None), str):
        console.print(Text("\n".join(map(readable, known.splitlines())), style="dim"))
        return
    shared = ", ".join(map(readable, found.shared)) or "nothing"
    near = "; ".join(map(readable, found.near)) or "nothing in this history"
    console.print(Text(f"shared categories: {shared}. Chosen by the same people: {near}.", style="dim"))
