"""Input of batch jobs: rows of CSV, JSON lines or Parquet files, local or behind any fsspec URL, one at a time.

A row that cannot be read is a row with a problem, never an end of the reading, and never lost silently.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from rapidfuzz import fuzz, process

from llmrec.data.records import separated_by
from llmrec.errors import JobError, did_you_mean
from llmrec.files import COMPRESSED, UNREADABLE, decompressed

READERS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MAX_LINE_BYTES = 1_000_000  # longer lines are rejected
MAX_FILES = 100_000
BATCH_ROWS = 1024  # of a Parquet file decoded at once
NOT_UTF8 = "not UTF-8; save it as UTF-8 (CSV UTF-8 in a spreadsheet; iconv in a shell)"
FIRST_ROWS = 100  # JSON lines whose keys are the columns


class Row(NamedTuple):
    """One row of the input."""

    number: int
    """1 is the first row of data, counted on through all files; blank lines are no rows."""
    values: dict[str, Any]
    """Column → value as the file has it: text in CSV, any type elsewhere."""
    problem: str = ""
    """Why the row cannot be read; then `values` is empty."""
    place: str = ""
    """Where it begins: `users.csv, line 22` as editors count, the header included; of Parquet the file's row."""


@dataclass(frozen=True)
class Table:
    """Files of one kind, read one after another."""

    files: tuple[str, ...]
    reader: str
    fs: Any

    @classmethod
    def find(cls, place: str) -> Table:
        """The file, folder or pattern (`s3://bucket/users-*.parquet`) called `place`.

        Raises: JobError where there is nothing to read, or nothing that can read it.
        """
        try:
            fs, path = url_to_fs(place)
            if fs.isdir(path):
                found = [f for f in fs.ls(path, detail=False) if not f.rsplit("/", 1)[-1].startswith((".", "_"))]
                found = [f for f in found if _reader(f)]
            elif fs.exists(path):  # names may hold brackets, addresses a question mark
                found = [path]
            else:
                found = fs.glob(path) if any(mark in path for mark in "*?[") else []
        except ImportError as error:
            cause = error.__cause__
            wanted = f": pip install {cause.name}" if isinstance(cause, ImportError) and cause.name else ""
            raise JobError(f"{place}: {error}{wanted}") from None
        except (OSError, ValueError) as error:
            raise JobError(f"{place}: cannot be read: {error}") from None
        if not found:
            raise JobError(f"{place}: no such file, or no CSV, JSON lines or Parquet in it")
        if len(found) > MAX_FILES:
            raise JobError(f"{place}: {len(found):,} files; the limit is {MAX_FILES:,}")
        reader, *others = {_reader(f) for f in found}
        if reader is None or others:
            raise JobError(
                f"{place}: name files of one kind: {', '.join(READERS)}, each also compressed ({', '.join(COMPRESSED)})"
            )
        return cls(tuple(sorted(map(str, found))), reader, fs)

    def names(self) -> list[str]:
        """What the files are called: addresses may hold keys."""
        return [_named(file).rsplit("/", 1)[-1] for file in self.files]

    def columns(self) -> list[str]:
        """Of the first file: its columns, or the keys of its first rows that can be read."""
        file = self.files[0]
        with self._opened(file) as raw:
            if self.reader == "parquet":
                return _checked(file, pq.ParquetFile(raw).schema_arrow.names)
            if self.reader == "jsonl":
                first = islice((row for row in _json_rows(_Lines(raw)) if isinstance(row, dict)), FIRST_ROWS)
                return list(dict.fromkeys(key for row in first for key in row))
            return _header(file, _Lines(raw), self.reader)

    def require(self, columns: Sequence[str]) -> None:
        """Raises JobError unless the first file has all of `columns`."""
        there = self.columns()
        if missing := [name for name in columns if name not in there]:
            if any("\udc80" <= c <= "\udcff" for name in there for c in name):
                raise JobError(f"{self.files[0]}: no column '{missing[0]}'; {NOT_UTF8}")
            if mark := separated_by(there):
                raise JobError(
                    f"{self.files[0]}: columns are separated by {mark}; save it with commas, or as .tsv with tabs"
                )
            hint = (
                f"{did_you_mean(missing[0], there)}; rename the one that is meant" if there else f"; {self._unread()}"
            )
            raise JobError(f"{self.files[0]}: no column '{missing[0]}'{hint}")

    def _unread(self) -> str:
        """Why the first file has no columns at all."""
        with self._opened(self.files[0]) as raw:
            first = next(_json_rows(_Lines(raw)), None) if self.reader == "jsonl" else None
        return f"its first row: {first}" if isinstance(first, str) else "it is empty"

    def misspelt(self, columns: Sequence[str]) -> Iterator[str]:
        """What is said of columns of the first file that nobody reads, and that are nearly called like one of `columns`
        that it lacks."""
        there = self.columns()
        for name in there:
            lacking = [] if name in columns else sorted({*columns} - {*there})
            if near := process.extractOne(name, lacking, scorer=fuzz.ratio, processor=str.casefold, score_cutoff=80):
                yield f"{self.names()[0]}: column '{name}' is not read; rename it if '{near[0]}' is meant"

    def rows(self, columns: Sequence[str], *, skip: int = 0) -> Iterator[Row]:
        """Rows in order, only these columns (as far as a file has them), after the first `skip` rows.

        Raises: JobError where a whole file cannot be read.
        """
        number = 0
        read: Iterator[dict[str, Any] | str]
        for file, name in zip(self.files, self.names(), strict=True):
            before = number
            with self._opened(file) as raw:
                lines = None if self.reader == "parquet" else _Lines(raw)
                if lines is None:
                    parquet = pq.ParquetFile(raw)
                    _checked(file, parquet.schema_arrow.names)
                    if number + parquet.metadata.num_rows <= skip:
                        number += parquet.metadata.num_rows
                        continue
                    read = _parquet_rows(parquet, columns, max(skip - number, 0))
                    number = max(skip, number)
                else:
                    read = _json_rows(lines) if self.reader == "jsonl" else _csv_rows(file, lines, self.reader)
                for row in read:
                    number += 1
                    if number <= skip:
                        continue
                    place = f"{name}, line {lines.began}" if lines else f"{name}, row {number - before}"
                    if isinstance(row, str):
                        yield Row(number, {}, row, place)
                    else:
                        yield Row(number, {key: row[key] for key in columns if key in row}, place=place)

    def measure(self) -> Measured:
        """Size, content and rows of all files."""
        total, size, rows = hashlib.sha256(), 0, 0
        for file in self.files:
            compressed = _named(file).lower().endswith(COMPRESSED)
            lines = 0
            with self._opened(file, plain=False) as raw:
                if self.reader == "parquet":
                    rows += pq.ParquetFile(raw).metadata.num_rows
                    raw.seek(0)
                while block := raw.read(1 << 20):
                    total.update(block)
                    size += len(block)
                    lines += block.count(b"\n")
                total.update(b"\0")  # where files end matters
            if self.reader != "parquet":
                if compressed:
                    with self._opened(file) as text:
                        lines = sum(block.count(b"\n") for block in iter(lambda: text.read(1 << 20), b""))  # noqa: B023
                rows += max(lines - (self.reader != "jsonl"), 0)
        return Measured(total.hexdigest()[:12], size, rows)

    @contextmanager
    def _opened(self, file: str, *, plain: bool = True) -> Iterator[Any]:
        """Its bytes; with `plain` those of text, decompressed."""
        try:
            with self.fs.open(file, "rb") as opened:
                if plain and self.reader != "parquet":
                    with decompressed(opened, _named(file)) as raw:
                        yield io.BufferedReader(raw, 1 << 20)
                else:
                    yield opened
        except (*UNREADABLE, pa.ArrowException) as error:
            raise JobError(f"{file}: cannot be read: {error}") from None


