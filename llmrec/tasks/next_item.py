"""next_item: a person's history as a list; the reply is its next line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmrec.errors import PromptError
from llmrec.tasks.template import Message, Template


class Domain(Protocol):
    """What a wording may say about a domain; a recipe has it."""

    @property
    def domain(self) -> str: ...
    @property
    def noun(self) -> str: ...
    @property
    def unit(self) -> str: ...


def named(domain: Domain) -> dict[str, str]:
    """A domain's words, as templates read them."""
    return {"name": domain.domain, "noun": domain.noun, "unit": domain.unit}


@dataclass(frozen=True)
class Conversation:
    """Messages, then an open reply that holds `lines` so far."""

    messages: tuple[Message, ...]
    lines: tuple[str, ...]  # identifiers, oldest first; may be empty


def conversation(
    template: Template,
    domain: Domain,
    lines: Sequence[str],
    wording: int = 0,
    user: Mapping[str, Any] | None = None,
) -> Conversation:
    """The list turn that every task on a history starts with.

    Args:
        lines: identifiers of the history, oldest first.
        user: what is known of the person beside the history.
    Raises: PromptError.
    """
    if template.after:
        raise PromptError(f"prompts/{template.task}.yaml: after: lists hold identifiers only; leave it out")
    return Conversation(template.render({"domain": named(domain), "user": dict(user or {})}, wording), tuple(lines))
