"""The trie loss: a hierarchical softmax whose tree is the catalog's own wording.

The sum over a choice's decisions is exactly -log p(choice); forced tokens cost and teach nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llmrec.choices.trie import ChoiceTrie
from llmrec.model.head import token_rows

WIDE = 64  # children from which a node is worth a matrix product of its own
BUCKETS = (4, 16, WIDE - 1)  # narrower nodes are padded to one of these widths


@dataclass(frozen=True)
class Expected:
    """What a teacher expects at each target, beside what happened: soft targets (Hinton, Vinyals and Dean 2015)."""

    below: Tensor
    """(targets, choices + 1) float64, running sum of probability over leaves: what lies below any child is a difference
    of two entries."""
    target: Tensor
    """(decisions,) which target a decision belongs to."""


class TrieLoss(nn.Module):
    """-log p of decisions under the output head, and what an adapter adds to it."""

    def __init__(self, trie: ChoiceTrie, head: nn.Module):
        super().__init__()
        self.head = head
        for name in ("order", "child_offsets", "child_token", "child_parent", "child_lo", "child_hi"):
            self.register_buffer(name, torch.as_tensor(getattr(trie, name)).long(), persistent=False)

    def expected(self, p: Tensor, target: Tensor) -> Expected:
        """Probabilities of choices (targets, choices) for decisions of `target` (decisions,); where all are 0, as for
        somebody who has chosen everything, nothing is taught."""
        below = p.new_zeros((len(p), len(self.order) + 1), dtype=torch.float64)  # a catalog wide: few copies of it
        torch.cumsum(p[:, self.order], 1, dtype=torch.float64, out=below[:, 1:])
        return Expected(below.div_(below[:, -1:].clamp(min=1e-300)), target)

    def forward(self, hidden: Tensor, children: Tensor, expected: Expected | None = None) -> tuple[Tensor, Tensor]:
        """Nats of each decision, (decisions,) float32: of what happened, and of what was expected (the same where
        nothing was).

        Args:
            hidden: (decisions, width) last hidden state before the decision's token.
            children: (decisions,) which child of the trie is right.
        """
        hidden = hidden.float()
        node = self.child_parent[children]
        first = self.child_offsets[node]
        width = self.child_offsets[node + 1] - first
        slot = children - first
        happened, soft, order = [hidden.new_zeros(0)], [hidden.new_zeros(0)], [children.new_zeros(0)]

        def take(rows: Tensor, options: Tensor, scores: Tensor) -> None:
            """`options` and their `scores`, (rows, options), for some decisions."""
            log_p = torch.log_softmax(scores, dim=-1)
            happened.append(-log_p.gather(1, slot[rows, None])[:, 0])
            soft.append(happened[-1] if expected is None else self._soft(rows, options, log_p, expected))
            order.append(rows)

        for wide in node[width >= WIDE].unique().tolist():
            rows = (node == wide).nonzero()[:, 0]
            options = torch.arange(self.child_offsets[wide], self.child_offsets[wide + 1], device=hidden.device)
            scores = hidden[rows] @ token_rows(self.head, self.child_token[options]).T
            take(rows, options.expand(len(rows), -1), scores)
        narrower = 0
        for bucket in BUCKETS:
            rows = ((width > narrower) & (width <= bucket)).nonzero()[:, 0]
            narrower = bucket
            if len(rows) == 0:
                continue
            place = torch.arange(bucket, device=hidden.device)
            real = place < width[rows, None]
            options = torch.where(real, first[rows, None] + place, first[rows, None])
            scores = torch.einsum("pd,pkd->pk", hidden[rows], token_rows(self.head, self.child_token[options]))
            take(rows, options, scores.masked_fill(~real, -torch.inf))
        back = torch.cat(order).argsort()
        return torch.cat(happened)[back], torch.cat(soft)[back]

    def _soft(self, rows: Tensor, options: Tensor, log_p: Tensor, expected: Expected) -> Tensor:
        """Cross-entropy with the teacher's shares among the options; padding has no log p and no share."""
        target = expected.target[rows][:, None]  # no copy of whole rows: a catalog may have 200,000 items
        below_hi, below_lo = (expected.below[target, ends[options]] for ends in (self.child_hi, self.child_lo))
        share = (below_hi - below_lo).float()
        real = log_p > -torch.inf
        share = share.masked_fill(~real, 0.0)
        share = share / share.sum(1, keepdim=True).clamp(min=1e-12)
        return -(share * log_p.masked_fill(~real, 0.0)).sum(1)
