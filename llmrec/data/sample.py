"""Random samples that are the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def sampled(some: Sequence[T], count: int, seed: int | Sequence[int] | np.random.Generator) -> list[T]:
    """`count` of `some`, in their order; all where there are no more.  A generator is drawn from once."""
    chosen = np.random.default_rng(seed).permutation(len(some))[:count]
    return [some[i] for i in np.sort(chosen)]


def at_most(some: Sequence[T], most: int, seed: int | Sequence[int]) -> list[T]:
    """As `sampled`, where 0 keeps all."""
    return sampled(some, most or len(some), seed)
