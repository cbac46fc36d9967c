"""Versions of a domain's adapter: `adapters/<domain>/` is served, `adapters/.versions/<domain>/<digest>/` is kept.

Kept beside what is served, not in LLMREC_HOME: a folder changes places in one step only within one file system.
Two folders exchange their names, so a reader finds the old version or the new one, whole; one that reads across the
exchange finds weights that are not those of the card, and is told so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from llmrec import config
from llmrec.errors import AdapterError
from llmrec.files import NEW, WRITING, sweep
from llmrec.locks import locked
from llmrec.model import adapter, verify

RECIPE = "recipe.yaml"
OF_THE_RUN = {"trained", "seconds", "device", "versions"}  # of a card: they change no answer
_SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def kept(domain: str) -> Path:
    """Folder of a domain's versions; it may not exist yet."""
    return config.project() / "adapters" / config.VERSIONS / config.checked_name(domain, "domain")


def versions(domain: str) -> list[str]:
    """Digests of the versions kept, newest training last."""
    found = [path for path in kept(domain).glob("*") if (path / adapter.CARD).is_file() and path.name[0] != "."]
    return [path.name for path in sorted(found, key=lambda path: (_trained(path), path.name))]


def served(domain: str) -> str | None:
    """Digest of the version that is served; None before the first."""
    folder = config.adapter_folder(domain)
    return str(adapter.read_json(folder / adapter.CARD).get("weights")) if (folder / adapter.CARD).is_file() else None


def folder_of(domain: str, version: str) -> Path:
    """Folder of a kept version, by its digest or the first digits.  Raises: RecipeError."""
    return config.adapter_folder(f"{domain}@{version}")


def keep(domain: str, folder: Path, *, anew: bool = False) -> str:
    """Copies a checked adapter among the versions of a domain, whole or not at all.

    Args:
        anew: it takes the place of equal weights with another card (calibrated anew, say); else what is kept stays.
    Returns: its digest.
    """
    card = adapter.read_json(folder / adapter.CARD)
    digest = config.checked_name(str(card.get("weights")), "digest")
    place = kept(domain) / digest
    if _is_whole(place, digest) and (not anew or adapter.read_json(place / adapter.CARD) == card):
        return digest
    with _copy(domain, folder) as copy:
        if place.is_dir():
            exchange(copy, place)
        else:
            copy.rename(place)
    return digest


def lasting(folder: Path) -> Path:
    """Where an adapter's weights lie as long as a server may read them again: the kept version of a domain's, which no
    training or promotion replaces; the folder itself elsewhere, or where none can be kept."""
    folder = folder.resolve()
    if folder.parent != (config.project() / "adapters").resolve():
        return folder
    try:
        with lock(folder.name):
            return (kept(folder.name) / keep(folder.name, folder)).resolve()
    except (OSError, AdapterError):
        return folder


def serve(domain: str, version: str) -> str | None:
    """Makes a kept version the one that is served, in one step.  Returns: the digest served before, which is kept; None
    where there was nothing, or nothing whole.

    The domain's recipe.yaml stays, and whatever else there belongs to no adapter.
    """
    with lock(domain):
        before = _put(domain, version)
        _note(domain, before, version)
    return before


def back(domain: str) -> str:
    """Serves what was served before; what is served now may be damaged.  Weights that were fitted anew, with another
    prior, come back as they were.  Returns: its digest.  Raises: AdapterError where there is nothing."""
    with lock(domain):
        past = history(domain)
        try:
            now = served(domain)
            fitted_anew = now is not None and past[-2:] == [now, now] and _differs(domain, now)
        except AdapterError:  # no card that says so
            now, fitted_anew = past[-1] if past else None, False
        while past[-2:] == [now, now] if fitted_anew else past[-1:] == [now]:
            past.pop()
        if not fitted_anew:
            past = [name for name in past if _is_whole(kept(domain) / name, name)]
        if not past:
            raise AdapterError(
                f"{domain}: nothing was served before; "
                f"`llmrec adapters promote {domain} VERSION --force` serves another"
            )
        if fitted_anew:  # the history says that there is such a fit: killed before it is written, neither card is lost
            _put(domain, past[-1])
        adapter.write_json(kept(domain) / "history.json", {"served": past})
        if not fitted_anew:  # killed before, the next rollback does the same, and not the opposite
            _put(domain, past[-1])
    return past[-1]


