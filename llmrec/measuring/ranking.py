"""Suites of next_item: every ranker on the same queries of the whole catalog, with intervals over users."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec import config, prepare
from llmrec.baselines import Ranker, ScoreRanker
from llmrec.baselines.popular import Popular
from llmrec.baselines.transitions import Transitions
from llmrec.choices import bonus as terms
from llmrec.choices.search import listed
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import Query, histories, of_users, queries
from llmrec.errors import DataError, RecipeError, did_you_mean
from llmrec.files import digest
from llmrec.measuring import elsewhere
from llmrec.measuring.suites import adapter_of, check_cut, depends_on, model_of, under
from llmrec.metrics import ranking
from llmrec.metrics.report import main_cutoff
from llmrec.metrics.significance import compared
from llmrec.metrics.slices import slices
from llmrec.parts import Parts, Seconds
from llmrec.progress import Bar
from llmrec.tasks.saved import read_card
from llmrec.tasks.template import Template

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.recommender import Recommender

LOG = logging.getLogger("llmrec")
FORMAT = 2  # of the parts; goes up where the same settings give other lists
TASK = "next_item"
BLOCK = 32  # queries ranked between two looks at the clock

Tick = Callable[[int, int], None]
"""Called with what is done and the total; either may grow."""


@dataclass(frozen=True)
class World:
    """What a ranker may know: one protocol's data, never its answers."""

    recipe: config.Recipe
    """The domain's, with the protocol's split settings."""
    suite: config.Suite
    dataset: Dataset
    catalog: Catalog
    valid: list[Query]
    """Queries for choosing settings and for early stopping."""
    adapter: Path | None
    """Folder of the trained adapter; None where there is none."""
    tick: Tick
    weights: str | None = None
    """Digest of the adapter's weights, when measuring began."""
    loaded: dict[str | None, Recommender] = field(default_factory=dict)
    """Adapter (None: the base model) → what was loaded for an earlier ranker of the protocol."""

    def model(self, *, trained: bool = True) -> Recommender:
        """With the adapter, or the base model as it is."""
        assert self.adapter or not trained, "a ranker with an adapter belongs in LLM"
        return model_of(self.recipe, self.adapter if trained else None, self.suite.engine, self.loaded, self.weights)


Factory = Callable[[World], Ranker]


def _popular(world: World) -> Ranker:
    return ScoreRanker(Popular(world.catalog.popularity(world.dataset.interactions)), world.recipe.split.repeats)


def _transitions(world: World) -> Ranker:
    fitted = Transitions.fit(world.dataset, world.catalog, world.recipe.prior)
    return ScoreRanker(fitted, world.recipe.split.repeats)


def _sasrec(world: World) -> Ranker:
    from llmrec.baselines.sasrec import SASRec

    fitted = SASRec.fit(
        histories(world.dataset, world.catalog), len(world.catalog), world.valid, world.suite.sasrec,
        baskets=world.recipe.split.baskets, repeats=world.recipe.split.repeats, seed=world.suite.seed, tick=world.tick,
    )  # fmt: skip
    return ScoreRanker(fitted, world.recipe.split.repeats)


@dataclass(frozen=True)
class LanguageModel:
    """The recommender as a ranker, with or without the card's weight of the transition prior."""

    recommender: Recommender
    prior: bool

    def rank(self, queries: Sequence[Query], n: int) -> np.ndarray:
        """(queries, n) int32 positions, -1 where a list ends early."""
        return listed(self.recommender.rank([query.history for query in queries], n, prior=self.prior), n)


