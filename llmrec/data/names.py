"""Items by name, as people write them: titles tolerantly, filters by category and year."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from rapidfuzz import fuzz, process

from llmrec.data.catalog import Catalog
from llmrec.errors import DataError, did_you_mean

SURE = 88.0  # likeness, 0 to 100, from which a misspelt title is taken…
AHEAD = 5.0  # …if it is this far ahead of the next
NEAR = 50.0  # likeness from which a title is worth suggesting
NEXT_YEAR = 1  # years that two sources may differ by about one title
SHOWN = 5  # suggestions in a message
MAX_PROBLEMS = 10  # names in a message
MAX_LOOKED = 100  # names of one question that are compared with all titles
ARTICLES = ["the", "a", "an", "le", "la", "les", "l'", "der", "die", "das", "el", "los", "las", "il", "lo", "gli"]
FILTERS = ("category", "year")
BY_ID = "item:"  # before an id where a title is expected


def match_titles(names: Sequence[str], catalog: Catalog) -> list[int]:
    """Catalog positions of titles as people write them: case, accents, articles and small slips are forgiven.

    A name may carry its year ("Heat (1995)"), be part of one title only ("Shawshank"), or be an id ("item:42").
    Items that look alike to a reader count as one: the first is taken.
    Raises: DataError with the names that fit none or several, at most MAX_PROBLEMS, and what is near; where more than
        MAX_LOOKED are written as no title is, nor a part of one.
    """
    positions: dict[str, int] = {}
    problems: list[str] = []
    looked = 0
    for name in dict.fromkeys(names):
        looked += _is_compared(name, catalog)
        if looked > MAX_LOOKED:
            raise DataError(
                f"more than {MAX_LOOKED} titles are not as the catalog writes them; name items as {BY_ID}ID"
            )
        try:
            positions[name] = _match(name, catalog)
        except DataError as error:
            problems.append(str(error))
        if len(problems) == MAX_PROBLEMS:  # each is compared with the whole catalog
            break
    if problems:
        raise DataError("; ".join(problems))
    return [positions[name] for name in names]


@dataclass(frozen=True)
class Found:
    """What a name may mean."""

    items: tuple[int, ...]
    """Catalog positions: one where the name is clear, several where it must be asked back, none where nothing fits."""
    near: tuple[int, ...] = ()
    """Where nothing fits, the nearest titles."""


def look_up(name: str, catalog: Catalog, *, near: bool = True) -> Found:
    """The items that a name fits best, forgiving what `match_titles` forgives; of items that look alike the first.

    Args:
        near: where nothing fits, look for the nearest: the whole catalog is gone through once more.
    """
    key = plain(name)
    if not key:
        return Found((), ())
    known = spellings(catalog)
    names, owners = known.names, known.owners
    same = sorted({owners[at] for at in known.at.get(key, ())})
    if same := [i for i in same if plain(catalog.title[i]) == key] or same:
        return _dated(name, same, catalog)
    if partial := sorted({owners[at] for at in known.holding(key.split())}):
        return _dated(name, partial, catalog)
    numbers = re.findall(r"\d+", key)  # "Terminator 2" is no misspelt "Terminator"
    close = process.extract(key, names, scorer=fuzz.ratio, limit=SHOWN, score_cutoff=SURE)
    slips = [(likeness, owners[at]) for other, likeness, at in close if re.findall(r"\d+", other) == numbers]
    if slips:
        return _dated(name, [i for likeness, i in slips if likeness > slips[0][0] - AHEAD], catalog)
    if not near:
        return Found(())
    alike = process.extract(key, names, scorer=fuzz.ratio, limit=SHOWN, score_cutoff=NEAR)
    return Found((), _distinct([owners[at] for _, _, at in alike], catalog).items[:3])


def _dated(name: str, fitting: Sequence[int], catalog: Catalog) -> Found:
    """Those of the fitting items that are of the year in a name, if it holds one, or of a year next to it; none where
    only one fits and that is of another: somebody means one that is not here."""
    wanted = _year_in(name)
    if wanted is None:
        return _distinct(fitting, catalog)
    exact = [i for i in fitting if catalog.title[i].casefold() == name.strip().casefold()]
    if len(exact) == 1:
        return Found((exact[0],))
    off = {}
    for i in fitting:
        years = [year for year in (catalog.year[i], _year_in(catalog.title[i])) if year is not None]
        off[i] = min((abs(year - wanted) for year in years), default=NEXT_YEAR)
    nearest = min(off.values())
    some = _distinct([i for i in fitting if nearest > NEXT_YEAR or off[i] == nearest], catalog)
    return Found((), some.items) if nearest > NEXT_YEAR and len(some.items) == 1 else some


def plain(title: str) -> str:
    """A title for comparing: no case, accents, punctuation, article at either end, or year in parentheses."""
    text = unicodedata.normalize("NFKD", re.sub(r"\(\s*\d{4}\s*\)", " ", title)).casefold().replace("&", " and ")
    text = "".join(c for c in text if not unicodedata.combining(c))
    if moved := re.fullmatch(r"(.+), *([\w']+)((?: *\(.*)?)", text.strip()):  # "Shawshank Redemption, The"
        text = f"{moved[1]} {moved[3]}" if moved[2] in ARTICLES else text
    words = re.sub(r"[^\w\s]|_", " ", text.replace("'", "")).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ARTICLES else words)


def plain_ids(ids: Iterable[str]) -> dict[str, str]:
    """Ids by their plain form, which `meant_id` looks up; of equal ones the first."""
    found: dict[str, str] = {}
    for one in ids:
        found.setdefault(_plain_id(one), one)
    return found


def meant_id(name: str, plain_ids: Mapping[str, str]) -> str:
    """`; did you mean '42'?` for an id that spreadsheets or people wrote as '042', '42.0' or ' 42'; empty where it is
    like none: ids with other digits are other ids, however alike."""
    near = plain_ids.get(_plain_id(name))
    return "" if near is None else f"; did you mean '{readable(near)}'?"


def _plain_id(text: str) -> str:
    text = text.strip().casefold()
    number = re.fullmatch(r"0*(\d+)(\.0*)?", text)
    return number[1] if number else text


def is_filter(text: str) -> bool:
    """`category=…` and `year=…` rather than a title."""
    return text.partition("=")[0].strip().casefold() in FILTERS and "=" in text


def selected(catalog: Catalog, only: Sequence[str], exclude: Sequence[str] = ()) -> np.ndarray | None:
    """(items,) bool: what passes every filter of `only` and none of `exclude`; None without filters."""
    if not only and not exclude:
        return None
    allowed = np.ones(len(catalog), bool)
    for text in only:
        allowed &= passes(catalog, text)
    for text in exclude:
        allowed &= ~passes(catalog, text)
    return allowed


def passes(catalog: Catalog, text: str) -> np.ndarray:
    """(items,) bool: the items that one filter names.  Items of unknown year pass no filter by year.

    Raises: DataError for a filter that is none, or a category that the catalog lacks.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or key.casefold() not in FILTERS:
        named = catalog.categories_by_name.get((value if equals else key).casefold())
        form = f"category={named}" if named else "category=NAME,NAME or year=FROM..TO"
        raise DataError(f"filter '{text}': write {form}")
    if key.casefold() == "year":
        first, last = _years(text, value)
        return np.array([year is not None and first <= year <= last for year in catalog.year], bool)
    known = catalog.categories_by_name
    whole = value.casefold()  # a name may hold commas
    wanted = {whole} if whole in known else {name.strip().casefold() for name in value.split(",")}
    if unknown := sorted(wanted - known.keys()):
        raise DataError(f"filter '{text}': no category '{unknown[0]}'{did_you_mean(unknown[0], known.values())}")
    return np.array([any(name.casefold() in wanted for name in names) for names in catalog.categories], bool)


