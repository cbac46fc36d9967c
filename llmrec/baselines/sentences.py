"""What stands beside the language model's texts: a sentence copied from training reviews, and a filled-in template."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from scipy.sparse import csr_array

from llmrec.data.sentences import sentences
from llmrec.metrics.text import words

MIN_WORDS, MAX_WORDS = 4, 30  # of a sentence worth copying, where there is one
MOST = 500  # sentences of one item or user that are compared, the first
Key = TypeVar("Key", bound=Hashable)


def typical(texts: Iterable[str], keys: Iterable[Key], count: int = 1) -> dict[Key, tuple[str, ...]]:
    """For each key (an item, a user) the `count` most typical sentences of its texts, most typical first.

    Typical is what lies nearest, by cosine, to the mean of the key's sentences; each is its words' weights of
    log-frequency times inverse sentence frequency over all texts, scaled to length 1.  Sentences of 4 to 30 words go
    first, equal sentences count once, of equally typical ones the first wins.  A key whose texts hold no word is left
    out.
    """
    said: dict[Key, dict[str, list[str]]] = {}
    for text, key in zip(texts, keys, strict=True):
        own = said.setdefault(key, {})
        for sentence in sentences(text):
            if len(own) < MOST and (found := words(sentence)):
                own.setdefault(sentence, found)
    said = {key: own for key, own in said.items() if own}
    if not said:
        return {}
    weights = _tfidf([found for own in said.values() for found in own.values()])
    result, start = {}, 0
    for key, own in said.items():
        rows = weights[start : start + len(own)]
        start += len(own)
        nearness = rows @ np.asarray(rows.sum(0)).ravel()
        fits = np.array([MIN_WORDS <= len(found) <= MAX_WORDS for found in own.values()])
        order = np.lexsort((-nearness.round(9), ~fits))  # rounded: equal sentences in another order of words
        texts_of = list(own)
        result[key] = tuple(texts_of[i] for i in order[:count])
    return result


def nearest(known: Sequence[str], asked: Sequence[str]) -> np.ndarray:
    """(asked,) which of `known` reads most like each of `asked`, by cosine of the same weights; the first of equals."""
    weights = _tfidf([words(text) or [""] for text in [*known, *asked]])
    alike = weights[len(known) :] @ weights[: len(known)].T
    return np.array([row.toarray().argmax() for row in alike], np.int64)


def copied(typical: dict[Key, tuple[str, ...]], keys: Sequence[Key], otherwise: str) -> list[str]:
    """A reply per key: its typical sentences, `otherwise` where it has none."""
    return [" ".join(typical[key]) if key in typical else otherwise for key in keys]


def summary(categories: Sequence[str], items: Sequence[str]) -> str:
    """The template of an interest summary: what most of a history is, and examples, both as given."""
    kinds = f"Mostly {listed(categories)}" if categories else "Many kinds"
    return f"{kinds}, such as {listed(items)}." if items else f"{kinds}."


def explanation(item: str, features: Sequence[str] = ()) -> str:
    """The template of an explanation, where reviews of the item name `features` or none."""
    reason = f"reviews name its {listed(features)}" if features else "it comes next for people with such a history"
    return f"{item}: {reason}."


def listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _tfidf(documents: Sequence[Sequence[str]]) -> csr_array:
    """(documents, words) of length 1."""
    numbers: dict[str, int] = {}
    column = np.array([numbers.setdefault(word, len(numbers)) for said in documents for word in said], np.int64)
    row = np.repeat(np.arange(len(documents)), [len(said) for said in documents])
    shape = len(documents), len(numbers)
    counts = csr_array((np.ones(len(column)), (row, column)), shape=shape)
    counts.sum_duplicates()
    idf = np.log((1 + len(documents)) / (1 + np.bincount(counts.indices, minlength=len(numbers)))) + 1
    weighted = (1 + np.log(counts.data)) * idf[counts.indices]
    row = np.repeat(np.arange(len(documents)), np.diff(counts.indptr))
    length = np.sqrt(np.bincount(row, weighted**2, minlength=len(documents)))
    return csr_array((weighted / length[row], counts.indices, counts.indptr), shape=shape)
