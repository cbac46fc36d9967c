"""What suites of the tasks after a history list share: who is asked, what they chose next, and one model at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmrec import config, prepare
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import Person, people, queries
from llmrec.errors import AdapterError, DataError
from llmrec.measuring.suites import adapter_of, check_cut, depends_on, model_of, under
from llmrec.parts import digest
from llmrec.progress import Bar
from llmrec.tasks.saved import read_card
from llmrec.tasks.template import Template

if TYPE_CHECKING:  # it imports torch
    from llmrec.recommender import Recommender

FORMAT = 3  # of the parts; goes up where the same settings give other answers
BLOCK = 16  # people asked between two looks at the clock
T = TypeVar("T")
R = TypeVar("R")


def in_blocks(ask: Callable[[Sequence[T]], Sequence[R]], asked: Sequence[T], what: str) -> list[R]:
    """The answers of `ask` to all of `asked`, some at a time, with a bar of what is done."""
    answers: list[R] = []
    with Bar(what, total=len(asked), transient=True) as bar:
        for start in range(0, len(asked), BLOCK):
            answers.extend(ask(asked[start : start + BLOCK]))  # which may be an array
            bar.at(min(start + BLOCK, len(asked)), len(asked))
    return answers


@dataclass
class World:
    """One protocol of a domain."""

    settings: config.AfterList
    recipe: config.Recipe
    """The domain's, with the protocol's split settings."""
    dataset: Dataset
    catalog: Catalog
    adapter: Path | None
    """Folder of the adapter; None where none is measured."""
    weights: str | None = None
    """Digest of its weights, when measuring began."""
    _loaded: dict[str | None, Recommender] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: config.AfterList, task: str, *, adapter: bool) -> World:
        """Raises: AdapterError where an adapter is measured and is missing, has not learned `task`, or was trained
        under another split; DataError."""
        recipe = config.load_recipe(settings.domain)
        settings = settings.of(recipe.split)
        folder = adapter_of(recipe, settings) if adapter else None
        weights = read_card(folder).get("weights") if folder else None
        if folder and task not in read_card(folder).get("prompts", {}):
            raise AdapterError(
                f"{config.adapter_name(folder)}: not trained on {task}; name it among the recipe's tasks and "
                f"run `llmrec train {recipe.domain}`, name an adapter that is (adapter=NAME), or leave out llm"
            )
        recipe = under(recipe, settings)
        dataset = prepare.load(recipe)
        if folder:
            check_cut(folder, dataset, settings)
        return cls(settings, recipe, dataset, Catalog.of(dataset), folder, weights)

    def people(self, split: str) -> list[Person]:
        """Everybody with a history whom the split asks about.  Raises: DataError for nobody."""
        settings = self.recipe.split
        found = people(
            queries(self.dataset, self.catalog, split, baskets=settings.baskets, max_targets=settings.max_targets)
        )
        if not found:
            raise DataError(f"{self.recipe.domain}: the split '{split}' asks nobody; prepare it with other shares")
        return found

    def categories_of(self, items: Sequence[int]) -> list[tuple[str, ...]]:
        return [self.catalog.categories[item] for item in items]

    def model(self, trained: bool) -> Recommender:
        """With the adapter, or the base model as it is; the one asked for last stays loaded."""
        return model_of(
            self.recipe, self.adapter if trained else None, self.settings.engine, self._loaded, self.weights
        )

    def made_from(self, task: str, name: str, asked: Sequence[Person]) -> dict[str, Any]:
        """What the answers of `name` to `asked` depend on, beside the code; `llm` and `base` are the model."""
        settings, recipe = self.settings, self.recipe
        found: dict[str, Any] = {
            "format": FORMAT, "task": task, "name": name, "seed": settings.seed,
            "asked": digest([[person.user_id, person.history, person.after] for person in asked]),
            "catalog": self.catalog.digest, "interactions": prepare.digests(recipe),
            "recipe": recipe.model_dump(mode="json", include=config.ANSWERS),
        }  # fmt: skip
        if name in ("llm", "base"):
            card = read_card(self.adapter) if name == "llm" else {}
            today = {each: Template.today(each).digest for each in ("next_item", task)}
            found |= {
                "engine": settings.engine,
                "weights": self.weights if name == "llm" else None,
                "prompts": card.get("prompts", today),
            }
            found["recipe"] = depends_on(recipe)
        return found

    def about(self, **data: Any) -> dict[str, Any]:
        """What results say of the data and the adapter."""
        known = {
            "digests": prepare.digests(self.recipe),
            "catalog": self.catalog.digest,
            "counts": self.dataset.counts(),
        }
        weights = {"name": config.adapter_name(self.adapter), "weights": self.weights} if self.adapter else None
        return {"data": known | data, "adapter": weights}
