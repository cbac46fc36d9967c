"""grounded_explanation and grounded_summary: the reply is a text like those that people wrote."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.config import OF_PAIRS
from llmrec.errors import PromptError
from llmrec.tasks.next_item import Domain, named
from llmrec.tasks.template import Message, Template

EXPLANATION, SUMMARY = TASKS = OF_PAIRS


def messages(
    template: Template,
    domain: Domain,
    *,
    person: str,
    earlier: Sequence[tuple[str, str]],
    item: tuple[str, str],
    wording: int = 0,
) -> tuple[Message, ...]:
    """The turns before the reply; items are (title, about).  Raises: PromptError."""
    if template.reply != "text" or template.follows:
        raise PromptError(f"{template.path}: a grounded task has `reply: text`, and follows no list")
    slots = {"person": person, "earlier": [_slot(one) for one in earlier], "item": _slot(item)}
    return template.render({"domain": named(domain), **slots}, wording)


def _slot(item: tuple[str, str]) -> dict[str, str]:
    title, about = item
    return {"title": title, "about": about}
