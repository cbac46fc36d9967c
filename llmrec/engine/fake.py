"""An engine without a model: repeatable pseudo-random answers, to try what sits above an engine, in tests and as
`--engine fake`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from llmrec.engine import Engine, Node, Prompt
from llmrec.engine.asks import cut


class FakeEngine(Engine):
    """log p drawn from a generator that is seeded by adapter, prompt and path: the same question, the same answer."""

    exact = True

    def __init__(self, reply: str = "ok", group: int = 16, spread: float = 2.0, groups: int = 1):
        self.reply = reply
        self.group, self.groups = group, groups
        self.spread = spread  # nats: how far apart children are
        self.branched: list[int] = []
        """Nodes of each call of `branch`."""

    def pinned(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        return list(prompts)

    def batches(self, prompts: Sequence[Prompt]) -> Iterable[list[int]]:
        yield from (list(range(i, min(i + self.group, len(prompts)))) for i in range(0, len(prompts), self.group))

    def branch(self, nodes: Sequence[Node]) -> list[np.ndarray]:
        self.branched.append(len(nodes))
        return [self._log_p(node) for node in nodes]

    def generate(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str] = (), keep_stop: bool = False
    ) -> list[str]:
        reply = " ".join(self.reply.split(" ")[:max_tokens])
        return [cut(reply, stop, keep_stop) for _ in prompts]

    def _log_p(self, node: Node) -> np.ndarray:
        text = f"{node.prompt.adapter}|{node.prompt.tokens}|{node.path}".encode()
        seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
        # One number per token id, not per place: an answer does not depend on which children are asked for.
        logits = np.array([np.random.default_rng((seed, int(token))).normal() for token in node.children]) * self.spread
        return (logits - np.logaddexp.reduce(logits)).astype(np.float32)
