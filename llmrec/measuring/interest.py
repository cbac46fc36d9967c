"""Suites of interest: what people will choose next, as shares of categories, beside what they then chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from llmrec import config
from llmrec.data.sample import at_most
from llmrec.errors import DataError
from llmrec.measuring.after_list import Person, World, in_blocks
from llmrec.metrics.interest import METRICS, cross_entropy
from llmrec.metrics.significance import compared
from llmrec.parts import Parts, array_of, probabilities
from llmrec.tasks.interest import HORIZON, expected

AVERAGE_ITEMS = (0.1, 0.3, 1, 3, 10, 30, 100)  # tried on validation users

Predicting = Callable[[Sequence[Person]], np.ndarray]
"""People → (people, categories) probabilities."""


def measure(settings: config.Predicted, parts: Parts) -> tuple[dict[str, Any], pd.DataFrame]:
    """See `llmrec.evaluate.Measure.run`: one record per user and predictor, with the metrics and both distributions.

    A user is asked once, with what is known before the first interaction of the split; true are the shares of the
    categories of the first ten interactions of the split, each item divided evenly among its own, as training and its
    validation see it.  Users of whom no such item has a category are left out.
    """
    world = World.of(settings, "interest", adapter="llm" in settings.predictors)
    names = world.catalog.category_names
    if not names:
        raise DataError(f"{world.recipe.domain}: its items have no categories; name their column in the recipe's data")
    asked, true = asked_of(world, names, settings.split)
    if len(asked) > settings.users > 0:
        kept = at_most(range(len(asked)), settings.users, settings.seed)
        asked, true = [asked[i] for i in kept], true[kept]

    def made_from(name: str) -> dict[str, Any]:
        return world.made_from("interest", name, asked) | {"categories": names}

    makers = {name: partial(make, world, names) for name, make in PREDICTORS.items()}
    found, seconds = parts.answers(
        settings.predictors, makers, asked, what="predict", made_from=made_from, table=probabilities, read=array_of
    )
    values = {name: {metric: f(p, true) for metric, f in METRICS.items()} for name, p in found.items()}
    metrics, differences = compared(values, settings.compare, seed=settings.seed, samples=settings.samples)
    records = [
        {"predictor": name, "user_id": person.user_id, **{metric: value[i] for metric, value in values[name].items()},
         "p": found[name][i].tolist(), "true": true[i].tolist()}
        for name in settings.predictors
        for i, person in enumerate(asked)
    ]  # fmt: skip
    return {
        **world.about(users=len(asked), categories=len(names), names=names),
        "predictors": {name: {"metrics": metrics[name], "seconds": seconds[name]} for name in settings.predictors},
        "differences": differences,
    }, pd.DataFrame(records)


def asked_of(world: World, names: Sequence[str], split: str) -> tuple[list[Person], np.ndarray]:
    """Everybody of whom something is known and true, and what is true, (people, categories)."""
    everybody = world.people(split)
    true = np.stack([expected(world.categories_of(person.after[:HORIZON]), names) for person in everybody])
    kept = np.flatnonzero(true.any(1))
    if not len(kept):
        raise DataError(f"{world.recipe.domain}: nothing of the split '{split}' has a category")
    return [everybody[i] for i in kept], true[kept].astype(float)


def _belongs(world: World, names: Sequence[str]) -> np.ndarray:
    """(items, categories): an item's own, divided evenly."""
    return np.stack([expected([own], names) for own in world.catalog.categories]).astype(float)


def _everybodys(world: World, belongs: np.ndarray) -> np.ndarray:
    """(categories,) shares among the training interactions."""
    counts = world.catalog.popularity(world.dataset.interactions) @ belongs
    return counts / counts.sum() if counts.sum() else np.full(belongs.shape[1], 1 / belongs.shape[1])


def _popular(world: World, names: Sequence[str]) -> Predicting:
    everybodys = _everybodys(world, _belongs(world, names))
    return lambda asked: np.tile(everybodys, (len(asked), 1))


def _history(world: World, names: Sequence[str]) -> Predicting:
    """The history's shares, as if it held some average items more: as many as fit validation users best."""
    belongs = _belongs(world, names)
    everybodys = _everybodys(world, belongs)

    def predicting(average: float) -> Predicting:
        def predict(asked: Sequence[Person]) -> np.ndarray:
            p = np.stack([belongs[list(person.history)].sum(0) for person in asked]) + average * everybodys
            return p / p.sum(1, keepdims=True)

        return predict

    known, true = asked_of(world, names, "valid")
    return min(map(predicting, AVERAGE_ITEMS), key=lambda predict: cross_entropy(predict(known), true).mean())


def _model(trained: bool) -> Callable[[World, Sequence[str]], Predicting]:
    def make(world: World, names: Sequence[str]) -> Predicting:
        from llmrec.follow_up import FollowUp

        task = FollowUp.load(world.model(trained), "interest", measured=True)
        assert list(task.categories) == list(names)

        def predict(asked: Sequence[Person]) -> np.ndarray:
            log_p = in_blocks(task.log_p, [person.history for person in asked], "interest")
            p = np.exp(np.asarray(log_p, np.float64))
            return p / p.sum(1, keepdims=True)

        return predict

    return make


PREDICTORS: dict[str, Callable[[World, Sequence[str]], Predicting]] = {
    "popular": _popular,
    "history": _history,
    "base": _model(trained=False),
    "llm": _model(trained=True),
}
