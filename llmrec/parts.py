"""What an evaluation has found so far: a part for each of what is measured, with what it was made from, so that an
interrupted or extended run repeats nothing that is already there.  And files that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.errors import DataError
from llmrec.files import whole

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")
Seconds = dict[str, float]


@dataclass(frozen=True)
class Parts:
    """The parts of one folder."""

    folder: Path
    force: bool = False
    """Make everything again, whatever is there."""

    def begin(self) -> None:
        """Makes the folder, before anything is done for it.  Raises: DataError where it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def get(
        self,
        name: str,
        made_from: Mapping[str, Any],
        make: Callable[[], tuple[pa.Table, Seconds]],
        read: Callable[[pa.Table], T],
    ) -> tuple[T, Seconds]:
        """What the part `name` says, as `read` understands it, and the seconds that it took.

        A part that is missing, damaged or made from something else is made anew.  Raises: DataError where it cannot be
        written.
        """
        found = None if self.force else _kept(self._path(name), json.dumps(made_from), read)
        if found is None:
            table, seconds = make()
            self.put(name, made_from, table, seconds)
            found = read(table), seconds
        return found

    def kept(self, name: str, made_from: Mapping[str, Any], read: Callable[[pa.Table], T]) -> T | None:
        """What the part `name` says where it is there: see `get`, of which this is a half."""
        found = None if self.force else _kept(self._path(name), json.dumps(made_from), read)
        return found[0] if found else None

    def put(self, name: str, made_from: Mapping[str, Any], table: pa.Table, seconds: Seconds | None = None) -> None:
        """Writes a part: the other half."""
        about = {"made_from": json.dumps(made_from), "seconds": json.dumps(seconds or {})}
        write_table(table.replace_schema_metadata(about), self._path(name))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def answers(
        self,
        names: Iterable[str],
        makers: Mapping[str, Callable[[], Callable[[A], R]]],
        asked: A,
        *,
        what: str,
        made_from: Callable[[str], Mapping[str, Any]],
        table: Callable[[R], pa.Table],
        read: Callable[[pa.Table], T],
    ) -> tuple[dict[str, T], dict[str, Seconds]]:
        """What each of `names` answers to `asked`, a part each, and the seconds that it took, see `timed`.

        Args:
            makers: name → what makes the one that answers; called only where the part is made.
            made_from: name → see `get`.
            table: answers → the part, which `read` gives back.
        """
        found: dict[str, T] = {}
        seconds: dict[str, Seconds] = {}
        for name in names:

            def make(name: str = name) -> tuple[pa.Table, Seconds]:
                answers, took = timed(makers[name], asked, what)
                return table(answers), took

            found[name], seconds[name] = self.get(name, made_from(name), make, read)
        return found, seconds


def _kept(path: Path, wanted: str, read: Callable[[pa.Table], T]) -> tuple[T, Seconds] | None:
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if json.loads(metadata[b"made_from"]) != json.loads(wanted):
            return None
        return read(table), json.loads(metadata.get(b"seconds", b"{}"))
    except (OSError, KeyError, ValueError, DataError, pa.ArrowException):
        return None


def timed(make: Callable[[], Callable[[A], R]], asked: A, what: str) -> tuple[R, Seconds]:
    """What `make()` answers to `asked`, and the seconds that it took to make it (`fit`) and to answer (`what`)."""
    started = time.monotonic()
    answer = make()
    ready = time.monotonic()
    found = answer(asked)
    return found, {"fit": round(ready - started, 1), what: round(time.monotonic() - ready, 1)}


def probabilities(p: np.ndarray) -> pa.Table:
    """(rows, columns) as a part's table; `array_of` gives it back bit by bit."""
    return pa.table({"p": pa.FixedSizeListArray.from_arrays(p.ravel(), p.shape[1])})


def array_of(part: pa.Table) -> np.ndarray:
    column = part["p"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


def digest(values: Any) -> str:
    """First 12 hex digits of SHA-256 over values as JSON."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def write_table(table: pa.Table, path: Path) -> None:
    atomically(path, lambda partial: pq.write_table(table, partial))


def write_text(text: str, path: Path) -> None:
    atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Raises: DataError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            write(partial)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written: {error.strerror or error}; choose another folder")
