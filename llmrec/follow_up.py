"""Tasks after a history list: categories as a closed set, prompts behind lists, and texts that name things."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from llmrec import config, writing
from llmrec.choices import identifiers
from llmrec.choices.search import Choices, log_p_all
from llmrec.choices.trie import ChoiceTrie
from llmrec.engine import Prompt
from llmrec.errors import AdapterError, DataError
from llmrec.recommender import Recommender
from llmrec.tasks import explanation, interest_summary, next_item
from llmrec.tasks.claims import Claim, Readings, borne_out, readings
from llmrec.tasks.follow_up import message
from llmrec.tasks.saved import saved_prompts
from llmrec.tasks.template import Name, Template
from llmrec.writing import Allowed, Names

LOG = logging.getLogger("llmrec")

MAX_CATEGORIES = 10  # of an item, in a question about it
VARIANTS = {"explanation": explanation.variants, "interest_summary": interest_summary.variants}


@dataclass(frozen=True)
class FollowUp:
    """One such task of a recommender's domain."""

    recommender: Recommender
    template: Template
    names: Mapping[str, Names]
    """What a reply may name, by kind: the catalog's items, and its categories in the order of the alphabet."""

    @classmethod
    def build(cls, recommender: Recommender, template: Template, known: Sequence[str] | None = None) -> FollowUp:
        """Names the categories `known`, by default all of the catalog.

        Raises: DataError where the domain's items have no categories.
        """
        categories = known or recommender.catalog.category_names
        if len(categories) < 2:
            raise DataError(
                f"{recommender.recipe.domain}: {template.task} needs items of two or more categories, and they have "
                f"{len(categories)}; name the column of categories in the recipe's data, or leave the task out"
            )
        longest = recommender.recipe.identifier.max_tokens
        lines = identifiers.lines(categories, recommender.encoder.lines, max_tokens=longest)
        listing = recommender.listing
        return cls(
            recommender, template,
            {
                "item": Names(listing.identifiers, listing.names, listing.named),
                "category": Names(categories, lines, Choices(ChoiceTrie.build(lines))),
            },
        )  # fmt: skip

    @classmethod
    def load(cls, recommender: Recommender, task: str, *, measured: bool = False) -> FollowUp:
        """With the wording and the categories that the recommender's adapter was trained on (without one: today's).

        Categories that came later are not named; they are an error where it is `measured` beside others.

        Raises: AdapterError where the adapter has not learned the task, or a category is gone.
        """
        if recommender.adapter is None:
            return cls.build(recommender, Template.today(task))
        folder = config.adapter_folder(recommender.adapter)
        saved = saved_prompts(folder, recommender.card)
        known = recommender.card.get(task)
        if task not in saved or not isinstance(known, dict):
            raise AdapterError(
                f"{recommender.adapter}: not trained on {task} (only {', '.join(saved)}); `llmrec summarize` "
                "needs interest and interest_summary, `llmrec explain` explanation: name them among the recipe's "
                f"tasks, and run `llmrec train {recommender.recipe.domain}`"
            )
        categories = known.get("categories")
        if not isinstance(categories, list) or not all(isinstance(name, str) for name in categories):
            categories = []
        if len({*categories}) != len(categories) or len(categories) < 2:
            raise AdapterError(f"{folder}: the categories that {task} was trained on cannot be read; train it again")
        today = {*recommender.catalog.category_names}
        if gone := sorted({*categories} - today):
            raise AdapterError(
                f"{recommender.adapter}: {task} was trained on the category '{gone[0]}', which no item has any more; "
                "name it as before, or train again"
            )
        if new := sorted(today - {*categories}):
            if measured:
                raise AdapterError(
                    f"{recommender.adapter}: {task} was trained before there was a category '{new[0]}', which may be "
                    "the right answer here; train it again"
                )
            LOG.warning(
                "%s: %s does not name what training never saw: %s", recommender.recipe.domain, task, ", ".join(new[:5])
            )
        return cls.build(recommender, saved[task], categories)

    @cached_property
    def readings(self) -> Readings:
        """What the sentences of the template's replies claim."""
        variants = VARIANTS[self.template.task]()
        return readings(self.template, variants, next_item.named(self.recommender.recipe))

    @property
    def categories(self) -> Sequence[str]:
        return self.names["category"].texts

    def categories_of(self, items: Sequence[int]) -> list[tuple[str, ...]]:
        """Those of each item that the task names."""
        return [
            tuple(name for name in self.recommender.catalog.categories[item] if name in self._named) for item in items
        ]

    @cached_property
    def _named(self) -> frozenset[str]:
        return frozenset(self.categories)

    def lines_of(self, items: Sequence[int]) -> list[str]:
        """Their identifiers."""
        return [self.recommender.listing.identifiers[item] for item in items]

    def item_slot(self, item: int) -> dict[str, Any]:
        """What a wording may say of an item."""
        catalog = self.recommender.catalog
        return {
            "title": catalog.title[item],
            "year": catalog.year[item],
            "categories": list(catalog.categories[item])[:MAX_CATEGORIES],
        }

    def prompts(
        self,
        histories: Sequence[Sequence[int]],
        slots: Sequence[Mapping[str, Any]] | None = None,
        wording: int = 0,
        list_wording: int = 0,
    ) -> list[Prompt]:
        """One prompt per history (catalog positions, oldest first): the list as next_item reads it, so that both share
        what is computed of it, then the turn, with what the wording says of `slots`."""
        model = self.recommender
        before = next_item.messages(model.template, model.recipe, list_wording)
        prompts = []
        for i, prompt in enumerate(model.prompts(histories, list_wording)):
            asked = message(self.template, model.recipe, wording, **(slots[i] if slots else {}))
            prompts.append(Prompt(prompt.tokens + model.encoder.turn(before, asked), prompt.adapter))
        return prompts

    def log_p(self, histories: Sequence[Sequence[int]], wording: int = 0) -> np.ndarray:
        """(histories, categories) float32 nats."""
        if not histories:
            return np.empty((0, len(self.categories)), np.float32)
        return log_p_all(
            self.recommender.engine, self.prompts(histories, wording=wording), self.names["category"].choices
        )

    def encoded(self, parts: Sequence[str | Name]) -> list[int]:
        """Tokens of a reply.  Raises: PromptError."""
        return writing.encoded(parts, self.names, self.recommender.encoder)

    def write(
        self,
        histories: Sequence[Sequence[int]],
        allowed: Allowed,
        holds: Callable[[int, Claim], bool],
        slots: Sequence[Mapping[str, Any]] | None = None,
        wording: int | None = None,
    ) -> list[list[str | Name]]:
        """A reply per history that names only what is `allowed`: catalog positions, or those of `categories`; a
        sentence that the template's replies would say of other facts only is left out.

        Args:
            holds: whether a sentence's claim is true of the history at this place.
            wording: the only one that is asked; None: the first, and where no whole sentence came of it the others that
                were learned, in order.
        """
        model, known = self.recommender, self.readings

        def ask(left: list[int], asked: int) -> list[list[str | Name]]:
            prompts = self.prompts([histories[i] for i in left], [slots[i] for i in left] if slots else None, asked)

            def may(i: int, kind: str, said: Sequence[str | Name]) -> Sequence[int]:
                return allowed(left[i], kind, said)

            written = writing.write(model.engine, model.encoder, prompts, self.names, may)
            return [borne_out(reply, known, partial(holds, i)) for i, reply in zip(left, written, strict=True)]

        wordings = self.template.wordings(held_out=False) if wording is None else (wording,)
        return writing.reworded(len(histories), wordings, ask)
