"""What suites of all tasks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from llmrec.errors import AdapterError


def check_unseen(
    card: Mapping[str, Any], task: str, of: Literal["texts", "reviews"], digest: str, adapter: str, domain: str
) -> None:
    """Raises: AdapterError where the adapter may have seen the answers: it must have learned the task, from the split
    of this digest."""
    learned = card.get(task)
    if not (isinstance(learned, dict) and learned.get(of) == digest):
        raise AdapterError(
            f"{adapter}: no adapter that learned {task} from this split of the {of} (it may have seen the answers); "
            f"run `llmrec train {domain}`, or leave it out"
        )
