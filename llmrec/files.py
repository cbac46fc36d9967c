"""Files and folders that are whole or not there, whenever a process dies."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import secrets
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from fsspec.compression import compr
from fsspec.utils import infer_compression
from safetensors import SafetensorError


def _of_zstandard() -> Iterator[type[Exception]]:
    for name in ("zstandard", "compression.zstd"):  # a package; Python's own from 3.14 on
        with suppress(ImportError):
            yield import_module(name).ZstdError


UNREADABLE: tuple[type[Exception], ...] = (
    OSError, EOFError, ImportError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, *_of_zstandard(),
)  # fmt: skip
"""What reading a file raises, compressed or not."""

_UMASK = os.umask(0o077)  # it cannot be read without being set
os.umask(_UMASK)
WRITING = ".writing-"  # what the names of unfinished files and folders begin with
NEW = ".new-"  # the same of folders in which others are made
_OURS = re.compile(rf"{re.escape(WRITING)}([0-9a-f]{{8}}|\d+)-.+|{re.escape(NEW)}[a-z0-9_]{{8}}")
LEFT_OVER = 86_400  # seconds after which what is unfinished was left by a process that was killed


@contextmanager
def whole(path: Path, *, synced: bool = False) -> Iterator[Path]:
    """A path of this process's own beside `path`, to write a file to or to make a folder at; in the end it takes the
    place of `path` in one step.  After an error `path` is as it was, and nothing else is left.

    A file may be there already, a full folder may not: exchanging two is `store.exchange`.

    Args:
        synced: file or folder is on the disk, under its name, when this returns: for what must outlive the machine.
    """
    partial = path.with_name(f"{WRITING}{secrets.token_hex(4)}-{path.name}")  # containers may share a folder
    try:
        yield partial
        _shared(partial)
        if synced:
            for inside in [*partial.rglob("*"), partial]:
                _sync(inside)
        os.replace(partial, path)
        if synced:
            _sync(path.parent)
    except SafetensorError as error:
        if not (found := re.search(r"os error (\d+)", str(error))):
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
    finally:
        _remove(partial)


COMPRESSED = (".gz", ".bz2", ".xz", ".lzma", ".zip", ".zst", ".zstd")


def decompressed(raw: Any, name: str) -> Any:
    """What an open file holds, as bytes to be read: decompressed where its name ends like one of `COMPRESSED`.

    Raises: OSError where this Python has no such codec, and for an archive of any number of files but one.
    """
    if not name.lower().endswith(COMPRESSED):
        return raw
    if (codec := infer_compression(name.lower().removesuffix("d"))) is None:  # .zstd is .zst
        raise OSError("this Python cannot decompress it; for .zst: pip install zstandard")
    if codec == "zip":
        with zipfile.ZipFile(raw) as archive:
            if len(files := archive.namelist()) != 1:
                raise OSError(f"an archive of {len(files)} files; unpack it and name one")
        raw.seek(0)
    return compr[codec](raw, mode="rb")


def digest(path: Path) -> str:
    """First 12 hex digits of the SHA-256 of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()[:12]


def sweep(folder: Path) -> None:
    """Deletes what processes that were killed have left in a folder of ours a day ago or earlier, as far as it may."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if _OURS.fullmatch(path.name) and time.time() - path.lstat().st_mtime > LEFT_OVER:
                    _remove(path)


def unfinished(path: Path) -> bool:
    """Whether it is what a process that died has left."""
    return path.name.startswith(WRITING)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _shared(path: Path) -> None:
    """Weights get the mode that the user's umask asks for: safetensors writes them for their owner alone, and then a
    server under another account cannot read them."""
    for file in [path, *path.rglob("*.safetensors")]:
        if file.suffix == ".safetensors" and file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~_UMASK)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
