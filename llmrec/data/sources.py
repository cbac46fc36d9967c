"""Readers: from files as people have them to one Dataset.

Each reader makes raw tables with our column names; what follows (ids, times, ratings, titles) is the same for all.
A table's index holds the numbers of its rows in the file, for error messages: see `_place`.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec import config
from llmrec.data.dataset import Dataset
from llmrec.data.records import (
    COLUMNS,
    ITEM_COLUMNS,
    LEVELS,
    MAX_COLUMNS,
    MAX_FILE_BYTES,
    MAX_ID_CHARS,
    MAX_INTERACTIONS,
    PAIR_COLUMNS,
    REVIEW_COLUMNS,
    is_whole,
    one_line,
    paragraphs,
    separated_by,
    shown,
)
from llmrec.errors import DataError, did_you_mean
from llmrec.files import UNREADABLE, decompressed

# Of RecBole's item files: which columns are titles, years and categories.  First match wins.
RECBOLE_ITEM_COLUMNS = {
    "title": ("title", "movie_title", "item_name", "name", "text"),
    "year": ("year", "release_year"),
    "categories": ("categories", "class", "genre", "genres"),
}
NO_CATEGORY = {"", "unknown", "(no genres listed)"}
YEAR_AT_END = re.compile(r"\s*\((\d{4})(?:[-–]\d{0,4})?\)\s*$")
# 'Matrix, The', also inside 'Horseman on the Roof, The (Hussard sur le toit, Le)'
ARTICLE_AT_END = re.compile(
    r"(^|\((?:a\.k\.a\. )?)([^()]+), (The|An?|L[aeo]s?|L'|Il|Gli|El|D(?:er|ie|as|en|et)|Une?|Una)(?=\s*(?:\(|\)|$))"
)
LOG = logging.getLogger("llmrec")
MAX_SHOWN_COLUMNS = 20
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True)
class Table:
    """The rows of a file (or of several alike), everything still as written there."""

    path: Path
    rows: pd.DataFrame

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError(f"{self.path}: no rows")
        _check_names(self.path, self.rows.columns)


def read(source: config.DataSource, resolve: Callable[[str], Path]) -> Dataset:
    """The source's dataset, not yet split.  `resolve` turns a path of the recipe into one of this machine.

    Raises: DataError naming file, row, column and value, and the way out.
    """
    for name in source.columns:
        if name not in COLUMNS:
            raise DataError(f"data.columns: unknown name '{name}'{did_you_mean(name, COLUMNS)}")
    for name in ("items", "users"):
        if source.format != "table" and getattr(source, name):
            raise DataError(f"data.{name}: only for format `table`; `{source.format}` finds its own files")
    return READERS[source.format](source, resolve)


def read_reviews(source: config.ReviewSource, resolve: Callable[[str], Path]) -> pd.DataFrame:
    """Reviews with a rating or a category, in the file's order: review, headline, item_id, category (text, None where
    there is none) and rating (float64, NaN where there is none); a category in several columns is one, broad to narrow.
    With `leave_out` user_id, too.

    Raises: DataError naming file, row, column and value, and the way out.
    """
    for name, wanted in source.columns.items():
        if name not in REVIEW_COLUMNS:
            raise DataError(f"data.columns: unknown name '{name}'{did_you_mean(name, REVIEW_COLUMNS)}")
        if not isinstance(wanted, str) and (name != "category" or not wanted):
            raise DataError(f"data.columns.{name}: one column; only a category may stand in several, broad to narrow")
    levels = source.columns.get("category", ())
    levels = (levels,) if isinstance(levels, str) else levels
    columns = {name: wanted for name, wanted in source.columns.items() if isinstance(wanted, str)}
    path = _only_table(_existing(resolve(source.path)))
    table = Table(path, _rows(path))
    reviews = pd.DataFrame({"review": _text(_pick(table, "review", columns), paragraphs)})
    if source.leave_out is not None:
        reviews["user_id"] = _ids(table, "user_id", columns)
    rated = _optional(table, "rating", columns) is not None
    reviews["rating"] = _numbers(table, "rating", columns) if rated else np.nan
    for name in ("headline", "item_id", "category"):
        raw = _optional(table, name, columns)
        reviews[name] = pd.Series(None, reviews.index, dtype="str") if raw is None else _text(raw, one_line)
    if levels and "category" not in columns:
        parts = [_text(_pick(table, "category", {"category": level}), one_line) for level in levels]
        reviews["category"] = _joined(parts)
    labelled = reviews["rating"].notna() | reviews["category"].notna()
    reviews = reviews[reviews["review"].notna() & labelled].reset_index(drop=True)
    if not len(reviews):
        raise DataError(f"{path}: no row has a review and with it a rating or a category")
    return reviews


def _joined(parts: Sequence[pd.Series]) -> pd.Series:
    """'Tops > Knits' from the levels of a category; one that repeats a broader one, or is missing, is left out."""
    paths = [
        LEVELS.join(dict.fromkeys(level for level in row if isinstance(level, str))) or None
        for row in zip(*parts, strict=True)
    ]
    return pd.Series(paths, parts[0].index, dtype="str")


def read_pairs(source: config.ReviewSource, resolve: Callable[[str], Path]) -> tuple[pd.DataFrame, bool]:
    """What people wrote of items, in the file's order, and whether it has times: user_id, item_id, timestamp (UTC
    seconds, 0 where the file has none), and as text, missing where there is none, review, title, about and person.

    Raises: DataError naming file, row, column and value, and the way out.
    """
    columns: dict[str, str] = {}
    for name, wanted in source.columns.items():
        if name not in PAIR_COLUMNS:
            raise DataError(f"data.columns: unknown name '{name}'{did_you_mean(name, PAIR_COLUMNS)}")
        if not isinstance(wanted, str):
            raise DataError(f"data.columns.{name}: one column; only a review's category may stand in several")
        columns[name] = wanted
    path = _only_table(_existing(resolve(source.path)))
    table = Table(path, _rows(path))
    described = _only_table(_existing(resolve(source.items))) if source.items else None
    items_table = Table(described, _rows(described)) if described else None
    for name in ("title", "about"):  # either file may have them
        if name in columns and (items_table is None or columns[name] not in items_table.rows):
            _pick(table, name, columns)  # a mapped column that is missing is a mistake, not a missing option
    timed = "timestamp" in columns or "timestamp" in table.rows
    pairs = pd.DataFrame({name: _ids(table, name, columns) for name in ("user_id", "item_id")})
    pairs["timestamp"] = _times(table, columns) if timed else 0
    pairs["review"] = _text(_pick(table, "review", columns), paragraphs)
    texts = {"title": one_line, "about": paragraphs, "person": paragraphs}
    for name, clean in texts.items():
        elsewhere = items_table and name != "person" and columns.get(name, name) not in table.rows
        raw = None if elsewhere else _optional(table, name, columns)
        pairs[name] = pd.Series(None, pairs.index, dtype="str") if raw is None else _text(raw, clean)
    if items_table:
        items = pd.DataFrame({"item_id": _ids(items_table, "item_id", columns, own_name_too=True)})
        for name in ("title", "about"):
            raw = items_table.rows.get(columns.get(name, name))
            items[name] = pd.Series(None, items.index, dtype="str") if raw is None else _text(raw, texts[name])
        items = items.drop_duplicates("item_id").set_index("item_id")
        for name in ("title", "about"):
            pairs[name] = pairs["item_id"].map(items[name]).fillna(pairs[name])
    return pairs.reset_index(drop=True), timed


def without(
    user_id: pd.Series, source: config.DataSource | config.ReviewSource, resolve: Callable[[str], Path]
) -> np.ndarray:
    """(rows,) bool: those of somebody whom the source's `leave_out` does not name.  To call behind the split: whoever
    is left out moves nobody else to another side.

    Says how many of those are not in the data, where an id may be mistyped.  Raises: DataError.
    """
    if source.leave_out is None:
        return np.ones(len(user_id), bool)
    file = _only_table(_existing(resolve(source.leave_out)))
    rows = _rows(file)
    columns = {name: wanted for name, wanted in source.columns.items() if isinstance(wanted, str)}
    gone = {*_ids(Table(file, rows), "user_id", columns, own_name_too=True)} if len(rows) else set()
    if unknown := gone - {*user_id}:
        LOG.warning("%s: %s of %s people are not in the data, such as %s", file, len(unknown), len(gone), min(unknown))
    stays = ~user_id.isin(gone).to_numpy()
    if not stays.any():
        raise DataError(f"leave_out={source.leave_out}: nobody is left")
    return stays


def read_chosen(source: config.ChoiceSource, resolve: Callable[[str], Path]) -> pd.DataFrame:
    """Who chose what, in the order of a table, and nothing more: user_id, item_id.  Raises: DataError."""
    path = _only_table(_existing(resolve(source.path)))
    table = Table(path, _rows(path))
    return pd.DataFrame({name: _ids(table, name, source.columns) for name in ("user_id", "item_id")})


def stamp(source: config.DataSource, asset_prefix: str) -> dict[str, list[int]]:
    """Size in bytes and time of change of the source's files, to notice edits; nothing for assets (pinned already)
    and for files out of reach."""
    stamps = {}
    for path in (source.path, source.items, source.users, source.leave_out):
        if path is None or path.startswith(asset_prefix):
            continue
        place = Path(path).expanduser()
        if source.format != "table" and path == source.path and place.is_file():
            place = place.parent  # these formats find items and users beside the file
        with contextlib.suppress(OSError):  # the reader complains, if it comes to that
            for file in sorted(place.iterdir()) if place.is_dir() else [place]:
                if file.is_file():
                    stamps[str(file)] = [file.stat().st_size, file.stat().st_mtime_ns]
    return stamps


# ── RecBole atomic files ────────────────────────────────────────────────────────────────────────────────────────────


def _recbole(source: config.DataSource, resolve: Callable[[str], Path]) -> Dataset:
    """One .inter file, or several alike (train, valid, test).  Files of the sequential kind (`item_id_list`) repeat a
    user's events row after row: the longest row holds them all, in order."""
    folder = _existing(resolve(source.path))
    if folder.is_file():
        paths, folder = [folder], folder.parent
    else:
        rank = {"train": 0, "valid": 1, "test": 2}
        paths = sorted(folder.glob("*.inter"), key=lambda p: (rank.get(p.stem.split(".")[-1], 3), p.name))
    if not paths:
        raise DataError(f"{folder}: no .inter file; format `recbole` needs one")
    events, *more = (_atomic(path) for path in paths)
    if more:
        parts = [t.rows.set_axis(t.rows.index.map(f"{{}} of {t.path.name}".format)) for t in (events, *more)]
        events = Table(folder, pd.concat(parts))
    if "item_id_list" in events.rows:
        events = _longest(events)
    events = _raw_ids(events, folder)

    # Beside a folder's only .item and .user files; beside a file, those of the same name.
    stem = paths[0].name.split(".")[0]
    items = _beside(folder, stem, (".item", ".text"))
    users = _beside(folder, stem, (".user",))
    return _dataset(
        source,
        events,
        _recbole_items(source, _atomic(items)) if items else None,
        _atomic(users) if users else None,
        between_categories=" ",
    )


