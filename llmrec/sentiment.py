"""Reviews ready to be judged: wording, labels as a closed set, an engine, and the card's calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec import config
from llmrec.choices.search import Choices, log_p_all
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.records import one_line, paragraphs
from llmrec.engine import Engine, Prompt
from llmrec.model.encode import Encoder
from llmrec.tasks import review_sentiment as task
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
