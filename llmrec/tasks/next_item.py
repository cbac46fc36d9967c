"""next_item: a person's history as a list; the reply is its next line."""

from __future__ import annotations

from typing import Protocol

from llmrec.tasks.template import Message, Template


class Domain(Protocol):
    """What a wording may say about a domain; a recipe has it.  Not its name: one adapter may answer under several."""

    @property
    def noun(self) -> str: ...
    @property
    def unit(self) -> str: ...


def named(domain: Domain) -> dict[str, str]:
    """A domain's words, as templates read them."""
    return {"noun": domain.noun, "unit": domain.unit}


def messages(template: Template, domain: Domain, wording: int = 0) -> tuple[Message, ...]:
    """The turns before the list, which every task on a history starts with.  Raises: PromptError."""
    return template.render({"domain": named(domain)}, wording)
