"""summarize: what a person is interested in, as shares of categories and in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config
from llmrec.data.names import readable
from llmrec.recommend import somebody
from llmrec.screen import screen
from llmrec.tasks.grounded import SUMMARY

if TYPE_CHECKING:  # it imports torch
    from llmrec.grounded import Told
    from llmrec.insight import Insight, Interest

BAR = 24  # cells of the longest bar


@dataclass(frozen=True)
class Summary:
    """What `summarize` found, and for whom."""

    domain: str
    adapter: str | None
    user: str | None
    history: tuple[str, ...]
    """Titles, oldest first."""
    text: str
    """Sentences that name items and categories of the history only; empty where the model wrote none."""
    interests: tuple[Interest, ...]
    """Every category of the domain, most likely first; the probabilities sum to 1."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: stable keys, no NaN."""
        return asdict(self)


def summarize(
    domain: str,
    *,
    overrides: tuple[str, ...] = (),
    user: str | None = None,
    history: Sequence[str] = (),
    adapter: str | None = None,
    base: bool = False,
    engine: str = "hf",
) -> Summary | Told:
    """The interests of a user of the domain's data, of a history of titles, or of both (titles last).

    A domain that learns from texts instead (`grounded_summary`, no `interest_summary`) sums up the people of its texts.

    Raises: RecipeError, DataError (unknown user or title, nobody named), AdapterError (task not learned).
    """
    recipe = config.load_recipe(domain, overrides)
    name = config.adapter_asked(recipe, adapter, base)
    if SUMMARY in recipe.tasks and "interest_summary" not in recipe.tasks:
        from llmrec.grounded import told

        return told(recipe, SUMMARY, user, history=history, adapter=name, engine=engine)
    asked, _ = somebody(recipe, "nothing to sum up", user=user, history=history)
    from llmrec.insight import Insight
    from llmrec.recommender import Recommender

    model = Recommender.load(recipe, name, engine=engine)
    return summary(Insight(model), asked.history, user)


def summary(insight: Insight, history: Sequence[int], user: str | None) -> Summary:
    """The interests of a history of catalog positions, oldest first, not empty.  Raises: AdapterError."""
    model = insight.model
    [(text, interests)] = insight.summaries([history])
    titles = tuple(model.catalog.title[item] for item in history)
    return Summary(model.recipe.domain, model.adapter, user, titles, text, interests)


def print_summary(found: Summary, console: Console | None = None) -> None:
    """For people: the sentences, then a bar for each category that matters."""
    console = console or screen(highlight=False)
    whose = f" of user {found.user}" if found.user is not None else ""
    recent = "; ".join(readable(title) for title in found.history[-5:])
    console.print(Text(f"{len(found.history)} in the history{whose}, latest: {recent}", style="dim"))
    few = "no sentence: the model wrote none that is whole; a longer history says more"
    console.print(Text(readable(found.text)) if found.text else Text(few, style="dim"))
    table = Table(box=None, pad_edge=False)
    table.add_column("interest")
    table.add_column("next", justify="right")
    table.add_column("", min_width=BAR, no_wrap=True)
    table.add_column("history", justify="right")
    longest = max(row.p for row in found.interests)
    for row in found.interests:
        if row.p < 0.01 and row.share < 0.01:
            continue
        bar = "█" * max(1, round(BAR * row.p / longest))
        table.add_row(Text(readable(row.category)), f"{row.p:.0%}", Text(bar, "cyan"), Text(f"{row.share:.0%}", "dim"))
    console.print(table)
