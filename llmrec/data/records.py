"""Column names, limits, and what becomes of text from outside."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp", "rating", "review")
ITEM_COLUMNS = ("item_id", "title", "year", "categories")
COLUMNS = (*INTERACTION_COLUMNS, *ITEM_COLUMNS[1:])  # what a recipe's `columns` may map
REVIEW_COLUMNS = ("review", "rating", "headline", "item_id", "category", "user_id")  # of a source of reviews
LEVELS = " > "  # between the levels of a category, broad to narrow
PAIR_COLUMNS = ("user_id", "item_id", "timestamp", "review", "title", "about", "person")  # of texts on pairs

MAX_FILE_BYTES = 8 << 30
MAX_INTERACTIONS = 50_000_000
MAX_ITEMS = 5_000_000
MAX_COLUMNS = 1000
MAX_ID_CHARS = 1000  # longer ids are errors
MAX_TITLE_CHARS = 300  # longer titles and categories are clipped
MAX_REVIEW_CHARS = 20_000  # longer reviews are clipped

# Control characters, lone surrogates, and marks that reorder what follows them: none belongs to a name.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_UNSEEN_BUT_NEWLINE = re.compile(_UNSEEN.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def one_line(text: str, limit: int = MAX_TITLE_CHARS) -> str:
    """`text` as a name: NFC, one line, single spaces, at most `limit` characters; may be empty."""
    text = text[: 4 * limit]  # a megabyte of spaces is not worth normalising
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", _UNSEEN.sub(" ", text))
    return " ".join(text.split())[:limit].rstrip()


def paragraphs(text: str, limit: int = MAX_REVIEW_CHARS) -> str:
    """`text` as running text: NFC, newlines kept, no other control characters, at most `limit` characters."""
    text = text[: 4 * limit].replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _UNSEEN_BUT_NEWLINE.sub(" ", text)).strip()[:limit]


def separated_by(columns: Sequence[object]) -> str:
    """What separates the columns of a file that was read as one column; empty where that is nothing usual."""
    only = str(columns[0]) if len(columns) == 1 else ""
    return next((name for mark, name in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")) if mark in only), "")


def is_whole(value: object) -> bool:
    """Whether it is a whole number of a kind that can hold others: a float, which is what pandas makes of whole numbers
    beside a gap, or a decimal, which is what databases do."""
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    return isinstance(value, (float, np.floating)) and float(value).is_integer()


def shown(value: object) -> str:
    """A value as an error message shows it: quoted, escaped, at most 60 characters."""
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "…")
