"""A plug-in of vLLM's CPU build: LoRA as one matrix product per adapter, requests without an adapter get none, a
prefix cache of smaller blocks, and more log p a request.

vLLM's own CPU op gathers an adapter's weights once per token, and gives a request without adapter (slot -1) the
weights of the last slot.  `vllm_plugin` says when.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm import sampling_params
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.attention.backend import MultipleOf
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from llmrec.engine import WIDE


def register() -> None:
    """Take the place of vLLM's op, and let it run its attention kernel for blocks of 16.  May be called many times."""
    platform: Any = type(current_platform)
    platform.get_punica_wrapper = classmethod(lambda cls: f"{PerAdapter.__module__}.{PerAdapter.__qualname__}")
    # 128 is the size of a buffer that only its runner for GPUs has.
    sampling_params.MAX_LOGPROB_TOKEN_IDS = WIDE
    # Ranks of sampled tokens are all that it compiles in eager mode: 20 seconds and a C++ compiler for nothing.
    platform.simple_compile_backend = "eager"
    # It has the kernel and offers only multiples of 32.  A request computes again what lies past its last whole block,
    # and the search asks 40 requests a user: that is most of what a list costs.
    backend: Any = CPUAttentionBackend
    backend.get_supported_kernel_block_sizes = staticmethod(lambda kv_cache_spec=None: [MultipleOf(16)])


class PerAdapter(PunicaWrapperCPU):
    """Rows of a batch, grouped by the slot of their adapter; rows of slot -1 are left alone."""

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(*args, **kwargs)
        self._tokens = _groups(self.token_lora_indices)
        self._samples = _groups(self.sampler_indices)

    def add_lora_linear(
        self, y: Tensor, x: Tensor, lora_a_stacked: tuple[Tensor, ...], lora_b_stacked: tuple[Tensor, ...],
        scale: float, output_slices: tuple[int, ...], **kwargs: Any,
    ) -> None:  # fmt: skip
        """y[:, slice] += scale · x Aᵀ Bᵀ, slice by slice (q, k and v are one layer here)."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self._tokens:
            inputs, left = x[rows], 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                inner = inputs @ _weight(a, slot).T
                y[rows, left : left + width] += (scale * inner) @ _weight(b, slot).T
                left += width

    def add_shrink(self, y: Any, x: Tensor, lora_a_stacked: tuple[Tensor, ...], scale: float, **kwargs: Any) -> None:
        x = x.view(-1, x.shape[-1])
        for out, a in zip(y, lora_a_stacked, strict=True):
            out = out.view(-1, out.shape[-1])
            for slot, rows in self._tokens:
                out[rows] = (scale * (x[rows] @ _weight(a, slot).T)).to(out.dtype)

    def add_expand(
        self, y: Tensor, x: Any, lora_b_stacked: tuple[Tensor, ...], output_slices: tuple[int, ...],
        offset_start: int = 0, add_inputs: bool = True, **kwargs: Any,
    ) -> None:  # fmt: skip
        y, left = y.view(-1, y.shape[-1]), offset_start
        for inner, b, width in zip(x, lora_b_stacked, output_slices, strict=True):
            self._expand(y, inner, b, self._tokens, left, width, add_inputs)
            left += width

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        y = y.view(-1, y.shape[-1])
        self._expand(y, x, lora_b_stacked, self._tokens, 0, y.shape[-1], add_inputs)

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **kwargs: Any
    ) -> None:
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self._samples:
            weight = _weight(lora_b_stacked, slot)
            width = min(len(weight), y.shape[-1])  # the model may pad its vocabulary
            y[rows, :width] += ((scale * (x[rows] @ _weight(lora_a_stacked, slot).T)) @ weight.T)[:, :width]

    @staticmethod
    def _expand(
        y: Tensor, inner: Tensor, b: Tensor, groups: list[tuple[int, Any]], left: int, width: int, add: bool
    ) -> None:
        for slot, rows in groups:
            weight = _weight(b, slot)
            out = (inner[rows].to(weight.dtype) @ weight.T)[:, :width].to(y.dtype)
            y[rows, left : left + width] = y[rows, left : left + width] + out if add else out


def _weight(stacked: Tensor, slot: int) -> Tensor:
    """(out, in) weights of one slot; vLLM stacks linear layers as (slots, 1, out, in)."""
    return stacked[slot].view(stacked.shape[-2:])


def _groups(slots: Tensor) -> list[tuple[int, Any]]:
    """(slot, its rows) of every adapter in the batch: a slice where rows lie together, else their positions."""
    values, counts = torch.unique_consecutive(slots, return_counts=True)
    ends = counts.cumsum(0).tolist()
    runs: dict[int, list[tuple[int, int]]] = {}
    for slot, count, end in zip(values.tolist(), counts.tolist(), ends, strict=True):
        if slot >= 0:
            runs.setdefault(slot, []).append((end - count, end))
    return [
        (slot, slice(*where[0]) if len(where) == 1 else torch.cat([torch.arange(*run) for run in where]))
        for slot, where in runs.items()
    ]
