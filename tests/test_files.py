"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from llmrec.files import LEFT_OVER, NEW, WRITING, sweep, unfinished, whole


@pytest.mark.parametrize("synced", [False, True])
def test_a_file_changes_in_one_step(tmp_path: Path, synced: bool) -> None:
    file = tmp_path / "chart.png"
    file.write_text("old")
    with whole(file, synced=synced) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
        assert partial.parent == tmp_path and partial.suffix == ".png"  # writers go by the ending
        assert unfinished(partial) and not unfinished(file)
    assert file.read_text() == "new"
    assert [*tmp_path.iterdir()] == [file]


def test_after_an_error_nothing_has_changed(tmp_path: Path) -> None:
    file, folder = tmp_path / "card.json", tmp_path / "merged"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), whole(file) as partial:
        partial.write_text("ne")
        1 / 0  # noqa: B018
    with pytest.raises(ZeroDivisionError), whole(folder) as partial:
        partial.mkdir()
        (partial / "weights").write_text("")
        1 / 0  # noqa: B018
    assert file.read_text() == "old"
    assert [*tmp_path.iterdir()] == [file]


def test_a_full_disk_is_said_as_such_by_safetensors_too(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    with pytest.raises(OSError, match="No space left") as full, whole(file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert full.value.errno == errno.ENOSPC and full.value.filename == str(file)
    with pytest.raises(SafetensorError), whole(file):
        raise SafetensorError("Error while serializing: a tensor of another kind")
    assert [*tmp_path.iterdir()] == []


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    file, folder, usual = tmp_path / "weights.safetensors", tmp_path / "base", tmp_path / "usual"
    usual.touch()
    with whole(file) as partial:
        save_file({"a": np.zeros(2)}, partial)
    with whole(folder) as partial:
        partial.mkdir()
        save_file({"a": np.zeros(2)}, partial / "weights.safetensors")
    for one in (file, folder / "weights.safetensors"):
        assert one.stat().st_mode == usual.stat().st_mode
    assert folder.stat().st_mode & 0o700 == 0o700


def test_two_processes_never_share_an_unfinished_file(tmp_path: Path) -> None:
    with whole(tmp_path / "card.json") as one, whole(tmp_path / "card.json") as other:  # in containers, both number 1
        assert one != other and one.parent == other.parent == tmp_path
        one.write_text("1")
        other.write_text("2")
    assert [*tmp_path.iterdir()] == [tmp_path / "card.json"]


def test_what_killed_processes_left_is_swept_after_a_day(tmp_path: Path) -> None:
    new = {tmp_path / f"{WRITING}0123abcd-now", tmp_path / f"{NEW}abcd_123"}
    others = {tmp_path / "card", tmp_path / f"{NEW}website", tmp_path / f"{WRITING}thesis"}  # somebody's own
    kept, file = {*new, *others}, tmp_path / f"{WRITING}1-card.json"
    left = {tmp_path / f"{WRITING}0123abcd-merged", tmp_path / f"{NEW}abcd_124", file}
    for path in {*kept, *left} - {file}:
        path.mkdir()
        (path / "weights").write_text("")
    file.write_text("{")
    for path in {*left, *others}:
        os.utime(path, (0, time.time() - LEFT_OVER - 60))
    sweep(tmp_path)
    assert {*tmp_path.iterdir()} == kept


def test_a_folder_appears_whole_and_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    with whole(folder) as partial:
        partial.mkdir()
        (partial / "weights").write_text("1")
        assert not folder.exists()
    with pytest.raises(OSError), whole(folder) as partial:
        partial.mkdir()
        (partial / "weights").write_text("2")
    assert (folder / "weights").read_text() == "1"
    assert [*tmp_path.iterdir()] == [folder]
