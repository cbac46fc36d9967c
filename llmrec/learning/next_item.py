"""next_item as training sees it: histories as rows, the catalog as the closed set, NDCG@10 as the measure."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp
from torch import Tensor

from llmrec import codes, config, prepare
from llmrec.baselines.teacher import Teacher
from llmrec.choices import bonus as terms
from llmrec.choices.search import listed, log_p_all, rank
from llmrec.choices.search import score as log_p_of
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset, read_manifest
from llmrec.data.sample import at_most
from llmrec.data.split import Query, histories, one_of_each
from llmrec.engine.hf import HFEngine
from llmrec.errors import RecipeError
from llmrec.files import digest
from llmrec.metrics.ranking import hr, ndcg, ranks
from llmrec.model import adapter as adapters
from llmrec.model import rows, transfer
from llmrec.model.encode import Encoder
from llmrec.recommender import Listing, Recommender
from llmrec.tasks import next_item
from llmrec.tasks.saved import read_card
from llmrec.tasks.template import Template

LOG = logging.getLogger("llmrec")
METRIC = "ndcg@10"
PRIOR_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)  # tried on validation
WHOLE = 2000  # items up to which a whole distribution is computed
BEST = 20  # items that the model, and the prior, bring in a larger catalog, …
DRAWN = 50  # … and how many stand for the rest
TOGETHER = 16  # users whose items are scored together: bounds memory
SHARPNESS = np.geomspace(0.0125, 1.5, 50)  # factors of a score


class NextItem:
    """See `llmrec.learning.Learner`."""

    metric = METRIC
    split = ""

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        self.recommender = recommender(recipe, encoder, engine)
        self.trie = self.recommender.listing.choices.trie
        if len(self.trie) > adapters.MAX_KNOWN_ITEMS:
            raise RecipeError(
                f"{recipe.domain}: {len(self.trie):,} items, and an adapter can be trained on at most "
                f"{adapters.MAX_KNOWN_ITEMS:,}; leave out the rare ones with data.k_core"
            )
        self.digest = learned_from(self.recommender)
        self.asked = one_of_each(self.recommender.queries("valid"), recipe.fit.valid_users, recipe.fit.seed)
        self.fitted: Teacher | None = None
        self.validates = bool(self.asked)

    def rows(self, variant: int) -> list[rows.Row]:
        return training_rows(self.recommender, variant)

    def teacher(self, run: Path) -> Callable[[Sequence[rows.Row]], Tensor] | None:
        recipe = self.recommender.recipe
        learns = recipe.teacher.share and recipe.fit.epochs
        if learns or recipe.prior.kind == "teacher":
            self.fitted = teacher(self.recommender, run).to(self.recommender.engine.device)
        if recipe.prior.kind == "teacher":
            self.recommender.prior = self.fitted
        return expectations(self.fitted) if learns and self.fitted else None

    def validate(self) -> dict[str, float]:
        return validation(self.recommender, self.asked)

    def finish(self, out: Path) -> dict[str, Any]:
        weight, fitted = fit_prior_weight(self.recommender, self.asked)
        card = {**known_items(self.recommender), "prior_weight": weight, "prior_weights_tried": fitted}
        if self.recommender.recipe.prior.kind == "teacher":
            assert self.fitted is not None
            self.fitted.save(out / adapters.TEACHER, self.recommender.catalog)
            card["teacher"] = digest(out / adapters.TEACHER)
        return card


def learned_from(recommender: Recommender) -> str:
    """Digest of everything that was prepared of a domain: items, interactions, users, how they are split, and codes."""
    made = [prepare.digests(recommender.recipe), *recommender.listing.codes]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]


def known_items(recommender: Recommender) -> dict[str, Any]:
    """What a card says of the catalog whose titles, and codes, an adapter has learned."""
    listing = recommender.listing
    known = {"catalog": recommender.catalog.digest, "items": adapters.item_digests(listing.identifiers)}
    if not listing.codes:
        return known
    return known | {"codes": dict(zip(map(adapters.item_digest, listing.identifiers), listing.codes, strict=True))}


def as_learned(recipe: config.Recipe, adapter: str | None) -> config.Recipe:
    """The recipe that reads lists as an adapter does, with its codes or without any; None: as a new one would."""
    if adapter is None:
        return recipe.model_copy(update={"init_from": None})
    identifier = recipe.identifier.model_copy(update={"codes": 0})
    return recipe.model_copy(update={"identifier": identifier, "init_from": adapter})


def recommender(recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None) -> Recommender:
    """The recipe's domain with today's wording, around the model in training.  Raises: DataError, PromptError."""
    folder = prepare.prepare(recipe)
    template = Template.today("next_item")
    manifest = json.dumps(read_manifest(folder))
    dataset, catalog, listing = _lists(
        folder, manifest, template.path, template.digest, recipe.identifier, _start(recipe), encoder
    )
    prepare.check(recipe)
    return Recommender(
        recipe=recipe, dataset=dataset, catalog=catalog, listing=listing, encoder=encoder, template=template,
        engine=engine, adapter="default",
    )  # fmt: skip


@lru_cache(maxsize=1)  # the tasks of one training stand on the same lists
def _lists(
    folder: Path, manifest: str, prompt: Path, digest: str, settings: config.Identifier, start: Path | None,
    encoder: Encoder,
) -> tuple[Dataset, Catalog, Listing]:  # fmt: skip
    """What is built of a prepared folder and a prompt file, which `manifest` and `digest` tell from earlier ones."""
    dataset = Dataset.load(folder)
    catalog = Catalog.of(dataset)
    known = read_card(start).get("codes") or {}

    def coding(identifiers: Sequence[str]) -> Sequence[str]:
        if known and any(item in known for item in map(adapters.item_digest, identifiers)):
            return codes.of_items(known, identifiers, catalog.categories)
        return codes.learned(dataset, catalog, settings.codes) if settings.codes else ()

    return dataset, catalog, Listing.build(catalog, Template.load(prompt), encoder, settings.max_tokens, coding=coding)


def _start(recipe: config.Recipe) -> Path | None:
    """The folder of the adapter that the recipe starts from, if there is one: `train` says what is missing."""
    if recipe.init_from is None:
        return None
    folder = transfer.find(recipe.init_from)
    return folder if (folder / adapters.CARD).is_file() else None


def training_rows(recommender: Recommender, variant: int) -> list[rows.Row]:
    """The training histories as token rows, in one of `fit.variants` different cuts and wordings."""
    recipe, lines = recommender.recipe, recommender.listing.lines
    settings = recipe.fit
    wordings = recommender.template.wordings(held_out=False)
    rng = np.random.default_rng((settings.seed, variant))
    made: list[rows.Row] = []
    if settings.supervision == "last" and (settings.latest or settings.overlap) and not variant:
        LOG.warning("fit.latest and fit.overlap say nothing of rows of one target each (fit.supervision=last)")
    found = [one for one in histories(recommender.dataset, recommender.catalog, "train") if len(one.items)]
    for history in at_most(found, recipe.tasks["next_item"].examples, settings.seed):
        wording = wordings[int(rng.integers(len(wordings)))]
        header = recommender.encoder.header(next_item.messages(recommender.template, recipe, wording))
        items = rows.shuffled_ties(history.items, history.timestamps, rng)
        if settings.left_out:
            items = rows.thinned(items, rng.uniform(0, settings.left_out), rng)
        if settings.supervision == "last":
            made += rows.last_rows(header, lines, items, window_tokens=settings.window_tokens)
            continue
        room = max(settings.window_tokens - len(header), 0)  # too little is said below
        if settings.latest:
            items, first = rows.latest(lines, items, settings.latest * room), room
        else:
            first = int(rng.integers(room // 3, room + 1))
        made += rows.dense_rows(
            header, lines, items, window_tokens=settings.window_tokens, overlap=settings.overlap, first_tokens=first
        )
    return made


def teacher(recommender: Recommender, run: Path) -> Teacher:
    """The recipe's teacher, fitted on the training events; what is fitted already lies in `run`."""
    asked = recommender.queries("valid")
    return Teacher.fit(recommender.recipe, recommender.dataset, recommender.catalog, asked, run)


