"""Reviews ready to be judged: wording, a closed set of labels, an engine, and the card's calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np

from llmrec import assets, config
from llmrec.choices import identifiers
from llmrec.choices.search import Choices, log_p_all
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.records import one_line, paragraphs
from llmrec.data.reviews import Reviews
from llmrec.engine import Engine, Prompt
from llmrec.errors import AdapterError, PromptError, RecipeError
from llmrec.metrics.classification import tempered
from llmrec.model.encode import Encoder
from llmrec.tasks import OF_REVIEWS
from llmrec.tasks.reviews import messages
from llmrec.tasks.template import Message, Template

SENTIMENT = "review_sentiment"  # what is asked unless another task is named
HEADLINE_TOKENS = 24  # longer headlines are clipped

Said = tuple[str, str | None]
"""Text and headline of a review."""


@dataclass(frozen=True)
class ReviewTask:
    """What one prompt file asks of reviews under one recipe, and its closed set, as tokens."""

    recipe: config.Recipe
    template: Template
    encoder: Encoder
    labels: tuple[str, ...]
    lines: list[np.ndarray]  # tokens of each label as a reply
    choices: Choices
    shots: tuple[Message, ...] = ()  # answered examples, turn by turn, that every question follows

    @classmethod
    def build(
        cls, recipe: config.Recipe, template: Template, encoder: Encoder, known: Sequence[str] = ()
    ) -> ReviewTask:
        """`known`: the categories of the data.  Raises: PromptError, RecipeError, DataError, ChoiceError."""
        labels = OF_REVIEWS[template.task].labels(template, recipe.tasks[template.task].labels, known)
        lines = identifiers.lines(labels, encoder.lines, max_tokens=recipe.identifier.max_tokens)
        return cls(recipe, template, encoder, labels, lines, Choices(ChoiceTrie.build(lines)))

    def turns(self, text: str, headline: str | None = None, wording: int = 0) -> tuple[Message, ...]:
        """The turns before the reply; a text beyond the recipe's `max_tokens` is clipped at its end."""
        text = self.encoder.clip(paragraphs(text), self.recipe.tasks[self.template.task].max_tokens)
        headline = self.encoder.clip(one_line(headline or ""), HEADLINE_TOKENS)
        *system, question = messages(self.template, self.recipe, text, headline, wording)
        return (*system, *self.shots, question)

    def header(self, text: str, headline: str | None = None, wording: int = 0) -> tuple[int, ...]:
        """Tokens before the reply."""
        return self.encoder.header(self.turns(text, headline, wording))

    def shown(self, reviews: Sequence[Said], labels: Sequence[int]) -> ReviewTask:
        """The same task asked after `reviews` with their labels, as turns of the conversation (few-shot)."""
        shots = [
            turn
            for (text, headline), label in zip(reviews, labels, strict=True)
            for turn in (self.turns(text, headline)[-1], Message("assistant", self.labels[label]))
        ]
        return replace(self, shots=tuple(shots))

    def log_p(
        self, engine: Engine, reviews: Sequence[Said], adapter: str | None = None, wording: int = 0
    ) -> np.ndarray:
        """(reviews, labels) float32 nats."""
        prompts = [Prompt(self.header(text, headline, wording), adapter) for text, headline in reviews]
        if not prompts:
            return np.empty((0, len(self.labels)), np.float32)
        return log_p_all(engine, prompts, self.choices)


def source(recipe: config.Recipe, task: str) -> Reviews:
    """The reviews that the recipe's task names.  Raises: RecipeError, DataError, AssetError."""
    settings = recipe.tasks.get(task)
    if settings is None or settings.data is None:
        raise RecipeError(f"{recipe.domain}: tasks.{task}.data: say where the reviews are")
    return Reviews.read(settings.data, assets.resolve)


