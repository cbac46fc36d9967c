"""The grounded tasks as training sees them: what is known is a prompt, what somebody wrote is the reply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llmrec import config
from llmrec.data.pairs import of_split
from llmrec.data.sample import sampled
from llmrec.engine import Prompt
from llmrec.engine.hf import HFEngine
from llmrec.grounded import GroundedTask, examples, source
from llmrec.learning.text import TextLearner
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row, text_row
from llmrec.tasks.grounded import EXPLANATION, SUMMARY
from llmrec.tasks.template import Template


class Grounded(TextLearner):
    """See `llmrec.learning.Learner`."""

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        super().__init__(encoder, engine)
        self.asking = GroundedTask(recipe, Template.today(self.task), encoder)
        pairs = source(recipe, self.task)
        self.digest, self.split = pairs.digest, pairs.split_digest
        found = examples(pairs, self.task)
        self.train = of_split(found, "train", recipe.tasks[self.task].examples, recipe.fit.seed)
        valid = of_split(found, "valid", 0, recipe.fit.seed)
        self._asked = sampled(valid, recipe.fit.valid_users, recipe.fit.seed)
        self.validates = bool(self._asked)

    def rows(self, variant: int) -> list[Row]:
        rng = np.random.default_rng((self.asking.recipe.fit.seed, variant))
        wordings = self.asking.template.wordings(held_out=False)
        return [
            text_row(
                self.asking.header(example, int(rng.choice(wordings))), self.asking.reply(example.text), task=self.task
            )
            for example in self.train
        ]

    def questions(self) -> tuple[list[Prompt], list[list[int]]]:
        prompts = [Prompt(self.asking.header(example), "default") for example in self._asked]
        return prompts, [self.asking.reply(example.text) for example in self._asked]

    def finish(self, out: Path) -> dict[str, Any]:
        return {self.task: {"texts": self.digest, "split": self.split, "learned_from": len(self.train)}}


class Explanation(Grounded):
    """What people wrote of items."""

    task = EXPLANATION


class Summary(Grounded):
    """What was written of people."""

    task = SUMMARY