def expectations(fitted: Teacher) -> Callable[[Sequence[rows.Row]], Tensor]:
    """What a teacher expects at all targets of some rows, (targets, items)."""

    def expects(part: Sequence[rows.Row]) -> Tensor:
        lines = [np.concatenate([row.context, row.choices]) for row in part]
        return fitted.expects([
            line[: len(row.context) + k] for row, line in zip(part, lines, strict=True) for k in range(len(row.choices))
        ])  # fmt: skip

    return expects


def validation(recommender: Recommender, asked: Sequence[Query]) -> dict[str, float]:
    """HR@10 and NDCG@10 of the model alone over the whole catalog."""
    recommender.engine.forget()
    lists = recommender.rank([query.history for query in asked], 10, prior=False)
    recommender.engine.forget()
    found = ranks(listed(lists, 10), [query.target for query in asked])
    return {"hr@10": float(hr(found, 10).mean()), METRIC: float(ndcg(found, 10).mean())}


def fit_prior_weight(recommender: Recommender, asked: Sequence[Query]) -> tuple[float, list[dict[str, float]]]:
    """The weight of the prior under which what happened is most probable on `asked`, and nats an item, the sharpness
    that they are measured at, and NDCG@10 of every weight tried.

    By likelihood, because NDCG@10 of a few hundred users cannot tell one weight from another; and at the sharpness
    that suits each weight best, because two models that know the same are too sure of themselves when they are added
    up, which says nothing of the order.  What is needed of the model is computed once for each query, then every weight
    is arithmetic: its whole distribution, or, in a large catalog, where that would be most of a training, what the
    model and the prior find best, the target, and a random sample that stands for all the rest.
    """
    once = recommender.recipe.split.repeats == "exclude"
    asked = [query for query in asked if not once or query.target not in query.history]  # else no weight can help
    if not asked:
        return 0.0, []
    recommender.engine.forget()
    nats = np.zeros((len(PRIOR_WEIGHTS), len(SHARPNESS)))
    gains = np.zeros(len(PRIOR_WEIGHTS))
    for query, items, times, log_p in _weighed(recommender, asked):
        hidden = terms.mask(len(recommender.catalog), query.history if once else ())[items]
        [target] = np.flatnonzero(items == query.target)
        p = recommender.prior.p(query.history)
        for i, weight in enumerate(PRIOR_WEIGHTS):
            prior = terms.mix(p, recommender.prior.popularity, weight, recommender.recipe.prior.floor)[items]
            score = (log_p + prior + hidden).astype(np.float64)
            better = int(times[score > score[target]].sum())
            gains[i] += float(ndcg(np.array([better + 1]), 10)[0])
            nats[i] += logsumexp(SHARPNESS[:, None] * score, axis=1, b=times) - SHARPNESS * score[target]
    best = nats.argmin(axis=1)
    table = [
        {"weight": weight, "nats": float(nats[i, best[i]]) / len(asked), "sharpness": float(SHARPNESS[best[i]]),
         METRIC: float(gains[i]) / len(asked)}
        for i, weight in enumerate(PRIOR_WEIGHTS)
    ]  # fmt: skip
    return min(table, key=lambda row: row["nats"])["weight"], table


