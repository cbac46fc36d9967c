"""recommend: the best of a whole catalog for one person, by user id or by titles."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from rapidfuzz import fuzz, process
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config, prepare
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import histories as histories_of
from llmrec.errors import DataError, did_you_mean

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.recommender import Recommender

SURE = 88.0  # likeness, 0 to 100, from which a misspelt title is taken…
AHEAD = 5.0  # …if it is this far ahead of the next
NEAR = 50.0  # likeness from which a title is worth suggesting
SHOWN = 5  # suggestions in a message
ARTICLES = ["the", "a", "an", "le", "la", "les", "l'", "der", "die", "das", "el", "los", "las", "il", "lo", "gli"]
FILTERS = ("category", "year")


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
    dataset = prepare.load(recipe)
    # Names are looked up before the seconds that a model takes to load.
    asked = question(dataset, Catalog.of(dataset), user=user, history=history, exclude=exclude, only=only)
    from llmrec.recommender import Recommender

    model = Recommender.load(recipe, None if base else adapter or recipe.domain, engine=engine)
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


def answer(model: Recommender, asked: Question, n: int, *, prior: bool = True) -> Recommendation:
    """The top `n` for one question."""
    [(items, exact)] = rank_histories(model, [asked.history], n, [asked.exclude], asked.allowed, prior=prior)
    return Recommendation(
        domain=model.recipe.domain, adapter=model.adapter, user=asked.user,
        history=tuple(model.catalog.title[i] for i in asked.history), exact=exact, items=tuple(items),
    )  # fmt: skip


def rank_histories(
    model: Recommender,
    histories: Sequence[Sequence[int]],
    n: int,
    exclude: Sequence[Sequence[int]] | None = None,
    allowed: np.ndarray | None = None,
    *,
    prior: bool = True,
) -> list[tuple[list[Entry], bool]]:
    """Per history (catalog positions, oldest first) its top `n`, best first, and whether that is exact.

    Lists are shorter where fewer items are allowed.
    """
    catalog = model.catalog
    found = []
    for ranking in model.rank(histories, n, exclude=exclude, allowed=allowed, prior=prior):
        rows = zip(ranking.items.tolist(), ranking.score.tolist(), ranking.log_p.tolist(), strict=True)
        entries = [
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
            for place, (i, score, log_p) in enumerate(rows, 1)
        ]
        found.append((entries, ranking.exact))
    return found


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
    raise DataError(
        f"no user '{user}' among {len(known):,} ({some}, …); name one of them, or titles: --history \"A Title\""
    )


def match_titles(names: Sequence[str], catalog: Catalog) -> list[int]:
    """Catalog positions of titles as people write them: case, accents, articles and small slips are forgiven.

    A name may carry its year ("Heat (1995)"), be part of one title only ("Shawshank"), or be an id ("item:42").
    Items that look alike to a reader count as one: the first is taken.
    Raises: DataError with every name that fits none or several, and what is near.
    """
    positions: list[int] = []
    problems: list[str] = []
    for name in names:
        try:
            positions.append(_match(name, catalog))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("; ".join(problems))
    return positions


def plain(title: str) -> str:
    """A title for comparing: no case, accents, punctuation, article at either end, or year in parentheses."""
    text = unicodedata.normalize("NFKD", re.sub(r"\(\s*\d{4}\s*\)", " ", title)).casefold().replace("&", " and ")
    text = "".join(c for c in text if not unicodedata.combining(c))
    if moved := re.fullmatch(r"(.+), *([\w']+)((?: *\(.*)?)", text.strip()):  # "Shawshank Redemption, The"
        text = f"{moved[1]} {moved[3]}" if moved[2] in ARTICLES else text
    words = re.sub(r"[^\w\s]|_", " ", text.replace("'", "")).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ARTICLES else words)


def is_filter(text: str) -> bool:
    """`category=…` and `year=…` rather than a title."""
    return text.partition("=")[0].strip().casefold() in FILTERS and "=" in text


def selected(catalog: Catalog, only: Sequence[str], exclude: Sequence[str] = ()) -> np.ndarray | None:
    """(items,) bool: what passes every filter of `only` and none of `exclude`; None without filters."""
    if not only and not exclude:
        return None
    allowed = np.ones(len(catalog), bool)
    for text in only:
        allowed &= passes(catalog, text)
    for text in exclude:
        allowed &= ~passes(catalog, text)
    return allowed


def passes(catalog: Catalog, text: str) -> np.ndarray:
    """(items,) bool: the items that one filter names.  Items of unknown year pass no filter by year.

    Raises: DataError for a filter that is none, or a category that the catalog lacks.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or key.casefold() not in FILTERS:
        hint = did_you_mean(key, FILTERS)
        raise DataError(f"filter '{text}': write category=NAME,NAME or year=FROM..TO{hint}")
    if key.casefold() == "year":
        first, last = _years(text, value)
        return np.array([year is not None and first <= year <= last for year in catalog.year], bool)
    known = {name.casefold(): name for names in catalog.categories for name in names}
    wanted = {name.strip().casefold() for name in value.split(",")}
    if unknown := sorted(wanted - known.keys()):
        raise DataError(f"filter '{text}': no category '{unknown[0]}'{did_you_mean(unknown[0], known.values())}")
    return np.array([any(name.casefold() in wanted for name in names) for names in catalog.categories], bool)


