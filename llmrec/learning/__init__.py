"""What training needs to know of a task: its rows, its closed set, its measure, what its card says.

A task joins with a prompt file, its module in `tasks/` (what is said), one here (what is learned), and a line in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from llmrec import config, tasks
from llmrec.choices.trie import ChoiceTrie
from llmrec.engine.hf import HFEngine
from llmrec.learning import grounded
from llmrec.learning.explanation import Explanation
from llmrec.learning.interest import Interest
from llmrec.learning.interest_summary import InterestSummary
from llmrec.learning.next_item import NextItem
from llmrec.learning.reviews import ItemClass, ReviewSentiment
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row


class Learner(Protocol):
    """One task of one recipe.  Made from (recipe, encoder, engine) before anything is trained."""

    metric: str
    """What its validation maximises."""
    trie: ChoiceTrie
    digest: str
    """Of the data that it learns from."""
    split: str
    """Of which texts lie on which side, of whatever is read of them; empty for a task of histories."""
    validates: bool
    """Whether there is something to validate on."""

    def rows(self, variant: int) -> list[Row]:
        """All training rows, in one of several cuts and wordings."""

    def teacher(self, run: Path) -> Callable[[Sequence[Row]], Tensor] | None:
        """Soft targets of some rows, (targets, choices); None for a task without a teacher."""

    def validate(self) -> dict[str, float]:
        """Metrics of the model as it is; `metric` among them."""

    def finish(self, out: Path) -> dict[str, Any]:
        """What is fitted after training on validation data, for the card of the adapter in the folder `out`."""


LEARNERS: dict[str, Callable[[config.Recipe, Encoder, HFEngine | None], Learner]] = {
    "next_item": NextItem,
    "interest": Interest,
    "interest_summary": InterestSummary,
    "explanation": Explanation,
    "review_sentiment": ReviewSentiment,
    "item_class": ItemClass,
    "grounded_explanation": grounded.Explanation,
    "grounded_summary": grounded.Summary,
}


def learners(recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None = None) -> dict[str, Learner]:
    """The recipe's tasks, their data read and checked; without an engine for their rows alone.

    Raises: RecipeError, DataError, PromptError.
    """
    tasks.check(recipe.tasks)
    return {name: LEARNERS[name](recipe, encoder, engine and engine.beside(name)) for name in recipe.tasks}
