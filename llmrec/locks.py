"""Lock files: what is made once, or changed by one process at a time, and a line where a lock cannot be had."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from llmrec.errors import LlmrecError

QUIET = 1.0  # seconds of waiting before anything is said


@contextmanager
def locked(path: Path, error: type[LlmrecError], *, doing: str = "", what: str = "") -> Iterator[None]:
    """Holds the lock `path`, whose folder is made; waits for whoever holds it.

    Args:
        doing: what the process waited for does, said once where the wait is long; nothing is said without it.
        what: whose lock it is, before the message of an error.
    Raises: `error` where the folder or the lock cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=QUIET if doing else -1)
        except Timeout:
            print(f"waiting for another process that {doing} …", file=sys.stderr)
            lock.acquire()
    except (OSError, NotImplementedError) as problem:  # NotImplementedError: a file system without locks
        raise error(f"{what}{_reason(path, problem)}") from None
    try:
        yield
    finally:
        lock.release()


def _reason(path: Path, problem: Exception) -> str:
    if (link := os.path.islink(path)) or os.path.isdir(path):
        kind = "symbolic link" if link else "folder"
        return f"{path}: a lock is a plain file, and this is a {kind}; delete it"
    reason = getattr(problem, "strerror", None) or problem
    at = path if os.path.exists(path) else path.parent
    return f"{at}: cannot be written: {reason}; make it writable, or set LLMREC_HOME to a folder that can be written"
