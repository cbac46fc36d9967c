"""The waist: an engine knows prompts, adapters and token ids, and nothing about recommendation.

A class that inherits from `Engine` can rank and chat; `tests/test_engine.py` holds the contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

WIDE = 1024
"""Children of a node that are asked about in one request at most, where the engine takes no fewer: a batch pads all its
requests to the widest."""


@dataclass(frozen=True)
class Prompt:
    """Token ids before the answer, and the adapter that answers (`None`: the base model)."""

    tokens: tuple[int, ...]
    adapter: str | None = None


@dataclass(frozen=True)
class Node:
    """A place where the model chooses: after `prompt` and the tokens of `path`, one of `children` comes next."""

    prompt: Prompt
    path: tuple[int, ...]
    children: np.ndarray  # (children,) int32 token ids, two or more, distinct


class Engine(ABC):
    """Answers must not depend on what was asked before or on what is asked together."""

    exact: bool
    """Whether `branch` is computed in float32 throughout, so that rankings are exact to rounding."""

    groups: int
    """How many groups of `batches` may be in flight at once: while one ends, others keep the engine busy."""

    widest: int = WIDE
    """Children of a node that one request takes; a wider node takes several."""

    @abstractmethod
    def pinned(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The same prompts, bound to the adapters' versions of this moment: they answer them to the end, whatever is
        loaded under their names meanwhile.  A question that takes several calls is asked with these."""

    @abstractmethod
    def batches(self, prompts: Sequence[Prompt]) -> Iterable[list[int]]:
        """Indexes of `prompts`, each once, in groups that the engine likes to be asked about together."""

    @abstractmethod
    def branch(self, nodes: Sequence[Node]) -> list[np.ndarray]:
        """log p of every child of each node, float32 nats, in the order of `children`; each array sums to 1 after
        exp.  Children are scored against each other only: the rest of the vocabulary has no share."""

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str] = (), keep_stop: bool = False
    ) -> list[str]:
        """One reply per prompt, greedy, cut before the first of `stop`, or with `keep_stop` behind it."""

    def forget(self) -> None:  # noqa: B027 - most hold nothing
        """Drop what is held of earlier questions, as after a failure in the middle of one."""

    def close(self) -> None:  # noqa: B027
        """Give back what outlives the engine (a device's memory, connections); nothing is asked afterwards."""
