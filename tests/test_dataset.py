"""A dataset is sorted and complete, survives the disk, and notices what happened to its folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec.data.dataset import FILES, Dataset, new_basket, read_manifest
from llmrec.errors import DataError


def events(*rows: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture
def dataset() -> Dataset:
    items = pd.DataFrame(
        {"item_id": ["b", "a"], "title": ["Bé", None], "year": [1999, None], "categories": [["Drama"], None],
         "price": [1.5, 2.0]}
    )  # fmt: skip
    users = pd.DataFrame({"user_id": ["v", "silent"], "age": ["30", None]})
    return Dataset.of(events(("u", "a", 5), ("v", "b", 1), ("u", "c", 2), ("u", "b", 5)), items, users)


def test_sorted_by_user_of_first_appearance_then_time_then_source(dataset):
    rows = dataset.interactions[["user_id", "item_id", "timestamp"]].to_numpy().tolist()
    assert rows == [["u", "c", 2], ["u", "a", 5], ["u", "b", 5], ["v", "b", 1]]
    assert dataset.interactions["timestamp"].dtype == np.int64
    assert dataset.interactions["rating"].dtype == np.float32 and dataset.interactions["rating"].isna().all()
    assert dataset.interactions["review"].isna().all()


def test_every_item_and_user_has_a_row(dataset):
    assert dataset.items["item_id"].tolist() == ["b", "a", "c"]
    assert dataset.items["title"].tolist() == ["Bé", "a", "c"]  # titled by the id where there is no title
    assert dataset.items["year"].tolist() == [1999, pd.NA, pd.NA]
    assert dataset.items["categories"].tolist() == [["Drama"], [], []]
    assert list(dataset.items) == ["item_id", "title", "year", "categories"]  # nothing reads a price
    assert dataset.users["user_id"].tolist() == ["v", "silent", "u"]


def test_interactions_alone_are_enough():
    alone = Dataset.of(events(("u", "a", 1)))
    (item,) = alone.items.to_dict("records")
    assert item["item_id"] == item["title"] == "a" and pd.isna(item["year"]) and item["categories"] == []
    assert alone.users["user_id"].tolist() == ["u"]


def test_counts_and_ties(dataset):
    assert dataset.counts() == {"users": 3, "items": 3, "categories": 1, "interactions": 4}
    assert new_basket(dataset.interactions).tolist() == [True, True, False, True]
    assert dataset.ties() == 1 / 4
    assert Dataset.of(events()).ties() == 0


def test_equal_times_of_two_users_are_no_basket():
    assert Dataset.of(events(("u", "a", 1), ("v", "b", 1))).ties() == 0


def test_saved_and_loaded_are_equal(dataset, tmp_path):
    dataset.save(tmp_path / "d", {"domain": "films"})
    back = Dataset.load(tmp_path / "d")
    for name in ("interactions", "items", "users"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(dataset, name))
    assert all(type(names) is list for names in back.items["categories"])
    assert back.timed


def test_the_manifest_explains_the_folder(dataset, tmp_path):
    dataset.save(tmp_path, {"domain": "films"})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*FILES, "manifest.json"])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["domain"] == "films" and manifest["format"] == 1 and manifest["ties"] == 0.25
    assert manifest["counts"] == dataset.counts()
    assert manifest["files"].keys() == set(FILES)


def test_a_folder_without_manifest_is_incomplete(dataset, tmp_path):
    assert read_manifest(tmp_path) is None
    dataset.save(tmp_path, {})
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DataError, match="no prepared data.*llmrec prepare"):
        Dataset.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{ half")
    with pytest.raises(DataError, match="no prepared data"):
        Dataset.load(tmp_path)


def test_saving_again_is_incomplete_until_it_is_done(dataset, tmp_path, monkeypatch):
    dataset.save(tmp_path, {})

    def full(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(DataError, match="No space left on device.*LLMREC_HOME"):
        dataset.save(tmp_path, {})
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_noticed(dataset, tmp_path, name):
    dataset.save(tmp_path, {})
    with (tmp_path / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=rf"{name}: changed since it was prepared; delete the folder"):
        Dataset.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Dataset.load(tmp_path)


def test_another_format_is_refused(dataset, tmp_path):
    dataset.save(tmp_path, {})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 0}))
    with pytest.raises(DataError, match="format 0, this version reads 1"):
        Dataset.load(tmp_path)


def test_limits_are_errors(monkeypatch):
    monkeypatch.setattr("llmrec.data.dataset.MAX_INTERACTIONS", 1)
    with pytest.raises(DataError, match="2 interactions; the limit is 1"):
        Dataset.of(events(("u", "a", 1), ("u", "b", 2)))
    monkeypatch.setattr("llmrec.data.dataset.MAX_INTERACTIONS", 2)
    monkeypatch.setattr("llmrec.data.dataset.MAX_ITEMS", 1)
    with pytest.raises(DataError, match="2 items; the limit is 1"):
        Dataset.of(events(("u", "a", 1), ("u", "b", 2)))