def _atomic(path: Path) -> Table:
    rows = _delimited(path, "\t", quoted=False)
    if untyped := [name for name in rows if ":" not in name]:
        raise DataError(
            f"{path}: line 1: column {shown(untyped[0])} has no type; a RecBole header reads like "
            "`user_id:token<tab>item_id:token`; is this format `table`?"
        )
    rows.columns = [name.rsplit(":", 1)[0] for name in rows]
    return Table(path, rows)


def _longest(table: Table) -> Table:
    """One row per user and event from rows of (user, events before, next event)."""
    before = _pick(table, "item_id_list").fillna("")
    rows = pd.DataFrame({
        "user_id": _pick(table, "user_id"), "item_id": (before + " " + _pick(table, "item_id").fillna("")).str.split(),
    })  # fmt: skip
    shortest_first = rows.iloc[np.argsort(rows["item_id"].str.len(), kind="stable")]
    longest = shortest_first.drop_duplicates("user_id", keep="last")
    order = pd.Series(range(longest.shape[0]), rows["user_id"].drop_duplicates())
    longest = longest.iloc[np.argsort(longest["user_id"].map(order).to_numpy(), kind="stable")]
    return Table(table.path, longest.explode("item_id").astype("str"))


def _raw_ids(table: Table, folder: Path) -> Table:
    """Undoes a numbering of ids that lies beside the interactions (two columns: raw id, number)."""
    rows = table.rows
    for column, suffix in (("user_id", "*.user2index"), ("item_id", "*.item2index")):
        for path in sorted(folder.glob(suffix))[:1]:
            if column not in rows:
                continue
            pairs = _delimited(path, "\t", quoted=False, names=["raw", "number"])
            _complain(Table(path, pairs), pairs["number"], pairs["number"].duplicated(), "number", "appears twice")
            raw = rows[column].map(pairs.set_index("number")["raw"])
            _complain(table, rows[column], raw.isna() & rows[column].notna(), column, f"is not in {path.name}")
            rows = rows.assign(**{column: raw})
    return Table(table.path, rows)


