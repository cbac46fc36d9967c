"""explanation: why an item fits a history, from what the two share and what other people chose together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from llmrec.tasks.claims import Claim, placeholder
from llmrec.tasks.follow_up import shares
from llmrec.tasks.template import Name

OFTEN = 1 / 3  # of the items of a history
LATELY = 10


def facts(
    lines: Sequence[str], categories: Sequence[Sequence[str]], own: Sequence[str], near: int | None
) -> dict[str, Any] | None:
    """What `replies` say of an item for a history; None where there is nothing to say.

    Args:
        lines: identifiers of the history, oldest first.
        categories: of each of them.
        own: the item's categories.
        near: which line most people chose together with the item, if any did.
    """
    shared = [name for name in shares(categories) if name in own][:2]
    if not shared and not own and near is None:
        return None
    return {
        "shared": [Name.of("category", name) for name in shared],
        "often": _often(shared, categories),
        "other": Name.of("category", own[0]) if own and not shared else "",
        "near": Name.of("item", lines[near]) if near is not None else "",
        "lately": near is not None and near >= len(lines) - LATELY,
    }


def variants() -> Iterator[dict[str, Any]]:
    """Facts in all ways that they can turn out, see `llmrec.tasks.claims`."""
    categories = [placeholder("category", "shared", number) for number in range(2)]
    for shared, often in [(0, False), (1, False), (1, True), (2, False), (2, True)]:
        others = ["", placeholder("category", "other")] if not shared else [""]
        for other, (near, lately) in product(others, [(False, False), (True, False), (True, True)]):
            yield {
                "shared": categories[:shared],
                "often": often,
                "other": other,
                "near": placeholder("item", "near") if near else "",
                "lately": lately,
            }


def holds(claim: Claim, lines: Sequence[str], categories: Sequence[Sequence[str]], own: Sequence[str]) -> bool:
    """Whether a claim about an item is true of a history.  Which items of the history are near, a writer sees to.

    Args: as for `facts`.
    """
    shared, other, near = (claim.names.get(name, ()) for name in ("shared", "other", "near"))
    held = {name for of in categories for name in of}
    if shared and not ({*shared} <= held & {*own} and claim.flags["often"] == _often(shared, categories)):
        return False
    if other and ({*other} - {*own} or held & {*own}):
        return False
    return not near or ({*near} <= {*lines} and claim.flags["lately"] == bool({*near} & {*lines[-LATELY:]}))


def _often(shared: Sequence[str], categories: Sequence[Sequence[str]]) -> bool:
    return bool(shared) and min(sum(name in of for of in categories) for name in shared) >= OFTEN * len(categories)
