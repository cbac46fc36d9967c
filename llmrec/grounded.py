"""Texts like those that people wrote, ready to be asked for: examples as prompts, an engine, and what replies name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from llmrec import assets, config
from llmrec.data.pairs import Example, Item, Pairs
from llmrec.data.records import one_line, paragraphs
from llmrec.data.sentences import FUNCTION
from llmrec.engine import Engine, Prompt
from llmrec.errors import DataError, RecipeError
from llmrec.metrics.text import NameFinder, words
from llmrec.model.encode import Encoder
from llmrec.tasks import grounded as task
from llmrec.tasks.template import Template
from llmrec.writing import plain, reworded, whole_sentences

_ENDS = re.compile(r"(?<=[.!?])\s+")
TITLE_TOKENS = 16  # longer titles are clipped


@dataclass(frozen=True)
class GroundedTask:
    """One of the two tasks under one recipe."""

    recipe: config.Recipe
    template: Template
    encoder: Encoder

    @property
    def settings(self) -> config.Task:
        return self.recipe.tasks[self.template.task]

    def header(self, example: Example, wording: int = 0) -> tuple[int, ...]:
        """Tokens before the reply; texts beyond the recipe's `max_tokens` and long titles are clipped at their end."""

        def item(one: Item) -> tuple[str, str]:
            return self.encoder.clip(one_line(one.title), TITLE_TOKENS), self._clipped(one.about)

        return self.encoder.header(
            task.messages(
                self.template, self.recipe, person=self._clipped(example.person), item=item(example.item),
                earlier=[item(one) for one in example.earlier], wording=wording,
            )
        )  # fmt: skip

    def reply(self, text: str) -> list[int]:
        """Tokens of the reply that is right, its end included."""
        return [*self.encoder.text(self._clipped(text)), self.encoder.end]

    def _clipped(self, text: str) -> str:
        return self.encoder.clip(one_line(paragraphs(text), limit=10_000), self.settings.max_tokens)


@dataclass(frozen=True)
class Writer:
    """A task, and an engine that answers."""

    asking: GroundedTask
    engine: Engine
    adapter: str | None
    card: dict[str, Any]
    facts: NameFinder
    """What counts as a fact in a text."""

    @classmethod
    def load(cls, recipe: config.Recipe, name: str, adapter: str | None, *, engine: str = "hf") -> Writer:
        """With a trained adapter (`None`: the base model as it is).

        Raises: RecipeError where the recipe does not list the task; EngineError; AdapterError where the adapter is
        missing, of another base, or not trained on it.
        """
        if name not in recipe.tasks:
            raise RecipeError(f"{recipe.domain}: its recipe does not list {name} among its tasks")
        from llmrec.opened import Opened  # it imports torch; a mistake in a name shows before

        opened = Opened.of(recipe, adapter, engine)
        asking = GroundedTask(recipe, opened.wording(name), opened.encoder)
        return cls(asking, opened.start(), adapter, opened.card, facts(source(recipe, name)))

    def write(self, examples: Sequence[Example], wording: int = 0, *, alone: bool = False) -> list[str]:
        """A reply for each, on one line: whole sentences that name no item and no number but those it was told.

        Where none is left the other wordings that were learned are tried, in order, unless `wording` is asked `alone`;
        it is empty where none is left of any.
        """
        learned = [] if alone else self.asking.template.wordings(held_out=False)
        others = [one for one in learned if one != wording]

        def ask(left: list[int], asked: int) -> list[str]:
            some = [examples[i] for i in left]
            return [self.held(text, one.told) for text, one in zip(self._said(some, asked), some, strict=True)]

        return reworded(len(examples), (wording, *others), ask)

    def held(self, text: str, told: str) -> str:
        """`text` without the sentences that name an item or number which `told` does not."""
        known = {*self.facts.facts(told)}

        def holds(said: str) -> bool:
            return known.issuperset(self.facts.facts(said))

        if holds(text):
            return text
        left = " ".join(one for one in _ENDS.split(text) if holds(one))
        return left if holds(left) else ""  # a title may run over two sentences

    def _said(self, examples: Sequence[Example], wording: int) -> list[str]:
        """What the model writes, up to the end of its last sentence."""
        prompts = [Prompt(self.asking.header(example, wording), self.adapter) for example in examples]
        said = self.engine.generate(prompts, max_tokens=self.asking.settings.max_tokens, stop=("\n",))
        return [plain(whole_sentences([one_line(text, limit=10_000)])) for text in said]

    def consensus(self, examples: Sequence[Example]) -> list[str]:
        """Of the replies to every wording that was learned, the one with the most pairs of words in common with the
        others: the least risk among them (minimum Bayes risk; Kumar and Byrne 2004).  The first of equals."""
        wordings = self.asking.template.wordings(held_out=False)
        replies = zip(*(self.write(examples, wording) for wording in wordings), strict=True)
        return [most_alike(texts) for texts in replies]


