"""Output of batch jobs: a folder that a kill at any moment leaves ready to go on with, nothing lost, nothing twice.

    scores-000000.parquet …  answers to a fixed range of input rows each, in the input's order
    _rejects.jsonl           rows without an answer, and why
    _shards.jsonl            one line per finished shard: writing it is what makes a shard count
    _manifest.json           what the job was made from; once finished, the counts

A shard is written beside its name, synced and renamed; then its rejects are appended; then its line.  What no line
vouches for is removed when the job goes on.  Names that begin with `_` are skipped by readers of Parquet folders.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from llmrec.errors import JobError
from llmrec.files import digest, unfinished, whole

FORMAT = 1
MANIFEST, SHARDS, REJECTS, LOCK = "_manifest.json", "_shards.jsonl", "_rejects.jsonl", ".lock"
FORMATS = ("parquet", "jsonl")
_ODD = "backslashreplace"  # bytes of a file's name that are no UTF-8, as JSON writes them
_SHARD = re.compile(r"scores-\d{6,}\.(parquet|jsonl)")  # other files in the folder are somebody's own


@dataclass(frozen=True)
class Shard:
    """A finished range of input rows."""

    job: str
    number: int
    rows: int
    """Input rows: answers + rejected + unchanged."""
    answers: int
    rejected: int
    unchanged: int
    digest: str
    """12 hex digits of SHA-256 of the shard's file."""
    size: int
    """Bytes of the shard's file."""
    rejects_end: int
    """Bytes of the rejects file when the shard was finished."""


@dataclass
class Output:
    """One job's folder; hold it with `with`, then nobody else writes there."""

    folder: Path
    schema: pa.Schema
    format: str = "parquet"
    manifest: dict[str, Any] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)
    _lock: FileLock | None = None

    def __enter__(self) -> Output:
        """Raises: JobError where another process writes here, or the folder holds something else."""
        if re.match(r"[a-z0-9+]{2,}:/", str(self.folder)):
            raise JobError(
                f"{self.folder}: answers are written to local folders; name one, and copy it when it is done"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            strangers = [path.name for path in self.folder.iterdir() if not _ours(path)]
            if strangers and not (self.folder / MANIFEST).is_file():
                raise JobError(
                    f"{self.folder}: holds other files ({min(strangers)}, …); name a folder that is new or empty"
                )
            self._lock = FileLock(self.folder / LOCK)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JobError(
                f"{self.folder}: another process is writing here; wait until it ends, or name another folder"
            ) from None
        except (FileExistsError, NotADirectoryError):
            raise JobError(f"{self.folder}: not a folder; name one that is new or empty") from None
        except NotImplementedError:
            raise JobError(f"{self.folder}: this file system has no locks; write to a local folder") from None
        except OSError as error:
            raise JobError(
                f"{self.folder}: cannot be written: {error.strerror or error}; name another folder"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.release()

    def begin(self, made_from: Mapping[str, Any], facts: Mapping[str, Any], *, restart: bool = False) -> None:
        """Start, or go on with what is here.

        Args:
            made_from: what answers depend on; a job goes on only where it is the same.
            facts: said in the manifest and not compared.
        Raises: JobError naming what differs, and the way out; or where files are missing or changed.
        """
        found = None if restart else read_manifest(self.folder)
        made = json.loads(json.dumps(made_from))
        if found is None:
            # The new job's id comes first: whatever a kill leaves of the old one then counts for nothing.
            self.manifest = {"format": FORMAT, "job": secrets.token_hex(8), "made_from": made, **facts,
                             "started": _now(), "finished": None}  # fmt: skip
            write_whole(self.folder / MANIFEST, _json(self.manifest))
        else:
            if differs := list(differences(found.get("made_from", {}), made)):
                raise JobError(
                    f"{self.folder}: made with other settings or input ({'; '.join(differs[:4])}"
                    f"{'; …' if len(differs) > 4 else ''}); name another folder, or give --restart to replace it"
                )
            if why := found.get("spoilt"):
                raise self._refused(why)
            self.manifest = found
        self.shards = _whole(self.folder, self.manifest, self.format)
        self._remove_leftovers()

    @property
    def finished(self) -> bool:
        return self.manifest.get("finished") is not None

    @property
    def rows(self) -> int:
        """Input rows that are done."""
        return sum(shard.rows for shard in self.shards)

    def counts(self) -> dict[str, int]:
        """Rows, and what became of them."""
        return {key: sum(getattr(shard, key) for shard in self.shards)
                for key in ("rows", "answers", "rejected", "unchanged")}  # fmt: skip

    def commit(
        self, rows: int, answers: Sequence[Mapping[str, Any]], rejects: Sequence[Mapping[str, Any]], unchanged: int
    ) -> None:
        """Finish the next shard: `rows` input rows, of which some have answers, some reasons for having none."""
        number = len(self.shards)
        path = self.folder / self.shard_name(number)
        write_whole(path, self._encoded(answers))
        before = self.shards[-1].rejects_end if self.shards else 0
        lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects).encode(errors=_ODD)
        _append(self.folder / REJECTS, lines)
        shard = Shard(
            self.manifest["job"], number, rows, len(answers), len(rejects), unchanged, digest(path),
            path.stat().st_size, before + len(lines),
        )  # fmt: skip
        _append(self.folder / SHARDS, json.dumps(asdict(shard)).encode() + b"\n")
        self.shards.append(shard)

    def finish(self) -> None:
        """All rows are done."""
        self.manifest |= {"finished": _now(), "counts": self.counts()}
        write_whole(self.folder / MANIFEST, _json(self.manifest))

    def spoilt(self, why: str) -> JobError:
        """Writes down that nobody may go on with what is here, and says so."""
        self.manifest["spoilt"] = why
        write_whole(self.folder / MANIFEST, _json(self.manifest))
        return self._refused(why)

    def _refused(self, why: str) -> JobError:
        return JobError(f"{self.folder}: {why}; score again with --restart")

    def shard_name(self, number: int) -> str:
        return _shard_name(number, self.format)

    def _encoded(self, answers: Sequence[Mapping[str, Any]]) -> bytes:
        if self.format == "jsonl":
            return "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers).encode()
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(list(answers), self.schema), sink, compression="zstd")
        return sink.getvalue().to_pybytes()

    def _remove_leftovers(self) -> None:
        """What a kill left behind the last line."""
        lines = "".join(json.dumps(asdict(shard)) + "\n" for shard in self.shards).encode()
        if (self.folder / SHARDS).exists() and (self.folder / SHARDS).read_bytes() != lines:
            write_whole(self.folder / SHARDS, lines)
        rejects, end = self.folder / REJECTS, self.shards[-1].rejects_end if self.shards else 0
        if rejects.exists() or end:
            size = rejects.stat().st_size if rejects.exists() else 0
            if size < end:
                raise JobError(f"{rejects}: missing, or not what was written; put it back, or give --restart")
            os.truncate(rejects, end)
        else:
            _append(rejects, b"")
        kept = {self.shard_name(shard.number) for shard in self.shards}
        for path in self.folder.iterdir():
            if path.is_file() and (unfinished(path) or (_SHARD.fullmatch(path.name) and path.name not in kept)):
                path.unlink()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an output; None without one.  Raises: JobError where it is none of ours."""
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise JobError(f"{folder / MANIFEST}: cannot be read: {error}; give --restart to begin anew") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise JobError(f"{folder / MANIFEST}: not of format {FORMAT}, which this version reads; give --restart")
    return values


def answers(folder: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """These columns of every answer of an output's finished shards, in order.

    Raises: JobError where there is no output, or a shard is not what was written.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise JobError(f"{folder}: no output of `llmrec score`")
    suffix = manifest["made_from"]["format"]
    for shard in _whole(folder, manifest, suffix):
        path = folder / _shard_name(shard.number, suffix)
        if suffix == "parquet":
            for batch in pq.ParquetFile(path).iter_batches(columns=list(columns)):
                yield from batch.to_pylist()
        else:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    row = json.loads(line)
                    yield {name: row[name] for name in columns}


