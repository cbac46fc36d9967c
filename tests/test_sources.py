"""Files as people have them become one dataset; what cannot be read says where, what, and the way out."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import sys
import zipfile
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec import config
from llmrec.data.dataset import Dataset
from llmrec.data.records import MAX_TITLE_CHARS, one_line, paragraphs
from llmrec.data.sources import film, read, stamp
from llmrec.errors import DataError


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def table(path: str, **settings: object) -> Dataset:
    return read(config.DataSource.model_validate({"path": path, **settings}), Path)


def rows(dataset: Dataset) -> list[list[object]]:
    return dataset.interactions[["user_id", "item_id", "timestamp"]].to_numpy().tolist()


def titles(dataset: Dataset) -> dict[str, str]:
    return dict(zip(dataset.items["item_id"], dataset.items["title"], strict=True))


# ── RecBole ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def recbole(tmp_path) -> config.DataSource:
    inter = ["user_id:token\titem_id:token\trating:float\ttimestamp:float",
             "7\t10\t3\t200", "8\t12\t4.5\t100", "7\t11\t\t100.9"]  # fmt: skip
    item = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tprice:float",
            "10\tMatrix, The\t1999\tAction Sci-Fi\t2.5", '11\t"Quoted\tV\tunknown\t',
            "12\tLast (1995)\tV\tDrama Drama\t1"]  # fmt: skip
    write(tmp_path / "films.inter", "\n".join(inter))
    write(tmp_path / "films.item", "\n".join(item))
    write(tmp_path / "films.user", "user_id:token\tage:token\n8\t24\n7\t\n")
    return config.DataSource(format="recbole", path=str(tmp_path))


def test_recbole_atomic_files(recbole):
    dataset = read(recbole, Path)
    assert rows(dataset) == [["7", "11", 100], ["7", "10", 200], ["8", "12", 100]]
    assert dataset.interactions["rating"].fillna(-1).tolist() == [-1, 3, 4.5]
    assert dataset.items["title"].tolist() == ["The Matrix", '"Quoted', "Last"]
    assert dataset.items["year"].tolist() == [1999, pd.NA, 1995]
    assert dataset.items["categories"].tolist() == [["Action", "Sci-Fi"], [], ["Drama"]]
    assert dataset.users["user_id"].tolist() == ["8", "7"]
    assert list(dataset.users) == ["user_id"]  # nothing reads an age, so none is copied
    assert dataset.timed


def test_recbole_without_item_and_user_files(recbole, tmp_path):
    (tmp_path / "films.item").unlink()
    (tmp_path / "films.user").unlink()
    assert titles(read(recbole, Path)) == {"11": "11", "10": "10", "12": "12"}
    assert read(config.DataSource(format="recbole", path=str(tmp_path / "films.inter")), Path).counts()["users"] == 2


def test_recbole_other_titles_are_left_as_they_are(tmp_path):
    write(tmp_path / "a.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\tx\t1\n")
    write(tmp_path / "a.item", "item_id:token\ttitle:token_seq\nx\tVitamin B, A (2020)\n")
    assert titles(read(config.DataSource(format="recbole", path=str(tmp_path)), Path)) == {"x": "Vitamin B, A (2020)"}


def test_recbole_sequential_files_hold_each_event_once(tmp_path):
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    write(tmp_path / "s.train.inter", head + "1\t0\t1\n0\t0 1\t2\n0\t0\t1\n")
    write(tmp_path / "s.valid.inter", head + "1\t0 1\t2\n0\t0 1 2\t0\n")
    write(tmp_path / "s.test.inter", head + "0\t0 1 2 0\t1\n1\t0 1 2\t0\n")
    write(tmp_path / "s.item2index", "A\t0\nB\t1\nC\t2\n")
    write(tmp_path / "s.user2index", "ann\t0\nbob\t1\n")
    write(tmp_path / "s.text", "item_id:token\ttext:token_seq\nA\tAn anvil\nB\tA bell\nC\tA cup\n")
    dataset = read(config.DataSource(format="recbole", path=str(tmp_path)), Path)
    assert rows(dataset) == [["bob", i, t] for t, i in enumerate("ABCA")] + [
        ["ann", i, t] for t, i in enumerate("ABCAB")
    ]
    assert titles(dataset) == {"A": "An anvil", "B": "A bell", "C": "A cup"}
    assert not dataset.timed

    write(tmp_path / "s.item2index", "A\t0\nB\t1\n")
    with pytest.raises(DataError, match=r"line 3 of s.test.inter: item_id '2' is not in s.item2index"):
        read(config.DataSource(format="recbole", path=str(tmp_path)), Path)


@pytest.mark.parametrize(
    "content, problem",
    [
        ("user_id,item_id\n1,2\n", r"line 1: column 'user_id,item_id' has no type; .*`table`\?"),
        ("user_id:token\titem:token\n1\t2\n", r"no column 'item_id'; did you mean 'item'\?"),
        ("user_id:token\titem_id:token\n1\t2\n1\n", r"line 3: 1 fields for 2 columns"),
        ("user_id:token\titem_id:token\n1\t2\n1\t\n", r"line 3: item_id is empty"),
        ("user_id:token\titem_id:token\n1\t2\n1\t2\t3\n", r"line 3: 3 fields, the header has 2"),
        ("user_id:token\titem_id:token\n1\t2\t3\n", r"line 2 has more fields than the header"),
        ("user_id:token\titem_id:token\titem_id:float\n1\t2\t3\n", r"column 'item_id' appears twice"),
        ("user_id:token\titem_id:token\n", r"films.inter: no rows"),
    ],
)
def test_recbole_mistakes(recbole, tmp_path, content, problem):
    write(tmp_path / "films.inter", content)
    with pytest.raises(DataError, match=problem):
        read(recbole, Path)


def test_recbole_needs_interactions(tmp_path):
    with pytest.raises(DataError, match="no .inter file"):
        read(config.DataSource(format="recbole", path=str(tmp_path)), Path)


# ── MovieLens ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "written, title, year",
    [
        ("Toy Story (1995)", "Toy Story", "1995"),
        ("American President, The (1995)", "The American President", "1995"),
        ("Boot, Das (Boat, The) (1981)", "Das Boot (The Boat)", "1981"),
        ("Eye of Vichy, The (Oeil de Vichy, L') (1993)", "The Eye of Vichy (L'Oeil de Vichy)", "1993"),
        (
            "His Secret Life (a.k.a. Ignorant Fairies, The) (2001)",
            "His Secret Life (a.k.a. The Ignorant Fairies)",
            "2001",
        ),
        ("Cool, Dry Place, A (1998)", "A Cool, Dry Place", "1998"),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", "1968"),
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", "2006"),
        ("96 Minutes (2011) ", "96 Minutes", "2011"),
        ("Babylon 5", "Babylon 5", None),
        ("Bye Bye, Love", "Bye Bye, Love", None),
        ("(1999)", "", "1999"),
        ("", "", None),
    ],
)
def test_film_titles(written, title, year):
    assert film(written) == (title, year)


def test_movielens_latest(tmp_path):
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,11,4.0,964982703\n1,1,3.5,964981247\n")
    write(tmp_path / "movies.csv", 'movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n'
          '11,"American President, The (1995)",Comedy\n40697,Babylon 5,(no genres listed)\n')  # fmt: skip
    for path in (tmp_path, tmp_path / "ratings.csv"):
        dataset = read(config.DataSource(format="movielens", path=str(path)), Path)
        assert rows(dataset) == [["1", "1", 964981247], ["1", "11", 964982703]]
        assert dataset.items["title"].tolist() == ["Toy Story", "The American President", "Babylon 5"]
        assert dataset.items["year"].tolist() == [1995, 1995, pd.NA]
        assert dataset.items["categories"].tolist() == [["Animation", "Comedy"], ["Comedy"], []]


def test_movielens_names_the_missing_file(tmp_path):
    write(tmp_path / "rating.csv", "userId,movieId,rating,timestamp\n")
    with pytest.raises(DataError, match=r"ratings.csv: no such file or folder; did you mean 'rating.csv'"):
        read(config.DataSource(format="movielens", path=str(tmp_path)), Path)


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = {"user_id": "who", "item_id": "asin", "timestamp": "when", "rating": "stars", "review": "text"}
RECORDS = [
    {"who": "ann", "asin": "B1", "when": 30, "stars": 5, "text": "Good.\nVery."},
    {"who": "bob", "asin": "B2", "when": 10, "stars": 1, "text": ""},
    {"who": "ann", "asin": "B2", "when": 20, "stars": None, "text": None},
]


def save(records: list[dict], path: Path) -> str:
    if ".json" in path.name:
        text = "".join(json.dumps(record) + "\n" for record in records).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        return str(path)
    frame = pd.DataFrame(records)
    if ".parquet" in path.name:
        frame.to_parquet(path, compression="brotli" if path.suffix == ".brotli" else "snappy")
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return str(path)


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.json.gz", "a.parquet", "a.parquet.brotli", "A.CSV"]
)
def test_every_kind_of_table_reads_alike(tmp_path, name):
    dataset = table(save(RECORDS, tmp_path / name), columns=COLUMNS)
    assert rows(dataset) == [["ann", "B2", 20], ["ann", "B1", 30], ["bob", "B2", 10]]
    assert dataset.interactions["rating"].fillna(-1).tolist() == [-1, 5, 1]
    assert dataset.interactions["review"].fillna("-").tolist() == ["-", "Good.\nVery.", "-"]
    assert titles(dataset) == {"B2": "B2", "B1": "B1"}


def test_a_folder_with_one_table_is_that_table(tmp_path):
    save(RECORDS, tmp_path / "a.csv")
    write(tmp_path / "README.md", "hello")
    assert len(table(str(tmp_path), columns=COLUMNS).interactions) == 3
    save(RECORDS, tmp_path / "b.csv")
    with pytest.raises(DataError, match="a folder with 2 tables.*name the file"):
        table(str(tmp_path), columns=COLUMNS)


def test_items_and_users_files(tmp_path):
    path = write(tmp_path / "events.csv", "user_id,asin,timestamp\nu,1,5\nu,3,6\n")
    items = save(
        [{"item_id": 2, "name": "Two", "year": 2000, "categories": [["A", "B"], ["A"]], "dim": [1, 2]},
         {"item_id": 1, "name": "One", "year": "c. 1999", "categories": "A|C", "dim": None}], tmp_path / "items.jsonl",
    )  # fmt: skip
    users = save([{"user_id": "u", "age": 30}, {"user_id": "silent", "age": 40}], tmp_path / "users.parquet")
    dataset = table(path, items=items, users=users, columns={"item_id": "asin", "title": "name"})
    assert titles(dataset) == {"2": "Two", "1": "One", "3": "3"}  # never chosen and never described are there, too
    assert dataset.items["year"].tolist() == [2000, 1999, pd.NA]
    assert dataset.items["categories"].tolist() == [["A", "B"], ["A", "C"], []]
    assert list(dataset.items) == ["item_id", "title", "year", "categories"]
    assert dataset.users.to_numpy().tolist() == [["u"], ["silent"]]
    dataset.save(tmp_path / "saved", {})  # whatever the further columns hold, Parquet takes it


def test_categories_that_are_not_told_apart_or_not_read_are_named(tmp_path, caplog):
    path = write(tmp_path / "events.csv", "user_id,item_id,timestamp\nu,1,5\nu,2,6\n")
    items = write(
        tmp_path / "items.csv",
        'item_id,title,genres\n1,One,"[""A"", ""B, C""]"\n2,Two,A|D\n3,[Rec],[E\n4,Four,[]\n'
        '5,Five,"[\'A\', \'F\']"\n6,Six,"[{""id"": 1, ""name"": ""G""}]"\n',
    )
    assert table(path, items=items).items["categories"].tolist() == [[]] * 6
    assert "column 'genres' is not read" in caplog.text
    caplog.clear()
    read = table(path, items=items, columns={"categories": "genres"})
    assert read.items["categories"].tolist() == [["A", "B, C"], ["A", "D"], ["[E"], [], ["A", "F"], ["G"]]
    assert read.counts()["categories"] == 6 and not caplog.text
    write(tmp_path / "items.csv", 'item_id,title,categories\n1,One,"A, B"\n2,Two,A; D\n3,Three,A\n')
    assert table(path, items=items).items["categories"].tolist() == [["A, B"], ["A; D"], ["A"]]
    assert "'A, B' is read as one category, as are most others; put | between" in caplog.text


def test_titles_may_stand_beside_the_interactions(tmp_path):
    path = write(tmp_path / "a.csv", "user_id,item_id,title,tag\nu,1,,x\nu,2,Two,y\nv,1,One,z\nv,1,Uno,z\n")
    dataset = table(path, columns={"categories": "tag"})
    assert titles(dataset) == {"1": "One", "2": "Two"}  # the first that is not empty
    assert dataset.items.columns.tolist() == ["item_id", "title", "year", "categories"]


def test_without_times_the_order_counts(tmp_path):
    dataset = table(write(tmp_path / "a.csv", "user_id,item_id\nu,b\nv,a\nu,a\n"))
    assert rows(dataset) == [["u", "b", 0], ["u", "a", 1], ["v", "a", 0]] and not dataset.timed


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("1700000000", 1_700_000_000),
        ("1700000000.9", 1_700_000_000),
        ("1700000000123", 1_700_000_000),
        ("1700000000123456", 1_700_000_000),
        ("1700000000123456789", 1_700_000_000),
        ("-1.5", -2),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000),
        ("2023-11-14", 1_699_920_000),
    ],
)
def test_times(tmp_path, value, seconds):
    assert rows(table(write(tmp_path / "a.csv", f"user_id,item_id,timestamp\nu,a,{value}\n"))) == [["u", "a", seconds]]


def test_times_of_parquet(tmp_path):
    moments = pd.to_datetime(["2023-11-14T22:13:20.500", "2023-11-15T00:00:00.000"])
    pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "timestamp": moments}).to_parquet(tmp_path / "a.parquet")
    assert rows(table(str(tmp_path / "a.parquet"))) == [["1", "7", 1_700_000_000], ["1", "8", 1_700_006_400]]


def test_parquet_categories_and_missing_whole_numbers(tmp_path):
    frame = pd.DataFrame({"user_id": ["u", "v"], "item_id": [1.0, 2.0], "timestamp": [1, 2]})
    frame.astype({"user_id": "category"}).to_parquet(tmp_path / "a.parquet")
    assert rows(table(str(tmp_path / "a.parquet"))) == [["u", "1", 1], ["v", "2", 2]]


def test_decimals_of_databases_are_ids_and_an_item_without_a_title_is_called_by_one_line(tmp_path):
    ids = [Decimal("1"), Decimal("20.00")]
    table_ = pa.table({"user_id": pa.array(ids, pa.decimal128(38, 2)), "item_id": ["x\r\n\u202ey", "\x13"]})
    pq.write_table(table_, tmp_path / "a.parquet")
    found = table(str(tmp_path / "a.parquet"))
    assert found.interactions["user_id"].tolist() == ["1", "20"]
    assert found.items["item_id"].tolist() == ["x\r\n\u202ey", "\x13"] and found.items["title"][0] == "x y"
    broken = pa.table({"user_id": pa.array([Decimal("1.5")]), "item_id": ["a"]})
    pq.write_table(broken, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="user_id '1.5' is no id"):
        table(str(tmp_path / "b.parquet"))


def test_compressed_files_read_alike_or_say_why(tmp_path):
    plain = b'{"user_id": "u", "item_id": "a"}\n'
    for name, made in (("a.jsonl.bz2", bz2.compress(plain)), ("b.jsonl.xz", lzma.compress(plain))):
        assert table(write(tmp_path / name, made)).interactions["user_id"].tolist() == ["u"]
    for names in ((), ("1.jsonl", "2.jsonl")):
        with zipfile.ZipFile(tmp_path / "several.jsonl.zip", "w") as archive:
            for name in names:
                archive.writestr(name, plain)
        with pytest.raises(DataError, match=f"several.jsonl.zip: cannot be read: an archive of {len(names)} files"):
            table(str(tmp_path / "several.jsonl.zip"))
    for name in ("c.csv.zip", "d.jsonl.bz2", "e.jsonl.xz", "f.csv.gz", "g.jsonl.zst", "h.csv.zst"):
        with pytest.raises(DataError, match=f"{name}: "):
            table(write(tmp_path / name, b"no such archive"))


HEAD = "user_id,item_id,timestamp,rating\n"


@pytest.mark.parametrize(
    "content, problem",
    [
        ("", "a.csv: empty file"),
        (HEAD, "a.csv: no rows"),
        ("\n\n\n", "a.csv"),
        ("user,item_id\nu,a\n", r"a.csv: no column 'user_id'; did you mean 'user'\?.*data.columns.user_id names"),
        (HEAD + "u,a,1,5\nu,b,soon,5\n", "line 3: timestamp 'soon' is no time"),
        (HEAD + "u,a,1,5\nu,b,,5\n", "line 3: timestamp is no time"),
        (HEAD + "u,a,1,5\nu,b,inf,5\n", "line 3: timestamp 'inf' is no time"),
        (HEAD + "u,a,1,5\nu,b,1700000000000,5\nu,c,3,5\n", "line 3: timestamp '1700000000000' is no time"),
        (HEAD + "u,a,2024-01-01,5\nu,b,2024-13-01,5\n", "line 3: timestamp '2024-13-01' is no date"),
        (HEAD + "u,a,1,good\nu,b,2,bad\n", r"line 2: rating 'good' is not a number \(and 1 more rows\)"),
        (HEAD + "u,a,1,5\n,b,2,5\n", "line 3: user_id is empty"),
        (HEAD + "u,a,1,5\nu,b,2,5,6\n", "line 3: 5 fields, the header has 4; quote"),
        (HEAD + "u,a,1,5\nu,b,2\n", "line 3: 3 fields for 4 columns; an empty cell needs its separator, too$"),
        (HEAD + 'u,"a,\n",1,5\n\nu,b,2,\nu,c\nv\n', r"line 6: 2 fields for 4 columns; .* \(and 1 more rows\)"),
        ("user_id,item_id,rating,rating\nu,a,1,5\n", "column 'rating' appears twice; rename one"),
        ("user_id,item_id,tag, tag\nu,a,1,5\n", "column 'tag' appears twice; rename one"),
        (HEAD + "u,a,1,5\n\n\nu,b,2,x\n", "line 5: rating 'x'"),
        (HEAD + 'u,"a\nb\r\n",1,5\nu,b,2,"\nx"\n', "line 5: rating '.*x' is not a number"),
        (HEAD + 'u,"a\n",1,5\nu,b,2,5,6\n', "line 4: 5 fields, the header has 4"),
        (HEAD + f"u,{'a' * 1001},1,5\n", "line 2: item_id 'aaa.*…' is longer than 1000 characters"),
        (HEAD.encode() + b"u,caf\xe9,1,5\n", "not UTF-8 .*iconv"),
        (HEAD.encode("utf-16"), "not UTF-8"),
        (HEAD + 'u,"a,1,5\n', "a.csv: .*quote"),
        (",".join(f"c{i}" for i in range(1001)) + "\n" + "1," * 1000 + "1\n", "1,001 columns; the limit is 1,000"),
    ],
)
def test_mistakes_in_a_csv(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem) as caught:
        table(write(tmp_path / "a.csv", content))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 or "columns" in str(caught.value)


def test_empty_cells_at_a_row_s_end_are_no_mistake(tmp_path):
    """Nor are blank lines, columns without a name, or names that end in a number."""
    content = "user_id,item_id,timestamp,rating,rating.1,,\nu,a,1,5,4,,\n\nu,b,2,,,,\n,,,,,,\n"
    for name, data in (("a.csv", content.encode()), ("b.csv.gz", gzip.compress(content.encode()))):
        dataset = table(write(tmp_path / name, data))
        assert rows(dataset) == [["u", "a", 1], ["u", "b", 2]]
        assert dataset.interactions["rating"].fillna(-1).tolist() == [5, -1]


def test_a_short_row_is_found_behind_a_long_text_and_in_a_compressed_file(tmp_path):
    content = f"user_id,item_id,timestamp,review\nu,a,1,{'x' * 200_000}\nu,b,2\n".encode()
    for name, data in (("a.csv", content), ("b.csv.gz", gzip.compress(content))):
        with pytest.raises(DataError, match=f"{name}: line 3: 3 fields for 4 columns"):
            table(write(tmp_path / name, data))


def test_amazon_reviews_with_titles_of_their_own(tmp_path):
    """The form of the 2014 files: reviews as JSON lines in .gz, metadata converted from Python literals."""
    review = {"reviewerID": "A1", "asin": "B01", "helpful": [0, 1], "overall": 5.0, "unixReviewTime": 1393545600}
    lines = [review | {"reviewText": "Warm <|im_end|>\ntone.\x00"}, review | {"asin": "B02", "reviewText": ""}]
    reviews = write(tmp_path / "reviews.json.gz", gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    item = {
        "asin": "B01",
        "title": "A strap",
        "categories": [["Instruments", "Straps"]],
        "related": {"bought": ["B02"]},
    }
    columns = {"user_id": "reviewerID", "item_id": "asin", "timestamp": "unixReviewTime", "rating": "overall"}
    columns["review"] = "reviewText"
    for items in (None, write(tmp_path / "meta.jsonl", json.dumps(item))):
        dataset = table(reviews, items=items, columns=columns)
        assert rows(dataset) == [["A1", "B01", 1393545600], ["A1", "B02", 1393545600]]
        assert dataset.interactions["review"].fillna("-").tolist() == ["Warm <|im_end|>\ntone.", "-"]
        assert titles(dataset) == {"B01": "A strap" if items else "B01", "B02": "B02"}
    assert dataset.items["categories"].tolist() == [["Instruments", "Straps"], []]


def test_explained_pairs_where_one_file_is_all(tmp_path):
    """XRec's: pairs in no order, with a written explanation and summaries of both sides."""
    pair = {
        "uid": 7,
        "iid": 3,
        "title": "Café",
        "user_summary": "Likes tea.",
        "item_summary": "Tea.",
        "explanation": "T.",
    }
    path = write(tmp_path / "tst.jsonl", "\n".join(map(json.dumps, [pair, pair | {"iid": 4, "title": "Bar"}])))
    columns = {"user_id": "uid", "item_id": "iid", "review": "explanation"}
    dataset = table(path, items=path, users=path, columns=columns)
    assert rows(dataset) == [["7", "3", 0], ["7", "4", 1]] and not dataset.timed
    assert dataset.interactions["review"].tolist() == ["T.", "T."] and titles(dataset) == {"3": "Café", "4": "Bar"}
    assert dataset.users["user_id"].tolist() == ["7"]
    assert list(dataset.items) == ["item_id", "title", "year", "categories"]  # no text of the first who chose it


