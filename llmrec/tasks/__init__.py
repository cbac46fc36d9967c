"""What can be asked.  A task is a prompt file, a module here, and a line in `TASKS`."""

from collections.abc import Iterable

from llmrec.errors import RecipeError, did_you_mean
from llmrec.tasks import explanation, grounded, interest, interest_summary, item_class, next_item, review_sentiment

OF_REVIEWS = {
    "review_sentiment": review_sentiment,
    "item_class": item_class,
}
"""Those that read one review and choose a label: modules with `labels` and `true`."""
TASKS = {
    "next_item": next_item,
    "interest": interest,
    "interest_summary": interest_summary,
    "explanation": explanation,
    **OF_REVIEWS,
    "grounded_explanation": grounded,
    "grounded_summary": grounded,
}


def check(names: Iterable[str]) -> None:
    """Raises: RecipeError for a task that is none."""
    for name in names:
        if name not in TASKS:
            raise RecipeError(f"tasks: there is no '{name}'{did_you_mean(name, TASKS)}")
