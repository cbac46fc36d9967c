"""interest_summary: a few sentences on a history that name its own categories and items only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmrec.tasks.follow_up import shares
from llmrec.tasks.template import Name

LATELY = 10  # items at the end of a history that show where it turns
MORE = 0.5  # a category is named beside the first from this part of its share
RISES = 0.15  # and is rising when its share among the latest is larger by this


def facts(lines: Sequence[str], categories: Sequence[Sequence[str]]) -> dict[str, Any] | None:
    """What `replies` say of a history; None where no item has a category.

    Args:
        lines: identifiers, oldest first.
        categories: of each item.
    """
    share = shares(categories)
    if not share:
        return None
    top, *others = share
    more = [name for name in others[:2] if share[name] >= MORE * share[top]]
    late = shares(categories[-LATELY:]) if len(lines) > 2 * LATELY else {}
    rising = max(late, key=lambda name: (late[name] - share[name], name), default="")
    if not rising or rising == top or late[rising] - share[rising] < RISES:
        rising = ""
    of = {  # the latest first, each once
        name: [*dict.fromkeys(line for line, own in zip(lines[::-1], categories[::-1], strict=True) if name in own)]
        for name in (top, rising)
    }
    latest = of[rising][:1] if rising else []
    examples = [line for line in of[top] if line not in latest][:2]
    return {
        "top": _category(top),
        "more": [_category(name) for name in more],
        "examples": [Name.of("item", line) for line in examples or of[top][:1]],
        "rising": _category(rising) if rising else "",
        "latest": Name.of("item", latest[0]) if latest else "",
    }


def nameable(categories: Sequence[Sequence[str]]) -> list[str]:
    """What a summary may name: the categories that a history holds most, over all and lately."""
    return list(dict.fromkeys([*list(shares(categories))[:5], *list(shares(categories[-LATELY:]))[:3]]))


def _category(name: str) -> Name:
    return Name.of("category", name)
