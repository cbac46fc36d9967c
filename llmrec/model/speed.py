"""How fast this machine multiplies matrices, measured."""

from __future__ import annotations

import math
import time

import torch

SIZE = 1024  # rows and columns of the matrices that are multiplied
CLEAR = 1.2  # times as fast; less is noise


def gflops(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.3) -> float:
    """Measured speed of a matrix product, GFLOP/s: the best of many, as other work only ever slows one down."""
    a = torch.randn(SIZE, SIZE, device=device).to(dtype)
    (a[:64] @ a).sum().item()  # warm
    rows = SIZE // 8  # small enough to end in time where bf16 is emulated
    best, start = math.inf, time.perf_counter()
    while (before := time.perf_counter()) - start < seconds:
        (a[:rows] @ a).sum().item()
        best = min(best, time.perf_counter() - before)
    return 2 * rows * SIZE**2 / best / 1e9


def better_precision(taken: torch.dtype, wide: float, half: float) -> str | None:
    """What `fit.precision` has to name for the faster of two types, where that is not `taken`.

    Args:
        wide: GFLOP/s in float32.
        half: GFLOP/s in bf16.
    """
    faster = torch.float32 if wide > half else torch.bfloat16
    if faster == taken or max(wide, half) < CLEAR * min(wide, half):
        return None
    return "float32" if faster == torch.float32 else "bf16"
