"""Codes: letters and digits before an item's title that say which items it is chosen with.

Items that the same people choose close in time share their first symbol, nearer ones the next, so a model reads and
chooses a neighbourhood before a title, and what it learns of one item holds for those around it: the collaborative
index of Hua, Xu, Ge and Zhang (2023), which cut the graph of what is chosen together, with the title behind it.  Here
the items' positive pointwise mutual information is factored (Levy and Goldberg 2014), and the space is halved along its
longest axis, again and again, so that no symbol stands for much more than another.

A code belongs to the adapter that has learned it: it stands in its card, by the digest of the item's identifier.
"""

from __future__ import annotations

import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh

from llmrec.baselines.transitions import transitions
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import histories
from llmrec.errors import AdapterError
from llmrec.model.adapter import item_digest

SYMBOLS = (string.ascii_uppercase, string.digits)  # in turn: most tokenizers take a letter and a digit apart
WINDOW = 10  # events apart that still count as chosen together
DIMENSIONS = 48
POWER = 0.75  # of an item's own frequency, below 1: rare items are less surprising

Codes = Mapping[str, str]
"""By the digest of an item's identifier."""
Coding = Callable[[Sequence[str]], Sequence[str]]
"""From the identifiers of a catalog's items to their codes."""


def learned(dataset: Dataset, catalog: Catalog, symbols: int) -> list[str]:
    """A code of `symbols` symbols for every item of the catalog, from the training events alone."""
    events = catalog.popularity(dataset.interactions)
    together = transitions(histories(dataset, catalog), len(catalog), WINDOW)
    points = _placed(vectors(together), catalog.categories, events > 0)
    return divided(points, np.sqrt(events + 0.5), [SYMBOLS[i % 2] for i in range(symbols)])


def of_adapter(card: Mapping[str, Any], catalog: Catalog) -> Coding | None:
    """How the adapter of `card` reads the items of `catalog`; None for one that has learned titles alone.

    Raises: AdapterError where an item that it has learned has no code.
    """
    known: Codes = card.get("codes") or {}
    if not known:
        return None
    if missing := len({*card.get("items", ())} - known.keys()):
        raise AdapterError(f"codes: missing of {missing} items that the adapter has learned; restore the card")
    return lambda identifiers: of_items(known, identifiers, catalog.categories)


def of_items(known: Codes, identifiers: Sequence[str], categories: Sequence[Sequence[str]]) -> list[str]:
    """One for each item; a new one gets that of most items with its categories or, where there are none, with those
    most like them.  Raises: AdapterError where no item is known."""
    found = [known.get(digest) for digest in map(item_digest, identifiers)]
    kinds: defaultdict[frozenset[str], Counter[str]] = defaultdict(Counter)
    for code, own in zip(found, map(frozenset, categories), strict=True):
        if code:
            kinds[own][code] += 1
    if not kinds:
        raise AdapterError("codes: of no item in the catalog; restore the catalog that the adapter has learned")
    usual: dict[frozenset[str], str] = {}
    for code, own in zip(found, map(frozenset, categories), strict=True):
        if not code and own not in usual:
            alike = max(kinds, key=partial(_overlap, own))
            usual[own] = max(kinds[alike], key=kinds[alike].__getitem__)
    return [code or usual[frozenset(own)] for code, own in zip(found, categories, strict=True)]


def vectors(together: sparse.csr_array) -> np.ndarray:
    """(items, dimensions) float64 of length 1, or 0 for an item without events, of symmetric counts."""
    counts = sparse.coo_array(together)
    apart = counts.row != counts.col
    row, col, values = counts.row[apart], counts.col[apart], counts.data[apart]
    total = np.bincount(row, values, counts.shape[0])
    usual = total**POWER / (total**POWER).sum() if total.any() else total
    above = np.maximum(np.log(values / (total[row] * usual[col])), 0)
    half = sparse.csr_array((above, (row, col)), shape=counts.shape)
    found, axes = _largest(sparse.csr_array(half + half.T) / 2)
    points = axes * np.sqrt(np.maximum(found, 0))
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.divide(points, lengths, out=np.zeros_like(points), where=lengths > 1e-9)


def _largest(matrix: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of a symmetric matrix, and their vectors as columns."""
    items = matrix.shape[0]
    if not matrix.data.any():
        return np.zeros(1), np.zeros((items, 1))
    if items <= 2 * DIMENSIONS:
        values, axes = np.linalg.eigh(matrix.toarray())
        return values[-DIMENSIONS:], axes[:, -DIMENSIONS:]
    start = np.random.default_rng(0).random(items)  # the same vectors at every call
    values, axes = eigsh(matrix, DIMENSIONS, which="LA", v0=start)
    return values, axes


def _placed(points: np.ndarray, categories: Sequence[Sequence[str]], chosen: np.ndarray) -> np.ndarray:
    """With items that nobody has chosen at the mean of what shares their categories."""
    names = {name: place for place, name in enumerate(sorted({name for own in categories for name in own}))}
    rows = np.repeat(np.arange(len(points)), [len(own) for own in categories])
    columns = [names[name] for own in categories for name in own]
    has = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(points), len(names)))
    means = (has[chosen].T @ points[chosen]) / np.maximum(has[chosen].sum(0), 1)[:, None]
    points = points.copy()
    points[~chosen] = (has[~chosen] @ means) / np.maximum(has[~chosen].sum(1), 1)[:, None]
    return points


def divided(points: np.ndarray, mass: np.ndarray, alphabets: Sequence[Sequence[str]]) -> list[str]:
    """A code for each point, a symbol of each alphabet: neighbours share symbols, and each symbol has about as much of
    the `mass` of what stands before it as any other.

    Args:
        points: (n, dimensions).
        mass: (n,) above 0.
    """
    made = [""] * len(points)
    groups = [np.arange(len(points))]
    for alphabet in alphabets:
        parts = [_parts(points, mass, group, len(alphabet)) for group in groups]
        for own in parts:
            for symbol, part in zip(alphabet, own, strict=False):
                for item in part:
                    made[item] += symbol
        groups = [part for own in parts for part in own]
    return made


def _parts(points: np.ndarray, mass: np.ndarray, group: np.ndarray, count: int) -> list[np.ndarray]:
    """`group` in at most `count` parts, in the order of the axes that cut them."""
    if count == 1 or len(group) < 2:
        return [group]
    own, weight = points[group], mass[group]
    centred = own - np.average(own, axis=0, weights=weight)
    axis = np.linalg.eigh((centred * weight[:, None]).T @ centred)[1][:, -1]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])
    order = np.argsort(centred @ axis, kind="stable")
    before = count // 2
    reached = np.cumsum(weight[order])
    cut = int(np.clip(np.searchsorted(reached, reached[-1] * before / count) + 1, 1, len(group) - 1))
    first, second = group[order[:cut]], group[order[cut:]]
    return [*_parts(points, mass, first, before), *_parts(points, mass, second, count - before)]


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0
