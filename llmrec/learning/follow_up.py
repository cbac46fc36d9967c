"""What training needs of tasks after a history list: moments of people's histories, and what came after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmrec import config
from llmrec.data.sample import sampled
from llmrec.data.split import History, histories, people
from llmrec.engine import Prompt
from llmrec.engine.hf import HFEngine
from llmrec.errors import RecipeError
from llmrec.follow_up import FollowUp
from llmrec.learning.next_item import known_items, learned_from, recommender
from llmrec.learning.text import TextLearner
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row, text_row
from llmrec.tasks.template import Name, Template

FEWEST = 5  # items before a moment that training asks about
LEAST_ROOM = 0.25  # of the window: lists are cut to a random length from here up


@dataclass(frozen=True)
class Moment:
    """A history up to some time, and what the person chose after it; catalog positions, oldest first."""

    history: list[int]
    after: list[int]
    trained: bool
    """Whether `after` stands among the training interactions."""


class Moments:
    """Where a recipe's histories can be cut, and which validation asks about."""

    def __init__(self, task: str, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        self.recipe = recipe
        self.settings = recipe.tasks[task]
        model = recommender(recipe, encoder, engine)
        self.follow_up = FollowUp.build(model, Template.today(task))
        self.seed = [recipe.fit.seed, *task.encode()]
        found = histories(model.dataset, model.catalog, "train")
        self._able = [(one.items.tolist(), cuts) for one in found if len(cuts := self._cuts(one))]
        chosen = sampled(people(model.queries("valid")), recipe.fit.valid_users, self.seed)
        self.valid = [Moment([*person.history], [*person.after], False) for person in chosen]

    def train(self, variant: int) -> Iterator[tuple[Moment, np.random.Generator]]:
        """One moment of every person with enough training interactions, or as many in all as the task's `examples`."""
        rng = np.random.default_rng([*self.seed, variant])
        able = self._able
        if not able:
            raise RecipeError(
                f"nobody has training interactions after {FEWEST} earlier ones, too few to ask after a list"
            )
        count = self.settings.examples or len(able)
        for i in np.concatenate([rng.permutation(len(able)) for _ in range(-(-count // len(able)))])[:count]:
            items, cuts = able[i]
            cut = int(rng.choice(cuts))
            yield Moment(self._seen(items[:cut], rng), items[cut:], True), rng

    def _cuts(self, history: History) -> np.ndarray:
        """How many of a history's items may stand before a moment; with baskets none of what comes after it has the
        time of one of these, as validation and tests ask."""
        cuts = np.arange(FEWEST, len(history.items))
        if self.recipe.split.baskets:
            cuts = cuts[history.timestamps[cuts] != history.timestamps[cuts - 1]]
        return cuts

    def finish(self) -> dict[str, Any]:
        """For the card: the categories, and the items of the lists that stand before."""
        task = self.follow_up.template.task
        return known_items(self.follow_up.recommender) | {task: {"categories": list(self.follow_up.categories)}}

    def wordings(self, rng: np.random.Generator) -> tuple[int, int]:
        """One of the turn's and one of the list's."""
        templates = self.follow_up.template, self.follow_up.recommender.template
        turn, before = (int(rng.choice(template.wordings(held_out=False))) for template in templates)
        return turn, before

    def _seen(self, history: list[int], rng: np.random.Generator) -> list[int]:
        """The end of a history that fits into a random part of the window: answers hold for lists of any length."""
        lines = self.follow_up.recommender.listing.lines
        room = self.recipe.fit.window_tokens * rng.uniform(LEAST_ROOM, 0.75)
        taken = int(np.searchsorted(np.cumsum([len(lines[item]) for item in history[::-1]]), room, side="right"))
        return history[-max(taken, FEWEST) :]


class FollowUpText(TextLearner):
    """A task whose reply is text; see `llmrec.learning.Learner`.  A subclass says what the reply to a moment is."""

    split = ""

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        super().__init__(encoder, engine)
        self.moments = Moments(self.task, recipe, encoder, engine)
        self.follow_up = self.moments.follow_up
        if not self.follow_up.template.replies:
            raise RecipeError(f"{self.follow_up.template.path}: replies: none, so training has nothing to teach")
        self.digest = learned_from(self.follow_up.recommender)
        self._asked = list(self._examples(self.moments.valid, np.random.default_rng(self.moments.seed)))
        self.validates = bool(self._asked)

    def example(self, moment: Moment, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(slots of the question, facts of the reply); None where there is nothing to say."""
        raise NotImplementedError

    def rows(self, variant: int) -> list[Row]:
        made = []
        for moment, rng in self.moments.train(variant):
            if (found := self.example(moment, rng)) is None:
                continue
            slots, facts = found
            [prompt] = self.follow_up.prompts([moment.history], [slots], *self.moments.wordings(rng))
            reply = self.follow_up.encoded(self._reply(facts, rng))
            made.append(text_row(prompt.tokens, reply, task=self.task))
        return made

    def questions(self) -> tuple[list[Prompt], list[list[int]]]:
        moments, slots, replies = map(list, zip(*self._asked, strict=True))
        return self.follow_up.prompts([moment.history for moment in moments], slots), replies

    def finish(self, out: Path) -> dict[str, Any]:
        return self.moments.finish()

    def _examples(
        self, moments: Sequence[Moment], rng: np.random.Generator
    ) -> Iterator[tuple[Moment, dict[str, Any], list[int]]]:
        for moment in moments:
            if (found := self.example(moment, rng)) is not None:
                yield moment, found[0], self.follow_up.encoded(self._reply(found[1], rng))

    def _reply(self, facts: dict[str, Any], rng: np.random.Generator) -> list[str | Name]:
        template = self.follow_up.template
        return template.reply_parts(facts, int(rng.integers(len(template.replies))))
