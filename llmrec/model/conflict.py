"""Tasks whose gradients point against each other: measured, projected away, or penalised.

A gradient is a flat vector over all trainable parameters; a set of them is (tasks, parameters), float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from llmrec.config import Mixture
from llmrec.errors import RecipeError

REACH = 0.01  # Euclidean length of the step over which a second derivative is a difference


def cosines(gradients: Tensor) -> Tensor:
    """(tasks, tasks) cosines of (tasks, parameters); 0 where a gradient is 0."""
    unit = nn.functional.normalize(gradients, dim=1)
    return unit @ unit.T


def project(gradients: Tensor, rng: np.random.Generator) -> Tensor:
    """The sum of the gradients, (parameters,), each without what points against another (PCGrad, Yu et al. 2020).

    A gradient meets the others in random order, as they were before any projection.
    """
    result = torch.zeros_like(gradients[0])
    for i, gradient in enumerate(gradients):
        mine = gradient.clone()
        for j in rng.permutation(len(gradients)):
            if j != i and (inner := mine @ gradients[j]) < 0:
                mine -= inner / gradients[j].square().sum() * gradients[j]
        result += mine
    return result


def penalty(gradients: Tensor) -> Tensor:
    """The squared negative cosines of all pairs of tasks, summed and halved (after Suteu and Guo 2019, who penalise
    the squared cosine of either sign)."""
    return 0.5 * cosines(gradients).clamp(max=0).triu(1).square().sum()


def directions(gradients: Tensor) -> Tensor:
    """(tasks, parameters) derivative of `penalty` by each task's gradient; 0 for a task in no conflict."""
    length = gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
    unit, cosine = gradients / length, cosines(gradients)
    against = cosine.clamp(max=0).fill_diagonal_(0)
    return (against @ unit - (against * cosine).sum(1, keepdim=True) * unit) / length


class Separate:
    """The passes of a step, task by task, and one gradient out of those of all tasks.

    Each task's gradient is summed over processes by itself, so forward passes must not exchange any.

    Raises: RecipeError where a penalty's differences would drown in rounding.
    """

    def __init__(self, mixture: Mixture, trainable: Mapping[str, nn.Parameter], accelerator: Accelerator, *, seed: int):
        if mixture.conflict == "penalty" and accelerator.mixed_precision != "no":
            raise RecipeError(
                "mixture.conflict=penalty compares gradients a small step apart: set fit.precision=float32"
            )
        self.mixture, self.accelerator, self.seed = mixture, accelerator, seed
        self.parameters = list(trainable.values())
        self.cosines: dict[str, float] = {}
        """Of each pair of tasks in the last step."""

    def passes(self, parts: Mapping[str, Sequence[Any]], step: int) -> Iterator[tuple[Any, bool]]:
        """The parts of each task in turn, each to be run forward and backward before the next is taken; afterwards the
        step's gradient lies in the parameters.  True with a part that was there before and is run again.

        Args:
            parts: by task, the same tasks in the same order in all processes.
        """
        if not parts:
            return
        rows = []
        for number, mine in enumerate(parts.values()):
            self._reseed(step, number)
            yield from ((part, False) for part in mine)
            rows.append(self._taken())
        gradients = torch.stack(rows)
        found, names = cosines(gradients), list(parts)
        self.cosines = {
            f"cosine/{a}~{b}": float(found[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if i < j
        }
        if self.mixture.conflict == "pcgrad":
            self._give(project(gradients, np.random.default_rng((self.seed, step))))
            return
        total, slope = gradients.sum(0), torch.zeros_like(gradients[0])
        for number, (mine, way) in enumerate(zip(parts.values(), directions(gradients), strict=True)):
            if (length := way.norm()) > 0:  # its second derivative along the way, by a difference
                with self._moved(way * (REACH / length)):
                    self._reseed(step, number)
                    yield from ((part, True) for part in mine)
                    slope += (self._taken() - gradients[number]) * (length / REACH)
        slope *= self.mixture.penalty
        limit = total.norm() / slope.norm().clamp(min=1e-12)  # the penalty never outweighs what is learned
        self._give(total + slope * limit.clamp(max=1.0))

    def _reseed(self, step: int, task: int) -> None:
        """The same dropout whenever a task's parts are run in this step."""
        seeds = np.random.SeedSequence((self.seed, step, task, self.accelerator.process_index))
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def _taken(self) -> Tensor:
        """The gradient that has gathered, of all processes; it is gone from the parameters."""
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        found: Any = self.accelerator.reduce(torch.cat(flat).float(), reduction="mean")
        return found

    def _give(self, gradient: Tensor) -> None:
        for parameter, piece in zip(self.parameters, self._pieces(gradient), strict=True):
            parameter.grad = piece.to(parameter.dtype).clone()

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        pieces = flat.split([p.numel() for p in self.parameters])
        return [piece.view_as(p) for piece, p in zip(pieces, self.parameters, strict=True)]

    @contextmanager
    def _moved(self, by: Tensor) -> Iterator[None]:
        """The parameters a step away; afterwards bit for bit where they were."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        try:
            with torch.no_grad():
                for parameter, piece in zip(self.parameters, self._pieces(by), strict=True):
                    parameter += piece
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters, before, strict=True):
                    parameter.copy_(value)