def check_place(folder: Path) -> None:
    """Raises, before hours of training, what `rewritten` would in the end, and AdapterError where it would exchange
    what is no adapter's folder for a copy of it, while somebody else writes there."""
    try:
        resolved = folder.resolve()
        loops = resolved.is_symlink()
    except RuntimeError:  # before Python 3.13
        loops = True
    if loops:
        raise AdapterError(f"{folder}: a link that leads back to itself; delete it, or name another folder")
    folder = resolved
    if folder.exists() and not folder.is_dir():
        raise AdapterError(f"{folder}: a file; name a folder for the adapter")
    if folder.parent == (config.project() / "adapters").resolve():  # where what is replaced is kept by this name
        config.checked_name(folder.name, "domain")
    folder.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryDirectory(prefix=NEW, dir=folder.parent).cleanup()
    if folder.is_mount():
        raise AdapterError(f"{folder}: a file system of its own; name a folder in it, e.g. {folder / 'new'}")
    inside = [one.name for one in folder.iterdir() if not one.name.startswith(".")] if folder.is_dir() else []
    if inside and not {RECIPE, adapter.CARD} & {*inside}:
        raise AdapterError(f"{folder}: holds something else than an adapter; name a new folder, e.g. {folder / 'new'}")


@contextmanager
def rewritten(folder: Path) -> Iterator[Path]:
    """A copy of `folder` to write into, empty where there is none yet; in the end it takes the place of `folder` in
    one step, so that a reader finds what was there or what is new, whole.  After an error nothing has changed.  A
    domain's adapter that is replaced is kept as a version, to roll back to."""
    folder = folder.resolve()  # a link stays one
    folder.parent.mkdir(parents=True, exist_ok=True)
    ours = folder.parent == (config.project() / "adapters").resolve()
    if ours:
        sweep(folder.parent)
    above = Path(tempfile.mkdtemp(prefix=NEW, dir=folder.parent))
    try:
        copy = above / folder.name
        if folder.is_dir():
            shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(f"{WRITING}*"))
        else:
            copy.mkdir()
        yield copy
        if (folder / RECIPE).is_file():  # it may have been edited while the copy was written
            shutil.copyfile(folder / RECIPE, copy / RECIPE)
        if not folder.is_dir():
            copy.rename(folder)
        elif ours:
            with lock(folder.name):
                before = _keep_served(folder.name)
                exchange(copy, folder)
                if before:
                    _note(folder.name, before, str(served(folder.name)))
        else:
            exchange(copy, folder)
    finally:
        shutil.rmtree(above, ignore_errors=True)


def remove(domain: str, version: str) -> str:
    """Deletes a kept version.  Returns: its digest.  Raises: AdapterError for the one that is served."""
    folder = folder_of(domain, version)
    if folder.name == served(domain):
        raise AdapterError(f"{domain}: {folder.name} is served; promote another or roll back first")
    with lock(domain):
        doomed = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was killed
        folder.rename(doomed)
        shutil.rmtree(doomed)
    return folder.name


def history(domain: str) -> list[str]:
    """Digests in the order in which they were served, the latest last."""
    file = kept(domain) / "history.json"
    return [str(name) for name in adapter.read_json(file).get("served", [])] if file.is_file() else []


def lock(domain: str) -> AbstractContextManager[None]:
    """One process at a time changes a domain's versions."""
    return locked(kept(domain) / ".lock", AdapterError)


