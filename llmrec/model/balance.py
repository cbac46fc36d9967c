"""What each task's loss weighs at each step: as scheduled, or as its own losses say.

`uncertainty` (Kendall, Gal and Cipolla 2018): a task of weight w and mean loss L costs w (exp(-s) L + s / 2), s its
log-variance, learned with the adapter.  Its derivative by s needs only L, so no graph is kept for it.

`dwa`, dynamic weight average (Liu, Johns and Davison 2019): K tasks share a weight of K by softmax(r / temperature), r
how much of its loss of the window before a task has kept in the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from llmrec.config import Mixture, Task

State = dict[str, Any]
"""What a resumed run needs of `dwa`, as JSON: `sums`, by task the losses of this window and how many; `means`, those of
the last two windows."""


class Balance:
    """Weights and gradient factors of all tasks, a function of the step and of what was lost before.

    Args:
        names: all tasks, in the order of all processes.
        epochs: length of the training.
        window: steps between two updates of `dwa`.
        groups: the tasks that make steps together, and how much of all steps they have.
    """

    def __init__(
        self,
        names: Sequence[str],
        tasks: Mapping[str, Task] | None,
        mixture: Mixture | None,
        epochs: float,
        window: int,
        accelerator: Accelerator,
        groups: Mapping[tuple[str, ...], float] | None = None,
    ):
        self.groups = groups or {(*names,): 1.0}
        self.tasks = {name: (tasks or {}).get(name, Task()) for name in names}
        self.mixture = mixture or Mixture()
        self.epochs, self.window, self.accelerator = epochs, window, accelerator
        self.state: State = {}
        learned = names if self.mixture.balance == "uncertainty" else ()
        self.log_variance = {name: nn.Parameter(torch.zeros(())) for name in learned}
        self._now: dict[str, float] = {}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What is trained beside the adapter, by the name it has in checkpoints."""
        return {f"log_variance/{name}": parameter for name, parameter in self.log_variance.items()}

    @property
    def group(self) -> list[dict[str, Any]]:
        """The optimiser's group of `parameters`, if there are any: a step size of their own, no decay."""
        rate = self.mixture.balance_rate
        return [{"params": [*self.log_variance.values()], "lr": rate, "weight_decay": 0.0}] if self.log_variance else []

    @property
    def changes(self) -> bool:
        """Whether weights are not the same from the first step to the last."""
        scheduled = any(task.weight_end is not None or task.start for task in self.tasks.values())
        return scheduled or self.mixture.balance != "static"

    def weights(self, epoch: float) -> dict[str, float]:
        """The weight of every task's loss; a task at 0 takes no part."""
        planned = {name: scheduled(task, epoch, self.epochs) for name, task in self.tasks.items()}
        active = {name: weight for name, weight in planned.items() if weight > 0}
        if self.log_variance:
            return {n: w * math.exp(-self.log_variance[n].item()) if w else 0.0 for n, w in planned.items()}
        if self.mixture.balance == "dwa" and len(means := self.state.get("means", [])) == 2:
            ratios = {name: means[1][name] / means[0][name] if means[0].get(name) and name in means[1] else 1.0
                      for name in active}  # fmt: skip
            shares = softmax(ratios, self.mixture.dwa_temperature)
            return {name: weight * shares.get(name, 0.0) for name, weight in planned.items()}
        return planned

    def factors(self, weights: Mapping[str, float], present: Sequence[str]) -> tuple[dict[str, float], float]:
        """What multiplies the gradient of each task of a step, and what multiplies the step's learning rate.

        Adam takes no notice of a common factor of all gradients, so the mean of the tasks' learning rates goes into the
        step's, and only their ratio to it into the gradients.  It is the mean of all steps: Adam's step is made of the
        last ten gradients, so a rate that changed from step to step would reach all tasks alike.  Of steps of several
        groups by squares, as Adam divides by: then every group learns at its own rate.
        """
        wanted = {name: weight * self.tasks[name].learning_rate for name, weight in weights.items()}
        usual = self._usual(wanted, weights)
        if not usual or not present:
            return {}, 1.0
        return {name: wanted[name] / usual for name in present}, usual / self._usual(weights, weights)

    def _usual(self, values: Mapping[str, float], weights: Mapping[str, float]) -> float:
        """A step's size: the mean of its tasks' `values`, and of all groups that are learned now the root mean
        square."""
        active = {group: [name for name in group if weights[name] > 0] for group in self.groups}
        shares = {group: share for group, share in self.groups.items() if active[group]}  # others' steps are empty
        squares = (share * fmean(values[name] for name in active[group]) ** 2 for group, share in shares.items())
        return math.sqrt(sum(squares) / sum(shares.values())) if shares else 0.0

    def saw(self, task: str, mean: float) -> None:
        """Part of a task's mean loss in this step, nats per choice, of this process."""
        self._now[task] = self._now.get(task, 0.0) + mean

    def learn(self, step: int, epoch: float, present: Sequence[str]) -> None:
        """Takes the step's losses in, of all processes, before the optimiser's step; `step` counts those done then."""
        now, self._now = self._now, {}
        if self.mixture.balance == "static":
            return
        mine = torch.tensor([now.get(name, 0.0) for name in present])
        losses = dict(zip(present, self._reduced(mine), strict=True))
        for name in self.log_variance.keys() & losses.keys():
            parameter, weight = self.log_variance[name], scheduled(self.tasks[name], epoch, self.epochs)
            parameter.grad = weight * (0.5 - torch.exp(-parameter.detach()) * losses[name])
        if self.mixture.balance == "dwa":
            sums = self.state.setdefault("sums", {})
            for name, loss in losses.items():
                before, count = sums.get(name, (0.0, 0))
                sums[name] = [before + loss, count + 1]
            if step % self.window == 0:
                means = {name: total / count for name, (total, count) in sums.items()}
                self.state["means"] = [*self.state.get("means", []), means][-2:]
                self.state["sums"] = {}

    def _reduced(self, values: Tensor) -> list[float]:
        found: Any = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return [float(value) for value in found]


def scheduled(task: Task, epoch: float, epochs: float) -> float:
    """A task's weight after some of all epochs: 0 before its start, then a line from `weight` to `weight_end`."""
    if epoch < task.start:
        return 0.0
    if task.weight_end is None or epochs <= task.start:
        return task.weight
    done = min(1.0, (epoch - task.start) / (epochs - task.start))
    return task.weight + done * (task.weight_end - task.weight)


def softmax(ratios: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Shares that sum to the number of tasks."""
    most = max(ratios.values(), default=0.0)
    exponents = {name: math.exp((ratio - most) / temperature) for name, ratio in ratios.items()}
    return {name: len(ratios) * value / sum(exponents.values()) for name, value in exponents.items()}
