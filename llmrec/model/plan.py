"""Which rows every step of a training learns from, how fast, and when it is validated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from llmrec.config import Fit, Mixture, Task
from llmrec.errors import RecipeError
from llmrec.model.mixture import steps
from llmrec.model.rows import Row


class Plan:
    """Which rows each step learns from: a function of the settings alone, so that every process and every resumed run
    agrees on it."""

    def __init__(
        self,
        variants: Sequence[Sequence[Row]],
        settings: Fit,
        tasks: Mapping[str, Task] | None = None,
        mixture: Mixture | None = None,
    ):
        if not variants or not all(variants):
            raise RecipeError("no training rows: the training split has no interactions of a user")
        self.variants = variants
        self.settings = settings
        self.tasks, self.mixture = tasks, mixture
        self._epochs: dict[int, list[list[int]]] = {}
        counts = [len(self._epoch(epoch)) for epoch in range(math.ceil(settings.epochs))]
        partial = settings.epochs - math.floor(settings.epochs)
        if partial:
            counts[-1] = max(1, round(counts[-1] * partial))
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.steps = int(self.starts[-1])

    def step(self, step: int) -> tuple[int, list[int]]:
        """(variant, rows) of a step."""
        epoch = int(np.searchsorted(self.starts, step, side="right")) - 1
        return epoch % len(self.variants), self._epoch(epoch)[step - int(self.starts[epoch])]

    def epoch_of(self, step: int) -> float:
        """Epochs done after `step` steps."""
        epoch = max(0, min(int(np.searchsorted(self.starts, step, side="right")) - 1, len(self.starts) - 2))
        return round(epoch + (step - int(self.starts[epoch])) / len(self._epoch(epoch)), 3)

    def groups(self) -> dict[tuple[str, ...], float]:
        """The tasks that make steps together, and how much of all steps they have."""
        epochs = range(min(len(self.variants), len(self.starts) - 1))
        names = dict.fromkeys(row.task for epoch in epochs for row in self.variants[epoch])
        firsts = [self.variants[epoch][step[0]].task for epoch in epochs for step in self._epoch(epoch)]
        made = (self.mixture or Mixture()).groups(names, self.tasks or {})
        return {(*group,): sum(name in group for name in firsts) / len(firsts) for group in made}

    def steps_in(self, epochs: float) -> int:
        """Steps of a part of an epoch, at least one."""
        return max(1, round(epochs * len(self._epoch(0))))

    def validations(self) -> set[int]:
        """Steps after which to validate; the last step always."""
        every = self.steps_in(self.settings.valid_every)
        before = range(every, self.steps - every // 2, every)  # one just before the last would say what the last says
        return {*before, self.steps} if self.settings.valid_users else set()

    def _epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._epochs:
            self._epochs[epoch] = steps(
                self.variants[epoch % len(self.variants)], self.settings.batch_tokens,
                np.random.default_rng((self.settings.seed, epoch)), self.tasks, self.mixture,
            )  # fmt: skip
        return self._epochs[epoch]


def learning_rate(step: int, steps: int, settings: Fit) -> float:
    """Linear warm-up, then cosine decay to a tenth of the peak."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    left = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    return settings.learning_rate * (0.1 + 0.9 * left)