def _beside(folder: Path, stem: str, suffixes: tuple[str, ...]) -> Path | None:
    for suffix in suffixes:
        found = sorted(folder.glob(f"*{suffix}"))
        same = [path for path in found if path.name.split(".")[0] == stem]
        if same or len(found) == 1:
            return (same or found)[0]
    return None


def _recbole_items(source: config.DataSource, table: Table) -> Table:
    rows = table.rows
    for ours, names in RECBOLE_ITEM_COLUMNS.items():
        name = next((name for name in names if name in rows), None)
        if ours in source.columns or name is None:
            continue
        if name == "movie_title":
            rows = _films(rows, name)
        rows = rows.rename(columns={name: ours})
    return Table(table.path, rows)


# ── MovieLens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _movielens(source: config.DataSource, resolve: Callable[[str], Path]) -> Dataset:
    folder = _existing(resolve(source.path))
    folder = folder.parent if folder.is_file() else folder
    ours = {"userId": "user_id", "movieId": "item_id", "genres": "categories"}
    events, items = (
        Table(path, _delimited(path, ",").rename(columns=ours))
        for path in (folder / "ratings.csv", folder / "movies.csv")
    )
    _pick(items, "title")
    return _dataset(source, events, Table(items.path, _films(items.rows, "title")), None)


