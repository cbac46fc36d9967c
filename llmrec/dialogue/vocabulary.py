"""The words that a catalog gives the grammar, and when a word is a category's: "comedies", "sci fi", "romantic"."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from rapidfuzz import fuzz

from llmrec.data.catalog import Catalog
from llmrec.data.names import plain, spellings

ALIKE = 88.0  # likeness, 0 to 100, from which a misspelt category is taken


class Vocabulary:
    """The words that a catalog gives the grammar."""

    def __init__(self, catalog: Catalog, things: tuple[str, ...] = ("items", "item")):
        self.catalog = catalog
        known = (plain(word) for word in (*things, "items", "titles", "results"))
        self.things = frozenset({"ones", *(form for word in known for form in _forms(word))})
        self.names = spellings(catalog).at.keys()
        self.categories = {name: plain(name).split() for name in catalog.category_names}
        self.category = lru_cache(maxsize=4096)(self._category)

    def _category(self, phrase: str) -> str | None:
        """The category that a phrase names: "comedies", "sci fi", "science fiction", "romantic", "noir", "commedy"."""
        words = plain(phrase).split()
        rules: tuple[Callable[[list[str]], bool], ...] = (
            lambda own: own == words,
            lambda own: "".join(own) == "".join(words),  # "scifi"
            lambda own: len(own) == len(words) and all(map(_same_word, own, words)),
            lambda own: len(own) == len(words) > 1 and all(w.startswith(o) for o, w in zip(own, words, strict=True)),
            lambda own: len(own) > len(words) == 1 and words[0] in own and words[0] not in self.things,
            lambda own: len(own) == len(words) == 1 and _related(own[0], words[0]),
        )
        for rule in rules:
            if len(fitting := [name for name, own in self.categories.items() if rule(own)]) == 1:
                return fitting[0]
        return None


def _same_word(own: str, word: str) -> bool:
    """`own` in the singular or plural, or with a slip."""
    return word in _forms(own) or (len(own) > 4 and own[0] == word[:1] and fuzz.ratio(own, word) >= ALIKE)


def _forms(word: str) -> set[str]:
    """Its singular and plural, whichever it is, among forms that nobody writes."""
    forms = {word, word + "s", word + "es", word.removesuffix("s"), word.removesuffix("es")}
    return forms | {re.sub("y$", "ies", word), re.sub("ies$", "y", word)}


def _related(own: str, word: str) -> bool:
    """ "romantic" and "romance", "animated" and "animation": five letters or more in common, and short endings."""
    shared = next((i for i, (a, b) in enumerate(zip(own, word, strict=False)) if a != b), min(len(own), len(word)))
    return shared >= 5 and len(own) - shared <= 3 and len(word) - shared <= 4
