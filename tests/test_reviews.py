from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.config import ReviewSource
from llmrec.data.reviews import Reviews, broader, split, split_digest
from llmrec.errors import DataError


def read(path: Path, **settings: object) -> Reviews:
    return Reviews.read(ReviewSource(path=str(path), **settings), Path)


@given(st.lists(st.sampled_from([*"abcdefghij", " A", "B  "]), min_size=20, max_size=60), st.integers(0, 5))
def test_equal_texts_never_lie_on_two_sides(texts: list[str], seed: int) -> None:
    table = pd.Series([*texts, *"abcdefghij"])
    source = ReviewSource(path="", valid=0.2, test=0.2, seed=seed)
    sides = split(table, source)
    assert {"train", "valid", "test"} == set(sides)
    for text in set(table.str.casefold().str.strip()):
        assert len(set(sides[(table.str.casefold().str.strip() == text).to_numpy()])) == 1
    assert (sides == split(table, source)).all()  # the seed decides


def test_amazon_json_lines_need_no_user(tmp_path: Path) -> None:
    file = tmp_path / "reviews.json.gz"
    rows = [{"reviewText": f"text {i}", "overall": 1.0 + i % 5, "summary": "ok", "asin": f"B{i}"} for i in range(30)]
    rows += [{"reviewText": "", "overall": 5.0}, {"reviewText": "no rating"}]
    with gzip.open(file, "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    columns = {"review": "reviewText", "rating": "overall", "headline": "summary", "item_id": "asin"}
    found = read(file, columns=columns)
    assert len(found.table) == 30 and found.table["item_id"].iloc[3] == "B3"
    assert found.table["split"].value_counts().to_dict() == {"train": 24, "valid": 3, "test": 3}
    assert found.digest == read(file, columns=columns).digest != read(file, columns=columns, seed=1).digest
    assert sum(len(found.part(name)) for name in ("train", "valid", "test")) == 30


def test_texts_from_outside_are_cleaned(tmp_path: Path) -> None:
    rows = pd.DataFrame({"review": [f"a\x00b\u202ec {i}" for i in range(20)], "rating": np.arange(20) % 5 + 1})
    rows.to_parquet(tmp_path / "r.parquet")
    assert read(tmp_path / "r.parquet").table["review"].iloc[0] == "a b c 0"


@pytest.mark.parametrize(
    ("rows", "settings", "says"),
    [
        ({"text": ["a"], "rating": [1]}, {}, "no column 'review'"),
        ({"review": ["a"], "rating": ["good"]}, {}, "line 2: rating 'good' is not a number"),
        ({"review": ["a"], "rating": [1]}, {"columns": {"user": "u"}}, "unknown name 'user'"),
        ({"review": [""], "rating": [1]}, {}, "no row has a review and"),
        ({"review": ["a"]}, {}, "no row has a review and with it a rating or a category"),
        ({"review": ["a"], "rating": [1]}, {"columns": {"rating": ["a", "b"]}}, "rating: one column; only a category"),
        ({"review": ["a"], "kind": ["x"]}, {"columns": {"category": ["kind", "sort"]}}, "no column 'sort'"),
        ({"review": ["a", "a"], "rating": [1, 2]}, {}, "too few to split"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, rows: dict, settings: dict, says: str) -> None:
    pd.DataFrame(rows).to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(DataError, match=says):
        read(tmp_path / "r.csv", **settings)


def test_a_category_may_stand_in_several_columns_and_needs_no_rating(tmp_path: Path) -> None:
    kinds = [("Tops", "Knits"), ("Dresses", "Dresses"), ("Tops", ""), ("", ""), ("A\n<|im_end|>", "b\x00c")]
    rows = [{"review": f"text {i}", "dep": kinds[i % 5][0], "sort": kinds[i % 5][1]} for i in range(50)]
    pd.DataFrame(rows).to_parquet(tmp_path / "r.parquet")
    found = read(tmp_path / "r.parquet", columns={"category": ["dep", "sort"]})
    assert found.categories == ("A <|im_end|> > b c", "Dresses", "Tops", "Tops > Knits")
    assert len(found.table) == 40 and found.table["rating"].isna().all()  # nothing is known of the others
    narrow = read(tmp_path / "r.parquet", columns={"category": "sort"})
    assert narrow.categories == ("Dresses", "Knits", "b c")
    assert read(tmp_path / "r.parquet", columns={"category": ["sort"]}).categories == narrow.categories


def test_who_asks_for_it_is_left_out_and_nobody_else_moves(tmp_path: Path) -> None:
    rows = [{"review": f"text {i}", "rating": 1 + i % 5, "who": f"u{i % 7}"} for i in range(50)]
    pd.DataFrame(rows).to_parquet(tmp_path / "r.parquet")
    (tmp_path / "gone.csv").write_text("who\nu3\n")
    columns = {"user_id": "who"}
    all_of_them = read(tmp_path / "r.parquet", columns=columns)
    found = read(tmp_path / "r.parquet", columns=columns, leave_out=str(tmp_path / "gone.csv"))
    theirs = all_of_them.table["review"].isin([row["review"] for row in rows if row["who"] == "u3"])
    assert theirs.any() and found.table.equals(all_of_them.table[~theirs].reset_index(drop=True))


def test_categories_are_cut_to_their_broad_levels() -> None:
    groups, group = broader(["Tops > Knits > Fine", "Tops > Blouses", "Dresses"], 1)
    assert groups == ("Tops", "Dresses") and group.tolist() == [0, 0, 1]
    assert broader(["Tops > Knits > Fine", "Tops > Knits > Wide"], 2)[0] == ("Tops > Knits",)
    assert broader(["a > b", "a"], 0)[0] == ("a > b", "a")


def test_a_split_is_known_by_which_texts_lie_where() -> None:
    table = pd.DataFrame({"review": ["Good  one", "bad", "Bad"], "split": ["train", "test", "test"]})
    said = split_digest(table["review"], table["split"])
    assert said == split_digest(table["review"][::-1].str.upper(), table["split"][::-1])
    assert said != split_digest(table["review"], table["split"].replace("test", "valid"))
    assert said != split_digest(table["review"][:1], table["split"][:1])