def print_table(found: Recommendation, console: Console | None = None) -> None:
    """For people: colours on a terminal, plain text elsewhere."""
    console = console or Console()
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


def readable(text: str) -> str:
    """Without the characters that steer a terminal or the direction of reading."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _match(name: str, catalog: Catalog) -> int:
    if name.startswith("item:"):
        item_id = name.removeprefix("item:")
        if item_id not in catalog.position:
            raise DataError(f"no item with the id '{item_id}'")
        return catalog.position[item_id]
    key, year = plain(name), re.search(r"\(\s*(\d{4})\s*\)", name)
    if not key:
        raise DataError(f"title {name!r}: no letters or digits to look for")
    names, owners = _names(tuple(catalog.title))
    same = sorted({owners[at] for at, other in enumerate(names) if other == key})
    same = [i for i in same if plain(catalog.title[i]) == key] or same
    if year and (dated := [i for i in same if _year(catalog, i) == int(year[1])]):
        same = dated
    if same:
        return _the_one(name, same, catalog)
    words = set(key.split())
    if partial := sorted({owners[at] for at, other in enumerate(names) if words <= set(other.split())}):
        return _the_one(name, partial, catalog)
    numbers = re.findall(r"\d+", key)  # "Terminator 2" is no misspelt "Terminator"
    close = process.extract(key, names, scorer=fuzz.ratio, limit=SHOWN, score_cutoff=SURE)
    slips = [(likeness, owners[at]) for other, likeness, at in close if re.findall(r"\d+", other) == numbers]
    if slips:
        return _the_one(name, [i for likeness, i in slips if likeness > slips[0][0] - AHEAD], catalog)
    near = process.extract(key, names, scorer=fuzz.ratio, limit=SHOWN, score_cutoff=NEAR)
    labels = list(dict.fromkeys(_label(catalog, owners[at]) for _, _, at in near))[:3]
    nearest = "; nearest: " + ", ".join(f"'{label}'" for label in labels) if labels else ""
    raise DataError(f"no title like '{name}' among {len(catalog):,}{nearest}")


def _the_one(name: str, positions: Sequence[int], catalog: Catalog) -> int:
    if len({_label(catalog, i) for i in positions}) > 1:
        raise _which(name, positions, catalog)
    return positions[0]


def _which(name: str, positions: Sequence[int], catalog: Catalog) -> DataError:
    labels = list(dict.fromkeys(_label(catalog, i) for i in positions))
    more = f" or {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    shown = ", ".join(f"'{label}'" for label in labels[:SHOWN])
    return DataError(f"'{name}': which one: {shown}{more}?  Write more of the title, or its year in parentheses")


@lru_cache(maxsize=4)
def _names(titles: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """Every title for comparing, whole and, as in "Seven (Se7en)", outside and inside its parentheses; and whose."""
    names: list[str] = []
    owners: list[int] = []
    for i, title in enumerate(titles):
        parts = [title, re.sub(r"\(.*?\)", " ", title), *re.findall(r"\((.*?)\)", title)]
        for name in dict.fromkeys(plain(part) for part in parts):
            if name and not re.fullmatch(r"\d{4}", name) or name == plain(title):
                names.append(name)
                owners.append(i)
    return names, owners


def _year(catalog: Catalog, position: int) -> int | None:
    in_title = re.search(r"\(\s*(\d{4})\s*\)", catalog.title[position])
    return catalog.year[position] or (int(in_title[1]) if in_title else None)


def _label(catalog: Catalog, position: int) -> str:
    title, year = readable(catalog.title[position]), catalog.year[position]
    return f"{title} ({year})" if year and f"({year})" not in title else title


def _years(text: str, value: str) -> tuple[float, float]:
    found = re.fullmatch(r"(\d{1,4})?\s*(\.\.)?\s*(\d{1,4})?", value)
    if not found or not (found[1] or found[3]) or (found[1] and found[3] and not found[2]):
        raise DataError(f"filter '{text}': write year=1994, year=1990..1995, year=1990.. or year=..1995")
    first = float(found[1]) if found[1] else -np.inf
    last = float(found[3]) if found[3] else np.inf if found[2] else first
    if first > last:
        raise DataError(f"filter '{text}': the first year comes after the last")
    return first, last
