"""Locks: one at a time, and one line with the way out where a lock cannot be had."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE
from filelock import FileLock, Timeout

from llmrec import config, prepare
from llmrec.errors import AdapterError, AssetError, DataError, LlmrecError
from llmrec.hub import table
from llmrec.locks import locked
from llmrec.model import store

ROOT = Path(__file__).parent.parent


def test_it_is_held_until_the_end_and_then_free(tmp_path: Path) -> None:
    place = tmp_path / "new" / "x.lock"
    for _ in range(2):
        with locked(place, DataError), pytest.raises(Timeout):
            FileLock(place, is_singleton=False).acquire(timeout=0)


def test_whoever_holds_it_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    place = tmp_path / "x.lock"
    code = (
        "import sys; from pathlib import Path; from llmrec.errors import DataError; from llmrec.locks import locked\n"
        "with locked(Path(sys.argv[1]), DataError): print('in', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(place)]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert other.stdin and other.stdout and other.stdout.readline() == b"in\n"
    acquire = FileLock.acquire

    def acquired(lock: FileLock, timeout: float = -1):
        if timeout < 0:  # now it waits: the other may go
            other.stdin.close()
        return acquire(lock, timeout)

    monkeypatch.setattr(FileLock, "acquire", acquired)
    with locked(place, DataError, doing="fetches films"):
        assert other.wait(PATIENCE) == 0
    assert capsys.readouterr().err == "waiting for another process that fetches films …\n"
    other.stdout.close()


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def looping(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(dangling, "symbolic link"), (looping, "symbolic link"), (Path.mkdir, "folder")],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_plain_file_is_named(tmp_path: Path, make, kind: str) -> None:
    place = tmp_path / "x.lock"
    make(place)
    message = f"^films: {place}: a lock is a plain file, and this is a {kind}; delete it$"
    with pytest.raises(AssetError, match=message), locked(place, AssetError, what="films: "):
        pass
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOLCK])
def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch, number: int) -> None:
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), "x")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    message = f"^{tmp_path}: cannot be written: {os.strerror(number)}; .*LLMREC_HOME"
    with pytest.raises(DataError, match=message), locked(tmp_path / "x.lock", DataError):
        pass


def test_an_error_inside_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="ours"), locked(tmp_path / "x.lock", DataError):
        raise OSError("ours")


def prepared() -> None:
    lock = config.home() / "data" / ".films.lock"
    lock.parent.mkdir(parents=True)
    looping(lock)
    prepare.prepare(config.Recipe(domain="films", data=config.DataSource(path="none.csv")))


def kept() -> None:
    store.kept("films").mkdir(parents=True)
    dangling(store.kept("films") / ".lock")
    with store.lock("films"):
        pass


def fetched() -> None:
    (config.home() / "hub").write_text("no folder")
    table("hub:a/b")


@pytest.mark.parametrize(("use", "error"), [(prepared, DataError), (kept, AdapterError), (fetched, AssetError)])
def test_users_of_locks_say_it_in_one_line(use, error: type[LlmrecError], tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("datasets") if use is fetched else None
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path))
    with pytest.raises(error, match="delete it|cannot be written: (Not a directory|File exists)"):
        use()
