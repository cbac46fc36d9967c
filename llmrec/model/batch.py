"""Rows of one task as the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmrec.choices.trie import ChoiceTrie
from llmrec.model.rows import Row


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass, of one task, padded on the right (a causal model never looks there)."""

    inputs: Tensor  # (rows, time) token ids, or (rows, time, width) activations
    positions: Tensor  # (decisions,) into the flattened (rows * time)
    children: Tensor  # (decisions,) trie children that were right
    target: Tensor  # (decisions,) which target of the batch a decision belongs to
    weights: Tensor  # (decisions,) how much each counts
    task: str

    @property
    def learned(self) -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
        """What a learner takes."""
        return self.task, self.inputs, self.positions, self.children, self.weights


class Decisions:
    """For each choice, the children on its path and how far from its first token each is decided."""

    def __init__(self, trie: ChoiceTrie):
        self.offsets = trie.decision_offsets
        self.child = trie.decision_child
        self.depth = trie.node_depth[trie.child_parent[trie.decision_child]]

    def counts(self, row: Row) -> np.ndarray:
        """(targets,) decisions of each target."""
        return self.offsets[row.choices + 1] - self.offsets[row.choices]

    def of(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """(positions, children) of all decisions of the row's targets; a token is decided one position before it."""
        counts = self.counts(row)
        total = int(counts.sum())
        ahead = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        index = np.repeat(self.offsets[row.choices], counts) + ahead
        return np.repeat(row.starts, counts) + self.depth[index] - 1, self.child[index]


def collate(
    rows: Sequence[Row], decisions: Decisions, device: torch.device | str = "cpu", inputs: Tensor | None = None
) -> Batch:
    """Rows of one task as one batch; `inputs` are activations (rows, time, width) where they are cached."""
    time_ = max(len(row.tokens) for row in rows)
    positions, children = zip(*(decisions.of(row) for row in rows), strict=True)
    counts = np.concatenate([decisions.counts(row) for row in rows])
    weights = np.concatenate([np.full(len(row.starts), row.weight, np.float32) for row in rows])
    flat = np.concatenate([place + i * time_ for i, place in enumerate(positions)])
    if inputs is None:
        tokens = np.zeros((len(rows), time_), np.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row.tokens)] = row.tokens
        inputs = torch.from_numpy(tokens)
    return Batch(
        inputs.to(device),
        torch.from_numpy(flat.astype(np.int64)).to(device),
        torch.from_numpy(np.concatenate(children).astype(np.int64)).to(device),
        torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device),
        torch.from_numpy(np.repeat(weights, counts)).to(device),
        rows[0].task,
    )
