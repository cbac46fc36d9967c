"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from llmrec.files import unfinished, whole


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


@pytest.mark.parametrize("name", ["merged", "card.json"])
def test_what_a_killed_process_left_is_not_gone_on_with(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZeroDivisionError), whole(tmp_path / name) as left:
        1 / 0  # noqa: B018
    left.mkdir()  # process numbers come back, in a container soon
    (left / "stale").write_text("")
    with whole(tmp_path / name) as partial:
        assert partial == left and not left.exists()
        partial.write_text("{}")
    assert [*tmp_path.iterdir()] == [tmp_path / name]


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
