"""Tables of a hub, read by the real `datasets`: a folder stands for the hub."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from llmrec import assets, config, hub
from llmrec.data import sources
from llmrec.errors import AssetError

pytest.importorskip("datasets", reason="extra `hub`")


@pytest.fixture
def owner(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`owner/films` beside us: `datasets` looks there before it asks a hub."""
    folder = tmp_path / "owner" / "films"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = pd.DataFrame({"user": ["a", "a", "b"], "item": ["x", "y", "x"], "title": ["Fargo", "Heat", "Fargo"]})
    rows.to_json(folder / "train.jsonl", orient="records", lines=True)
    rows[:1].to_json(folder / "test.jsonl", orient="records", lines=True)
    return folder


def test_a_hub_table_is_a_source_like_any_other(owner: Path) -> None:
    source = config.DataSource(path="hub:owner/films", columns={"user_id": "user", "item_id": "item"})
    dataset = sources.read(source, assets.resolve)
    assert sorted(dataset.items["title"]) == ["Fargo", "Heat"]
    assert len(dataset.interactions) == 3


def test_it_is_fetched_once_and_splits_are_apart(owner: Path) -> None:
    train, test = hub.table("hub:owner/films"), hub.table("hub:owner/films:test")
    assert (len(pd.read_parquet(train)), len(pd.read_parquet(test))) == (3, 1)
    for file in owner.iterdir():
        file.unlink()
    assert hub.table("hub:owner/films") == train


@pytest.mark.parametrize("address", ["hub:films", "hub:../films", "hub:owner/..", "hub:owner/films/a/b", "hub:a b/c"])
def test_an_address_is_no_path(home: Path, address: str) -> None:
    with pytest.raises(AssetError, match="hub:OWNER/NAME"):
        hub.table(address)


def test_what_the_hub_does_not_give_says_the_way_out(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssetError, match="not fetched.*give the file's path"):
        hub.table("hub:nobody/nothing")
    assert not list((home / "hub").glob("*.parquet"))
