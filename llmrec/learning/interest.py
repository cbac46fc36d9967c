"""interest as training sees it: a moment of a history is a row, the shares of what came next are its soft target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from llmrec import config
from llmrec.choices.trie import ChoiceTrie
from llmrec.engine.hf import HFEngine
from llmrec.learning.follow_up import Moment, Moments
from llmrec.learning.next_item import learned_from
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row, choice_row
from llmrec.tasks.interest import HORIZON, expected


class Interest:
    """See `llmrec.learning.Learner`."""

    metric = "interest_p"
    split = ""

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        self.moments = Moments("interest", recipe, encoder, engine)
        self.follow_up = self.moments.follow_up
        self.engine = engine
        self.trie: ChoiceTrie = self.follow_up.names["category"].choices.trie
        self.digest = learned_from(self.follow_up.recommender)
        self._asked = [(moment, p) for moment in self.moments.valid if (p := self._expected(moment)).any()]
        self.validates = bool(self._asked)

    def rows(self, variant: int) -> list[Row]:
        made = []
        for moment, rng in self.moments.train(variant):
            p = self._expected(moment)
            if not p.any():
                continue
            [prompt] = self.follow_up.prompts([moment.history], None, *self.moments.wordings(rng))
            happened = int(rng.choice(len(p), p=p / p.sum(dtype=float)))
            line = self.follow_up.names["category"].lines[happened]
            made.append(choice_row(prompt.tokens, line, happened, task="interest", p=p))
        return made

    def teacher(self, run: Path) -> Callable[[Sequence[Row]], Tensor] | None:
        return None

    def validate(self) -> dict[str, float]:
        """The geometric mean probability of a category that came next."""
        self.engine.forget()
        log_p = self.follow_up.log_p([moment.history for moment, _ in self._asked])
        self.engine.forget()
        true = np.stack([p for _, p in self._asked])
        return {self.metric: float(np.exp((true * log_p).sum(1).mean()))}

    def finish(self, out: Path) -> dict[str, Any]:
        return self.moments.finish()

    def _expected(self, moment: Moment) -> np.ndarray:
        return expected(self.follow_up.categories_of(moment.after[:HORIZON]), self.follow_up.categories)
