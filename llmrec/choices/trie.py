"""A closed set of replies compiled into a compressed trie: flat arrays, no Python loop over choices.

Only *decisions* are nodes, places where two or more tokens can follow; forced tokens live on the way between them.
Leaves lie in depth-first order, so the choices below any node are an interval of leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.errors import ChoiceError

MAX_TOKENS = 64  # of one choice
END = -1  # behind a choice's last token; below every token id


class ChoiceTrie:
    """Sequences of token ids, none the beginning of another.

    Attributes:
        order: (choices,) leaf → choice.  Leaves are sorted by tokens.
        leaf: (choices,) choice → leaf.
        node_depth, node_lo, node_hi: (nodes,) tokens before the decision; leaves lo ≤ leaf < hi lie below it.  The
            root is node 0; a trie of one choice has no node.
        child_offsets: (nodes + 1,) node → its children child_offsets[node] … child_offsets[node + 1].
        child_token, child_node, child_lo, child_hi, child_parent: (children,) by ascending token within a node;
            child_node is the next decision on that way, or -1 where a single choice is left.
        decision_offsets, decision_child: (choices + 1,), (decisions,) the children on each choice's way, root first.
    """

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray):
        self._tokens = tokens  # (choices, longest) int32 by choice, padded with END
        self._lengths = lengths
        self.order = np.lexsort(tokens.T[::-1]).astype(np.int32)
        self.leaf = np.empty_like(self.order)
        self.leaf[self.order] = np.arange(len(self.order), dtype=np.int32)
        self._grow(tokens[self.order])

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]] | Sequence[np.ndarray]) -> ChoiceTrie:
        """A trie over `sequences`; choice i is sequence i.

        Raises: ChoiceError for no, an empty or an overlong sequence, or for two that cannot be told apart.
        """
        if not len(sequences):
            raise ChoiceError("no choices: a closed set needs at least one entry")
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        if lengths.min() < 1 or lengths.max() > MAX_TOKENS:
            at = int(np.argmax((lengths < 1) | (lengths > MAX_TOKENS)))
            raise ChoiceError(f"choice {at} has {lengths[at]} tokens; 1 to {MAX_TOKENS} can be taken: shorten it")
        tokens = np.full((len(sequences), int(lengths.max())), END, np.int32)
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = np.concatenate(
            [np.asarray(s, np.int32) for s in sequences]
        )
        return cls(tokens, lengths)

    def __len__(self) -> int:
        return len(self.order)

    def tokens(self, choice: int) -> np.ndarray:
        """All tokens of a choice."""
        return self._tokens[choice, : self._lengths[choice]]

    def path(self, node: int) -> np.ndarray:
        """Tokens from the start to a decision, (depth,)."""
        return self._tokens[self.order[self.node_lo[node]], : self.node_depth[node]]

    def children(self, node: int) -> np.ndarray:
        """Token ids of a node's children, ascending."""
        return self.child_token[self.child_offsets[node] : self.child_offsets[node + 1]]

    def _grow(self, tokens: np.ndarray) -> None:
        """Fill the arrays from `tokens` in leaf order."""
        count, width = tokens.shape
        same = tokens[1:] == tokens[:-1]
        shared = np.concatenate([[0], np.where(same.all(1), width, np.argmin(same, 1))])  # with the leaf before
        ends = self._lengths[self.order]
        if count > 1 and (clash := np.flatnonzero(shared[1:] >= np.minimum(ends[1:], ends[:-1]))).size:
            first, second = sorted(self.order[clash[0] : clash[0] + 2].tolist())
            raise ChoiceError(f"choices {first} and {second} cannot be told apart: one is the beginning of the other")
        lo, hi, depth, child_lo, child_hi, parent = [], [], [], [], [], []
        nodes = 0
        for d in range(width):  # all decisions at depth d at once
            splits = shared == d
            splits[0] = False
            if not splits.any():
                continue
            opens = shared < d
            opens[0] = True
            group = np.cumsum(opens) - 1  # (leaves,) prefix of d tokens that a leaf belongs to
            starts = np.flatnonzero(opens)
            stops = np.append(starts[1:], count)
            forks = np.unique(group[splits])  # prefixes with two or more continuations
            number = np.full(len(starts), -1)
            number[forks] = nodes + np.arange(len(forks))
            lo.append(starts[forks])
            hi.append(stops[forks])
            depth.append(np.full(len(forks), d))
            begins = np.flatnonzero((splits | opens) & (number[group] >= 0))
            ends_ = np.append(begins[1:], count)
            ends_ = np.minimum(ends_, stops[group[begins]])
            child_lo.append(begins)
            child_hi.append(ends_)
            parent.append(number[group[begins]])
            nodes += len(forks)
        self.node_lo, self.node_hi, self.node_depth = _joined(lo), _joined(hi), _joined(depth)
        self.child_lo, self.child_hi, self.child_parent = _joined(child_lo), _joined(child_hi), _joined(parent)
        self.child_offsets = np.searchsorted(self.child_parent, np.arange(nodes + 1)).astype(np.int32)
        self.child_token = tokens[self.child_lo, self.node_depth[self.child_parent]]
        self._link(count, nodes)

    def _link(self, count: int, nodes: int) -> None:
        """Which node each child leads to, and the children on each choice's way."""
        span = np.int64(count + 1)  # (lo, hi) of a decision is unique: every decision splits its leaves
        keys = self.node_lo * span + self.node_hi
        by_key = np.argsort(keys)
        wanted = self.child_lo * span + self.child_hi
        at = by_key[np.minimum(np.searchsorted(keys[by_key], wanted), max(nodes - 1, 0))] if nodes else np.empty(0, int)
        found = keys[at] == wanted if nodes else np.empty(0, bool)
        self.child_node = np.where(found & (self.child_hi - self.child_lo > 1), at, -1).astype(np.int32)
        sizes = (self.child_hi - self.child_lo).astype(np.int64)
        inside = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        choice = self.order[np.repeat(self.child_lo, sizes) + inside]
        child = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        by_choice = np.argsort(choice, kind="stable")  # children are made by depth, so the root's comes first
        self.decision_child = child[by_choice]
        counts = np.bincount(choice, minlength=count)
        self.decision_offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int32)
