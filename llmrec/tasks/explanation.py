"""explanation: why an item fits a history, from what the two share and what other people chose together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    holding = min((sum(name in of for of in categories) for name in shared), default=0)
    return {
        "shared": [Name.of("category", name) for name in shared],
        "often": holding >= OFTEN * len(lines),
        "other": Name.of("category", own[0]) if own and not shared else "",
        "near": Name.of("item", lines[near]) if near is not None else "",
        "lately": near is not None and near >= len(lines) - LATELY,
    }
