"""The grounded tasks as training sees them: what is known is a prompt, what somebody wrote is the reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from llmrec import config
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.pairs import of_split
from llmrec.data.sample import sampled
from llmrec.engine import Prompt
from llmrec.engine.hf import HFEngine
from llmrec.grounded import Asking, examples, source
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row, text_row
from llmrec.tasks.grounded import EXPLANATION, SUMMARY
from llmrec.tasks.template import Template
from llmrec.writing import log_p_of


class Grounded:
    """See `llmrec.learning.Learner`."""

    task: str

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        self.engine = engine
        self.asking = Asking(recipe, Template.today(self.task), encoder)
        self.vocabulary = len(encoder.tokenizer)
        self.trie = ChoiceTrie.build([[token] for token in range(self.vocabulary)])  # a text chooses among all tokens
        self.metric = f"{self.task}_p"
        pairs = source(recipe, self.task)
        self.digest = pairs.digest
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

    def teacher(self, run: Path) -> Callable[[Sequence[Row]], Tensor] | None:
        return None

    def validate(self) -> dict[str, float]:
        """The geometric mean probability of a token of the text that is right."""
        self.engine.forget()
        prompts = [Prompt(self.asking.header(example), "default") for example in self._asked]
        replies = [self.asking.reply(example.text) for example in self._asked]
        log_p = log_p_of(self.engine, prompts, replies, self.vocabulary)
        self.engine.forget()
        return {self.metric: float(np.exp(np.concatenate(log_p).mean()))}

    def finish(self, out: Path) -> dict[str, Any]:
        return {self.task: {"texts": self.digest, "learned_from": len(self.train)}}


class Explanation(Grounded):
    """What people wrote of items."""

    task = EXPLANATION


class Summary(Grounded):
    """What was written of people."""

    task = SUMMARY
