"""interest_summary: a few sentences on a history that name its own categories and items only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from llmrec.tasks.claims import LISTED, Claim, placeholders
from llmrec.tasks.follow_up import shares
from llmrec.tasks.template import Name

LATELY = 10  # items at the end of a history that show where it turns
MORE = 0.5  # a category is named beside the first from this part of its share
LEVEL = 1e-9  # shares that differ by less are the same
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
    gains = _gains(categories)
    rising = max(gains, key=lambda name: (gains[name], name), default="")
    if not rising or rising == top or gains[rising] < RISES:
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


def variants() -> Iterator[dict[str, Any]]:
    """Facts in all ways that they can turn out, see `llmrec.tasks.claims`."""
    for more, examples, rises in product(range(LISTED + 1), range(1, LISTED + 1), (False, True)):
        yield {
            "top": placeholders("category", "top")[0],
            "more": placeholders("category", "more", more),
            "examples": placeholders("item", "examples", examples),
            "rising": placeholders("category", "rising")[0] if rises else "",
            "latest": placeholders("item", "latest")[0] if rises else "",
        }


def holds(claim: Claim, lines: Sequence[str], categories: Sequence[Sequence[str]]) -> bool:
    """Whether what a claim says of categories is true of a history, and of a late item that it is one of what rises.
    Which items may stand for a category, a writer sees to.

    Args: as for `facts`.
    """
    share, gains = shares(categories), _gains(categories)
    top, more, rising, latest = (claim.names.get(name, ()) for name in ("top", "more", "rising", "latest"))
    if not {*top} <= {*leading(categories)} or not {*more} <= {*share}:
        return False
    rises = {name for name, gain in gains.items() if gain >= RISES}
    if not {*rising} <= rises or ("rising" in claim.given and not rises):
        return False
    late = list(zip(lines[-LATELY:], categories[-LATELY:], strict=True))
    return all(any(name == line and {*own} >= {*rising} for line, own in late) for name in latest)


def leading(categories: Sequence[Sequence[str]]) -> list[str]:
    """The most frequent category; several where they are level."""
    share = shares(categories)
    return [name for name in share if share[name] >= max(share.values()) - LEVEL]


def _gains(categories: Sequence[Sequence[str]]) -> dict[str, float]:
    """By how much each category's share of the latest items is larger than of all; nothing where few are earlier."""
    if len(categories) <= 2 * LATELY:
        return {}
    share, late = shares(categories), shares(categories[-LATELY:])
    return {name: late[name] - share[name] for name in late}


def nameable(categories: Sequence[Sequence[str]]) -> list[str]:
    """What a summary may name: the categories that a history holds most, over all and lately."""
    return list(dict.fromkeys([*list(shares(categories))[:5], *list(shares(categories[-LATELY:]))[:3]]))


def _category(name: str) -> Name:
    return Name.of("category", name)
