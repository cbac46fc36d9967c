"""item_class: a review's text; the reply is the category of what it is about, one of those that the data knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llmrec.errors import DataError
from llmrec.tasks.reviews import chosen
from llmrec.tasks.template import Template

MOST = 1000  # categories


def labels(template: Template, only: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """The categories `known`, or those of them that a recipe tells apart.  Raises: DataError, RecipeError."""
    if not 2 <= len(known) <= MOST:
        way_out = "map columns.category" if len(known) < 2 else "map a broader column"
        raise DataError(f"{template.task}: {len(known):,} categories; 2 to {MOST:,} can be told apart: {way_out}")
    return chosen(template, only, known)


def true(template: Template, reviews: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """(reviews,) which of `labels` each review is about; -1 for none of them.  Raises: DataError for none at all."""
    found = pd.Index(labels).get_indexer(reviews["category"])
    if not (found >= 0).any():
        raise DataError(f"{template.task}: no review is about one of {', '.join(labels[:5])}, …; map columns.category")
    return found
