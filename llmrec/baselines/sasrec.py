"""SASRec with cross-entropy over the whole catalog: the usual sequential recommender, without text.

Ours, because no kept library serves: RecTools 0.19 needs pandas below 3, RecBole 1.2 numpy below 2, LensKit has none.
Causal self-attention over the latest items, pre-norm, learned positions counted from the latest item back, output
weights tied to the items' vectors.  Every event of every training history is a target once an epoch: long histories
are cut into windows, elsewhere each time.  Under the basket rule events with equal times are reshuffled each epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from llmrec import config
from llmrec.baselines import ScoreRanker
from llmrec.data.sample import sampled
from llmrec.data.split import History, Query
from llmrec.errors import RecipeError
from llmrec.metrics.ranking import by_user, ndcg, ranks

LOGITS = 1 << 26  # scores of items that a pass of training holds at a time: 256 MB, several times
_ROWS = 256  # histories scored at once


class SASRec(nn.Module):
    """Scores are logits of the next item.  On a processor the same seed and data give the same weights."""

    def __init__(self, items: int, settings: config.SASRec) -> None:
        super().__init__()
        size = settings.dimension
        if size % settings.heads:
            raise RecipeError(f"sasrec.dimension={size} is not a multiple of sasrec.heads={settings.heads}")
        self.items, self.length, self.settings = items, settings.length, settings
        self.item = nn.Embedding(items + 1, size)  # the last is the start of a history
        self.place = nn.Embedding(settings.length, size)
        self.bias = nn.Parameter(torch.zeros(items))
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(size, settings.heads, settings.dropout) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(size)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    @classmethod
    def fit(
        cls,
        histories: Sequence[History],
        items: int,
        valid: Sequence[Query],
        settings: config.SASRec,
        *,
        baskets: bool = True,
        repeats: str = "exclude",
        seed: int = 0,
        tick: Callable[[int, int], None] = lambda done, total: None,
    ) -> SASRec:
        """Trains until ndcg@10 on `valid` no longer improves and keeps the best weights; without `valid` for all
        `settings.epochs`.  `tick` hears of epochs done and their most."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        rng = np.random.default_rng(seed)
        asked = sampled(valid, settings.valid_queries, rng)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = cls(items, settings).to(device)
            optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, betas=(0.9, 0.98))
            best, best_epoch, weights = -1.0, 0, copy.deepcopy(model.state_dict())
            for epoch in range(1, settings.epochs + 1):
                tick(epoch - 1, settings.epochs)
                model.train()
                for batch in _batches(_windows(histories, items, settings.length, rng, baskets), settings.batch, rng):
                    loss = model.loss(batch)
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                    optimizer.step()
                if not asked or (epoch % settings.valid_every and epoch < settings.epochs):
                    continue
                metric = model.ndcg(asked, repeats)
                if metric > best:
                    best, best_epoch, weights = metric, epoch, copy.deepcopy(model.state_dict())
                elif epoch - best_epoch >= settings.patience * settings.valid_every:
                    break
        if asked:
            model.load_state_dict(weights)
        return model.eval()

    @torch.no_grad()
    def reorder(self, order: Sequence[int]) -> None:
        """Item i is from now on item `order[i]`; all of them change places among themselves."""
        place = torch.as_tensor(order, device=self.bias.device)
        self.bias[place] = self.bias.clone()
        self.item.weight[place] = self.item.weight[: self.items].clone()

    def loss(self, windows: Sequence[np.ndarray]) -> Tensor:
        """Mean nats per target of windows (each ≥ 2 positions): all but the first are targets."""
        lengths = torch.tensor([len(window) - 1 for window in windows])
        there = (torch.arange(int(lengths.max())) < lengths[:, None]).to(self.bias.device)
        targets = torch.from_numpy(np.concatenate([window[1:] for window in windows])).to(self.bias.device)
        states = self(self._padded([window[:-1] for window in windows]), lengths)[there]  # (targets, size)
        most = max(1, LOGITS // self.items)
        if len(states) <= most:
            return functional.cross_entropy(self.logits(states), targets)
        parts = zip(states.split(most), targets.split(most), strict=True)
        return torch.stack([checkpoint(self._nats, *part, use_reentrant=False) for part in parts]).sum() / len(states)

    def _nats(self, states: Tensor, targets: Tensor) -> Tensor:
        """In all, of some targets."""
        return functional.cross_entropy(self.logits(states), targets, reduction="sum")

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """(rows, time, size) states of items (rows, time), padded on the right, where no real state looks."""
        time = torch.arange(items.shape[1])
        place = (self.length - lengths[:, None] + time).clamp(max=self.length - 1).to(items.device)
        states = self.drop(self.item(items) + self.place(place))
        for block in self.blocks:
            states = block(states)
        return self.norm(states)

    def logits(self, states: Tensor) -> Tensor:
        """(…, items) scores of states (…, size)."""
        return states @ self.item.weight[: self.items].T + self.bias

    @torch.no_grad()
    def scores(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        """(queries, items) float32; an empty history is a start and nothing else."""
        self.eval()
        found = [np.empty((0, self.items), np.float32)]
        for start in range(0, len(histories), _ROWS):
            rows = [
                np.array([self.items, *history][-self.length :], np.int64)
                for history in histories[start : start + _ROWS]
            ]
            lengths = torch.tensor([len(row) for row in rows])
            last = self(self._padded(rows), lengths)[torch.arange(len(rows)), lengths - 1]
            found.append(self.logits(last).float().cpu().numpy())
        return np.concatenate(found)

    def ndcg(self, asked: Sequence[Query], repeats: str) -> float:
        """ndcg@10, the mean over users."""
        found = ranks(ScoreRanker(self, repeats).rank(asked, 10), [query.target for query in asked])
        return float(by_user(ndcg(found, 10), [query.user_id for query in asked]).mean())

    def _padded(self, rows: Sequence[np.ndarray]) -> Tensor:
        """(rows, longest) items; the number behind the last item pads the others on the right."""
        padded = np.full((len(rows), max(map(len, rows))), self.items, np.int64)
        for row, line in zip(rows, padded, strict=True):
            line[: len(row)] = row
        return torch.from_numpy(padded).to(self.bias.device)


class Block(nn.Module):
    """Causal attention and a position-wise layer, each normalised before and added after."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.mix = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, size), nn.Linear(size, size)
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """(rows, time, size) → the same."""
        rows, time, size = states.shape
        qkv = self.qkv(self.before(states)).view(rows, time, 3, self.heads, size // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (rows, heads, time, size of a head)
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
        states = states + self.drop(self.mix(seen.transpose(1, 2).reshape(rows, time, size)))
        return states + self.drop(self.down(self.drop(functional.gelu(self.up(self.between(states))))))


def _windows(
    histories: Sequence[History], start: int, length: int, rng: np.random.Generator, baskets: bool
) -> list[np.ndarray]:
    """Every history, led by `start`, as windows of at most `length` + 1 positions that share one position with the
    next, so that each event is a target once.  The first window of a long history is cut at random; with `baskets`
    equal times stand in random order."""
    windows = []
    for history in histories:
        items = history.items
        if baskets:
            items = items[np.lexsort((rng.random(len(items)), history.timestamps))]
        sequence = np.concatenate([[start], items]).astype(np.int64)
        end = len(sequence) - 1 if len(sequence) <= length + 1 else int(rng.integers(1, length + 1))
        begin = 0
        while begin < len(sequence) - 1:
            windows.append(sequence[begin : end + 1])
            begin, end = end, end + length
    return windows


def _batches(windows: list[np.ndarray], size: int, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Windows in groups of like length, the groups in random order."""
    order = rng.permutation(len(windows))
    order = order[np.argsort([len(windows[i]) for i in order], kind="stable")]
    groups = [[windows[i] for i in order[first : first + size]] for first in range(0, len(order), size)]
    return [groups[i] for i in rng.permutation(len(groups))]
