"""explanation: why an item fits a history, from what the two share and what other people chose together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from llmrec.tasks.claims import LISTED, Claim, placeholders
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
    for count, often, near, lately in product(range(LISTED + 1), (False, True), (False, True), (False, True)):
        for other in [False] if count else [False, True]:
            if (often and not count) or (lately and not near) or not (count or other or near):
                continue
            yield {
                "shared": placeholders("category", "shared", count),
                "often": often,
                "other": placeholders("category", "other")[0] if other else "",
                "near": placeholders("item", "near")[0] if near else "",
                "lately": lately,
            }


def holds(claim: Claim, lines: Sequence[str], categories: Sequence[Sequence[str]], own: Sequence[str]) -> bool:
    """Whether a claim about an item is true of a history.  Which items of the history are near, a writer sees to.

    Args: as for `facts`.
    """
    both = [name for name in shares(categories) if name in own]
    shared, other, near = (claim.names.get(name, ()) for name in ("shared", "other", "near"))
    if not {*shared} <= {*both} or not {*other} <= {*own} or not {*near} <= {*lines}:
        return False
    if ("other" in claim.given and both) or ("shared" in claim.given and not both):
        return False
    if "often" in claim.given and not _often(shared or both[:2], categories):
        return False
    return "lately" not in claim.given or bool({*near} & {*lines[-LATELY:]})


def _often(shared: Sequence[str], categories: Sequence[Sequence[str]]) -> bool:
    return bool(shared) and min(sum(name in of for of in categories) for name in shared) >= OFTEN * len(categories)
