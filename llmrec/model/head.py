"""The output head as rows: which vectors score some tokens, an adapter's share included.

Choices from a catalog need a few hundred of the vocabulary's scores, so the whole product is not formed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def base_weight(head: Any) -> Tensor:
    """(vocabulary, width) of the base model, whether or not an adapter is wrapped around it."""
    return getattr(head, "base_layer", head).weight


def token_rows(head: Any, tokens: Tensor) -> Tensor:
    """(tokens, width) float32: rows of the head's weight plus what the active LoRAs add to them.

    Gradients reach the LoRA's parameters; its dropout is not applied, since rows are taken instead of inputs.
    """
    rows = base_weight(head)[tokens].float()
    if not hasattr(head, "lora_A") or head.disable_adapters:
        return rows
    for adapter in head.active_adapters:
        if adapter in head.lora_A:
            down, up = head.lora_A[adapter].weight.float(), head.lora_B[adapter].weight[tokens].float()
            rows = torch.add(rows, up @ down, alpha=head.scaling[adapter])
    return rows