def _films(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """'Matrix, The (1999)' in `column` becomes 'The Matrix' there, and 1999 in `year` where no year is known yet."""
    films = [film(title) if isinstance(title, str) else (title, None) for title in rows[column]]
    written = pd.Series([year for _, year in films], rows.index, dtype="str")
    known = next((name for name in RECBOLE_ITEM_COLUMNS["year"] if name in rows), "year")
    year = rows[known].where(rows[known].map(_year).notna(), written) if known in rows else written
    return rows.assign(**{column: pd.Series([title for title, _ in films], rows.index, dtype="str"), known: year})


def film(text: str) -> tuple[str, str | None]:
    """Title and year as MovieLens writes them: 'Boot, Das (Boat, The) (1981)' is 'Das Boot (The Boat)' of '1981'."""
    year = YEAR_AT_END.search(text)
    title = text[: year.start()] if year else text

    def in_front(match: re.Match[str]) -> str:
        bracket, name, article = match.groups()
        return f"{bracket}{article}{'' if article.endswith(chr(39)) else ' '}{name}"

    return ARTICLE_AT_END.sub(in_front, title.strip()), year[1] if year else None


# ── any table ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(source: config.DataSource, resolve: Callable[[str], Path]) -> Dataset:
    def rows(path: str) -> Table:
        found = _only_table(_existing(resolve(path)))
        return Table(found, _rows(found))

    return _dataset(
        source,
        rows(source.path),
        rows(source.items) if source.items else None,
        rows(source.users) if source.users else None,
    )


def _only_table(path: Path) -> Path:
    if path.is_file():
        return path
    found = [p for p in sorted(path.iterdir()) if p.is_file() and _suffix(p)]
    if len(found) != 1:
        raise DataError(f"{path}: a folder with {len(found)} tables ({', '.join(TABLE_SUFFIXES)}); name the file")
    return found[0]


def _suffix(path: Path) -> str | None:
    """`.parquet` of 'reviews.parquet.brotli', `.csv` of 'a.csv.gz'."""
    return next((s for s in reversed(path.suffixes) if s.lower() in TABLE_SUFFIXES), None)


def _rows(path: Path) -> pd.DataFrame:
    suffix = (_suffix(path) or "").lower()
    if suffix == ".parquet":
        return _parquet(path)
    if suffix in (".csv", ".tsv"):
        return _delimited(path, "," if suffix == ".csv" else "\t")
    if suffix:
        return _json_lines(path)
    raise DataError(f"{path}: unknown kind of table; use {', '.join(TABLE_SUFFIXES)} (text may be .gz)")


# ── from raw tables to a dataset ────────────────────────────────────────────────────────────────────────────────────


def _dataset(
    source: config.DataSource, events: Table, items: Table | None, users: Table | None, between_categories: str = "|"
) -> Dataset:
    columns = source.columns
    titled = events if items is None else items
    for name in ("title", "year", "categories"):
        if name in columns:
            _pick(titled, name, columns)  # a mapped column that is missing is a mistake, not a missing option

    interactions = pd.DataFrame({name: _ids(events, name, columns) for name in ("user_id", "item_id")})
    timed = _optional(events, "timestamp", columns) is not None
    interactions["timestamp"] = (
        _times(events, columns) if timed else interactions.groupby("user_id", sort=False).cumcount().astype("int64")
    )
    if _optional(events, "rating", columns) is not None:
        interactions["rating"] = _numbers(events, "rating", columns).astype("float32")
    if (review := _optional(events, "review", columns)) is not None:
        interactions["review"] = _text(review, paragraphs)

    catalog = None
    if items is not None:
        catalog = _items(items, columns, between_categories, described=True)
        if not interactions["item_id"].isin(catalog["item_id"]).any():
            raise DataError(
                f"{events.path}: no item_id is in {items.path} ({shown(interactions['item_id'].iloc[0])} against "
                f"{shown(catalog['item_id'].iloc[0])}); map data.columns.item_id to the column that both share"
            )
    elif any(_optional(events, name, columns) is not None for name in ITEM_COLUMNS[1:]):
        catalog = _items(events, columns, between_categories, described=False)
    _check_titles(source, events, titled, catalog, interactions["item_id"])
    return Dataset.of(interactions, catalog, None if users is None else _users(users, columns), timed)


def _check_titles(
    source: config.DataSource, events: Table, titled: Table, catalog: pd.DataFrame | None, item_id: pd.Series
) -> None:
    """A line where ids stand for titles, which a language model can learn by heart and not read.

    Raises: DataError where a file of items is named and none of its columns holds titles.
    """
    if catalog is None or _optional(titled, "title", source.columns) is None:
        has = ", ".join(map(str, list(titled.rows)[:MAX_SHOWN_COLUMNS]))
        if source.items:
            raise DataError(
                f"{titled.path}: no column 'title' ({has}); name it in data.columns.title (the column of ids, if ids "
                "are all there is)"
            )
        LOG.warning("%s: no column 'title' (%s), so every item's id stands for its title", titled.path, has)
    elif titled is not events and (unknown := item_id[~item_id.isin(catalog["item_id"])].unique()).size:
        LOG.warning(
            "%s: %s of %s items are not there, the first %s: their ids stand for their titles", titled.path,
            f"{unknown.size:,}", f"{item_id.nunique():,}", shown(unknown[0]),
        )  # fmt: skip


def _ask_for_bars(table: Table, raw: pd.Series, names: pd.Series) -> None:
    """Says so where lists of categories seem to have been read as one category each."""
    together = [i for i, found in enumerate(names) if len(found) == 1 and re.search(r"^\[|[,;/] ?\w", found[0])]
    if 2 * len(together) > len(names):
        LOG.warning(
            "%s: column '%s': %s is read as one category, as are most others; put | between categories, or give lists",
            table.path, raw.name, shown(raw.iloc[together[0]]),
        )  # fmt: skip


def _items(table: Table, columns: dict[str, str], between: str, described: bool) -> pd.DataFrame:
    """One row per item, with what is read of it and nothing else; of several rows the first with a title counts, unless
    titles contradict in a file that is there to describe items."""
    item_id = _ids(table, "item_id", columns, own_name_too=True)
    items = pd.DataFrame({"item_id": item_id})
    title = _optional(table, "title", columns)
    items["title"] = pd.Series(None, items.index, dtype="str") if title is None else _text(title, one_line)
    if (year := _optional(table, "year", columns)) is not None:
        items["year"] = year.map(_year).astype("Int64")
    if (categories := _optional(table, "categories", columns)) is not None:
        items["categories"] = [_names(value, between) for value in categories]
        _ask_for_bars(table, categories, items["categories"])
    elif near := [name for name in RECBOLE_ITEM_COLUMNS["categories"] if name in table.rows]:
        LOG.warning(
            "%s: column '%s' is not read; if it holds categories, name it in data.columns.categories",
            table.path,
            near[0],
        )
    if described:
        named = items[items["title"].notna()]
        distinct = named.drop_duplicates(["item_id", "title"])
        again = distinct["item_id"].duplicated()
        _complain(table, distinct["item_id"], again, "item_id", "has a second title; keep one row per item")
    items = items.assign(untitled=items["title"].isna())
    order = items.groupby("item_id", sort=False).ngroup().to_numpy()
    items = items.iloc[np.lexsort((items["untitled"].to_numpy(), order))]
    items = items.drop_duplicates("item_id").drop(columns="untitled").reset_index(drop=True)
    untitled = items["title"].isna()
    if title is not None and untitled.any():
        LOG.warning(
            "%s: %s of %s items have no title, the first %s: their ids stand for their titles", table.path,
            f"{untitled.sum():,}", f"{len(items):,}", shown(items["item_id"][untitled].iloc[0]),
        )  # fmt: skip
    return items.assign(title=items["title"].fillna(items["item_id"].map(one_line)))


def _users(table: Table, columns: dict[str, str]) -> pd.DataFrame:
    """Who there is, and nothing else of them: what nothing reads (ages, addresses) is not copied."""
    users = pd.DataFrame({"user_id": _ids(table, "user_id", columns, own_name_too=True)})
    return users.drop_duplicates("user_id").reset_index(drop=True)


def _optional(table: Table, name: str, columns: dict[str, str]) -> pd.Series | None:
    """The column; None where the file has none and the recipe maps none."""
    if name not in columns and name not in table.rows:
        return None
    if name in ("title", "year", "categories") and columns.get(name, name) not in table.rows:
        return None  # mapped for the items file: checked there
    return _pick(table, name, columns)


def _pick(table: Table, name: str, columns: dict[str, str] | None = None, own_name_too: bool = False) -> pd.Series:
    wanted = (columns or {}).get(name, name)
    if own_name_too and wanted not in table.rows:
        wanted = name
    if wanted not in table.rows:
        raise DataError(
            f"{table.path}: no column '{wanted}'{did_you_mean(wanted, map(str, table.rows))}; "
            f"data.columns.{name} names the file's column"
        )
    return table.rows[wanted]


def _ids(table: Table, name: str, columns: dict[str, str], own_name_too: bool = False) -> pd.Series:
    """Ids as text, otherwise untouched; whole numbers lose their '.0'."""
    raw = _pick(table, name, columns, own_name_too)
    if not isinstance(raw.dtype, pd.StringDtype):
        _complain(table, raw, ~raw.map(_is_id), name, "is no id: text or a whole number is expected")
        try:
            raw = raw.map(_id_text).astype("str")
        except UnicodeEncodeError:
            _complain(table, raw, raw.map(_not_unicode), name, "is not valid Unicode")
            raise
    _complain(table, raw, raw.isna() | (raw == ""), name, "is empty; give the row an id or delete it")
    _complain(table, raw, raw.str.len() > MAX_ID_CHARS, name, f"is longer than {MAX_ID_CHARS} characters")
    return raw


def _is_id(value: Any) -> bool:
    return (
        isinstance(value, (str, int, np.integer)) and not isinstance(value, bool) or is_whole(value) or _missing(value)
    )


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or isinstance(value, (float, np.floating)) and np.isnan(value)


def _id_text(value: Any) -> str | None:
    return None if _missing(value) else str(int(value)) if is_whole(value) else str(value)


def _not_unicode(value: Any) -> bool:
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def _numbers(table: Table, name: str, columns: dict[str, str]) -> pd.Series:
    """float64, NaN where empty."""
    raw = _pick(table, name, columns)
    values = pd.to_numeric(raw, errors="coerce").astype("float64")
    _complain(table, raw, values.isna() & raw.notna() | np.isinf(values), name, "is not a number")
    return values


def _times(table: Table, columns: dict[str, str]) -> pd.Series:
    """UTC seconds, int64, from seconds (or milli-, micro-, nanoseconds, told by their size) or ISO 8601 dates; a date
    without a zone is UTC."""
    raw = _pick(table, "timestamp", columns)
    dates = isinstance(raw.dtype, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_any_dtype(raw)
    values = pd.Series(np.nan, raw.index) if dates else pd.to_numeric(raw, errors="coerce").astype("float64")
    if dates or values.isna().mean() > 0.5:
        try:
            moments = pd.to_datetime(raw, errors="coerce", utc=True, format=None if dates else "ISO8601")
        except (ValueError, TypeError, OverflowError):
            moments = pd.Series(pd.NaT, raw.index)
        if dates or moments.notna().any():
            expected = "is no date; dates read like 2024-05-31 or 2024-05-31T18:00:00Z"
            _complain(table, raw, moments.isna(), "timestamp", expected)
            return moments.dt.as_unit("s").astype("int64")
    size = float(np.nanmedian(values.abs())) if values.notna().any() else 0.0
    values = values / next((unit for limit, unit in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)) if size > limit), 1)
    bad = ~(values.abs() < 1e11)  # also NaN and infinity; 1e11 s is the year 5138
    _complain(table, raw, bad, "timestamp", "is no time; give seconds since 1970 or ISO 8601 dates")
    return np.floor(values).astype("int64")


