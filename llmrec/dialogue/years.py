"""Years and decades in a message, "1990", "the early 90s", "before 1980", "from 1990 to 1995", and what they mean."""

from __future__ import annotations

import re

Years = tuple[int | None, int | None]  # first and last, None where open

DECADES = {
    "twenties": 1920, "thirties": 1930, "forties": 1940, "fifties": 1950, "sixties": 1960, "seventies": 1970,
    "eighties": 1980, "nineties": 1990, "noughties": 2000,
}  # fmt: skip
YEAR = r"(?:18|19|20)\d\d"
_YEAR = rf"({YEAR}|\(\s*{YEAR}\s*\))"
_DECADE = rf"(early |mid[ -]|late )?['’]?(\d\d['’]?s|(?:18|19|20)\d0['’]?s|{'|'.join(DECADES)})"
_END = r"(?!\w|['’]s\b)"
RANGE = re.compile(
    rf"(from |between |in )?(?:the )?(?:{_YEAR}|{_DECADE})\s*(-|–|\.\.|to|and|until|till|through)\s*"
    rf"(?:the )?(?:{_YEAR}|{_DECADE}|(?:today|now|present)){_END}",
    re.I,
)
BOUND = re.compile(
    rf"(before|until|up to|older than|earlier than|after|since|newer than|later than|from)(?: the)? "
    rf"(?:{_YEAR}|{_DECADE})( onwards?| on\b)?{_END}",
    re.I,
)
SPAN = re.compile(rf"(?:(?:from|in|of) )?(?:the )?(?:{_YEAR}|{_DECADE}){_END}", re.I)
OPEN_END = re.compile(
    r"(?P<later>\+(?!\w)|\s+(?:or|and) (?:later|newer|more recent|onwards?|up)\b(?! than\b))|"
    r"\s+(?:or|and) (?:earlier|older)\b(?! than\b)",
    re.I,
)


def _range(found: re.Match[str]) -> Years | None:
    """Of "from 1990 to 1995"; None where it is no range after all."""
    word, year, part, decade, to, last_year, last_part, last_decade = found.groups()
    first = _only(year) if year else _decade(part, decade)
    if not last_year and not last_decade:  # "the 90s and now a comedy" is no range
        return None if to.casefold() == "and" and (word or "").casefold() != "between " else (first[0], None)
    last = _only(last_year) if last_year else _decade(last_part, last_decade)
    return min(first[0], last[0]), max(first[1], last[1])


def _bound(found: re.Match[str]) -> Years:
    """Of "before 1990", "since the 80s"."""
    word, year, part, decade, onwards = found.groups()
    years = _only(year) if year else _decade(part, decade)
    word = word.casefold()
    if word in ("before", "older than", "earlier than"):
        return None, years[0] - 1
    if word in ("until", "up to"):
        return None, years[1]
    if word in ("after", "newer than", "later than"):
        return years[1] + 1, None
    return (years[0], None) if word == "since" or onwards else years


def _span(found: re.Match[str]) -> Years:
    """Of a year or a decade alone."""
    year, part, decade = found.groups()
    return _only(year) if year else _decade(part, decade)


def _only(year: str) -> tuple[int, int]:
    """`1990` or `(1990)`."""
    return int(year.strip("( )")), int(year.strip("( )"))


def _decade(part: str | None, decade: str) -> tuple[int, int]:
    """`90s`, `1990s` or `nineties`, whole or its early (0 to 3), mid (4 to 6) or late (7 to 9) years."""
    digits = re.sub(r"\D", "", decade)
    first = int(digits) if len(digits) == 4 else DECADES[decade.casefold()] if not digits else 1900 + int(digits)
    if len(digits) == 2 and int(digits) < 20:
        first += 100
    begin, end = {"earl": (0, 3), "mid": (4, 6), "late": (7, 9)}.get((part or "").casefold().strip(" -y")[:4], (0, 9))
    return first + begin, first + end


MEANINGS = ((RANGE, _range), (BOUND, _bound), (SPAN, _span))  # what says more goes first
