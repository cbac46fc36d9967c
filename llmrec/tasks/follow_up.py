"""What the tasks after a history list have in common: one turn of the user, and shares of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmrec.errors import PromptError
from llmrec.tasks.next_item import Domain, named
from llmrec.tasks.template import Message, Template


def message(template: Template, domain: Domain, wording: int = 0, **slots: Mapping[str, Any]) -> Message:
    """The turn after the list.  Raises: PromptError, too for a task that does not come after one."""
    if not template.follows:
        raise PromptError(f"{template.path}: follows: says no list, and this task is asked after one")
    [turn] = template.render({"domain": named(domain), **slots}, wording)
    return turn


def shares(categories: Sequence[Sequence[str]]) -> dict[str, float]:
    """Category → share of some items, each item divided evenly among its own; most frequent first, then by name."""
    found: dict[str, float] = {}
    for own in categories:
        for name in own:
            found[name] = found.get(name, 0.0) + 1 / len(own)
    total = sum(found.values()) or 1.0
    return {name: found[name] / total for name in sorted(found, key=lambda name: (-found[name], name))}
