"""The reference engine: transformers and PEFT, on a CPU or a GPU.

The histories of a group of prompts are computed once.  Every `branch` then computes, for all of them together, the
tokens between an expanded node and its nearest known ancestor: each new token sees its prompt and its own ancestors
only (a tree attention mask), so one pass expands any set of nodes.  Whatever is computed together is one row of tokens:
nothing is padded, what all prompts begin with is computed once, and only attention takes the prompts apart.
`generate` grows the same trees, and a prompt that begins with most of one that is held goes on from there.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from llmrec.engine import Engine, Node, Prompt
from llmrec.engine.asks import check, cut
from llmrec.errors import LlmrecError
from llmrec.model.head import base_weight, token_rows

ONE_PRODUCT = 64  # children from which nodes that share them are scored in one matrix product
LIKELY = 32  # tokens that a head in 16 bits ranks first, among which the likeliest is looked for in float32
GROW = 32  # columns by which the store of keys and values grows


class HFEngine(Engine):
    """Engine over a loaded model.

    Args:
        model: a causal decoder, or a PEFT model around one.
        tokenizer: for `generate`.
        batch_tokens: prompt tokens in flight together: bounds memory.
    """

    groups = 1  # in flight: there is one store of keys and values

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int = 8192):
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.peft = hasattr(model, "peft_config")
        causal = model.get_base_model() if self.peft else model
        self.decoder = causal.get_decoder()
        self.head = causal.get_output_embeddings()
        self.device = base_weight(self.head).device
        self.exact = base_weight(self.head).dtype == torch.float32
        self.max_tokens: int = causal.config.max_position_embeddings
        ends = causal.generation_config.eos_token_id if causal.can_generate() else None
        self._ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        self._flight: _Flight | None = None
        self._own: list[str] = []

    def beside(self, own: str) -> HFEngine:
        """An engine over the same model in which the adapter `own`, where there is one, is active beside whichever is
        asked for."""
        if own not in self.adapters:
            return self
        other = copy.copy(self)
        other._own, other._flight = [own], None
        return other

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a prompt may ask for."""
        return tuple(self.model.peft_config) if self.peft else ()

    def pinned(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """As they are: no adapter changes in this engine."""
        return list(prompts)

    def batches(self, prompts: Sequence[Prompt]) -> Iterable[list[int]]:
        """Prompts of one adapter and similar length together, longest first: memory runs out at once or never."""
        order = sorted(range(len(prompts)), key=lambda i: (prompts[i].adapter or "", -len(prompts[i].tokens)))
        group: list[int] = []
        for i in order:
            if group:
                first = prompts[group[0]]
                full = (len(group) + 1) * len(first.tokens) > self.batch_tokens
                if full or prompts[i].adapter != first.adapter:
                    yield group
                    group = []
            group.append(i)
        if group:
            yield group

    @torch.no_grad()
    def branch(self, nodes: Sequence[Node]) -> list[np.ndarray]:
        """log p of the children of each node; prompts that are not in flight take the place of those that are."""
        result: list[np.ndarray | None] = [None] * len(nodes)
        prompts = list(dict.fromkeys(node.prompt for node in nodes))
        for group in self._in_flight(prompts):
            chosen = {prompts[i] for i in group}
            mine = [i for i, node in enumerate(nodes) if node.prompt in chosen]
            hidden = self._hidden([(nodes[i].prompt, nodes[i].path) for i in mine])
            for i, log_p in zip(mine, self._scores(hidden, [nodes[i].children for i in mine]), strict=True):
                result[i] = log_p
        return result  # type: ignore[return-value]

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str] = (), keep_stop: bool = False
    ) -> list[str]:
        """Greedy replies, grown on what `branch` has computed of their prompts, as `branch` goes on with theirs."""
        for prompt in prompts:
            check(prompt, self.max_tokens - max_tokens)
        said: list[tuple[int, ...]] = [()] * len(prompts)
        texts = [""] * len(prompts)
        for group in self._in_flight(prompts):
            going = group
            for _ in range(max_tokens):
                hidden = self._hidden([(prompts[i], said[i]) for i in going])
                tokens = self._likeliest(hidden)
                ended = set()
                for i, token in zip(going, tokens, strict=True):
                    said[i] += (token,)
                    texts[i] = self.tokenizer.decode(said[i], skip_special_tokens=True)
                    if token in self._ends or any(mark in texts[i] for mark in stop):
                        ended.add(i)
                if not (going := [i for i in going if i not in ended]):
                    break
        return [cut(text, stop, keep_stop) for text in texts]

    @contextmanager
    def _active(self, adapter: str | None) -> Any:
        """PEFT keeps the last adapter active; here no prompt gets another one's, nor one it did not ask for."""
        if adapter is not None and adapter not in self.adapters:
            raise LlmrecError(f"adapter '{adapter}' is not loaded (loaded: {', '.join(self.adapters) or 'none'})")
        if not self.peft:
            yield
        elif adapter is None:
            with self.model.disable_adapter():
                yield
        else:
            names = [adapter, *self._own]
            if self.model.active_adapters != names:  # setting it again would stop or start its training
                self.model.base_model.set_adapter(names, inference_mode=True)
            yield

    def forget(self) -> None:
        """Drop what is computed; needed where the model's weights have changed."""
        self._flight = None

    def _in_flight(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Indexes of prompts of one adapter, group by group; each is in flight, its adapter active, until the next."""
        for prompt in prompts:
            check(prompt, self.max_tokens)
        for adapter in dict.fromkeys(prompt.adapter for prompt in prompts):
            mine = [i for i, prompt in enumerate(prompts) if prompt.adapter == adapter]
            with self._active(adapter):
                if self._goes_on([prompts[i] for i in mine]):
                    yield mine
                    continue
                for group in self.batches([prompts[i] for i in mine]):
                    some = [prompts[mine[i]] for i in group]
                    if not self._goes_on(some):
                        self._flight = self._prefill(list(dict.fromkeys(some)))
                    yield [mine[i] for i in group]

    def _goes_on(self, prompts: Sequence[Prompt]) -> bool:
        """Whether all prompts are in flight, or begin with most of one that is, and now are in flight, too."""
        flight = self._flight
        if flight is None:
            return False
        found = {prompt: flight.place_of(prompt) for prompt in prompts}
        more = dict.fromkeys(flight.rows, 0)
        for prompt, place in found.items():
            if place is None:
                return False
            if prompt not in flight.places:
                more[place.root] += len(place.path)
        # A tree of one prompt widens the rows of all: where it is half of them or more that nobody asks about, reading
        # the others anew bounds memory (half at least, so that it happens a few times in a search, not in every wave).
        asked = len({place.root for place in found.values() if place})
        if 2 * asked <= len(flight.rows) and len(flight.used) * max(flight.used) > 4 * self.batch_tokens:
            return False
        if any(more.values()):
            # Beyond this a row would be more of a tree than of a prompt: reading anew is cheaper, and bounds memory.
            width = max(flight.used) + max(more.values())
            if any(count > len(root.tokens) for root, count in more.items()):
                return False
            if len(flight.used) * width > 2 * self.batch_tokens:
                return False
        flight.places |= found  # type: ignore[arg-type]
        return True

    def _hidden(self, wanted: Sequence[tuple[Prompt, tuple[int, ...]]]) -> Tensor:
        """(wanted, width) float32 states after prompts in flight and their paths."""
        assert self._flight is not None
        places = [self._flight.places[prompt].then(path) for prompt, path in wanted]
        self._extend(self._flight, places)
        return torch.stack([self._flight.hidden[place] for place in places])

    def _prefill(self, prompts: Sequence[Prompt]) -> _Flight:
        self._flight = None  # frees the previous group first
        shared = len(os.path.commonprefix([prompt.tokens for prompt in prompts]))
        lengths = torch.tensor([len(prompt.tokens) for prompt in prompts])
        rest = lengths - shared
        starts = shared + rest.cumsum(0) - rest  # where each prompt's own tokens stand in the one row
        column = torch.arange(int(lengths.max()))
        source = torch.where(column < shared, column, starts[:, None] + column - shared)
        own = (column >= shared) & (column < lengths[:, None])
        place = torch.cat([column[:shared], own.flatten().nonzero()[:, 0]])
        parts = _Parts(source.where(column < lengths[:, None], 0).to(self.device), place.to(self.device))
        store = Cache(layers=[_Columns(parts.source) for _ in self.decoder.layers])
        ids = [*prompts[0].tokens[:shared], *(token for prompt in prompts for token in prompt.tokens[shared:])]
        hidden = self._decode(ids, place % len(column), store, parts)
        last = hidden[torch.where(rest > 0, starts + rest, shared) - 1]
        places = {prompt: _Place(prompt, len(prompt.tokens), ()) for prompt in prompts}
        return _Flight(
            rows={prompt: row for row, prompt in enumerate(prompts)},
            places=places,
            store=store,
            used=lengths.tolist(),
            hidden={places[prompt]: last[row] for row, prompt in enumerate(prompts)},
        )

    def _extend(self, flight: _Flight, places: Sequence[_Place]) -> None:
        """Compute the hidden states at `places` that are not known yet."""
        new: list[_Place] = []
        slots: dict[int, list[int]] = {}  # row → which of the new tokens are its own
        for place in places:
            row, known = flight.rows[place.root], len(place.path)
            while known and place.at(known) not in flight.ancestors:
                known -= 1
            seen = flight.ancestors[place.at(known)] if known else ()
            for end in range(known + 1, len(place.path) + 1):
                seen = (*seen, flight.used[row])
                flight.ancestors[place.at(end)] = seen
                flight.used[row] += 1
                slots.setdefault(row, []).append(len(new))
                new.append(place.at(end))
        if not new:
            return
        active = sorted(slots)
        width, most = max(flight.used[row] for row in active), max(map(len, slots.values()))
        sees = torch.full((len(active), most, width), -torch.inf)  # (rows, new tokens of one, columns), 0 where seen
        sees[:, :, 0] = 0  # padding sees something, or its softmax is NaN
        source = torch.zeros((len(active), most), dtype=torch.long)
        place, rows = torch.empty(len(new), dtype=torch.long), torch.empty(len(new), dtype=torch.long)
        columns = torch.tensor([flight.ancestors[key][-1] for key in new])
        for i, row in enumerate(active):
            own = torch.tensor(slots[row])
            source[i, : len(own)], place[own], rows[own] = own, i * most + torch.arange(len(own)), row
            for slot, token in enumerate(slots[row]):
                sees[i, slot, : new[token].shared] = 0
                sees[i, slot, list(flight.ancestors[new[token]])] = 0
        for layer in flight.store.layers:
            layer.select(rows.to(self.device), columns.to(self.device), active, width)
        parts = _Parts(source.to(self.device), place.to(self.device))
        positions = torch.tensor([place.shared + len(place.path) - 1 for place in new])
        hidden = self._decode([place.path[-1] for place in new], positions, flight.store, parts, sees)
        flight.hidden |= dict(zip(new, hidden, strict=True))

    def _decode(
        self, ids: Sequence[int], positions: Tensor, store: Cache, parts: _Parts, sees: Tensor | None = None
    ) -> Tensor:
        """(tokens, width) float32 hidden states of one row of tokens; without `sees` each prompt is causal."""
        mask = None if sees is None else sees[:, None].to(self.device, base_weight(self.head).dtype)
        with self._apart():
            out = self.decoder(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=positions[None].to(self.device),
                attention_mask=mask,
                past_key_values=store,
                use_cache=True,
                parts=parts,
            )
        return out.last_hidden_state[0].float()

    @contextmanager
    def _apart(self) -> Any:
        """The decoder with attention that takes one row of many prompts' tokens apart."""
        usual = self.decoder.config._attn_implementation
        self.decoder.set_attn_implementation(APART)
        if self.decoder.config._attn_implementation != APART:
            raise LlmrecError(f"{type(self.decoder).__name__}: transformers cannot replace this base model's attention")
        try:
            yield
        finally:
            self.decoder.set_attn_implementation(usual)

    def _scores(self, hidden: Tensor, children: Sequence[np.ndarray]) -> list[np.ndarray]:
        """log p of each array of children under its row of `hidden`, all in float32."""
        result: list[np.ndarray] = [np.empty(0, np.float32)] * len(children)
        together: dict[bytes, list[int]] = {}
        for i, tokens in enumerate(children):
            together.setdefault(tokens.tobytes() if len(tokens) >= ONE_PRODUCT else b"", []).append(i)
        for rows in (rows for key, rows in together.items() if key):
            weight = self._weight(children[rows[0]])
            log_p = torch.log_softmax(hidden[rows] @ weight.T, dim=-1).cpu().numpy()
            for i, row in zip(rows, log_p, strict=True):
                result[i] = row
        narrow = together.get(b"", [])
        if narrow:
            counts = torch.tensor([len(children[i]) for i in narrow])
            which = torch.repeat_interleave(torch.tensor(narrow), counts).to(self.device)
            weight = self._weight(np.concatenate([children[i] for i in narrow]))
            flat = (hidden[which] * weight).sum(-1).cpu().split(counts.tolist())
            for i, scores in zip(narrow, flat, strict=True):
                result[i] = torch.log_softmax(scores, dim=0).numpy()
        return result

    def _likeliest(self, hidden: Tensor) -> list[int]:
        """The likeliest next token under each row of `hidden`.  A head in 16 bits tells near ones not apart, so the
        best of its scores are computed once more as `branch` scores them."""
        scores = self.head(hidden.to(base_weight(self.head).dtype))
        if scores.dtype == torch.float32:
            return scores.argmax(-1).tolist()
        near = scores.topk(min(LIKELY, scores.shape[1])).indices.sort(dim=-1).values.cpu().numpy()
        best = self._scores(hidden, [*near])
        return [int(tokens[log_p.argmax()]) for tokens, log_p in zip(near, best, strict=True)]

    def _weight(self, tokens: np.ndarray) -> Tensor:
        return token_rows(self.head, torch.from_numpy(np.asarray(tokens, np.int64)).to(self.device))


class _Place(NamedTuple):
    """A place in a flight: behind the first `shared` tokens of a prompt that was read, then `path`."""

    root: Prompt
    shared: int
    path: tuple[int, ...]

    def then(self, path: tuple[int, ...]) -> _Place:
        return _Place(self.root, self.shared, self.path + path)

    def at(self, end: int) -> _Place:
        return _Place(self.root, self.shared, self.path[:end])


@dataclass
class _Flight:
    """Prompts whose keys and values are held, and the tree that has been grown behind each."""

    rows: dict[Prompt, int]
    """Prompts that were read."""
    places: dict[Prompt, _Place]
    """Those, and others that go on from them."""
    store: Cache
    used: list[int]  # (rows,) columns in use: the prompt, then the tree tokens of all waves
    hidden: dict[_Place, Tensor]
    """(width of the model,) float32 state that decides the next token."""
    ancestors: dict[_Place, tuple[int, ...]] = field(default_factory=dict)
    """Columns of a path's tokens."""

    def place_of(self, prompt: Prompt) -> _Place | None:
        """Where `prompt` goes on from one that was read; None where it shares less with each than it adds."""
        if prompt in self.places:
            return self.places[prompt]
        alike = [root for root in self.rows if root.adapter == prompt.adapter]
        shared, root = max(
            ((len(os.path.commonprefix([root.tokens, prompt.tokens])), root) for root in alike),
            key=lambda found: found[0], default=(0, prompt),
        )  # fmt: skip
        shared = min(shared, len(prompt.tokens) - 1)  # its last token's state is known at a read prompt's end only
        path = prompt.tokens[shared:]
        return _Place(root, shared, path) if len(path) <= shared else None


@dataclass(frozen=True)
class _Parts:
    """How a row of tokens is taken apart by prompt, and put together again."""

    source: Tensor  # (prompts, most tokens of one) which token stands there; padding repeats the first token
    place: Tensor  # (tokens,) where each token stands in the flattened `source`


class _Columns(CacheLayerMixin):
    """One layer's keys and values, (rows, heads, columns, width): prompts first, then tokens at any row and column."""

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self.source = source

    def select(self, rows: Tensor, columns: Tensor, active: list[int], width: int) -> None:
        """Where the next update's tokens go, and the rows and number of columns that are seen."""
        self.place, self.active, self.width = (rows, columns), active, width

    def update(self, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes in keys and values of the one row of new tokens, (1, heads, tokens, width), and returns those that they
        may see, (active rows, heads, columns, width); at first, of prompts, (prompts, heads, columns, width)."""
        if self.keys is None:
            self.lazy_initialization(key, value)
            return self.keys, self.values
        if self.width > self.keys.shape[2]:
            room = key.new_zeros(*self.keys.shape[:2], self.width - self.keys.shape[2] + GROW, self.keys.shape[3])
            self.keys, self.values = torch.cat([self.keys, room], 2), torch.cat([self.values, room], 2)
        rows, columns = self.place
        self.keys[rows, :, columns] = key[0].transpose(0, 1)
        self.values[rows, :, columns] = value[0].transpose(0, 1)
        everyone = len(self.active) == len(self.keys)
        keys, values = (kept if everyone else kept[self.active] for kept in (self.keys, self.values))
        return keys[:, :, : self.width], values[:, :, : self.width]

    def lazy_initialization(self, key: Tensor, value: Tensor) -> None:
        self.keys, self.values = (flat[0][:, self.source].transpose(0, 1).contiguous() for flat in (key, value))
        self.is_initialized = True

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def get_max_length(self) -> int:
        return -1


APART = "llmrec_apart"
GROUPED = ("cpu",)
"""Devices whose attention takes several query heads for one of keys under a mask; elsewhere that falls back to forming
all scores, and copies cost less."""


def _attend_apart(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sees: Tensor | None,
    *,
    scaling: float,
    parts: _Parts,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of tokens that stand in one row, each on its own prompt's keys and values.

    Args:
        query: (1, heads, tokens, width).
        key, value: (prompts, fewer heads, columns, width).
        sees: (prompts, 1, most tokens of one, columns), 0 or -inf; None: every token sees what stands before it.
    Returns: (1, tokens, heads, width).
    """
    apart = query[0][:, parts.source].transpose(0, 1)
    grouped = sees is None or query.device.type in GROUPED  # on a processor copies were half of a wave
    if not grouped:
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    out = nn.functional.scaled_dot_product_attention(
        apart, key, value, sees, is_causal=sees is None, scale=scaling, enable_gqa=grouped
    )
    return out.transpose(1, 2).flatten(0, 1)[parts.place][None], None


AttentionInterface.register(APART, _attend_apart)
