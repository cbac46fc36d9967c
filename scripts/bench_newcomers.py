"""Cold start: what an adapter says of titles that its training never saw, asked by people whom it never saw either.

    python scripts/bench_newcomers.py movies --later /data/ml-latest-small            # adapters/movies, 200 people
    python scripts/bench_newcomers.py movies-taught --later /data/ml-latest-small fit.precision=bf16

Takes a second MovieLens folder (ratings.csv, movies.csv).  Titles that it shares with the domain's catalog are what is
known of a person, the others are added to the catalog as newcomers, as they would be in production, and nothing is
trained.  Each person is asked once: about the first newcomer that follows `--least` known titles.  Measured among the
newcomers alone, whose common share of the probability (`new_share`) is a setting:

- nats of the one that was chosen, which want well-spread probabilities;
- how often it stands above another newcomer, of `--others` drawn at random (.5 is chance), which wants the order alone.

Beside the adapter stands its base model, which is what lists ask about newcomers; both also less what they say without
a history; a uniform guess; the categories of the person's history; and, as what could be known once they have been
chosen, how often others chose them.  95% bootstrap intervals over people, differences paired.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from llmrec import config, prepare
from llmrec.codes import of_adapter
from llmrec.data import sources
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.errors import DataError, LlmrecError
from llmrec.metrics.significance import Interval, bootstrap, paired
from llmrec.recommender import Listing, Recommender


@dataclass(frozen=True)
class Asked:
    """One person: what is known, as positions of the catalog, oldest first, and the newcomer that came next."""

    user_id: str
    history: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class World:
    """The domain's catalog with newcomers behind it, and who is asked."""

    dataset: Dataset
    known: int
    """Items of the domain, the first of the catalog."""
    asked: list[Asked]
    chosen: np.ndarray
    """(items,) how many people of the second folder chose each item."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", help="whose adapter is asked, and whose catalog the newcomers join")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of its recipe")
    parser.add_argument("--later", required=True, help="MovieLens folder with ratings.csv and movies.csv")
    parser.add_argument("--users", type=int, default=200, help="people asked; 0 asks all")
    parser.add_argument("--least", type=int, default=5, help="known titles before the newcomer")
    parser.add_argument("--others", type=int, default=100, help="newcomers that the chosen one is compared with")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_intermixed_args()
    try:
        print(report(config.load_recipe(args.domain, tuple(args.overrides)), args))
    except LlmrecError as error:
        sys.exit(f"error: {error}")


def report(recipe: config.Recipe, args: argparse.Namespace) -> str:
    """The table.  Raises: LlmrecError."""
    later = sources.read(config.DataSource(format="movielens", path=args.later), Path)
    found = world(prepare.load(recipe), later, args.least)
    if args.users and len(found.asked) > args.users:
        drawn = np.sort(np.random.default_rng(args.seed).permutation(len(found.asked))[: args.users])
        found = replace(found, asked=[found.asked[i] for i in drawn])
    catalog = Catalog.of(found.dataset)
    model = Recommender.load(recipe, recipe.domain)
    others = np.random.default_rng(args.seed).integers(found.known, len(catalog), (len(found.asked), args.others))
    results = {name: said(log_p, found, others) for name, log_p in guesses(found, catalog).items()}
    results |= answers("adapter", joined(model, found.dataset, catalog, of_base=False), found, others)
    results |= answers("base model", joined(model, found.dataset, catalog, of_base=True), found, others)
    new = len(catalog) - found.known
    head = (
        f"{len(found.asked)} people, {new:,} newcomers beside {found.known:,} known titles; one choice of each person."
    )
    return f"{head}\n\n{table(results)}"


def world(ours: Dataset, later: Dataset, least: int) -> World:
    """Titles of `later` that are ours, by title and year, take our ids; the others join behind.  Raises: DataError."""

    def keys(items: pd.DataFrame) -> list[tuple[str, int | None]]:
        years = [None if year is pd.NA else int(year) for year in items["year"]]
        return [(title.casefold(), year) for title, year in zip(items["title"], years, strict=True)]

    mine: dict[tuple[str, int | None], str] = {}
    for key, item_id in zip(keys(ours.items), ours.items["item_id"], strict=True):
        mine.setdefault(key, item_id)
    ids = [mine.get(key, f"new {i}") for key, i in zip(keys(later.items), later.items["item_id"], strict=True)]
    named = dict(zip(later.items["item_id"], ids, strict=True))
    newcomers = later.items.assign(item_id=ids)
    newcomers = newcomers[newcomers["item_id"].str.startswith("new ")]
    events = later.interactions.assign(item_id=later.interactions["item_id"].map(named))
    dataset = Dataset.of(events, pd.concat([ours.items, newcomers], ignore_index=True), later.users, later.timed)
    catalog, known = Catalog.of(dataset), len(ours.items)
    asked = []
    position = catalog.positions(dataset.interactions["item_id"])
    for user_id, rows in dataset.interactions.groupby("user_id", sort=False).indices.items():
        items, times = position[rows], dataset.interactions["timestamp"].to_numpy()[rows]
        for item, time in zip(items.tolist(), times.tolist(), strict=True):
            history = items[(times < time) & (items < known)].tolist()
            if item >= known and len(history) >= least:
                asked.append(Asked(str(user_id), tuple(history), item))
                break
    if not asked:
        raise DataError(f"nobody chose a newcomer after {least} known titles; name another folder, or --least 1")
    chosen = np.bincount(position, minlength=len(catalog))
    return World(dataset, known, asked, chosen)


def joined(model: Recommender, dataset: Dataset, catalog: Catalog, *, of_base: bool) -> Recommender:
    """The same model over a catalog in which the items of its card stand first; its base places the others, or not."""
    listing = Listing.build(
        catalog, model.template, model.encoder, model.recipe.identifier.max_tokens, model.card["items"],
        model.recipe.new_share, of_adapter(model.card, catalog), trust=model.recipe.new_trust, of_base=of_base,
    )  # fmt: skip
    return replace(model, dataset=dataset, catalog=catalog, listing=listing, of_base=of_base)


def guesses(found: World, catalog: Catalog) -> dict[str, np.ndarray]:
    """Name → (people, newcomers) log p without a model."""
    names = sorted({name for own in catalog.categories for name in own})
    of = np.array([[name in own for name in names] for own in catalog.categories], float)  # (items, categories)
    new = of[found.known :]
    likes = np.stack([of[list(one.history)].sum(0) + 1 for one in found.asked])
    likes /= likes.sum(1, keepdims=True)
    by_kind = likes @ (new / np.maximum(new.sum(0), 1)).T + 1e-9  # a category's share, divided among its newcomers
    times = found.chosen[found.known :] + 1.0
    people = len(found.asked)
    return {
        "uniform": np.full((people, len(new)), -np.log(len(new))),
        "categories of the history": np.log(by_kind / by_kind.sum(1, keepdims=True)),
        "how often others chose it, known afterwards": np.log(times / times.sum())[None].repeat(people, 0),
    }


Result = tuple[np.ndarray, np.ndarray]
"""(people,) nats of the newcomer that was chosen, and the share of others that it stands above."""


def said(log_p: np.ndarray, found: World, others: np.ndarray) -> Result:
    """Of (people, newcomers) log p."""
    rows = np.arange(len(found.asked))
    own = log_p[rows, [one.target - found.known for one in found.asked]]
    return -own, above(own, log_p[rows[:, None], others - found.known])


def answers(name: str, model: Recommender, found: World, others: np.ndarray) -> dict[str, Result]:
    """Of the language model alone; and without what it says to nobody in particular, an order without probabilities."""
    wanted = [[one.target, *more] for one, more in zip(found.asked, others.tolist(), strict=True)]
    scored = model.score([one.history for one in found.asked], wanted, prior=False)
    log_p = np.stack([of_newcomers for of_newcomers, _ in scored])
    every = sorted({item for items in wanted for item in items})
    [(to_nobody, _)] = model.score([()], [every], prior=False)
    usual = dict(zip(every, to_nobody.tolist(), strict=True))
    lift = log_p - np.array([[usual[item] for item in items] for items in wanted])
    nats = np.log(model.recipe.new_share) - log_p[:, 0]
    return {
        name: (nats, above(log_p[:, 0], log_p[:, 1:])),
        f"{name}, less without a history": (np.full(len(nats), np.nan), above(lift[:, 0], lift[:, 1:])),
    }


def above(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(people,) share of `others` (people, n) that are below `own` (people,); equals count half."""
    return (others < own[:, None]).mean(1) + (others == own[:, None]).mean(1) / 2


def table(results: Mapping[str, Result]) -> str:
    lines = ["| of the newcomer that was chosen | nats | above another | adapter's nats less these |",
             "| --- | --- | --- | --- |"]  # fmt: skip
    for name, (nats, share) in results.items():
        gap = shown(paired(results["adapter"][0], nats), "+") if name != "adapter" else ""
        lines.append(f"| {name} | {shown(bootstrap(nats))} | {shown(bootstrap(share))} | {gap} |")
    return "\n".join(lines)


def shown(interval: Interval, sign: str = "") -> str:
    return f"{interval.mean:{sign}.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval.count else ""


if __name__ == "__main__":
    main()