@dataclass(frozen=True)
class PriorAlone:
    """What a recommender adds to its model's log p, without the model."""

    recommender: Recommender

    @property
    def items(self) -> int:
        return len(self.recommender.catalog)

    def scores(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        """(queries, items) float32 nats."""
        prior, floor = self.recommender.prior, self.recommender.recipe.prior.floor
        known = len(self.recommender.listing.choices.trie)
        return np.stack(
            [terms.mix(prior.p(history), prior.popularity, 1.0, floor, known=known) for history in histories]
        )


def _prior(world: World) -> Ranker:
    return ScoreRanker(PriorAlone(world.model()), world.recipe.split.repeats)


RANKERS: dict[str, Factory] = {
    "popular": _popular,
    "transitions": _transitions,
    "sasrec": _sasrec,
    "base": lambda world: LanguageModel(world.model(trained=False), prior=False),  # the base model, as it is
    "prior": _prior,  # of the adapter, alone
    "llm": lambda world: LanguageModel(world.model(), prior=False),
    "llm+prior": lambda world: LanguageModel(world.model(), prior=True),
}
LLM = frozenset({"prior", "llm", "llm+prior"})  # these need an adapter


def protocols(settings: config.Suite, recipe: config.Recipe) -> tuple[config.Asked, ...]:
    """What a suite lists, or the recipe's own split.  Raises: RecipeError where two are the same."""
    asked = tuple(one.of(recipe.split) for one in settings.splits or (config.Asked(),))
    labels = [one.label for one in asked]
    if len(set(labels)) < len(labels):
        raise RecipeError(f"splits: one is listed twice ({', '.join(labels)})")
    return asked


def write_questions(settings: config.Suite, folder: Path) -> list[Path]:
    """What a ranker of another program may know of each protocol, and is asked, in a folder of its own: see
    `llmrec.measuring.elsewhere`.

    All queries, whatever `users` says.  Raises: RecipeError, DataError.
    """
    recipe = config.load_recipe(settings.domain)
    folders = []
    for asked in protocols(settings, recipe):
        protocol = Protocol.of(under(recipe, asked), asked)
        folders.append(folder / asked.label)
        elsewhere.write(
            folders[-1], protocol.dataset, protocol.catalog, protocol.questions, protocol.valid,
            protocol.digest,
        )  # fmt: skip
    return folders


@dataclass(frozen=True)
class Protocol:
    """What one protocol knows and asks."""

    dataset: Dataset
    catalog: Catalog
    questions: list[Query]
    """All of them."""
    valid: list[Query]

    @property
    def digest(self) -> str:
        """Of all that a ranker elsewhere is told, and of what is right."""
        learned = pd.util.hash_pandas_object(elsewhere.events(self.dataset), index=False).to_numpy().tobytes()
        questions = question_digest(self.questions, self.catalog)
        return hashlib.sha256(questions.encode() + learned).hexdigest()[:12]

    @classmethod
    def of(cls, recipe: config.Recipe, asked: config.Asked) -> Protocol:
        """Raises: DataError where nothing is asked."""
        dataset = prepare.load(recipe)
        catalog = Catalog.of(dataset)
        questions, valid = (
            queries(dataset, catalog, split, baskets=asked.baskets, max_targets=recipe.split.max_targets)
            for split in (asked.split, "valid")
        )
        if not questions:
            raise DataError(f"{recipe.domain}: the split '{asked.split}' asks nothing; prepare it with other shares")
        return cls(dataset, catalog, questions, valid)


def measure(settings: config.Suite, parts: Parts) -> tuple[dict[str, Any], pd.DataFrame]:
    """See `llmrec.evaluate.Measure.run`: one record per query and ranker, with the rank and what was ranked."""
    for ranker in settings.rankers:
        if ranker not in RANKERS and ranker not in settings.lists:
            raise RecipeError(f"rankers: unknown ranker '{ranker}'{did_you_mean(ranker, RANKERS)}")
    for ranker in settings.lists:
        if ranker in RANKERS:
            raise RecipeError(f"lists: '{ranker}' is a ranker of every suite; give yours another name")
    recipe = config.load_recipe(settings.domain)
    asked_for = protocols(settings, recipe)
    needs_adapter = bool(LLM & set(settings.rankers))
    adapters = [adapter_of(recipe, asked) if needs_adapter else None for asked in asked_for]
    weights = [read_card(adapter).get("weights") if adapter else None for adapter in adapters]

    found: dict[str, Any] = {}
    records: list[pd.DataFrame] = []
    for asked, adapter, before in zip(asked_for, adapters, weights, strict=True):
        found[asked.label], frames = _measure(asked, adapter, before, recipe, settings, parts)
        records += frames
    return {"splits": found}, pd.concat(records, ignore_index=True)


def _measure(
    asked: config.Asked,
    adapter: Path | None,
    weights: str | None,
    recipe: config.Recipe,
    suite: config.Suite,
    parts: Parts,
) -> tuple[dict[str, Any], list[pd.DataFrame]]:
    """One protocol: its entry in the results, and a frame of records per ranker."""
    recipe = under(recipe, asked)
    protocol = Protocol.of(recipe, asked)
    dataset, catalog = protocol.dataset, protocol.catalog
    if adapter:
        check_cut(adapter, dataset, asked)
    questions = of_users(protocol.questions, suite.users, suite.seed)
    theirs = _elsewhere(asked, protocol, questions, recipe.split.repeats, suite)
    questions_digest = question_digest(questions, catalog)
    depth = max(suite.cutoffs)
    popularity = catalog.popularity(dataset.interactions)
    user_ids = [query.user_id for query in questions]

    measured: dict[str, Any] = {}
    frames: list[pd.DataFrame] = []
    places: dict[str, np.ndarray] = {}
    per_user: dict[str, dict[str, np.ndarray]] = {}
    loaded: dict[str | None, Recommender] = {}
    for name in suite.rankers:
        bar = Bar(f"{asked.label}: {name}")
        world = World(recipe, suite, dataset, catalog, protocol.valid, adapter, bar.at, weights, loaded)
        settings = theirs[name].digest if name in theirs else _settings(name, world)
        made_from = {
            "format": FORMAT, "questions": questions_digest, "depth": depth, "seed": suite.seed, "ranker": name,
            "settings": settings, "adapter": weights if name in LLM else None,
            "interactions": prepare.digests(recipe), "engine": suite.engine if name in LLM | {"base"} else None,
            "repeats": recipe.split.repeats,
        }  # fmt: skip

        def make(name: str = name, world: World = world) -> tuple[pa.Table, Seconds]:
            if name in theirs:
                lists, seconds = theirs[name].lists, {}
            else:
                lists, seconds = _rank(RANKERS[name], world, questions, depth)
            return _part(lists, questions, catalog, asked.label, name), seconds

        with bar:
            (lists, frame), seconds = parts.get(
                f"{asked.label}/{name}", made_from, make, lambda part: (_lists(part, catalog, depth), part.to_pandas())
            )
            bar.at(len(questions), len(questions))

        places[name] = ranking.ranks(lists, [query.target for query in questions])
        per_user[name] = user_metrics(places[name], lists, user_ids, popularity, suite.cutoffs)
        measured[name] = {
            "seconds": seconds,
            "coverage": {f"coverage@{k}": ranking.coverage(lists, k, len(catalog)) for k in suite.cutoffs},
        }
        frames.append(frame)
    for model in loaded.values():  # the next protocol has another
        model.engine.close()
    metrics, differences = compared(per_user, suite.compare, seed=suite.seed, samples=suite.samples)
    return {
        "data": {
            "digests": prepare.digests(recipe),
            "catalog": catalog.digest,
            "questions": questions_digest,
            **dataset.counts(),
        },
        "adapter": {"name": config.adapter_name(adapter), "weights": weights} if adapter else None,
        "users": len(set(user_ids)),
        "queries": len(questions),
        "rankers": {name: {"metrics": metrics[name], **measured[name]} for name in measured},
        "differences": differences,
        "slices": sliced(questions, places, popularity, suite),
    }, frames


@dataclass(frozen=True)
class Theirs:
    """What a ranker of another program answers."""

    lists: np.ndarray
    """(queries, depth) int32 positions, -1 where a list ends early."""
    digest: str
    """Of the file."""


def _elsewhere(
    asked: config.Asked, protocol: Protocol, questions: Sequence[Query], repeats: str, suite: config.Suite
) -> dict[str, Theirs]:
    """By name.  Raises: DataError."""
    users = {query.user_id for query in questions}
    numbers = [number for number, query in enumerate(protocol.questions) if query.user_id in users]
    told = protocol.digest if suite.lists else ""
    found = {}
    for name, folder in suite.lists.items():
        file = Path(folder) / asked.label / f"{name}.parquet"
        lists = np.full((len(questions), max(suite.cutoffs)), -1, np.int32)
        answers = elsewhere.read(file, numbers, protocol.catalog, told)
        short = 0
        for query, items, row in zip(questions, answers, lists, strict=True):
            kept = items[~np.isin(items, query.history)] if repeats == "exclude" else items
            row[: len(kept)] = kept[: len(row)]
            short += len(items) > 0 and len(kept) < len(row)
        if short:
            LOG.warning(
                "%s: %d of %d lists have fewer than %d places, leaving out what the person has seen: what is not there "
                "counts as not found", file, short, len(lists), len(row),
            )  # fmt: skip
        found[name] = Theirs(lists, digest(file))
    return found


def sliced(
    questions: Sequence[Query], places: Mapping[str, np.ndarray], popularity: np.ndarray, suite: config.Suite
) -> dict[str, Any]:
    """The main metric of every ranker, and the suite's paired differences, among a part of the queries at a time.

    Args:
        places: ranker → (queries,) rank of the target.
        popularity: (items,) training interactions.
    """
    k = main_cutoff(suite.cutoffs)
    parts = slices([query.target for query in questions], [len(query.history) for query in questions], popularity)
    found = {}
    for part, mask in parts.items():
        user_ids = [questions[i].user_id for i in np.flatnonzero(mask)]
        values = {name: {f"ndcg@{k}": ranking.by_user(ranking.ndcg(rank[mask], k), user_ids)}
                  for name, rank in places.items()}  # fmt: skip
        metrics, differences = compared(values, suite.compare, seed=suite.seed, samples=suite.samples)
        found[part] = {"queries": int(mask.sum()), "metrics": metrics, "differences": differences}
    return found


def user_metrics(
    ranks: np.ndarray,
    lists: np.ndarray,
    user_ids: Sequence[str],
    interactions: np.ndarray,
    cutoffs: Sequence[int],
) -> dict[str, np.ndarray]:
    """`hr@k`, `ndcg@k`, `mrr@k` and `popularity@k`, each (users,): a user's queries are averaged first."""
    found = {
        f"{name}@{k}": ranking.by_user(metric(ranks, k), user_ids)
        for name, metric in ranking.METRICS.items()
        for k in cutoffs
    }
    return found | {
        f"popularity@{k}": ranking.by_user(ranking.popularity(lists, k, interactions), user_ids) for k in cutoffs
    }


def question_digest(questions: Sequence[Query], catalog: Catalog) -> str:
    """First 12 hex digits of SHA-256 over who is asked, what is known and what is right, and the catalog."""
    sha256 = hashlib.sha256(catalog.digest.encode())
    for query in questions:
        sha256.update(json.dumps([query.user_id, query.target, *query.history]).encode())
    return sha256.hexdigest()[:12]


def _rank(
    factory: Factory, world: World, questions: Sequence[Query], depth: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Lists (queries, depth), and the seconds it took to make the ranker ready (`fit`) and to rank."""
    start = time.perf_counter()
    ranker = factory(world)
    ready = time.perf_counter()
    lists = np.full((len(questions), depth), -1, np.int32)
    for first in range(0, len(questions), BLOCK):
        world.tick(first, len(questions))
        lists[first : first + BLOCK] = ranker.rank(questions[first : first + BLOCK], depth)
    return lists, {"fit": round(ready - start, 3), "rank": round(time.perf_counter() - ready, 3)}


def _settings(name: str, world: World) -> Any:
    """The settings that decide a ranker's lists, beside the data and the adapter's weights."""
    if name == "sasrec":
        return world.suite.sasrec.model_dump(mode="json")
    prior = world.recipe.prior.model_dump(mode="json")
    if name in LLM or name == "base":
        card = read_card(world.adapter) if name in LLM else {}
        today = {} if name in LLM else {TASK: Template.today(TASK).digest}
        prior = card.get("recipe", {}).get("prior", prior)
        added = {"prior": prior, "prior_weight": card.get("prior_weight"), "teacher": card.get("teacher")}
        return {**(added if name in ("prior", "llm+prior") else {}), "prompts": card.get("prompts", today),
                **depends_on(world.recipe)}  # fmt: skip
    return prior if name == "transitions" else None


def _part(
    lists: np.ndarray,
    questions: Sequence[Query],
    catalog: Catalog,
    label: str,
    name: str,
) -> pa.Table:
    """One ranker's records: user_id, split, ranker, target and items as item ids, rank (0: not in the list)."""
    ids = np.array(catalog.item_id, dtype=object)
    targets = [query.target for query in questions]
    return pa.table({
        "user_id": pa.array([query.user_id for query in questions], pa.string()),
        "split": pa.array([label] * len(questions), pa.string()),
        "ranker": pa.array([name] * len(questions), pa.string()),
        "target": pa.array(ids[targets].tolist(), pa.string()),
        "rank": pa.array(ranking.ranks(lists, targets), pa.int32()),
        "items": pa.array([ids[found[found >= 0]].tolist() for found in lists], pa.list_(pa.string())),
    })  # fmt: skip


def _lists(part: pa.Table, catalog: Catalog, depth: int) -> np.ndarray:
    """(queries, depth) int32 positions of a part, -1 where a list ends early.  Raises: DataError, ValueError."""
    items = part["items"].combine_chunks()
    lists = np.full((len(items), depth), -1, np.int32)
    lengths = items.value_lengths().to_numpy(zero_copy_only=False)
    there = np.arange(depth) < lengths[:, None]
    lists[there] = catalog.positions(items.flatten().to_pandas())
    return lists