def label(catalog: Catalog, position: int) -> str:
    """A title with its year, as people read it."""
    title, year = readable(catalog.title[position]), catalog.year[position]
    return f"{title} ({year})" if year and f"({year})" not in title else title


def readable(text: str) -> str:
    """Without the characters that steer a terminal or the direction of reading."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _is_compared(name: str, catalog: Catalog) -> bool:
    """Whether only a comparison with all titles tells what a name means."""
    known, key = spellings(catalog), plain(name)
    return not name.startswith(BY_ID) and bool(key) and key not in known.at and not known.holding(key.split())


def _match(name: str, catalog: Catalog) -> int:
    if name.startswith(BY_ID):
        item_id = name.removeprefix(BY_ID)
        if item_id not in catalog.position:
            raise DataError(f"no item with the id '{item_id}'")
        return catalog.position[item_id]
    if not plain(name):
        raise DataError(f"title {name!r}: no letters or digits to look for")
    found = look_up(name, catalog)
    if len(found.items) == 1:
        return found.items[0]
    if found.items:
        labels = [_clear(catalog, i) for i in found.items[:SHOWN]]
        more = f" or {len(found.items) - SHOWN} more" if len(found.items) > SHOWN else ""
        raise DataError(
            f"'{name}': which one: {', '.join(labels)}{more}?  Write more of the title, or its year in parentheses"
        )
    nearest = ", ".join(f"'{label(catalog, i)}'" for i in found.near)
    raise DataError(
        f"no title like '{name}' among {len(catalog):,}"
        + (f"; nearest: {nearest}" if nearest else "")
        + (f"; the item with this id is '{BY_ID}{name}'" if name in catalog.position else "")
    )


def _clear(catalog: Catalog, position: int) -> str:
    """What to write for this item: its label, and its id where the label fits others, too."""
    name = label(catalog, position)
    alone = look_up(name, catalog).items == (position,)
    return f"'{name}'" if alone else f"'{name}' ({BY_ID}{catalog.item_id[position]})"


def _distinct(positions: Sequence[int], catalog: Catalog) -> Found:
    """One position per label, in order."""
    first: dict[str, int] = {}
    for i in positions:
        first.setdefault(label(catalog, i), i)
    return Found(tuple(first.values()))


@dataclass(frozen=True)
class Spellings:
    """Every title of a catalog for comparing, whole and, as in "Seven (Se7en)", outside and inside its parentheses."""

    names: list[str]
    owners: list[int]
    """Of each name, the position of its item."""
    at: dict[str, list[int]]
    """Where in `names` a name stands."""

    def holding(self, words: Iterable[str]) -> set[int]:
        """Which of `names` hold all of some words."""
        first, *others = sorted((self._word.get(one, ()) for one in words), key=len)
        return set(first).intersection(*others)

    @cached_property
    def _word(self) -> dict[str, array[int]]:
        """Which of `names` hold a word."""
        found: dict[str, array[int]] = {}
        for place, name in enumerate(self.names):
            for one in dict.fromkeys(name.split()):
                found.setdefault(one, array("i")).append(place)
        return found


@lru_cache(maxsize=4)
def spellings(catalog: Catalog) -> Spellings:
    """Computed once for a catalog."""
    found = Spellings([], [], {})
    for i, title in enumerate(catalog.title):
        parts = [title, re.sub(r"\(.*?\)", " ", title), *re.findall(r"\((.*?)\)", title)]
        for name in dict.fromkeys(plain(part) for part in parts):
            if name and not re.fullmatch(r"\d{4}", name) or name == plain(title):
                found.at.setdefault(name, []).append(len(found.names))
                found.names.append(name)
                found.owners.append(i)
    return found


def _year_in(title: str) -> int | None:
    found = re.search(r"\(\s*(\d{4})\s*\)", title)
    return int(found[1]) if found else None


def _years(text: str, value: str) -> tuple[float, float]:
    found = re.fullmatch(r"(\d{1,4})?\s*(\.\.)?\s*(\d{1,4})?", value)
    if not found or not (found[1] or found[3]) or (found[1] and found[3] and not found[2]):
        raise DataError(f"filter '{text}': write year=1994, year=1990..1995, year=1990.. or year=..1995")
    first = float(found[1]) if found[1] else -np.inf
    last = float(found[3]) if found[3] else np.inf if found[2] else first
    if first > last:
        raise DataError(f"filter '{text}': the first year comes after the last")
    return first, last