def _weighed(
    recommender: Recommender, asked: Sequence[Query]
) -> Iterator[tuple[Query, np.ndarray, np.ndarray, np.ndarray]]:
    """Each query with items, ascending, the target among them; how many items each stands for; the model's log p."""
    prompts = recommender.prompts([query.history for query in asked])
    choices, engine = recommender.listing.choices, recommender.engine
    many, once = len(choices), recommender.recipe.split.repeats == "exclude"
    if many <= WHOLE:
        for query, log_p in zip(asked, log_p_all(engine, prompts, choices), strict=True):
            yield query, np.arange(many), np.ones(many), log_p
        return
    rng = np.random.default_rng(0)
    for first in range(0, len(asked), TOGETHER):
        some, mine = asked[first : first + TOGETHER], prompts[first : first + TOGETHER]
        items, times = [], []
        hidden = [terms.without(many, query.history if once else ()) for query in some]
        for query, none, found in zip(some, hidden, rank(engine, mine, choices, hidden.__getitem__, BEST), strict=True):
            p = recommender.prior.p(query.history) + none.dense()
            best = np.unique([*found.items, *np.argsort(-p)[:BEST], query.target])
            rest = np.setdiff1d(np.arange(many), best)
            drawn = rng.choice(rest, min(DRAWN, len(rest)), replace=False)
            order = np.argsort(both := np.concatenate([best, drawn]))
            items.append(both[order])
            times.append(np.repeat([1.0, len(rest) / max(1, len(drawn))], [len(best), len(drawn)])[order])
        yield from zip(some, items, times, log_p_of(engine, mine, choices, items), strict=True)
