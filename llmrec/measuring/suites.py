"""What suites of all tasks share: their files, where results go, and which adapter may be asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmrec import config
from llmrec.assets import ASSETS
from llmrec.data.dataset import Dataset
from llmrec.errors import AdapterError, RecipeError, did_you_mean
from llmrec.parts import digest
from llmrec.tasks.saved import CARD, read_card

if TYPE_CHECKING:  # it imports torch
    from llmrec.recommender import Recommender

LOG = logging.getLogger("llmrec")
RESULTS = "results.json"
RECORDS = "records.parquet"
PARTS = "parts"
BESIDE_PARTS = frozenset({
    "samples", "compare", "rankers", "lists", "predictors", "writers", "judges",
    "judge_url", "judge_model", "judge_requests", "judge_seconds",
})  # fmt: skip
"""Settings of suites that leave each part as it is: what is measured side by side, and what is said of it."""


def results_folder(name: str, settings: config.Section) -> Path:
    """Where a suite's results go by default: `evaluations/<suite>-<digest of its settings>` in the home folder.

    The same command finds its parts again, on whatever day; another question, such as other `users`, has a folder of
    its own.  Settings that no part depends on share one, so that a suite with more rankers goes on with what is there;
    what else answers depend on (data, adapter, wording), each part says itself.
    """
    asked = settings.model_dump(mode="json", exclude=set(BESIDE_PARTS))
    return config.home() / "evaluations" / f"{name}-{digest(asked)}"


def load_suite_as(kind: type[config.S], suite: str, overrides: tuple[str, ...] = ()) -> tuple[str, config.S]:
    """Name and settings of a suite's file, of the kind that its task asks for.  Raises: RecipeError."""
    path = suite_path(suite)
    return path.stem, config.load_section(kind, path, overrides)


def suite_path(suite: str) -> Path:
    """The file of a suite, by name or path.  Raises: RecipeError naming the nearest suite there is."""
    path = Path(suite)
    if path.suffix not in (".yaml", ".yml"):
        folder = config.project() / "eval"
        path = folder / f"{config.checked_name(suite, 'suite')}.yaml"
        if not path.is_file():
            known = [file.stem for file in folder.glob("*.yaml")]
            raise RecipeError(f"no suite '{suite}' in {folder}{did_you_mean(suite, known)}")
    return path


def under(recipe: config.Recipe, asked: config.Asked) -> config.Recipe:
    """The recipe with a protocol's split.  Another method than its own is prepared in a folder of its own."""
    split = recipe.split.model_copy(update={"method": asked.method, "baskets": asked.baskets})
    domain = recipe.domain
    if asked.method != recipe.split.method:
        domain = f"{domain[: 63 - len(asked.method)]}-{asked.method}"
    return recipe.model_copy(update={"split": split, "domain": domain})


def depends_on(recipe: config.Recipe) -> dict[str, Any]:
    """What a model's answers depend on beside its tasks: some of the recipe, and its base's weights, which only a named
    asset holds for certain."""
    import torch

    from llmrec.model.load import base_model, compute_dtype

    found = recipe.model_dump(mode="json", include=config.ANSWERS)
    found["computed"] = str(compute_dtype(recipe.fit.precision, "cuda" if torch.cuda.is_available() else "cpu"))
    return found if recipe.base_model in ASSETS else found | {"base_digest": base_model(recipe.base_model).digest}


def adapter_of(recipe: config.Recipe, asked: config.Asked) -> Path:
    """Folder of the adapter to measure; its card must say that it was trained under the same cut.

    Raises: AdapterError.
    """
    name = asked.adapter or recipe.domain
    folder = config.adapter_folder(name)
    card = read_card(folder)
    if not card:
        raise AdapterError(f"{folder}: no trained adapter (no {CARD}); run `llmrec train {config.domain_of(name)}`")
    cut = ("method",) if asked.method == "leave_one_out" else ("method", "valid", "test")
    wanted = under(recipe, asked).split.model_dump(mode="json")
    trained = card.get("recipe", {}).get("split", {})
    wanted, trained = ({f"split.{key}": split.get(key) for key in cut} for split in (wanted, trained))
    wanted["data.min_rating"] = recipe.interactions.min_rating  # it moves the cut
    trained["data.min_rating"] = (card.get("recipe", {}).get("data") or {}).get("min_rating")
    for key, value in wanted.items():
        if trained[key] != value:
            raise AdapterError(
                f"{folder}: trained with {key}={trained[key]}, so it may have seen the answers of "
                f"'{asked.label}' ({key}={value}); name an adapter trained under that split"
            )
    return folder


def check_cut(folder: Path, dataset: Dataset, asked: config.Asked) -> None:
    """Raises: AdapterError where what the adapter learned from reaches beyond today's cut by time: data that came or
    went since has moved it.  Under leave-one-out it says where other choices are held out than were then."""
    card = read_card(folder)
    until, held_out = card.get("learned_until"), card.get("held_out")
    if asked.method == "leave_one_out" and held_out not in (None, dataset.held_out):
        LOG.warning(
            "%s: trained when other choices were held out than today; right where choices were added since, but where "
            "the data was sorted anew or has lost some, it may have seen answers: train it again", folder
        )  # fmt: skip
    later = dataset.interactions.loc[dataset.interactions["split"] != "train", "timestamp"]
    if asked.method == "time" and isinstance(until, int) and len(later) and until >= later.min():
        raise AdapterError(
            f"{folder}: trained on what was chosen later than the cut that the data has today, so it may have seen the "
            "answers; train it again"
        )


def model_of(
    recipe: config.Recipe,
    adapter: Path | None,
    engine: str,
    loaded: dict[str | None, Recommender],
    weights: str | None = None,
) -> Recommender:
    """With the adapter, or the base model as it is; among `loaded` only the one asked for last stays.

    Raises: AdapterError, also where the adapter's `weights` are no longer those that measuring began with.
    """
    from llmrec.engine import start as engines
    from llmrec.recommender import Recommender

    name = config.adapter_name(adapter) if adapter else None
    model = engines.alone(loaded, name, partial(Recommender.load, recipe, name, engine=engine))
    if name and weights is not None:
        check_same(model.card, weights, name)
    return model


def check_same(card: Mapping[str, Any], weights: Any, adapter: str) -> None:
    """Raises: AdapterError where what was loaded is not the adapter of these weights, which measuring began with."""
    if card.get("weights") != weights:
        raise AdapterError(
            f"{adapter}: another version took its place while it was measured; run the same command again"
        )


def check_unseen(
    card: Mapping[str, Any], task: str, of: Literal["texts", "reviews"], digest: str, adapter: str, domain: str
) -> None:
    """Raises: AdapterError where the adapter may have seen the answers: it must have learned the task, from the split
    of this digest."""
    learned = card.get(task)
    if not (isinstance(learned, dict) and learned.get(of) == digest):
        raise AdapterError(
            f"{adapter}: no adapter that learned {task} from this split of the {of} (it may have seen the answers); "
            f"run `llmrec train {domain}`, or leave it out"
        )


def versions() -> dict[str, str]:
    """What the numbers were computed with; what is not installed is left out."""
    found = {}
    for name in ("llmrec", "numpy", "scipy", "scikit-learn", "torch", "transformers", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