@pytest.mark.parametrize(
    "line, problem",
    [
        ("{user_id: 1}", r"line 2: not JSON \(.*\): '\{user_id: 1\}'; one object a line"),
        ("{'user_id': 1}", r"line 2: not JSON \(.*\): .*; write it as json.dumps\(ast.literal_eval\(line\)\)"),
        ("[1, 2]", r"line 2: '\[1, 2\]' is not an object"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"user_id": ["u"], "item_id": 1}', r"line 2: user_id \"\['u'\]\" is no id"),
        ('{"user_id": true, "item_id": 1}', "line 2: user_id 'True' is no id"),
        ('{"user_id": 1.5, "item_id": 1}', "line 2: user_id '1.5' is no id"),
        ('{"user_id": "", "item_id": 1}', "line 2: user_id '' is empty"),
        ('{"user_id": null, "item_id": 1}', "line 2: user_id is empty"),
        ('{"item_id": 1}', "line 2: user_id is empty"),
        ('{"user_id": "\\ud800", "item_id": 1}', r"line 2: user_id '\\ud800' is not valid Unicode"),
        ('{"user_id": 1, "item_id": 1, "rating": {"stars": 5}}', "line 2: rating .* is not a number"),
        ('{"user_id": 1, "item_id": 1, "rating": NaN}', None),
        ('{"user_id": ' + "9" * 5000 + ', "item_id": 1}', "line 2: "),
        (b'{"user_id": "\xff", "item_id": 1}', "line 2: not UTF-8"),
    ],
)
def test_mistakes_in_json_lines(tmp_path, line, problem):
    first = b'\xef\xbb\xbf{"user_id": "u", "item_id": 1, "rating": 3}\n'
    path = write(tmp_path / "a.jsonl", first + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    if problem is None:
        assert len(table(path).interactions) == 2
        return
    with pytest.raises(DataError, match=problem) as caught:
        table(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_times_in_json_that_are_no_times(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"user_id": 1, "item_id": 1, "timestamp": {"s": 5}}\n')
    with pytest.raises(DataError, match="line 1: timestamp .* is no time"):
        table(path)


def test_mistakes_in_paths_and_maps(tmp_path):
    path = write(tmp_path / "events.csv", "user_id,item_id,stars\nu,a,1\n")
    with pytest.raises(DataError, match=r"event.csv: no such file or folder; did you mean 'events.csv'"):
        table(str(tmp_path / "event.csv"))
    with pytest.raises(DataError, match=r"data.columns: unknown name 'ratings'; did you mean 'rating'\?"):
        table(path, columns={"ratings": "stars"})
    with pytest.raises(DataError, match=r"no column 'star'; did you mean 'stars'\?.*data.columns.rating"):
        table(path, columns={"rating": "star"})
    with pytest.raises(DataError, match=r"events.csv: no column 'name'.*data.columns.title"):
        table(path, columns={"title": "name"})
    with pytest.raises(DataError, match="unknown kind of table; use .csv"):
        table(write(tmp_path / "a.xlsx", "x"))
    with pytest.raises(DataError, match="not a readable Parquet file"):
        table(write(tmp_path / "a.parquet", "PAR1 no"))
    with pytest.raises(DataError, match="cannot be read"):
        table(write(tmp_path / "a.csv.gz", "not gzip"))
    with pytest.raises(DataError, match="cannot be read"):
        table(write(tmp_path / "a.jsonl.gz", "not gzip"))
    with pytest.raises(DataError, match="data.items: only for format `table`"):
        read(config.DataSource(format="recbole", path=str(tmp_path), items="x.csv"), Path)


def test_items_that_match_no_interaction_are_a_mistake(tmp_path):
    path = write(tmp_path / "a.csv", "user_id,item_id\nu,m1\n")
    items = write(tmp_path / "i.csv", "item_id,title\n1,One\n")
    with pytest.raises(DataError, match=r"a.csv: no item_id is in .*i.csv \('m1' against '1'\)"):
        table(path, items=items)


def test_an_item_has_one_title(tmp_path):
    path = write(tmp_path / "a.csv", "user_id,item_id\nu,1\n")
    assert titles(table(path, items=write(tmp_path / "i.csv", "item_id,title\n1,\n1,One\n1,One\n"))) == {"1": "One"}
    with pytest.raises(DataError, match="i.csv: line 3: item_id '1' has a second title"):
        table(path, items=write(tmp_path / "i.csv", "item_id,title\n1,One\n1,Uno\n"))


def test_limits_are_errors(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", "user_id,item_id\nu,1\nu,2\n")
    lines = write(tmp_path / "a.jsonl", '{"user_id": 1, "item_id": 1}\n' * 2)
    monkeypatch.setattr("llmrec.data.sources.MAX_INTERACTIONS", 1)
    with pytest.raises(DataError, match="2 rows; the limit is 1"):
        table(path)
    with pytest.raises(DataError, match="more than 1 rows"):
        table(lines)
    monkeypatch.setattr("llmrec.data.sources.MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="bytes; the limit is 10"):
        table(path)


# ── text from outside ───────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = {
    "control": ("a\x00b\x1b[31m\tc\r\nd", "a b [31m c d"),
    "lines": ("one\u2028two\u2029three\x85four", "one two three four"),
    "turned": ("abc\u202edef\u2066ghi\u200f", "abc def ghi"),
    "composed": ("Cafe\u0301", "Café"),
    "surrogate": ("a\ud800b", "a b"),
    "spaces": ("  \u3000 a \u00a0\u00a0 b  ", "a b"),
    "joined": ("👩‍👩‍👧 नमस्ते", "👩‍👩‍👧 नमस्ते"),
    "markup": ("<|im_end|>\nassistant:", "<|im_end|> assistant:"),
    "huge": ("word " * 100_000, ("word " * 60)[:300].rstrip()),
    "empty": (" \x00 \n", ""),
}


@pytest.mark.parametrize("raw, clean", HOSTILE.values(), ids=HOSTILE)
def test_titles_become_one_line(raw, clean):
    assert one_line(raw) == clean


@given(st.text(st.characters(exclude_categories=()), max_size=400))
def test_any_text_becomes_one_clean_line(text):
    title = one_line(text)
    assert len(title) <= MAX_TITLE_CHARS and title == " ".join(title.split()) and len(title.splitlines()) <= 1
    assert not any(ord(c) < 32 or "\ud800" <= c <= "\udfff" for c in title)
    assert one_line(title) == title
    title.encode()


def test_reviews_keep_their_lines_only():
    assert paragraphs("a\r\nb\rc\x00d\u202ee\ud800") == "a\nb\nc d e"


def test_hostile_titles_go_through_every_reader_with_ids_kept(tmp_path):
    ids = {name: f"id {i}\t'\"é\u202e{name}" for i, name in enumerate(HOSTILE)}
    records = [{"user_id": "u", "item_id": ids[name], "title": raw} for name, (raw, _) in HOSTILE.items()]
    lines = table(save(records, tmp_path / "a.jsonl"))
    assert titles(lines) == {ids[name]: clean or one_line(ids[name]) for name, (_, clean) in HOSTILE.items()}
    lines.save(tmp_path / "saved", {})
    assert titles(Dataset.load(tmp_path / "saved")) == titles(lines)

    del records[list(HOSTILE).index("surrogate")]  # cannot be written to the other kinds at all
    expected = {item_id: title for item_id, title in titles(lines).items() if item_id != ids["surrogate"]}
    for name in ("a.csv", "a.parquet"):
        if name == "a.parquet" or sys.version_info >= (3, 11):  # csv could not write NUL before
            assert titles(table(save(records, tmp_path / name))) == expected


SCRAPS = st.lists(
    st.sampled_from(["user_id", "item_id", "timestamp", "title", "u", "1", "-3.5", "9" * 30, "2024-01-01", "nan",
                     "é", "\x00", '"', ",", "\t", "\n", "\r", "|", ":token", "{", "}", "[", "]", '"user_id":']),
    max_size=40,
).map("".join)  # fmt: skip


@given(
    SCRAPS, st.binary(max_size=8), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.inter"]), st.booleans()
)
def test_no_file_does_worse_than_an_error_for_people(tmp_path_factory, scraps, junk, name, header):
    separator = "," if name == "a.csv" else "\t"
    head = separator.join(
        ["user_id:token", "item_id:token"] if name == "a.inter" else ["user_id", "item_id", "timestamp"]
    )
    content = (head + "\n" if header and name != "a.jsonl" else "").encode() + scraps.encode() + junk
    path = write(tmp_path_factory.mktemp("scraps") / name, content)
    try:
        dataset = table(path, format="recbole" if name == "a.inter" else "table")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(dataset.interactions) and dataset.interactions["item_id"].isin(dataset.items["item_id"]).all()


def test_a_stamp_notices_edits_beside_a_file(tmp_path):
    for file_format, file, beside in (("recbole", "ml.inter", "ml.item"), ("movielens", "ratings.csv", "movies.csv")):
        source = config.DataSource(format=file_format, path=write(tmp_path / file, "x"))
        write(tmp_path / beside, "x")
        before = stamp(source, "asset:")
        write(tmp_path / beside, "xy")
        assert stamp(source, "asset:") != before


def test_a_stamp_notices_edits(tmp_path):
    source = config.DataSource(
        path=write(tmp_path / "a.csv", "x"), items="asset:films", users=str(tmp_path / "gone.csv")
    )
    before = stamp(source, "asset:")
    assert list(before) == [source.path] and stamp(source, "asset:") == before
    write(tmp_path / "a.csv", "xy")
    assert stamp(source, "asset:") != before


def test_ids_that_stand_for_titles_are_said(tmp_path, caplog):
    path = write(tmp_path / "events.csv", "user_id,item_id\nu,1\nu,3\n")
    named = save([{"item_id": 1, "name": "One"}], tmp_path / "items.jsonl")
    with pytest.raises(DataError, match=r"no column 'title' \(item_id, name\); name it in data.columns.title"):
        table(path, items=named)
    assert not caplog.messages
    assert titles(table(path, items=named, columns={"title": "name"})) == {"1": "One", "3": "3"}
    assert "1 of 2 items are not there, the first '3'" in caplog.messages[-1]
    assert titles(table(path)) == {"1": "1", "3": "3"} and "every item's id stands for its title" in caplog.messages[-1]


def test_items_without_a_title_are_said(tmp_path, caplog):
    path = write(tmp_path / "events.csv", "user_id,item_id\nu,1\nu,3\n")
    named = save([{"item_id": 1, "title": "One"}, {"item_id": 3, "title": " "}], tmp_path / "items.jsonl")
    assert titles(table(path, items=named)) == {"1": "One", "3": "3"}
    assert "items.jsonl: 1 of 2 items have no title, the first '3'" in caplog.messages[-1]


@pytest.mark.parametrize(("mark", "named"), [(";", "';'"), ("|", "'|'"), ("\t", "tabs")])
@pytest.mark.parametrize("last", ["5", "5,5", "5\nu{0}1{0}5,5"])
def test_other_separators_are_named(tmp_path, mark, named, last):
    path = write(tmp_path / "a.csv", f"user_id{{0}}item_id{{0}}timestamp\nu{{0}}1{{0}}{last}\n".format(mark))
    with pytest.raises(DataError, match=f"separated by {re.escape(named)}; save it with commas"):
        table(path)
