"""prepare: from a domain's source to a folder of interactions, items and users, split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from llmrec import assets, config
from llmrec.data import sources
from llmrec.data.dataset import Dataset, read_manifest
from llmrec.data.pairs import Pairs
from llmrec.data.reviews import Reviews
from llmrec.data.split import SPLITS, k_core, split
from llmrec.errors import DataError, RecipeError
from llmrec.locks import locked
from llmrec.tasks import OF_REVIEWS
from llmrec.tasks.template import Template


def prepare(recipe: config.Recipe, *, force: bool = False) -> Path:
    """Folder of the prepared domain.

    A complete folder that was made with the same `data` and `split` settings from unchanged files is kept, unless
    `force`.  Raises: DataError, AssetError.
    """
    source = recipe.interactions
    folder = data_folder(recipe)
    made_from = {
        "domain": recipe.domain,
        "licence": recipe.licence,
        **_settings(recipe),
        "source": sources.stamp(source, assets.PREFIX),
    }
    if not force and _is_current(folder, made_from):
        return folder
    with locked(folder.with_name(f".{folder.name}.lock"), DataError, doing="prepares the same domain"):
        if force or not _is_current(folder, made_from):  # another process may have been first
            dataset = sources.read(source, assets.resolve)
            dataset = rated(dataset, source.min_rating)
            dataset = k_core(split(dataset, recipe.split), source.k_core)
            dataset = dataset.only_of(sources.without(dataset.users["user_id"], source, assets.resolve))
            dataset.save(folder, made_from)
    return folder


def load(recipe: config.Recipe) -> Dataset:
    """The domain's dataset, prepared now where it is missing or its settings changed.  Raises: DataError."""
    dataset = Dataset.load(prepare(recipe))
    check(recipe)
    return dataset


def texts(recipe: config.Recipe, task: str) -> tuple[dict[str, int], dict[str, int]]:
    """How many texts of a task each split has, and how many mean each label, commonest first (empty where the task has
    none): its source is read and checked as a training would.

    Raises: RecipeError, PromptError, DataError, AssetError.
    """
    settings = recipe.tasks[task]
    if settings.data is None:
        raise RecipeError(f"{recipe.domain}: tasks.{task}.data: say where the texts are")
    if task not in OF_REVIEWS:
        return _counts(Pairs.read(settings.data, assets.resolve).table["split"], SPLITS), {}
    reviews, template = Reviews.read(settings.data, assets.resolve), Template.today(task)
    labels = OF_REVIEWS[task].labels(template, settings.labels, reviews.categories)
    true = pd.Series(OF_REVIEWS[task].true(template, reviews.table, labels))
    found = _counts(true[true >= 0].map(dict(enumerate(labels))), labels)
    return _counts(reviews.table["split"], SPLITS), dict(sorted(found.items(), key=lambda one: -one[1]))


def _counts(values: pd.Series, names: Sequence[str]) -> dict[str, int]:
    found = values.value_counts()
    return {name: int(found.get(name, 0)) for name in names}


def check(recipe: config.Recipe) -> None:
    """To call when what was prepared has been read.

    Raises: DataError where another process has prepared the domain with other settings meanwhile: what is to be tested
    could be trained on.
    """
    manifest = read_manifest(data_folder(recipe)) or {}
    if any(manifest.get(key) != value for key, value in _settings(recipe).items()):
        raise DataError(
            f"{data_folder(recipe)}: prepared with other settings by another process meanwhile; run one after the "
            "other, or each with an LLMREC_HOME of its own"
        )


def _settings(recipe: config.Recipe) -> dict[str, Any]:
    """What the prepared files depend on; the rest of `split` says what is asked of them."""
    cut = recipe.split.model_dump(mode="json", include={"method", "valid", "test"})
    return {"data": recipe.interactions.model_dump(mode="json"), "split": cut}


def data_folder(recipe: config.Recipe) -> Path:
    """Where the domain's prepared data lies, made or not."""
    return config.home() / "data" / config.checked_name(recipe.domain, "domain")


def digests(recipe: config.Recipe) -> dict[str, str]:
    """Of the domain's prepared files, by name; empty before it is prepared."""
    return dict((read_manifest(data_folder(recipe)) or {}).get("files", {}))


def rated(dataset: Dataset, min_rating: float | None) -> Dataset:
    """Without the interactions rated below `min_rating`; those without a rating stay.

    Raises: DataError where the source has no ratings, or nothing remains.
    """
    if min_rating is None:
        return dataset
    rating = dataset.interactions["rating"].to_numpy()
    below = rating < min_rating
    if not (rating == rating).any():
        raise DataError(
            f"data.min_rating={min_rating:g}: the source has no ratings; leave it out or map columns.rating"
        )
    if below.all():
        raise DataError(f"data.min_rating={min_rating:g} leaves no interactions (highest rating {rating.max():g})")
    return dataset.only(~below)


def _is_current(folder: Path, made_from: dict[str, Any]) -> bool:
    """A source out of reach counts as unchanged: what is prepared needs it no more."""
    manifest = read_manifest(folder)
    compared = ("data", "split", "source") if made_from["source"] else ("data", "split")
    return manifest is not None and all(manifest.get(key) == made_from[key] for key in compared)
