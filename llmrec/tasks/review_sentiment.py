"""review_sentiment: a review's text; the reply is one of the prompt file's labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llmrec.errors import DataError, PromptError
from llmrec.tasks.reviews import chosen
from llmrec.tasks.template import Template


def labels(template: Template, only: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """The prompt file's labels, or those of them that a recipe tells apart.  Raises: PromptError, RecipeError."""
    if not template.labels:
        raise PromptError(f"{template.path}: labels: none, and a sentiment is one of them")
    return chosen(template, only, [label.text for label in template.labels])


def true(template: Template, reviews: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """(reviews,) which of `labels` each rating means; -1 where it means none of them.  Raises: DataError for none."""
    found = np.full(len(reviews), -1, np.int64)
    rating = reviews["rating"].to_numpy()
    for label in template.labels:
        if label.text in labels:
            found[(label.lowest <= rating) & (rating <= label.highest) & (found < 0)] = labels.index(label.text)
    if not (found >= 0).any():
        raise DataError(f"no rating means one of {', '.join(labels)}; map columns.rating")
    return found