def _complain(table: Table, raw: pd.Series, bad: pd.Series, name: str, problem: str) -> None:
    """Raises for the first bad row, if any."""
    bad = bad.to_numpy(dtype=bool, na_value=False) if isinstance(bad, pd.Series) else bad
    if bad.any():
        first = int(np.argmax(bad))
        value = "" if _missing(raw.iloc[first]) else f" {shown(raw.iloc[first])}"
        more = f" (and {bad.sum() - 1:,} more rows)" if bad.sum() > 1 else ""
        column = name if raw.name in (name, None) else f"{name} (column '{raw.name}')"
        raise DataError(f"{table.path}: {_place(table.path, raw.index[first])}: {column}{value} {problem}{more}")


def _text(raw: pd.Series, clean: Callable[[str], str]) -> pd.Series:
    """Cleaned text; missing where nothing is left."""
    cleaned = [None if _missing(value) else clean(str(value)) or None for value in raw]
    return pd.Series(cleaned, raw.index, dtype="str")


def _names(value: Any, between: str) -> list[str]:
    """Categories: a list (nested or not, also as JSON) or text with `between` between names ('|' wins); each once, in
    order."""
    if isinstance(value, str):
        found = _listed(value)
        value = value.split("|" if "|" in value else between) if found is None else found
    flat = [one_line(name) for name in _flat(value)]
    return list(dict.fromkeys(name for name in flat if name not in NO_CATEGORY))


