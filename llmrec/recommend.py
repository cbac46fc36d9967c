"""recommend: the best of a whole catalog for one person, by user id or by titles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config, prepare
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.names import is_filter, match_titles, meant_id, plain_ids, readable, selected
from llmrec.data.split import histories as histories_of
from llmrec.errors import DataError
from llmrec.screen import screen

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.choices.search import Ranking
    from llmrec.recommender import Recommender


@dataclass(frozen=True)
class Entry:
    """One recommended item; 1 is the best rank."""

    rank: int
    item_id: str
    title: str
    year: int | None
    categories: tuple[str, ...]
    score: float
    """log p plus bonus, nats."""
    log_p: float
    """Under the whole catalog, nats."""
    p: float


@dataclass(frozen=True)
class Recommendation:
    """What `recommend` found, and for whom."""

    domain: str
    adapter: str | None
    user: str | None
    history: tuple[str, ...]
    """Titles, oldest first."""
    exact: bool
    """Whether the list is the true top of the whole catalog, to rounding."""
    items: tuple[Entry, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: stable keys, no NaN; years may be null."""
        return asdict(self)


def recommend(
    domain: str,
    *,
    overrides: tuple[str, ...] = (),
    user: str | None = None,
    history: Sequence[str] = (),
    n: int = 10,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    adapter: str | None = None,
    base: bool = False,
    prior: bool = True,
    engine: str = "hf",
) -> Recommendation:
    """The top `n` for a user of the domain's data, for a history of titles, or for both (titles last).

    Args:
        history: titles, oldest first, tolerantly matched; with neither user nor history: the list for anybody.
        exclude: titles, or filters such as `category=Horror`.
        only: filters such as `category=Comedy` or `year=1990..1995`; all must hold.
        adapter: another adapter than the domain's own.
        base: the base model without an adapter.
        engine: `hf`, `vllm`, or the address of a vLLM server.
    Raises: RecipeError, DataError (unknown user, title or filter), AdapterError.
    """
    recipe = config.load_recipe(domain, overrides)
    name = config.adapter_asked(recipe, adapter, base)
    dataset = prepare.load(recipe)
    # Names are looked up before the seconds that a model takes to load.
    asked = question(dataset, Catalog.of(dataset), user=user, history=history, exclude=exclude, only=only)
    from llmrec.recommender import Recommender

    model = Recommender.load(recipe, name, engine=engine)
    return answer(model, asked, n, prior=prior)


@dataclass(frozen=True)
class Question:
    """What is asked for, in catalog positions."""

    user: str | None
    history: list[int]
    """Oldest first."""
    exclude: list[int]
    allowed: np.ndarray | None
    """(items,) bool; None allows all."""


def question(
    dataset: Dataset,
    catalog: Catalog,
    *,
    user: str | None = None,
    history: Sequence[str] = (),
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Question:
    """The words of `recommend`, looked up.  Raises: DataError."""
    seen = [] if user is None else user_history(user, dataset, catalog)
    titles = [text for text in exclude if not is_filter(text)]
    return Question(
        user=user,
        history=seen + match_titles(history, catalog),
        exclude=match_titles(titles, catalog),
        allowed=selected(catalog, only, [text for text in exclude if is_filter(text)]),
    )


def somebody(
    recipe: config.Recipe, what: str, *, user: str | None = None, history: Sequence[str] = ()
) -> tuple[Question, Catalog]:
    """A question about a person of whom something must be known, and the domain's catalog.

    Raises: DataError (unknown user or title; `what` and the way out where nobody is named).
    """
    dataset = prepare.load(recipe)
    catalog = Catalog.of(dataset)
    asked = question(dataset, catalog, user=user, history=history)
    if not asked.history:
        raise DataError(f'{what}: name a user with a history, or titles: --history "A Title"')
    return asked, catalog


def answer(model: Recommender, asked: Question, n: int, *, prior: bool = True) -> Recommendation:
    """The top `n` for one question."""
    [ranking] = model.rank([asked.history], n, exclude=[asked.exclude], allowed=asked.allowed, prior=prior)
    return recommendation(model, asked, ranking)


def recommendation(model: Recommender, asked: Question, ranking: Ranking) -> Recommendation:
    """What a ranking says to a question."""
    return Recommendation(
        domain=model.recipe.domain, adapter=model.adapter, user=asked.user,
        history=tuple(model.catalog.title[i] for i in asked.history), exact=ranking.exact,
        items=tuple(entries(model.catalog, ranking)),
    )  # fmt: skip


def rows(ranking: Ranking) -> Iterator[tuple[int, float, float]]:
    """Catalog position, score and log p of each item, best first."""
    return zip(ranking.items.tolist(), ranking.score.tolist(), ranking.log_p.tolist(), strict=True)


def entries(catalog: Catalog, ranking: Ranking) -> list[Entry]:
    """A list with all that the catalog says of its items."""
    return [
        Entry(
            rank=place,
            item_id=catalog.item_id[i],
            title=catalog.title[i],
            year=catalog.year[i],
            categories=catalog.categories[i],
            score=round(score, 6),
            log_p=round(log_p, 6),
            p=float(np.exp(log_p)),
        )  # fmt: skip
        for place, (i, score, log_p) in enumerate(rows(ranking), 1)
    ]


def user_history(user: str, dataset: Dataset, catalog: Catalog) -> list[int]:
    """Everything a user of the data chose, oldest first, as catalog positions; empty for one without interactions.

    Raises: DataError for a user the data does not have.
    """
    for found in histories_of(dataset, catalog, None):
        if found.user_id == user:
            return found.items.tolist()
    known = dataset.users["user_id"]
    if (known == user).any():
        return []
    some = ", ".join(known.head(3))
    way_out = '; name one of them, or titles: --history "A Title" (in `chat` just say them)'
    near = meant_id(user, plain_ids(known))
    raise DataError(f"no user '{user}' among {len(known):,} ({some}, …){near or way_out}")


def print_table(found: Recommendation, console: Console | None = None) -> None:
    """For people: colours on a terminal, plain text elsewhere."""
    console = console or screen()
    who = f"user {found.user}" if found.user is not None else "this history" if found.history else "anybody"
    if found.history:
        recent = "; ".join(readable(title) for title in found.history[-5:])
        console.print(Text(f"{len(found.history)} in the history, latest: {recent}", style="dim"))
    if not found.items:
        console.print(Text("nothing is left to recommend: everything is in the history or filtered out"))
        return
    table = Table(title=Text(f"{found.domain} for {who}"), title_justify="left", box=None, pad_edge=False)
    for heading, justify in (("", "right"), ("title", "left"), ("year", "right"), ("categories", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("score, nats", justify="right")
    table.add_column("p", justify="right")
    for item in found.items:
        table.add_row(
            str(item.rank), Text(readable(item.title), style="bold"), str(item.year or ""),
            Text(", ".join(map(readable, item.categories)), style="dim"), f"{item.score:.2f}", f"{item.p:.2%}",
        )  # fmt: skip
    console.print(table)
