"""The trie loss: a hierarchical softmax whose tree is the catalog's own wording.

The sum over a choice's decisions is exactly -log p(choice); forced tokens cost and teach nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llmrec.choices.trie import ChoiceTrie

WIDE = 64  # children from which a node is worth a matrix product of its own
BUCKETS = (4, 16, WIDE - 1)  # narrower nodes are padded to one of these widths


class TrieLoss(nn.Module):
    """-log p of decisions under the output head of a frozen base model."""

    def __init__(self, trie: ChoiceTrie, head: nn.Linear):
        super().__init__()
        self.head = head
        for name in ("child_offsets", "child_token", "child_parent"):
            self.register_buffer(name, torch.as_tensor(getattr(trie, name)).long(), persistent=False)

    def forward(self, hidden: Tensor, children: Tensor) -> Tensor:
        """Nats of each decision.

        Args:
            hidden: (decisions, width) last hidden state before the decision's token.
            children: (decisions,) which child of the trie is right.

        Returns:
            (decisions,) float32.
        """
        hidden = hidden.float()
        node = self.child_parent[children]
        first = self.child_offsets[node]
        width = self.child_offsets[node + 1] - first
        slot = children - first
        nats, order = [], []
        for wide in node[width >= WIDE].unique().tolist():
            rows = (node == wide).nonzero()[:, 0]
            tokens = self.child_token[self.child_offsets[wide] : self.child_offsets[wide + 1]]
            scores = hidden[rows] @ self._weight(tokens).T
            nats.append(nn.functional.cross_entropy(scores, slot[rows], reduction="none"))
            order.append(rows)
        narrower = 0
        for bucket in BUCKETS:
            rows = ((width > narrower) & (width <= bucket)).nonzero()[:, 0]
            narrower = bucket
            if len(rows) == 0:
                continue
            place = torch.arange(bucket, device=hidden.device)
            real = place < width[rows, None]
            tokens = self.child_token[torch.where(real, first[rows, None] + place, first[rows, None])]
            scores = torch.einsum("pd,pkd->pk", hidden[rows], self._weight(tokens))
            scores = scores.masked_fill(~real, -torch.inf)
            nats.append(nn.functional.cross_entropy(scores, slot[rows], reduction="none"))
            order.append(rows)
        if not order:
            return hidden.new_zeros(0)
        return torch.cat(nats)[torch.cat(order).argsort()]

    def _weight(self, tokens: Tensor) -> Tensor:
        return self.head.weight[tokens].float()
