"""Reviews ready to be judged: wording, labels as a closed set, an engine, and the card's calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from llmrec import config
from llmrec.choices.search import Choices, log_p_all
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.records import one_line, paragraphs
from llmrec.engine import Engine, Prompt
from llmrec.engine import start as engines
from llmrec.errors import AdapterError, RecipeError
from llmrec.metrics.classification import tempered
from llmrec.model import adapter as adapters
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, load_tokenizer
from llmrec.tasks import review_sentiment as task
from llmrec.tasks.saved import saved_prompts
from llmrec.tasks.template import Label, Template

TASK = "review_sentiment"
HEADLINE_TOKENS = 24  # longer headlines are clipped


@dataclass(frozen=True)
class Sentiment:
    """The labels of one prompt file under one recipe, as tokens."""

    recipe: config.Recipe
    template: Template
    encoder: Encoder
    labels: tuple[Label, ...]
    lines: list[np.ndarray]  # tokens of each label as a reply
    choices: Choices

    @classmethod
    def build(cls, recipe: config.Recipe, template: Template, encoder: Encoder) -> Sentiment:
        """Raises: PromptError, RecipeError."""
        labels = task.labels(template, recipe.tasks[TASK].labels)
        lines = [np.asarray(ids, np.int32) for ids in encoder.lines([label.text for label in labels])]
        return cls(recipe, template, encoder, labels, lines, Choices(ChoiceTrie.build(lines)))

    def header(self, text: str, headline: str | None = None, wording: int = 0) -> tuple[int, ...]:
        """Tokens before the reply; a text beyond the recipe's `max_tokens` is clipped at its end."""
        text = self.encoder.clip(paragraphs(text), self.recipe.tasks[TASK].max_tokens)
        headline = self.encoder.clip(one_line(headline or ""), HEADLINE_TOKENS)
        return self.encoder.header(task.messages(self.template, self.recipe, text, headline, wording))

    def log_p(
        self,
        engine: Engine,
        reviews: Sequence[tuple[str, str | None]],
        adapter: str | None = None,
        wording: int = 0,
    ) -> np.ndarray:
        """(reviews, labels) float32 nats for pairs of text and headline."""
        prompts = [Prompt(self.header(text, headline, wording), adapter) for text, headline in reviews]
        if not prompts:
            return np.empty((0, len(self.labels)), np.float32)
        return log_p_all(engine, prompts, self.choices)


@dataclass(frozen=True)
class Judge:
    """A domain's sentiment, an engine, and the temperature of the card."""

    sentiment: Sentiment
    engine: Engine
    adapter: str | None
    temperature: float
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def template(self) -> Template:
        """The wording that asks."""
        return self.sentiment.template

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the columns of `p`."""
        return tuple(label.text for label in self.sentiment.labels)

    @classmethod
    def load(cls, recipe: config.Recipe, adapter: str | None, *, engine: str = "hf") -> Judge:
        """With a trained adapter (`None`: the base model as it is, not calibrated).

        Args:
            engine: `hf`, `vllm`, or the address of a vLLM server.
        Raises: EngineError; AdapterError where the adapter is missing, of another base, or not trained on this task.
        """
        if TASK not in recipe.tasks:
            raise RecipeError(f"{recipe.domain}: its recipe does not list {TASK} among its tasks")
        folder = config.adapter_folder(adapter) if adapter else None
        if folder:
            adapters.check(folder)  # before anything heavy is loaded
        card = adapters.read_json(folder / adapters.CARD) if folder else {}
        base = base_model(recipe.base_model)
        template = Template.load(config.project() / "prompts" / f"{TASK}.yaml")
        if folder:
            adapters.check_base(card, folder, base.digest, base.name)
            saved = saved_prompts(folder, card)
            if TASK not in saved or not isinstance(card.get(TASK), dict):
                raise AdapterError(f"{folder}: not trained on {TASK} (only {', '.join(saved)})")
            template = saved[TASK]
        encoder = Encoder(load_tokenizer(base.folder))
        sentiment = Sentiment.build(recipe, template, encoder)
        if folder and [label.text for label in sentiment.labels] != card[TASK].get("labels"):
            raise AdapterError(f"{folder}: trained to tell other labels apart than its recipe names; train again")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        folders = {adapter: folder} if adapter and folder else {}
        started = engines.start(engine, base, encoder.tokenizer, folders, recipe, device=device)
        temperature = card[TASK].get("temperature") if folder else 1.0
        if not (isinstance(temperature, int | float) and 0 < temperature < 1000):
            raise AdapterError(f"{folder}: the card names no temperature for {TASK}; restore it or train again")
        return cls(sentiment, started, adapter, float(temperature), card)

    def p(self, reviews: Sequence[tuple[str, str | None]], wording: int = 0) -> np.ndarray:
        """(reviews, labels) calibrated probabilities for pairs of text and headline."""
        return tempered(self.sentiment.log_p(self.engine, reviews, self.adapter, wording), self.temperature)
