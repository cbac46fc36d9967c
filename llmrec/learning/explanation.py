"""explanation as training sees it: a moment of a history, one of the next items, and what speaks for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec import config
from llmrec.baselines.together import Together
from llmrec.engine.hf import HFEngine
from llmrec.learning.follow_up import FollowUpText, Moment
from llmrec.model.encode import Encoder
from llmrec.tasks.explanation import facts
from llmrec.tasks.interest import HORIZON
from llmrec.tasks.next_item import named


class Explanation(FollowUpText):
    """See `llmrec.learning.Learner`."""

    task = "explanation"

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        self._together: Together | None = None
        super().__init__(recipe, encoder, engine)

    def example(self, moment: Moment, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]] | None:
        model = self.follow_up.recommender
        self._together = self._together or Together.fit(model.dataset, model.catalog)
        item = int(rng.choice(moment.after[:HORIZON]))
        near = self._together.nearest(item, moment.history, own=int(moment.trained))
        [own] = self.follow_up.categories_of([item])
        found = facts(self.follow_up.lines_of(moment.history), self.follow_up.categories_of(moment.history), own, near)
        if found is None:
            return None
        return {"item": self.follow_up.item_slot(item)}, found | {"domain": named(self.moments.recipe)}
