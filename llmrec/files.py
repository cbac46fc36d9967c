"""Files and folders that are whole or not there, whenever a process dies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITING = ".writing-"  # what the names of unfinished files and folders begin with


@contextmanager
def whole(path: Path, *, synced: bool = False) -> Iterator[Path]:
    """A path of this process's own beside `path`, to write a file to or to make a folder at; in the end it takes the
    place of `path` in one step.  After an error `path` is as it was, and nothing else is left.

    A file may be there already, a full folder may not: exchanging two is `store.exchange`.

    Args:
        synced: the file is on the disk, under its name, when this returns: for what must outlive the machine.
    """
    partial = path.with_name(f"{WRITING}{os.getpid()}-{path.name}")
    try:
        yield partial
        if synced:
            _sync(partial)
        os.replace(partial, path)
        if synced:
            _sync(path.parent)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def unfinished(path: Path) -> bool:
    """Whether it is what a process that died has left."""
    return path.name.startswith(WRITING)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
