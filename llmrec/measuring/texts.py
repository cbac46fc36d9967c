"""Suites of interest_summary and explanation: what several writers say to the same people, beside what the data says.

What a reply names is taken from its parts, where each name is marked, never guessed from its letters: what plain words
claim is not judged by `faithful`, and a reply without marked names counts as `silent`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec import config
from llmrec.baselines.sentences import copied, typical
from llmrec.baselines.together import Together
from llmrec.data.sample import at_most
from llmrec.data.sentences import sentences
from llmrec.errors import DataError, RecipeError
from llmrec.measuring.after_list import Person, World, in_blocks
from llmrec.measuring.replies import Scored, check, reported
from llmrec.metrics.llm_judge import LLMJudge
from llmrec.metrics.text import measured, words
from llmrec.parts import Parts
from llmrec.tasks import explanation, interest_summary
from llmrec.tasks.follow_up import shares
from llmrec.tasks.next_item import named
from llmrec.tasks.template import Name, Template

if TYPE_CHECKING:  # it imports torch
    from llmrec.follow_up import FollowUp

LOG = logging.getLogger("llmrec")
TOP = 3  # categories of which a summary may put any first
REFERENCE = (
    "The reference is what the data says, in a random one of the prompt file's replies: `template`, which fills in the "
    "first of them, is near it by construction. exact is the share of replies that are word for word one of those "
    "replies, so that every claim in them holds."
)

LEFT_OUT = (
    "What plain words claim is not judged; a model's reply loses the sentences that the prompt file's replies would "
    "say of other facts only."
)
LATEST = 30  # items of a history that a judge is told

Reply = list[str | Name]
Writing = Callable[["Sequence[Person]"], list[Reply]]


class Kind(Protocol):
    """One of the two tasks: what is true, what is asked, and which names of a reply are right."""

    judged: str
    """How names are judged, for the table."""

    def facts(self, person: Person) -> dict[str, Any] | None:
        """Of the reply that the data gives; None where there is nothing to say."""

    def replies(self, task: FollowUp, people: Sequence[Person]) -> list[Reply]:
        """What a model writes."""

    def claims(self, person: Person, reply: Reply) -> dict[str, bool]:
        """Everything that the reply names, and whether it is true."""

    def about(self, person: Person) -> dict[str, Any]:
        """What a record says beside the user."""


class Summaries:
    """The first category is one of the history's three most frequent, every other one occurs in the history, and every
    item is of the history and of a category that the reply names."""

    judged = (
        f"A name is true where the first category is one of the history's {TOP} most frequent, every other one occurs "
        f"in the history, and an item is of the history and of a category that the reply names. {LEFT_OUT}"
    )

    def __init__(self, world: World, identifiers: Sequence[str]) -> None:
        self.world, self.identifiers = world, identifiers

    def facts(self, person: Person) -> dict[str, Any] | None:
        lines = [self.identifiers[item] for item in person.history]
        return interest_summary.facts(lines, self.world.categories_of(person.history))

    def replies(self, task: FollowUp, people: Sequence[Person]) -> list[Reply]:
        from llmrec.insight import summary_replies

        return summary_replies(task, [person.history for person in people])

    def claims(self, person: Person, reply: Reply) -> dict[str, bool]:
        held = list(shares(self.world.categories_of(person.history)))
        categories, items = _names(reply)
        true = {f"category {name}": name in (held if i else held[:TOP]) for i, name in enumerate(categories)}
        kinds = {self.identifiers[item]: set(self.world.catalog.categories[item]) for item in person.history}
        return true | {f"item {name}": bool(kinds.get(name, set()) & {*categories}) for name in items}

    def about(self, person: Person) -> dict[str, Any]:
        return {}


class Explanations:
    """Categories are the item's own, and of the history, too, where the two share any; every item named is another one
    of the history that at least three people chose together with it.  The item is the first that the user chose in the
    split."""

    judged = (
        "A name is true where a category is the item's own, and of the history, too, if the two share any, and an item "
        "is another one of the history that at least three people chose together with this one in training. "
        f"{LEFT_OUT}"
    )

    def __init__(self, world: World, identifiers: Sequence[str]) -> None:
        self.world, self.identifiers = world, identifiers
        self.together = Together.fit(world.dataset, world.catalog)

    def facts(self, person: Person) -> dict[str, Any] | None:
        near = self.together.nearest(person.after[0], person.history)
        [own] = self.world.categories_of(person.after[:1])
        lines = [self.identifiers[item] for item in person.history]
        return explanation.facts(lines, self.world.categories_of(person.history), own, near)

    def replies(self, task: FollowUp, people: Sequence[Person]) -> list[Reply]:
        from llmrec.insight import explanation_replies, nearest

        items = [person.after[0] for person in people]
        near = [nearest(self.together, person.history, item) for person, item in zip(people, items, strict=True)]
        return explanation_replies(task, [person.history for person in people], items, near)

    def claims(self, person: Person, reply: Reply) -> dict[str, bool]:
        item, others = person.after[0], sorted({*person.history} - {person.after[0]})
        [own] = self.world.categories_of([item])
        shared = {*own} & {*shares(self.world.categories_of(person.history))}
        similar = self.together.similar(item, others)
        near = {self.identifiers[other] for other, value in zip(others, similar, strict=True) if value > 0}
        categories, items = _names(reply)
        true = {f"category {name}": name in (shared or own) for name in categories}
        return true | {f"item {name}": name in near for name in items}

    def about(self, person: Person) -> dict[str, Any]:
        return {"item_id": self.world.catalog.item_id[person.after[0]]}


KINDS: dict[str, Callable[[World, Sequence[str]], Kind]] = {
    "interest_summary": Summaries,
    "explanation": Explanations,
}


def measure(settings: config.Written, parts: Parts) -> tuple[dict[str, Any], pd.DataFrame]:
    """See `llmrec.evaluate.Measure.run`: one record per user and writer, with reply, reference and metrics.

    A user is asked once, with what is known before the first interaction of the split.  The wording is the one that the
    adapter was trained on where it is measured, else today's.
    """
    from llmrec.follow_up import FollowUp
    from llmrec.writing import plain

    judge = LLMJudge.of(settings)
    world = World.of(settings, settings.task, adapter="llm" in settings.writers)
    task = FollowUp.load(world.model("llm" in settings.writers), settings.task, measured=True)
    template, identifiers = task.template, task.recommender.listing.identifiers
    del task  # and with it the model, once another one is asked for
    if not template.replies:
        raise RecipeError(f"{template.path}: replies: none, so there is nothing to compare with")
    kind = KINDS[settings.task](world, identifiers)
    able = [(one, facts) for one in world.people(settings.split) if (facts := kind.facts(one)) is not None]
    if not able:
        raise DataError(f"{world.recipe.domain}: there is nothing to say of anybody; do its items have categories?")
    chosen = at_most(able, settings.users, settings.seed)
    asked = [person for person, _ in chosen]
    check(settings, judge, len(asked))
    given = [facts | {"domain": named(world.recipe)} for _, facts in chosen]
    right = [[plain(template.reply_parts(facts, i)) for i in range(len(template.replies))] for facts in given]
    rng = np.random.default_rng(settings.seed)
    references = [texts[int(rng.integers(len(texts)))] for texts in right]

    notes = [REFERENCE, kind.judged]
    makers: dict[str, Callable[[], Writing]] = {
        "template": lambda: _template(template, given),
        "copy": lambda: _copy(world),
        "base": lambda: _model(world, kind, settings.task, trained=False),
        "llm": lambda: _model(world, kind, settings.task, trained=True),
    }
    writers = list(settings.writers)
    if "copy" in writers and not _can_copy(world, kind):
        writers = [name for name in writers if name != "copy"]
        notes.append(f"`copy` is left out: {settings.task} of this data has no reviews to copy from.")
        LOG.warning(notes[-1])
    if not writers:
        raise DataError(f"{world.recipe.domain}: no writer is left; name others")

    def made_from(name: str) -> dict[str, Any]:
        return world.made_from(settings.task, name, asked) | {"wording": template.digest}

    found, seconds = parts.answers(
        writers, makers, asked, what="write", made_from=made_from, table=_stored, read=_replies
    )
    texts = {name: [plain(reply) for reply in replies] for name, replies in found.items()}
    scored: dict[str, Scored] = {}
    for name, replies in found.items():
        claims = [kind.claims(person, reply) for person, reply in zip(asked, replies, strict=True)]
        values, corpus = measured(
            texts[name], references=references, named=claims,
            true=[{claim for claim, holds in one.items() if holds} for one in claims],
            features=world.catalog.category_names,
        )  # fmt: skip
        exact = [float(text in ones) for text, ones in zip(texts[name], right, strict=True)]
        values["exact"] = np.array(exact)
        scored[name] = values, corpus
    results, records = reported(
        texts, scored, seconds, about=[{"user_id": person.user_id, **kind.about(person)} for person in asked],
        known=[_known(world, kind, person) for person in asked], references=references, judge=judge, parts=parts,
        notes=notes, settings=settings,
    )  # fmt: skip
    return {**world.about(asked=len(asked)), **results}, records


def _template(template: Template, given: Sequence[Mapping[str, Any]]) -> Writing:
    """The first reply, filled from the facts."""
    return lambda people: [template.reply_parts(facts) for facts in given]


def _reviews(world: World) -> pd.DataFrame:
    events = world.dataset.interactions
    return events[(events["split"] == "train") & events["review"].notna()]


def _can_copy(world: World, kind: Kind) -> bool:
    if not isinstance(kind, Explanations):
        return False
    return any(words(sentence) for text in _reviews(world)["review"] for sentence in sentences(text))


def _copy(world: World) -> Writing:
    """The most typical sentence of the item's training reviews, of all where it has none."""
    reviews = _reviews(world)
    everyones = typical(reviews["review"], [None] * len(reviews))
    by_item = typical(reviews["review"], reviews["item_id"])

    def write(people: Sequence[Person]) -> list[Reply]:
        items = [world.catalog.item_id[person.after[0]] for person in people]
        return [[text] for text in copied(by_item, items, " ".join(everyones[None]))]

    return write