class Measured(NamedTuple):
    """What is in a table."""

    digest: str
    """12 hex digits of SHA-256 over the files' bytes."""
    size: int
    """Bytes."""
    rows: int
    """Exact in Parquet; lines elsewhere, so blank lines and line breaks within quotes count too."""


def _named(file: str) -> str:
    """The file's name: of an address the part before its query, which may be a signature."""
    return file.partition("?")[0] if "://" in file else file


def _reader(file: str) -> str | None:
    file = _named(file).lower()
    for ending in COMPRESSED:
        if not file.endswith(".parquet" + ending):
            file = file.removesuffix(ending)
    return next((reader for suffix, reader in READERS.items() if file.endswith(suffix)), None)


class _Lines:
    """Lines of bytes as text; one that is too long is cut, and `cut` says so."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.first = True
        self.cut = False
        self.begins = True  # whether the next line is the first of a row
        self.number = 0  # of the line that was read last
        self.began = 0  # number of the line with which the row began that was read last
        self.quotes = 0  # since the row began
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.raw.readline(MAX_LINE_BYTES)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            self.cut = True
            quotes = line.count(b'"')
            while rest := self.raw.readline(MAX_LINE_BYTES):
                quotes += rest.count(b'"')
                if rest.endswith(b"\n"):
                    break
            # Nobody reads it; an odd quote stays, for it opens a field, or closes the one of an earlier line.
            line = (b'"cut\n' if self.begins else b'cut"\n') if quotes % 2 else b"cut\n"
        self.quotes = line.count(b'"') + (0 if self.begins else self.quotes)
        self.begins = False
        text = line.decode("utf-8-sig" if self.first else "utf-8", errors="surrogateescape")
        self.first = False
        return text


def _json_rows(lines: _Lines) -> Iterator[dict[str, Any] | str]:
    for line in lines:
        lines.began = lines.number
        if lines.cut:
            lines.cut = False
            yield f"longer than {MAX_LINE_BYTES:,} bytes"
            continue
        if not line.strip():
            continue
        try:
            line.encode()
            row = json.loads(line)
        except UnicodeEncodeError:
            yield "not UTF-8"
        except (ValueError, RecursionError) as error:
            yield f"not JSON: {error}"
        else:
            yield row if isinstance(row, dict) else f"a JSON object is expected, not {type(row).__name__}"


def _csv_rows(file: str, lines: _Lines, reader: str) -> Iterator[dict[str, Any] | str]:
    csv.field_size_limit(MAX_LINE_BYTES)  # of the whole process; its default is less than a row may have
    header = _header(file, lines, reader)
    fields = csv.reader(lines, delimiter="\t" if reader == "tsv" else ",")
    while True:
        lines.begins = True
        lines.began = lines.number + 1
        try:
            row = next(fields)
        except StopIteration:
            return
        except csv.Error as error:
            while lines.quotes % 2 and next(lines, None) is not None:
                pass  # the rest of a quoted text that is too long: its lines are no rows
            lines.cut = False
            yield f"lines {lines.began} to {lines.number}: not CSV: {error}; is a quote left open?"
            continue
        if lines.cut:
            lines.cut = False
            yield f"longer than {MAX_LINE_BYTES:,} bytes"
        elif lines.ended:
            yield f"lines {lines.began} to {lines.number}: a quote is left open"
        elif not row:
            continue
        elif len(row) != len(header):
            yield f"{len(row)} fields where the header has {len(header)}"
        elif any("\udc80" <= c <= "\udcff" for text in row if not text.isascii() for c in text):
            yield "not UTF-8"
        else:
            yield {name: text or None for name, text in zip(header, row, strict=True)}


def _header(file: str, lines: _Lines, reader: str) -> list[str]:
    try:
        header = next((row for row in csv.reader(lines, delimiter="\t" if reader == "tsv" else ",") if row), [])
    except csv.Error as error:
        if "NUL" in str(error):  # before Python 3.11
            raise JobError(f"{file}: {NOT_UTF8}") from None
        raise JobError(f"{file}: no header that can be read: {error}") from None
    if lines.cut:
        raise JobError(f"{file}: the header is longer than {MAX_LINE_BYTES:,} bytes")
    if any("\0" in name for name in header):
        raise JobError(f"{file}: {NOT_UTF8}")
    return _checked(file, [name.strip() for name in header])


def _checked(file: str, header: list[str]) -> list[str]:
    if again := [name for i, name in enumerate(header) if name and name in header[:i]]:  # spreadsheets leave ",,"
        raise JobError(f"{file}: column '{again[0]}' appears twice; rename one")
    return header


def _parquet_rows(parquet: pq.ParquetFile, columns: Sequence[str], skip: int) -> Iterator[dict[str, Any] | str]:
    there = [name for name in columns if name in parquet.schema_arrow.names]
    groups = list(range(parquet.metadata.num_row_groups))
    while groups and skip >= parquet.metadata.row_group(groups[0]).num_rows:
        skip -= parquet.metadata.row_group(groups.pop(0)).num_rows
    batches = parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=there)
    yield from islice((row for batch in batches for row in _plain_rows(batch)), skip, None)


def _plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # one text is none: its row is the reject, not the file
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield f"not UTF-8: {error.reason}"