def exchange(a: Path, b: Path) -> None:
    """Two folders of one file system exchange their names in one step (Linux, macOS); elsewhere in three renames."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    names = os.fsencode(a), os.fsencode(b)
    if sys.platform == "darwin":
        done = libc.renamex_np(*names, _SWAP) == 0
    elif hasattr(libc, "renameat2"):
        here = -100  # AT_FDCWD: relative to the working directory
        done = libc.renameat2(here, names[0], here, names[1], _SWAP) == 0
    else:
        done = False
        ctypes.set_errno(errno.ENOSYS)
    if done:
        return
    if (number := ctypes.get_errno()) not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(b))
    between = a.with_name(f"{a.name}.old")
    b.rename(between)
    try:
        a.rename(b)
    except OSError:
        between.rename(b)
        raise
    between.rename(a)


def _put(domain: str, version: str) -> str | None:
    """Serves a copy of a kept version; the lock is the caller's.  Returns: the digest served before, if whole."""
    current = config.adapter_folder(domain)
    with _copy(domain, kept(domain) / version) as copy:  # first: what was served may take its place
        before = _keep_served(domain)
        _own(current, copy)
        exchange(copy, current)
    return before


def _keep_served(domain: str) -> str | None:
    """Keeps what is served; None where that is nothing, or nothing whole.  Returns: its digest."""
    try:
        before = served(domain)
        if before:
            adapter.check(config.adapter_folder(domain))
    except AdapterError:
        return None
    return keep(domain, config.adapter_folder(domain), anew=True) if before else None


def _differs(domain: str, version: str) -> bool:
    """Whether the version that is served is kept whole, with a card by which it answers otherwise than now."""
    now = adapter.read_json(config.adapter_folder(domain) / adapter.CARD)
    place = kept(domain) / version
    if not _is_whole(place, version):
        return False
    return answers_differ(adapter.read_json(place / adapter.CARD), now)


def kept_otherwise(domain: str, card: Mapping[str, Any]) -> bool:
    """Whether weights like those of a card are kept, whole, with another one by which they answer otherwise."""
    place = kept(domain) / config.checked_name(str(card.get("weights")), "digest")
    return _is_whole(place, place.name) and answers_differ(adapter.read_json(place / adapter.CARD), card)


def answers_differ(card: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two cards of equal weights differ in what decides answers: prompts, the prior's weight, temperatures."""
    return any(card.get(key) != other.get(key) for key in {*card, *other} - OF_THE_RUN)


def _is_whole(place: Path, digest: str) -> bool:
    """Whether a version is kept with the weights that it is named after: a disk may have lost some."""
    try:
        adapter.check(place)
        return bool(adapter.read_json(place / adapter.CARD).get("weights") == digest)
    except AdapterError:
        return False


def _belongs(name: str) -> bool:
    """Whether what is called so in an adapter's folder is part of one."""
    return name == "prompts" or verify.limit(name) is not None


def _own(current: Path, copy: Path) -> None:
    """Takes over what is the domain's or somebody's own, not the adapter's."""
    for path in current.iterdir():
        if path.name == RECIPE or not _belongs(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, copy / path.name, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(path, copy / path.name, follow_symlinks=False)


def _note(domain: str, before: str | None, now: str) -> None:
    """Writes down that `now` is served after `before`."""
    there = {*versions(domain)}
    past = [name for name in history(domain) if name in there]
    if before and past[-1:] != [before]:
        past.append(before)
    adapter.write_json(kept(domain) / "history.json", {"served": [*past, now]})


@contextmanager
def _copy(domain: str, folder: Path) -> Iterator[Path]:
    """A copy of an adapter beside the versions; what lies there in the end, if anything, is deleted."""
    kept(domain).mkdir(parents=True, exist_ok=True)
    sweep(kept(domain))
    above = Path(tempfile.mkdtemp(prefix=NEW, dir=kept(domain)))
    try:
        copy = above / "adapter"
        shutil.copytree(
            folder, copy, symlinks=True,
            ignore=lambda place, names: [name for name in names if Path(place) == folder and not _belongs(name)],
        )  # fmt: skip
        os.chmod(copy, 0o755)
        yield copy
    finally:
        shutil.rmtree(above, ignore_errors=True)


def _trained(folder: Path) -> str:
    """When; a card that cannot be read counts as the oldest, and stands in nobody's way."""
    try:
        return str(adapter.read_json(folder / adapter.CARD).get("trained", ""))
    except AdapterError:
        return ""
