"""review_sentiment: a review's text; the reply is one of the prompt file's labels."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.errors import PromptError, RecipeError, did_you_mean
from llmrec.tasks.next_item import Domain, named
from llmrec.tasks.template import Label, Message, Template


def messages(
    template: Template, domain: Domain, text: str, headline: str | None = None, wording: int = 0
) -> tuple[Message, ...]:
    """The turns before the reply.  Raises: PromptError."""
    return template.render({"domain": named(domain), "review": {"text": text, "headline": headline or ""}}, wording)


def labels(template: Template, only: Sequence[str] = ()) -> tuple[Label, ...]:
    """The prompt file's labels, or those of them that a recipe tells apart.  Raises: PromptError, RecipeError."""
    if not template.labels:
        raise PromptError(f"{template.path}: labels: none, and a sentiment is one of them")
    known = [label.text for label in template.labels]
    for name in only:
        if name not in known:
            raise RecipeError(f"tasks.{template.task}.labels: no '{name}'{did_you_mean(name, known)}")
    if len(set(only)) == 1:
        raise RecipeError(f"tasks.{template.task}.labels: two or more are needed to tell apart")
    return tuple(label for label in template.labels if not only or label.text in only)


def label_of(rating: float, among: Sequence[Label]) -> int | None:
    """Which label a rating means; None where it means none of them."""
    return next((i for i, label in enumerate(among) if label.lowest <= rating <= label.highest), None)
