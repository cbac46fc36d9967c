"""`branch` and `generate` as requests: what any vLLM is asked, in process or behind HTTP.

A request brings back log p of so many given ids at most.  They share the whole vocabulary's normaliser, so the children
of a wide node are asked for in parts, and one logsumexp over all parts makes log p among the children: exact, and the
trie stays with the client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmrec.engine import Engine, Node, Prompt
from llmrec.errors import EngineError

GROUPS = 4  # in flight, of a quarter of the cache each: the last search of one never waits alone
MAX_IDS = 128  # of a request, a limit of vLLM's sampler where nothing lifts it


@dataclass(frozen=True)
class Ask:
    """Which log p of the next token is wanted, after `tokens`, under `adapter`."""

    tokens: tuple[int, ...]
    adapter: str | None
    ids: tuple[int, ...]


@dataclass
class Tally:
    """Prompt tokens of answered requests, and how many of them came from the prefix cache."""

    requests: int = 0
    tokens: int = 0
    cached: int = 0

    def add(self, requests: int, tokens: int, cached: int) -> None:
        self.requests += requests
        self.tokens += tokens
        self.cached += cached


class Asking(Engine):
    """`branch` and `generate` over requests, which a subclass sends."""

    tokenizer: Any
    groups = GROUPS
    widest = MAX_IDS
    max_tokens: int
    """Longest prompt and path of a request for one token."""
    tally: Tally

    def pinned(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        return [replace(prompt, adapter=prompt.adapter and self._version(prompt.adapter)) for prompt in prompts]

    def branch(self, nodes: Sequence[Node]) -> list[np.ndarray]:
        return joined(nodes, self._log_p(asks(nodes, self.max_tokens, self.widest)), self.widest)

    def generate(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str] = (), keep_stop: bool = False
    ) -> list[str]:
        for prompt in prompts:
            check(prompt, self.max_tokens + 1 - max_tokens)
        # Decoded here and not by vLLM, so that a reply reads as the reference engine's does to the last byte.
        texts = [
            self.tokenizer.decode(ids, skip_special_tokens=True) for ids in self._greedy(prompts, max_tokens, stop)
        ]
        return [cut(text, stop, keep_stop) for text in texts]

    def _version(self, name: str) -> str:
        """The name of the weights that `name` stands for now, by which they can be asked for, too."""
        raise NotImplementedError

    def _log_p(self, asked: Sequence[Ask]) -> Sequence[np.ndarray]:
        """log p in the whole vocabulary of every ask's ids, in their order."""
        raise NotImplementedError

    def _greedy(self, prompts: Sequence[Prompt], max_tokens: int, stop: Sequence[str]) -> Sequence[Sequence[int]]:
        """Token ids of every prompt's greedy reply, which may go on behind `stop` to the end of a token."""
        raise NotImplementedError


def loaded(adapters: Mapping[str, Any], name: str) -> Any:
    """What `name` stands for.  Raises: EngineError."""
    if name not in adapters:
        raise EngineError(f"adapter '{name}' is not loaded (loaded: {', '.join(adapters) or 'none'})")
    return adapters[name]


def asks(nodes: Sequence[Node], max_tokens: int, widest: int) -> list[Ask]:
    """The requests for `nodes`, in their order; a node of more than `widest` children takes several.

    Args:
        max_tokens: longest prompt and path that leaves room for one token.
    Raises: EngineError for what is longer, or empty.
    """
    result = []
    for node in nodes:
        tokens = node.prompt.tokens + node.path
        check(node.prompt, max_tokens - len(node.path))
        for start in range(0, len(node.children), widest):
            ids = tuple(node.children[start : start + widest].tolist())
            result.append(Ask(tokens, node.prompt.adapter, ids))
    return result


def joined(nodes: Sequence[Node], answers: Sequence[np.ndarray], widest: int) -> list[np.ndarray]:
    """log p among the children of each node, float32 nats, from the answers to `asks` (log p in the whole vocabulary,
    in the order of each request's ids)."""
    result = []
    parts = iter(answers)
    for node in nodes:
        count = -(-len(node.children) // widest)
        log_p = np.concatenate([next(parts) for _ in range(count)]).astype(np.float64)
        result.append((log_p - np.logaddexp.reduce(log_p)).astype(np.float32))
    return result


def check(prompt: Prompt, max_tokens: int) -> None:
    """Raises: EngineError for a prompt that is empty or too long."""
    if not 0 < len(prompt.tokens) <= max_tokens:
        raise EngineError(f"a prompt of {len(prompt.tokens)} tokens: this model takes 1 to {max_tokens}")


def fitting(prompts: Sequence[Prompt], *, blocks: int, block_size: int, adapters: int) -> Iterator[list[int]]:
    """Indexes of prompts whose keys and values fit together: `blocks` blocks, and `adapters` different adapters.

    Prompts of one adapter come together, else in their order; one that fits nowhere is alone.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].adapter or "")
    group: list[int] = []
    used, names = 0, set[str]()
    for i in order:
        # One block more than the prompt fills: the paths behind it.
        need = len(prompts[i].tokens) // block_size + 2
        name = prompts[i].adapter
        full = used + need > blocks or (name is not None and len(names | {name}) > adapters)
        if group and full:
            yield group
            group, used, names = [], 0, set()
        group.append(i)
        used += need
        if name is not None:
            names.add(name)
    if group:
        yield group


def cut(reply: str, stop: Sequence[str], keep: bool = False) -> str:
    """`reply` before the first of `stop`, or with `keep` behind it."""
    at, ends = min(((at, at + len(s)) for s in stop if (at := reply.find(s)) >= 0), default=(len(reply), len(reply)))
    return reply[: ends if keep else at]
