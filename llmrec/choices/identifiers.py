"""Identifiers: the text that names each item to the model: its title, one line, short, unlike every other."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from llmrec.errors import ChoiceError

NAMELESS = "Untitled"
MAX_CHARACTERS = 300
MAX_SAME = 1_000_000  # items with one title

Encode = Callable[[list[str]], list[list[int]]]


def identifiers(
    titles: Sequence[str], years: Sequence[int | None], encode: Encode, *, max_tokens: int
) -> tuple[list[str], list[np.ndarray]]:
    """One identifier per item, unique as text and as tokens, and these tokens as a list line, int32.

    Args:
        encode: tokens of many texts as list lines.
        max_tokens: longer titles are clipped at a word boundary, inside a word only where a single word is too long.

    A title that several items share keeps its plain form for the first of them; the others get their year, then a
    number.  Raises: ChoiceError where no number tells them apart.
    """
    texts = [printable(title) for title in titles]
    texts, encoded = clipped(texts, encode, max_tokens)
    tokens = [tuple(ids) for ids in encoded]
    taken: set[str] = set()
    known: set[tuple[int, ...]] = set()
    numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    for i, text in enumerate(texts):
        if text not in taken and tokens[i] not in known:
            taken.add(text)
            known.add(tokens[i])
            continue
        for suffix in _suffixes(years[i], numbers, text):
            changed = _with_suffix(text, suffix, encode, max_tokens)
            ids = tuple(encode([changed])[0])
            if len(ids) > max_tokens:
                if "#" in suffix:  # no larger number fits where this one does not
                    raise _none_left(i, text, max_tokens)
            elif changed not in taken and ids not in known:
                break
        else:
            raise _none_left(i, text, max_tokens)
        texts[i], tokens[i] = changed, ids
        taken.add(changed)
        known.add(ids)
    return texts, [np.asarray(ids, np.int32) for ids in tokens]


def lines(names: Sequence[str], encode: Encode, *, max_tokens: int) -> list[np.ndarray]:
    """Tokens of each of some names that have no year, told apart as `identifiers` does; int32."""
    return identifiers(names, [None] * len(names), encode, max_tokens=max_tokens)[1]


def printable(title: str) -> str:
    """NFC, without control or bidirectional-override characters, single spaces, at most 300 characters."""
    text = unicodedata.normalize("NFC", title)
    if not text.isprintable():  # nearly every title is
        text = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return re.sub(" +", " ", text)[:MAX_CHARACTERS].strip() or NAMELESS


def clipped(texts: list[str], encode: Encode, max_tokens: int) -> tuple[list[str], list[list[int]]]:
    """Texts of at most `max_tokens` tokens, and these tokens: whole words where at least one fits."""
    result, tokens = list(texts), encode(texts)
    rest = [i for i, ids in enumerate(tokens) if len(ids) > max_tokens and len(texts[i]) > 1]
    while rest:  # every round drops a word (or a character of a single word) from all that are still too long
        for i in rest:
            result[i] = _shorter(result[i])
        for i, ids in zip(rest, encode([result[i] for i in rest]), strict=True):
            tokens[i] = ids
        rest = [i for i in rest if len(tokens[i]) > max_tokens and len(result[i]) > 1]
    return result, tokens


def _none_left(item: int, text: str, max_tokens: int) -> ChoiceError:
    return ChoiceError(f"item {item} ({text!r}): no identifier of at most {max_tokens} tokens is left for it")


def _shorter(text: str) -> str:
    """Without its last word, and without a bracket that is now left open."""
    head, space, _ = text.rpartition(" ")
    if not space:
        return text[:-1]
    if head.count("(") > head.count(")") and not head.startswith("("):
        head = head.rpartition("(")[0]
    return head.rstrip(" ,;:-(&/") or head


def _suffixes(year: int | None, numbers: dict[str, int], text: str) -> Iterator[str]:
    """The year, then numbers; a number once tried for a text is not tried again."""
    if year is not None:
        yield f" ({year})"
    while numbers[text] < MAX_SAME:
        numbers[text] += 1
        yield f" #{numbers[text]}"


def _with_suffix(text: str, suffix: str, encode: Encode, max_tokens: int) -> str:
    """The text with a suffix, losing words until both fit."""
    while len(encode([text + suffix])[0]) > max_tokens and len(text) > 1:
        text = _shorter(text)
    return text + suffix