def _listed(text: str) -> list[Any] | None:
    """What a text says that is a list, as JSON or Python write it."""
    if not (text := text.strip()).startswith("["):
        return None
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            if isinstance(found := read(text), list):
                return found
    return None


def _flat(value: Any) -> Iterable[str]:
    if isinstance(value, (list, tuple, np.ndarray)):
        for part in value:
            yield from _flat(part)
    elif isinstance(value, dict) and "name" in value:
        yield from _flat(value["name"])
    elif not _missing(value):
        yield str(value)


def _year(value: Any) -> int | None:
    """The first four-digit number; metadata is often untidy, so anything else is just no year."""
    found = None if _missing(value) else re.search(r"(?<!\d)\d{4}(?!\d)", str(value))
    return int(found[0]) if found else None


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _existing(path: Path) -> Path:
    """`path`, if it can be opened as a file or listed as a folder."""
    try:
        if not path.exists():
            near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError(f"{path}: no such file or folder{did_you_mean(path.name, near[:20])}")
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return path


def _checked_file(path: Path) -> Path:
    size = _existing(path).stat().st_size
    if path.is_dir():
        raise DataError(f"{path}: a folder, where a file is expected")
    if size == 0:
        raise DataError(f"{path}: empty file")
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path}: {size:,} bytes; the limit is {MAX_FILE_BYTES:,}: sample it first")
    return path