def _model(world: World, kind: Kind, task: str, *, trained: bool) -> Writing:
    from llmrec.follow_up import FollowUp

    loaded = FollowUp.load(world.model(trained), task, measured=True)
    return lambda people: in_blocks(lambda some: kind.replies(loaded, some), people, task)


def _stored(replies: Sequence[Reply]) -> pa.Table:
    """A part's table; names as pairs of kind and text."""
    lines = [[[part.kind, part.text] if isinstance(part, Name) else part for part in reply] for reply in replies]
    return pa.table({"reply": pa.array(map(json.dumps, lines), pa.string())})


def _replies(part: pa.Table) -> list[Reply]:
    lines = map(json.loads, part["reply"].to_pylist())
    return [[one if isinstance(one, str) else Name.of(*one) for one in line] for line in lines]


def _known(world: World, kind: Kind, person: Person) -> str:
    """What a judge is told of a person: the latest of the history with their categories, and the item asked about."""

    def said(item: int) -> str:
        return f"{world.catalog.title[item]} ({', '.join(world.catalog.categories[item])})"

    lines = [f"{world.recipe.noun} chosen, oldest first: {'; '.join(map(said, person.history[-LATEST:]))}"]
    lines += [f"{world.recipe.unit} asked about: {said(person.after[0])}"] if isinstance(kind, Explanations) else []
    return "\n".join(lines)


def _names(reply: Reply) -> tuple[list[str], list[str]]:
    """(categories, items) of a reply, in order."""
    names = [part for part in reply if isinstance(part, Name)]
    categories, items = ([name.text for name in names if name.kind == kind] for kind in ("category", "item"))
    return categories, items
