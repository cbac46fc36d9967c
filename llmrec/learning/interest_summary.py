"""interest_summary as training sees it: a moment of a history, and the sentences that are true of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec.learning.follow_up import FollowUpText, Moment
from llmrec.tasks.interest_summary import facts
from llmrec.tasks.next_item import named


class InterestSummary(FollowUpText):
    """See `llmrec.learning.Learner`."""

    task = "interest_summary"

    def example(self, moment: Moment, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]] | None:
        history = moment.history
        found = facts(self.follow_up.lines_of(history), self.follow_up.categories_of(history))
        return None if found is None else ({}, found | {"domain": named(self.moments.recipe)})
