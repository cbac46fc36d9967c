"""An adapter as a hub-style folder or one .tar.gz: written the same from the same adapter, read without trust."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from llmrec.errors import AdapterError
from llmrec.model import adapter, verify

MAX_ENTRIES = 128
MAX_BYTES = 2_200_000_000  # unpacked, headers included
MAX_HEADER = 65_536  # of an extended header
_BLOCK = 1 << 20
OTHER = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z"}  # endings of archives that are not written
MADE = ("README.md", "recipe.yaml")  # written from the card, whatever the folder holds


def pack(folder: Path, out: Path) -> None:
    """Writes a checked adapter to `out`: an archive where it ends in .tar.gz, else a folder that is not there yet."""
    if out.exists():
        raise AdapterError(f"{out}: exists; name another place or remove it first")
    if out.suffix.lower() in OTHER and not out.name.endswith(".tar.gz"):
        raise AdapterError(f"{out}: no such archive is written; end it in .tar.gz, or name a folder")
    card = adapter.read_json(folder / adapter.CARD)
    inner = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = sorted(name for name in inner if verify.limit(name) and name not in MADE)
    made = {"README.md": model_card(card), "recipe.yaml": _yaml(card.get("recipe", {}))}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".export-", dir=out.parent))
    try:
        inside = temporary / str(card.get("domain") or "adapter")
        inside.mkdir()
        for name in names:
            (inside / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, inside / name)
        for name, text in made.items():
            (inside / name).write_text(text, encoding="utf-8", errors="replace")
        if out.name.endswith(".tar.gz"):
            _write_tar(inside, sorted([*names, *made]), temporary / "archive")
            os.replace(temporary / "archive", out)
        else:
            inside.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """A private copy of an adapter's folder or archive, for as long as it is looked at.

    Raises: AdapterError for what no adapter holds; nothing is ever written outside the copy.
    """
    above = Path(tempfile.mkdtemp(prefix="llmrec-"))
    try:
        copy = above / "adapter"
        if source.is_dir():
            if problems := verify.files(source):
                raise AdapterError(f"{source}: {'; '.join(problems)}")
            shutil.copytree(source, copy, symlinks=True)
        elif source.is_file():
            copy.mkdir()
            _read_tar(source, copy)
        else:
            raise AdapterError(f"{source}: no such folder or archive")
        yield copy
    finally:
        shutil.rmtree(above, ignore_errors=True)


def model_card(card: dict[str, Any]) -> str:
    """README.md as model hubs read it: YAML front matter, then what an engineer wants to know first."""
    recipe = card.get("recipe", {})
    base = str(card.get("base_model"))
    if base.startswith("/"):  # a path of the machine it was trained on tells nobody anything
        base = PurePosixPath(base).name
    metrics = {k: v for k, v in card.get("validation", {}).items() if isinstance(v, int | float)}
    tasks = list(card.get("prompts", {}))
    front = {
        "base_model": base,
        "library_name": "peft",
        "license": "other",
        "license_name": card.get("licence") or "not stated",
        "tags": ["lora", "recommender", "llmrec", *tasks],
        "metrics": sorted(metrics),  # hubs take names here; the values stand in the table
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in sorted(metrics.items()))
    return f"""---
{_yaml(front)}---

# {card.get("domain")}: a LoRA adapter that recommends {recipe.get("noun", "items")}

Tasks: {", ".join(tasks)}. Base model: {base}, weights {card.get("base_digest")}.
Adapter weights: {card.get("weights")}, trained {card.get("trained")}. The wordings in `prompts/` belong to the weights.

| validation | |
| --- | --- |
{rows}

Licence: {card.get("licence") or "not stated"}

Use: `llmrec adapters import <this archive or folder>`, then `llmrec adapters promote`.
"""


class _Limited(io.RawIOBase):
    """A stream that ends in an error once too much was read: a small archive can hold terabytes."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.left = stream, most

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(min(size, _BLOCK) if size >= 0 else _BLOCK)
        self.left -= len(data)
        if self.left < 0:
            raise AdapterError(f"more than {MAX_BYTES:,} bytes when unpacked; not an adapter")
        return data


class _Entry(tarfile.TarInfo):
    """An entry whose extended headers (long names, times) are short: they are read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        entry = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        if entry.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE) and entry.size > MAX_HEADER:
            raise AdapterError(f"a header of {entry.size:,} bytes, at most {MAX_HEADER:,}")
        return entry

    def _sparse(self, *_: Any) -> Any:
        raise AdapterError("a sparse file, whose map could be of any length; pack whole files")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse  # of each form there is


def _read_tar(archive: Path, folder: Path) -> None:
    """Only what an adapter may hold, written by us under known names: links, devices and paths have no way in."""
    try:
        with (
            gzip.open(archive, "rb") as stream,
            tarfile.open(fileobj=_Limited(stream, MAX_BYTES), mode="r|", tarinfo=_Entry) as tar,  # type: ignore[call-overload]
        ):
            tops: set[str] = set()
            for count, member in enumerate(tar, 1):
                if count > MAX_ENTRIES:
                    raise AdapterError(f"more than {MAX_ENTRIES} entries")
                if member.isdir() and len(PurePosixPath(member.name).parts) <= 2 and ".." not in member.name:
                    continue
                top, _, name = member.name.removeprefix("./").partition("/")
                if not verify.limit(name):
                    top, name = "", member.name.removeprefix("./")
                most = verify.limit(name)
                tops.add(top)
                if not member.isreg() or most is None or "/" in top or top in ("..", "~") or len(tops) > 1:
                    raise AdapterError(f"entry {member.name[:100]!r} does not belong in an adapter's archive")
                if member.size > most:
                    raise AdapterError(f"entry {name}: {member.size:,} bytes, at most {most:,}")
                target = folder / name
                if target.exists():
                    raise AdapterError(f"entry {name} is there twice")
                target.parent.mkdir(exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None  # a regular file has content
                with target.open("xb") as out:
                    shutil.copyfileobj(content, out, _BLOCK)
    except AdapterError as error:
        raise AdapterError(f"{archive}: {error}; nothing was imported") from None
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError, RecursionError) as error:
        raise AdapterError(f"{archive}: not a whole .tar.gz ({error}); fetch or export it again") from None


def _write_tar(folder: Path, names: list[str], out: Path) -> None:
    """No times, owners or names of machines: equal files make equal bytes."""
    with (
        out.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in names:
            entry = tarfile.TarInfo(f"{folder.name}/{name}")
            entry.size, entry.mode = (folder / name).stat().st_size, 0o644
            with (folder / name).open("rb") as content:
                tar.addfile(entry, content)


def _yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
