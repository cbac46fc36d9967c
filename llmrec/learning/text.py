"""Tasks whose reply is text, as training sees them: each token is a choice from the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from llmrec.choices.trie import ChoiceTrie
from llmrec.engine import Prompt
from llmrec.engine.hf import HFEngine
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row
from llmrec.writing import log_p_of


class TextLearner:
    """What they share of `llmrec.learning.Learner`; a subclass knows the rows, and what validation asks."""

    task: str

    def __init__(self, encoder: Encoder, engine: HFEngine | None):
        self.encoder, self.engine = encoder, engine
        self.trie = ChoiceTrie.build([[token] for token in range(len(encoder.tokenizer))])
        self.metric = f"{self.task}_p"

    def questions(self) -> tuple[list[Prompt], list[list[int]]]:
        """Prompts, and of each the tokens of the reply that is right."""
        raise NotImplementedError

    def teacher(self, run: Path) -> Callable[[Sequence[Row]], Tensor] | None:
        return None

    def validate(self) -> dict[str, float]:
        """The geometric mean probability of a token of the replies that are right."""
        self.engine.forget()
        log_p = log_p_of(self.engine, self.encoder, *self.questions())
        self.engine.forget()
        return {self.metric: float(np.exp(np.concatenate(log_p).mean()))}