@dataclass(frozen=True)
class Judge:
    """A domain's task of reviews, an engine, and the card's calibration."""

    task: ReviewTask
    engine: Engine
    adapter: str | None
    temperature: float
    card: dict[str, Any] = field(default_factory=dict)
    shift: tuple[float, ...] = ()
    """Nats that each label is given beside its log p, for what the balance of the training examples took from it."""

    @property
    def template(self) -> Template:
        """The wording that asks."""
        return self.task.template

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the columns of `p`."""
        return self.task.labels

    @classmethod
    def load(
        cls, recipe: config.Recipe, adapter: str | None, *, task: str = SENTIMENT, engine: str = "hf"
    ) -> Judge:  # fmt: skip
        """With a trained adapter (`None`: the base model as it is, not calibrated).

        Args:
            engine: `hf`, `vllm`, or the address of a vLLM server.
        Raises: EngineError; AdapterError where the adapter is missing, of another base, or not trained on this task;
            RecipeError where the recipe does not list it.
        """
        if task not in recipe.tasks:
            raise RecipeError(f"{recipe.domain}: its recipe does not list {task} among its tasks")
        from llmrec.opened import Opened  # it imports torch; a mistake in a name shows before

        opened = Opened.of(recipe, adapter, engine)
        folder, card = opened.folder, opened.card
        template = opened.wording(task)
        learned: Any = card.get(task)
        if folder and not isinstance(learned, dict):
            raise AdapterError(f"{folder}: not trained on {task} (only {', '.join(opened.saved)})")
        known = _texts(learned.get("labels")) if folder else ()
        if not folder and not template.labels:
            known = source(recipe, task).categories
        if folder:
            recipe = told_apart(recipe, task, card)
        asked = ReviewTask.build(recipe, template, opened.encoder, known)
        if folder and asked.labels != known:
            raise AdapterError(f"{folder}: trained to tell other labels apart than its recipe names; train again")
        temperature = learned.get("temperature") if folder else 1.0
        if not (isinstance(temperature, int | float) and 0 < temperature < 1000):
            raise AdapterError(f"{folder}: the card names no temperature for {task}; restore it or train again")
        shift = learned.get("shift", []) if folder else []
        finite = isinstance(shift, list) and all(isinstance(nats, int | float) and isfinite(nats) for nats in shift)
        if not finite or len(shift) not in (0, len(known)):
            raise AdapterError(
                f"{folder}: the card's shift of {task} does not fit its labels; restore it or train again"
            )
        return cls(asked, opened.start(), adapter, float(temperature), card, tuple(shift))

    def p(self, reviews: Sequence[Said], wording: int = 0) -> np.ndarray:
        """(reviews, labels) calibrated probabilities."""
        log_p = self.task.log_p(self.engine, reviews, self.adapter, wording)
        return tempered(log_p + np.array(self.shift) if self.shift else log_p, self.temperature)


def edited_task(judge: Judge, edited: Template) -> ReviewTask:
    """What `judge` is asked, in the words of an edited prompt file.

    Raises: PromptError where that names other labels than the adapter tells apart, or the same in another order.
    """
    task = ReviewTask.build(judge.task.recipe, edited, judge.task.encoder, judge.labels)
    if task.labels != judge.labels:
        raise PromptError(f"{edited.path}: labels: others than the adapter tells apart; train again first")
    return task


def told_apart(recipe: config.Recipe, task: str, card: Mapping[str, Any]) -> config.Recipe:
    """The recipe with the labels that the adapter of `card` tells apart, unless it names some."""
    learned = card.get(task)
    labels = _texts(learned.get("labels")) if isinstance(learned, dict) else ()
    if not labels or recipe.tasks[task].labels:
        return recipe
    settings = recipe.tasks[task].model_copy(update={"labels": labels})
    return recipe.model_copy(update={"tasks": {**recipe.tasks, task: settings}})


def _texts(values: Any) -> tuple[str, ...]:
    """A card's labels; what is no text is none."""
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()
