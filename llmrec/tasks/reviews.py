"""What the tasks that read one review have in common: the turns before the reply, the closed set."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.errors import RecipeError, did_you_mean
from llmrec.tasks.next_item import Domain, named
from llmrec.tasks.template import Message, Template


def messages(
    template: Template, domain: Domain, text: str, headline: str | None = None, wording: int = 0
) -> tuple[Message, ...]:
    """The turns before the reply.  Raises: PromptError."""
    return template.render({"domain": named(domain), "review": {"text": text, "headline": headline or ""}}, wording)


def chosen(template: Template, only: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Those of `known` that a recipe tells apart, by default all.  Raises: RecipeError."""
    for name in only:
        if name not in known:
            raise RecipeError(f"tasks.{template.task}.labels: no '{name}'{did_you_mean(name, known)}")
    if len(set(only)) == 1:
        raise RecipeError(f"tasks.{template.task}.labels: two or more are needed to tell apart")
    return tuple(name for name in known if not only or name in only)