def _delimited(path: Path, separator: str, *, quoted: bool = True, names: list[str] | None = None) -> pd.DataFrame:
    """All columns as text, empty cells missing; index = row number from 1, the header included."""
    _checked_file(path)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    as_written = {
        "sep": separator, "dtype": "str", "keep_default_na": False, "na_values": [""], "encoding": "utf-8-sig",
        "quoting": quoting, "skip_blank_lines": False, "low_memory": False,
    }  # fmt: skip
    try:
        if names is None:  # of two columns `rating`, pandas would call one `rating.1`
            header = pd.read_csv(path, header=None, nrows=1, **as_written).iloc[0].dropna()
            if mark := separated_by([*header]):  # before a comma in some text is taken for what separates
                raise DataError(f"{path}: columns are separated by {mark}; save it with commas, or as .tsv with tabs")
            _check_names(path, header)
        rows = pd.read_csv(path, names=names, **as_written)
        if isinstance(rows.index, pd.RangeIndex) and rows.iloc[:, -1].isna().any():  # pandas fills short rows up
            _check_fields(path, separator, quoting, rows.shape[1])
    except UnicodeError as error:
        raise DataError(f"{path}: not UTF-8 ({_one(error)}); convert it, e.g. `iconv -f latin1 -t utf-8`") from None
    except pd.errors.ParserError as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        what = _one(error)
        if found:
            what = f"{_place(path, int(found[2]))}: {found[3]} fields, the header has {found[1]}"
        raise DataError(f"{path}: {what}; quote text that holds the separator") from None
    except (pd.errors.EmptyDataError, csv.Error, ValueError, *UNREADABLE) as error:
        raise DataError(f"{path}: cannot be read: {_one(error)}") from None
    if not isinstance(rows.index, pd.RangeIndex):
        raise DataError(
            f"{path}: {_place(path, 2)} has more fields than the header; quote text that holds the separator"
        )
    rows.index = rows.index + (1 if names else 2)
    return _named(path, rows.dropna(how="all"))


