"""Rankers of other programs in a suite: what they may know and are asked goes out, their lists come back.

A folder holds one folder for each protocol, named as in tables (`Asked.label`), with three Parquet files: `train`
(user_id, item_id, timestamp), `valid` (query, user_id, history, target: for choosing settings and for early stopping)
and `questions` (query, user_id, history).  Histories are item ids, oldest first, as the protocol lets them be seen.  A
ranker's answers come back as `<name>.parquet`: query, and items, a list of item ids, best first.  Each file's metadata
says which questions it belongs to, under `of`; an answer may, and is then held to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import Query
from llmrec.errors import DataError
from llmrec.parts import write_table

QUESTIONS = "questions"
FILES = ("train", "valid", QUESTIONS)
OF = "of"  # of a file's metadata
COLUMNS = {"query": pa.int64(), "items": pa.list_(pa.string())}


def write(
    folder: Path, dataset: Dataset, catalog: Catalog, questions: Sequence[Query], valid: Sequence[Query], digest: str
) -> None:
    """The three files of one protocol; `query` counts `questions`, and `valid`, from 0.

    Args:
        digest: of the questions, with what is right, of the catalog and of what may be learned from.
    Raises: DataError where they cannot be written, or answers to other questions lie there.
    """
    others = [file.name for file in sorted(folder.glob("*.parquet")) if file.stem not in FILES]
    if others and _of(folder / f"{QUESTIONS}.parquet") != digest:  # their numbers would mean other questions
        raise DataError(
            f"{folder}: {', '.join(others)} answer other questions than those of today; move them away, or name "
            "another folder"
        )
    write_table(pa.Table.from_pandas(events(dataset), preserve_index=False), folder / "train.parquet")
    ids = np.array(catalog.item_id, dtype=object)
    for name, asked in (("valid", valid), (QUESTIONS, questions)):
        columns: dict[str, Any] = {
            "query": pa.array(range(len(asked)), pa.int64()),
            "user_id": pa.array([query.user_id for query in asked], pa.string()),
            "history": pa.array([ids[list(query.history)].tolist() for query in asked], COLUMNS["items"]),
        }
        if name == "valid":
            columns["target"] = pa.array(ids[[query.target for query in asked]].tolist(), pa.string())
        write_table(pa.table(columns).replace_schema_metadata({OF: digest}), folder / f"{name}.parquet")


def events(dataset: Dataset) -> pd.DataFrame:
    """What a ranker may learn from: user_id, item_id, timestamp."""
    train = dataset.interactions[dataset.interactions["split"] == "train"]
    return train[["user_id", "item_id", "timestamp"]]


def read(file: Path, numbers: Sequence[int], catalog: Catalog, digest: str) -> list[np.ndarray]:
    """Positions in the catalog, best first, for each of the queries `numbers`; the file may answer others as well.

    Args:
        digest: see `write`; that of other questions, which other data asked, is an error.
    Raises: DataError naming the file and what is wrong with it.
    """
    try:
        table = pq.read_table(file, columns=[*COLUMNS]).cast(pa.schema(COLUMNS))
        asked, answered = _of(file.parent / f"{QUESTIONS}.parquet"), _of(file)
    except (OSError, pa.ArrowException) as error:
        why = "is not there" if not file.exists() else f"cannot be read: {str(error).partition(chr(10))[0]}"
        raise DataError(
            f"{file}: {why}; a ranker's lists have the columns query (a number of {QUESTIONS}.parquet beside it) and "
            "items (a list of item ids, best first); `llmrec evaluate SUITE --questions FOLDER` writes what to answer"
        ) from None
    if asked != digest or answered not in ("", digest):
        raise DataError(
            f"{file}: answers other questions than the data of today ask; write them again with `llmrec evaluate SUITE "
            "--questions FOLDER`, and answer those"
        )
    query = table["query"].to_pandas()
    if query.isna().any() or query.duplicated().any():
        row = int(np.flatnonzero(query.isna() | query.duplicated())[0])
        raise DataError(f"{file}: row {row}: query {query[row]} is empty or answered twice; answer each once")
    row_of = pd.Series(range(len(query)), index=query.to_numpy(np.int64))
    missing = [number for number in numbers if number not in row_of.index]
    if missing:
        raise DataError(
            f"{file}: {len(missing):,} of {len(numbers):,} queries have no row, the first {missing[0]}; one without an "
            "answer has an empty list"
        )
    lists = table["items"].combine_chunks()
    found = []
    place = pd.Series(range(len(catalog)), index=catalog.item_id)
    for number in numbers:
        items = pd.Series(lists[int(row_of[number])].as_py() or [], dtype=object)
        if items.duplicated().any():
            raise DataError(f"{file}: query {number}: item '{items[items.duplicated()].iloc[0]}' is listed twice")
        positions = items.map(place)
        if positions.isna().any():
            raise DataError(f"{file}: query {number}: no item '{items[positions.isna()].iloc[0]}' in the catalog")
        found.append(positions.to_numpy(np.int32))
    return found


def _of(file: Path) -> str:
    """The digest that a file's metadata hold; empty where there is none, or no such file.  Raises: DataError."""
    try:
        found = (pq.read_schema(file).metadata or {}).get(OF.encode(), b"") if file.exists() else b""
    except (OSError, pa.ArrowException) as error:
        why = str(error).partition("\n")[0]
        raise DataError(f"{file}: cannot be read: {why}; delete it, and write the questions again") from None
    return found.decode(errors="replace")