def most_alike(texts: Sequence[str]) -> str:
    """The text that shares most with the others: the mean F1 of words and of neighbouring words."""
    runs = [Counter([*(said := words(text)), *zip(said, said[1:], strict=False)]) for text in texts]

    def alike(a: Counter[Any], b: Counter[Any]) -> float:
        return 2 * (a & b).total() / max(a.total() + b.total(), 1)

    return texts[int(np.argmax([sum(alike(one, other) for other in runs) for one in runs]))]


def source(recipe: config.Recipe, name: str) -> Pairs:
    """The texts that the recipe's task names.  Raises: RecipeError, DataError, AssetError."""
    settings = recipe.tasks.get(name)
    if settings is None or settings.data is None:
        raise RecipeError(f"{recipe.domain}: tasks.{name}.data: say where the texts are")
    return _read(settings.data.model_dump_json())


def facts(pairs: Pairs) -> NameFinder:
    """Finds facts in texts: titles of items, whose capitals count, and numbers (`NameFinder.facts`).  A title that is
    one common word, "It" say, begins too many sentences to be told from it."""
    titles = {item.title for item in pairs.items.values()}
    return NameFinder({title for title in titles if title.casefold() not in FUNCTION}, cased=True)


@dataclass(frozen=True)
class Told:
    """What a grounded task says of a person, and of an item where it is about one."""

    domain: str
    task: str
    adapter: str | None
    user: str
    item_id: str
    title: str
    text: str
    """Whole sentences; empty where the model wrote none."""
    known: str
    """All that it was told."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: stable keys."""
        return asdict(self)


def told(
    recipe: config.Recipe,
    name: str,
    user: str | None,
    item: str = "",
    *,
    history: Sequence[str] = (),
    adapter: str | None,
    engine: str = "hf",
) -> Told:
    """What the task `name` says of a user whose texts the recipe's source holds, and an item by title or id.

    Raises: RecipeError, DataError (unknown user or item, nobody named), AdapterError (task not learned).
    """
    one = asked(recipe, name, user, item, history=history)
    [text] = Writer.load(recipe, name, adapter, engine=engine).write([one])
    return Told(recipe.domain, name, adapter, user, one.item_id, one.item.title, text, one.told)


def asked(
    recipe: config.Recipe, name: str, user: str | None, item: str = "", *, history: Sequence[str] = ()
) -> Example:
    """What the source of the task `name` knows of a user, and of an item by title or id.

    Raises: RecipeError, DataError (unknown user or item, nobody named).
    """
    if user is None or history:
        raise DataError(
            f"nobody to ask about: {recipe.domain} knows people by its texts; name one with --user, without --history"
        )
    return source(recipe, name).about(user, item)


@lru_cache(maxsize=1)  # both tasks of a recipe read the same texts
def _read(settings: str) -> Pairs:
    return Pairs.read(config.ReviewSource.model_validate_json(settings), assets.resolve)


def examples(pairs: Pairs, name: str) -> list[Example]:
    """What a task is about: every text on an item, or on a person.  Raises: DataError."""
    return pairs.of_items() if name == task.EXPLANATION else pairs.of_people()