def _check_fields(path: Path, separator: str, quoting: Literal[0, 3], columns: int) -> None:
    """Raises for the first row that ends before its last column, if any; a blank line is no row."""
    with _records(path, separator, quoting) as read:
        fields = np.fromiter(map(len, read), np.int32)  # of every row, without a step of Python for each
    if (short := (fields > 0) & (fields < columns)).any():
        first = int(np.argmax(short))
        more = f" (and {short.sum() - 1:,} more rows)" if short.sum() > 1 else ""
        raise DataError(
            f"{path}: {_place(path, first + 1)}: {fields[first]} fields for {columns} columns; "
            f"an empty cell needs its separator, too{more}"
        )


@contextlib.contextmanager
def _records(path: Path, separator: str, quoting: Literal[0, 3]) -> Iterator[Any]:
    """A reader of the file's rows, the header first."""
    limit = csv.field_size_limit(2**31 - 1)  # of the whole process
    try:
        with path.open("rb") as raw, decompressed(raw, path.name) as plain:
            lines = io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
            yield csv.reader(lines, delimiter=separator, quoting=quoting)
    finally:
        csv.field_size_limit(limit)


def _place(path: Path, row: int | str) -> str:
    """Where a row begins, as an editor counts the lines of a text file, the header included; of Parquet its number."""
    suffix = (_suffix(path) or "").lower()
    if suffix == ".parquet":
        return f"row {row}"
    if suffix not in (".csv", ".tsv") or isinstance(row, str):  # nothing quoted: each line is a row
        return f"line {row}"
    with _records(path, "," if suffix == ".csv" else "\t", csv.QUOTE_MINIMAL) as read, contextlib.suppress(csv.Error):
        for _ in islice(read, row - 1):  # a quoted text may run over several lines
            pass
        return f"line {read.line_num + 1}"
    return f"row {row}"  # what pandas reads and csv does not


def _json_lines(path: Path) -> pd.DataFrame:
    """Values as Python objects, index = line number."""
    _checked_file(path)
    records, numbers = [], []
    try:
        with path.open("rb") as raw, decompressed(raw, path.name) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}: line {number}: not UTF-8 ({_one(error)})") from None
                except (ValueError, RecursionError) as error:
                    what = f"not JSON ({_one(error)}): {shown(line[:80].decode('utf-8', 'replace').strip())}"
                    python = line.lstrip().startswith(b"{'")
                    way_out = "write it as json.dumps(ast.literal_eval(line))" if python else "one object a line"
                    raise DataError(f"{path}: line {number}: {what}; {way_out}") from None
                if not isinstance(record, dict):
                    raise DataError(f"{path}: line {number}: {shown(record)} is not an object; one object a line")
                records.append(record)
                numbers.append(number)
                if len(records) > MAX_INTERACTIONS:
                    raise DataError(f"{path}: more than {MAX_INTERACTIONS:,} rows; sample it first")
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {_one(error)}") from None
    return _named(path, pd.DataFrame(records, index=numbers, dtype=object))


def _parquet(path: Path) -> pd.DataFrame:
    """Typed columns, index = row number from 1."""
    _checked_file(path)
    try:
        count = pq.read_metadata(path).num_rows
        if count > MAX_INTERACTIONS:
            raise DataError(f"{path}: {count:,} rows; the limit is {MAX_INTERACTIONS:,}: sample it first")
        rows = pq.read_table(path).to_pandas(ignore_metadata=True)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {_one(error)}") from None
    rows = rows[[name for name in rows if not str(name).startswith("__index_level_")]]  # pandas' own row labels
    rows.index = rows.index + 1
    coded = rows.select_dtypes("category")
    return _named(path, rows.astype({name: coded[name].cat.categories.dtype for name in coded}))


def _check_names(path: Path, columns: Iterable[object]) -> None:
    names = pd.Index([str(name).strip() for name in columns])
    if (again := names.duplicated()).any():
        raise DataError(f"{path}: column {shown(names[again][0])} appears twice; rename one")


def _named(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    if rows.shape[1] > MAX_COLUMNS:
        raise DataError(f"{path}: {rows.shape[1]:,} columns; the limit is {MAX_COLUMNS:,}")
    if len(rows) > MAX_INTERACTIONS:
        raise DataError(f"{path}: {len(rows):,} rows; the limit is {MAX_INTERACTIONS:,}: sample it first")
    rows.columns = [str(name).strip() for name in rows]
    return rows


def _one(error: Exception) -> str:
    """An error of a library, on one line."""
    return " ".join(str(error).split())[:200]


READERS: dict[str, Callable[[config.DataSource, Callable[[str], Path]], Dataset]] = {
    "recbole": _recbole,
    "movielens": _movielens,
    "table": _table,
}