def _shard_name(number: int, suffix: str) -> str:
    return f"scores-{number:06d}.{suffix}"


def _whole(folder: Path, manifest: Mapping[str, Any], suffix: str) -> list[Shard]:
    """The shards of an output, in order.  Raises: JobError where one is not what was written, or lines of finished ones
    are gone: nobody would compute them again."""
    shards = list(_vouched(folder, manifest["job"], suffix))
    if manifest.get("finished") and sum(shard.rows for shard in shards) != manifest["counts"]["rows"]:
        raise JobError(f"{folder / SHARDS}: missing, or not what was written; put it back, or give --restart")
    return shards


def _vouched(folder: Path, job: str, suffix: str) -> Iterator[Shard]:
    """The shards of a job that lines vouch for, in order; a torn line ends them."""
    try:
        lines = (folder / SHARDS).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for number, line in enumerate(lines):
        try:
            shard = Shard(**json.loads(line)) if line.endswith(b"\n") else None
        except (ValueError, TypeError):
            shard = None
        if shard is None or shard.job != job or shard.number != number:
            return
        path = folder / _shard_name(number, suffix)
        if not path.is_file() or path.stat().st_size != shard.size or digest(path) != shard.digest:
            raise JobError(f"{path}: missing, or not what was written; put it back, or give --restart")
        yield shard


def differences(old: Mapping[str, Any], new: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """`key: old → new` for every setting that differs."""
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{before}{key}.")
        elif a != b:
            yield f"{before}{key}: {json.dumps(a)[:60]}, now {json.dumps(b)[:60]}"


def write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all, and on the disk when this returns."""
    with whole(path, synced=True) as partial:
        partial.write_bytes(content)


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _ours(path: Path) -> bool:
    return path.name in (MANIFEST, SHARDS, REJECTS, LOCK) or unfinished(path)


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode(errors=_ODD)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
