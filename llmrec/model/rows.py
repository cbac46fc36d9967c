"""Training rows: lists cut into windows of tokens, with the lines that are targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.errors import RecipeError


@dataclass(frozen=True)
class Row:
    """One training row; every target line is one choice."""

    tokens: np.ndarray  # (time,) int32
    starts: np.ndarray  # (targets,) int32, where each target line's first token stands
    choices: np.ndarray  # (targets,) int32, which choice it is
    context: np.ndarray  # (lines,) int32, choices on the lines before the first target
    task: str = "next_item"  # whose trie the choices come from
    weight: float = 1.0  # how much each target counts
    p: np.ndarray | None = None  # (targets, choices) float32, what is expected instead of the choice alone


def dense_rows(
    header: Sequence[int],
    lines: Sequence[np.ndarray],
    history: np.ndarray,
    *,
    window_tokens: int,
    overlap: float = 0.0,
    first_tokens: int | None = None,
) -> list[Row]:
    """A history as rows of at most `window_tokens`, every line a target exactly once.

    Args:
        header: tokens before the first line of every row.
        lines: tokens of each choice, (choices,) arrays.
        history: choices, oldest first.
        overlap: share of a row's room that repeats the lines before it, as context only.
        first_tokens: room of the first row, where it shall be shorter: moves all later cuts.
    """
    lengths = np.array([len(lines[choice]) for choice in history], np.int64)
    room = _room(header, lengths, window_tokens)
    rows, done = [], 0
    while done < len(history):
        repeated = _fit(lengths[:done][::-1], int(overlap * room))
        budget = min(room, max(first_tokens or room, int(lengths[0]))) if done == 0 else room
        taken = _fit(lengths[done:], budget - int(lengths[done - repeated : done].sum()))
        taken = max(taken, 1)
        while repeated and lengths[done - repeated : done + taken].sum() > room:
            repeated -= 1
        rows.append(_row(header, lines, history[done - repeated : done + taken], repeated))
        done += taken
    return rows


def last_rows(
    header: Sequence[int], lines: Sequence[np.ndarray], history: np.ndarray, *, window_tokens: int
) -> list[Row]:
    """One row per target with all that fits before it: the usual fine-tuning, kept as a peer to measure against."""
    lengths = np.array([len(lines[choice]) for choice in history], np.int64)
    room = _room(header, lengths, window_tokens)
    rows = []
    for end in range(1, len(history) + 1):
        context = _fit(lengths[: end - 1][::-1], room - int(lengths[end - 1]))
        rows.append(_row(header, lines, history[end - 1 - context : end], context))
    return rows


def choice_row(
    header: Sequence[int], line: np.ndarray, choice: int, *, task: str, weight: float = 1.0, p: np.ndarray | None = None
) -> Row:
    """A row whose one target is the whole reply: `line`, the tokens of `choice`; with `p`, (choices,) probabilities,
    all choices are learned by their share."""
    tokens = np.concatenate([np.asarray(header, np.int32), line]).astype(np.int32)
    start, which = np.array([len(header)], np.int32), np.array([choice], np.int32)
    return Row(tokens, start, which, np.empty(0, np.int32), task, weight, None if p is None else p[None])


def text_row(header: Sequence[int], reply: Sequence[int], *, task: str) -> Row:
    """A row whose targets are the tokens of a text, each a choice from the whole vocabulary."""
    tokens = np.asarray([*header, *reply], np.int32)
    starts = np.arange(len(header), len(tokens), dtype=np.int32)
    return Row(tokens, starts, np.asarray(reply, np.int32), np.empty(0, np.int32), task)


def shuffled_ties(history: np.ndarray, timestamps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The history with interactions of equal time in random order: the order in the file is nobody's behaviour."""
    return history[np.lexsort((rng.random(len(history)), timestamps))]


def thinned(history: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The history, in order, without about `share` of its choices, drawn at random; at least one stays."""
    kept = rng.random(len(history)) >= share
    kept[rng.integers(len(history))] = True
    return history[kept]


def latest(lines: Sequence[np.ndarray], history: np.ndarray, tokens: int) -> np.ndarray:
    """The end of a history whose lines have at most so many tokens; its last choice in any case."""
    lengths = np.array([len(lines[choice]) for choice in history[::-1]], np.int64)
    return history[len(history) - max(_fit(lengths, tokens), 1) :]


def _room(header: Sequence[int], lengths: np.ndarray, window_tokens: int) -> int:
    room = window_tokens - len(header)
    if len(lengths) and room < lengths.max():
        raise RecipeError(
            f"fit.window_tokens={window_tokens} cannot hold the instruction ({len(header)} tokens) and the longest "
            f"line ({lengths.max()}); raise it to at least {len(header) + lengths.max()}"
        )
    return room


def _fit(lengths: np.ndarray, room: int) -> int:
    """How many of the first lengths fit into `room`."""
    return int(np.searchsorted(np.cumsum(lengths), room, side="right"))


def _row(header: Sequence[int], lines: Sequence[np.ndarray], history: np.ndarray, context: int) -> Row:
    parts = [lines[choice] for choice in history]
    ends = len(header) + np.cumsum([len(part) for part in parts])
    starts = np.concatenate([[len(header)], ends[:-1]])
    tokens = np.concatenate([np.asarray(header, np.int32), *parts]).astype(np.int32)
    starts, history = starts.astype(np.int32), np.asarray(history, np.int32)
    return Row(tokens, starts[context:], history[context:], history[:context])
